/* What a person looks at: previews, the sheet before/after, the curve of the loss. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "dataset/canvas.h"
#include "diffusion/train/lora_run.h"
#include "image/codec.h"
#include "image/resize.h"

static const struct ink paper = {250, 250, 248}, dark = {30, 30, 30}, faint = {210, 210, 205},
                        point = {170, 190, 220}, line = {190, 40, 40};

int lora_run_draw(struct lora_run *r, struct pixels *picture, const char *prompt, uint64_t seed,
                  double strength, struct error *err)
{
    struct image_request q;
    struct pipeline_result result = {0};
    image_request_init(&q);
    free(q.prompt);
    q.prompt = alloc_string(prompt);
    q.width_px = q.height_px = r->resolution;
    q.steps = r->o->preview_steps;
    q.cfg = r->o->preview_cfg;
    q.sampler = SAMPLER_K_EULER;
    q.seed = seed;
    branches_strength(&r->branches, strength);
    int rc = pipeline_run(r->model, &q, NULL, &result, err);
    branches_strength(&r->branches, 1);
    if (!rc) {
        *picture = result.images[0];
        result.images[0] = (struct pixels){0};
    }
    pipeline_result_release(&result);
    image_request_release(&q);
    return rc;
}

static int write_picture(struct pixels *p, char *path, char **kept, struct error *err)
{
    int rc = image_write(p, NULL, path, 100, err);
    pixels_release(p);
    if (kept && !rc)
        *kept = path;
    else
        free(path);
    return rc;
}

int lora_run_preview(struct lora_run *r, int64_t step, struct error *err)
{
    struct pixels sheet = {0};
    int count = r->o->prompt_count, side = r->resolution, rc = 0;
    rc = pixels_new(&sheet, side * count, side, 3, err);
    for (int i = 0; i < count && !rc; i++) {
        struct pixels one;
        rc = lora_run_tell(r, "preview", i, count, err);
        if (!rc) rc = lora_run_draw(r, &one, r->o->prompts[i], r->o->seed + (uint64_t)i, 1, err);
        if (rc) break;
        pixels_paste(&sheet, &one, i * side, 0);
        pixels_release(&one);
    }
    if (rc) {
        pixels_release(&sheet);
        return rc;
    }
    return write_picture(&sheet, lora_run_path(r, "-%06lld.png", (long long)step), NULL, err);
}

/* Rows are prompts, columns strengths: one seed a row. */
int lora_run_sheet(struct lora_run *r, char **path, struct error *err)
{
    static const double strengths[] = {0, .5, .8, 1};
    static const char *const titles[] = {"without", "0.5", "0.8", "1"};
    enum { COLUMNS = 4, GAP = 6, HEAD = 18 };
    int rows = r->o->prompt_count, side = r->resolution, cell = side + GAP;
    struct pixels sheet;
    int rc = pixels_new(&sheet, COLUMNS * cell + GAP, rows * (cell + HEAD) + HEAD, 3, err);
    if (rc) return rc;
    canvas_fill(&sheet, 0, 0, sheet.width, sheet.height, paper);
    for (int c = 0; c < COLUMNS; c++) canvas_text(&sheet, GAP + c * cell, 4, 2, titles[c], dark);
    for (int i = 0; i < rows * COLUMNS && !rc; i++) {
        struct pixels one;
        int row = i / COLUMNS, top = HEAD + row * (cell + HEAD);
        rc = lora_run_tell(r, "preview", i, rows * COLUMNS, err);
        if (!rc)
            rc = lora_run_draw(r, &one, r->o->prompts[row], r->o->seed + (uint64_t)row,
                               strengths[i % COLUMNS], err);
        if (rc) break;
        pixels_paste(&sheet, &one, GAP + i % COLUMNS * cell, top);
        pixels_release(&one);
        if (i % COLUMNS == 0) canvas_text(&sheet, GAP, top + side + 4, 2, r->o->prompts[row], dark);
    }
    if (rc) {
        pixels_release(&sheet);
        return rc;
    }
    return write_picture(&sheet, lora_run_path(r, "-sheet.png"), path, err);
}

/* Dots: each step; line: mean of the last 100. */
int lora_run_curve(struct lora_run *r, char **path, struct error *err)
{
    enum { WIDTH = 800, HEIGHT = 400, LEFT = 60, BOTTOM = 30, TOP = 16, RIGHT = 12 };
    struct pixels p;
    int rc = pixels_new(&p, WIDTH, HEIGHT, 3, err);
    if (rc) return rc;
    double top = 0;
    int64_t steps = r->o->steps;
    for (int64_t i = 0; i < steps; i++)
        if (r->losses[i] > top) top = (double)r->losses[i];
    if (top <= 0) top = 1;
    canvas_fill(&p, 0, 0, WIDTH, HEIGHT, paper);
    char text[64];
    for (int i = 0; i <= 4; i++) {
        int y = HEIGHT - BOTTOM - i * (HEIGHT - BOTTOM - TOP) / 4;
        int x = LEFT + i * (WIDTH - LEFT - RIGHT) / 4;
        canvas_fill(&p, LEFT, y, WIDTH - LEFT - RIGHT, 1, faint);
        snprintf(text, sizeof text, "%.3f", top * i / 4);
        canvas_text(&p, 4, y - 5, 2, text, dark);
        snprintf(text, sizeof text, "%lld", (long long)(steps * i / 4));
        canvas_text(&p, x - canvas_text_width(2, text) * (i > 0) / (i < 4 ? 2 : 1), HEIGHT - 20, 2,
                    text, dark);
    }
    double sum = 0, last_x = 0, last_y = 0;
    int64_t seen = 0;
    for (int64_t i = 0; i < steps; i++) {
        if (isnan(r->losses[i])) continue;
        double x = LEFT + (double)i / (double)(steps > 1 ? steps - 1 : 1) * (WIDTH - LEFT - RIGHT);
        double scale = (HEIGHT - BOTTOM - TOP) / top;
        canvas_fill(&p, (int)x, (int)(HEIGHT - BOTTOM - (double)r->losses[i] * scale), 2, 2, point);
        sum += (double)r->losses[i];
        seen++;
        if (i >= 100 && !isnan(r->losses[i - 100])) {
            sum -= (double)r->losses[i - 100];
            seen--;
        }
        double y = HEIGHT - BOTTOM - sum / (double)seen * scale;
        if (last_x > 0) {
            canvas_line(&p, last_x, last_y, x, y, line);
            canvas_line(&p, last_x, last_y + 1, x, y + 1, line);
        }
        last_x = x;
        last_y = y;
    }
    canvas_text(&p, LEFT, 2, 2, "loss", dark);
    return write_picture(&p, lora_run_path(r, "-loss.png"), path, err);
}
