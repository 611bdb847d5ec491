#include "dataset/contact.h"

#include <stdio.h>

#include "dataset/canvas.h"
#include "image/resize.h"

#define CELL_PX 168
#define EDGE_PX 8
#define COLUMNS 6

static const struct ink paper = {250, 250, 248}, mark = {220, 40, 40}, number = {20, 20, 20},
                        soft = {110, 110, 110}, label = {255, 255, 255};

/* The picture scaled into its cell, and its regions in the same scale. */
static void draw_sample(struct pixels *sheet, const struct sample *s, int left, int top)
{
    struct pixels picture, small;
    struct error err;
    canvas_frame(sheet, left, top, CELL_PX, CELL_PX, 1, number);
    if (sample_pixels(&picture, s, &err)) return;
    double fx = (double)CELL_PX / picture.width, fy = (double)CELL_PX / picture.height;
    double f = fx < fy ? fx : fy;
    int width = (int)(picture.width * f), height = (int)(picture.height * f);
    int rc = pixels_resize(&small, &picture, width < 1 ? 1 : width, height < 1 ? 1 : height,
                           f < 1 ? RESIZE_BOX : RESIZE_BICUBIC, &err);
    pixels_release(&picture);
    if (rc) return;
    pixels_paste(sheet, &small, left, top);
    pixels_release(&small);
    for (int i = 0; !s->is_crop && s->annotated && i < s->annotated->region_count; i++) {
        const struct region *r = &s->annotated->region[i];
        int x = left + (int)(r->x * f), y = top + (int)(r->y * f);
        int w = (int)(r->w * f) + 1, h = (int)(r->h * f) + 1;
        if (r->kind == REGION_POINT)
            canvas_fill(sheet, x - 2, y - 2, 5, 5, mark);
        else
            canvas_frame(sheet, x, y, w, h, 2, mark);
        if (!r->label) continue;
        int room = left + CELL_PX - x - 3, wide = canvas_text_width(1, r->label) + 3;
        canvas_fill(sheet, x, y, wide < room ? wide : room, CANVAS_ROWS + 3, mark);
        canvas_text_fit(sheet, x + 2, y + 2, 1, room, r->label, label);
    }
}

int contact_sheet(struct pixels *sheet, const struct dataset *d, struct error *err)
{
    int count = d->count < CONTACT_SAMPLES_MAX ? d->count : CONTACT_SAMPLES_MAX;
    int columns = count < COLUMNS ? count : COLUMNS, rows = (count + columns - 1) / columns;
    int step = CELL_PX + 2 * EDGE_PX + 30;
    int rc = pixels_new(sheet, columns * (CELL_PX + 2 * EDGE_PX), rows * step, 3, err);
    if (rc) return rc;
    canvas_fill(sheet, 0, 0, sheet->width, sheet->height, paper);
    for (int i = 0; i < count; i++) {
        char text[32];
        int left = i % columns * (CELL_PX + 2 * EDGE_PX) + EDGE_PX, top = i / columns * step;
        snprintf(text, sizeof text, d->sample[i].is_crop ? "%d crop" : "%d", i + 1);
        canvas_text(sheet, left, top + 6, 2, text, number);
        int after = left + canvas_text_width(2, text) + 4;
        canvas_text_fit(sheet, after, top + 12, 1, left + CELL_PX - after, d->sample[i].name, soft);
        draw_sample(sheet, &d->sample[i], left, top + 26);
        canvas_text_fit(sheet, left, top + 30 + CELL_PX, 1, CELL_PX, d->sample[i].caption, number);
    }
    return 0;
}
