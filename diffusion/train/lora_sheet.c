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

static const struct ink paper = {250, 250, 248}, dark = {30, 30, 30}, soft = {100, 100, 100},
                        faint = {222, 222, 216}, point = {170, 190, 220}, line = {190, 40, 40};

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

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

/* Letters that can be read beside pictures of so many pixels. */
static int text_scale(int side)
{
    int scale = side / 192;
    return scale < 1 ? 1 : scale > 4 ? 4 : scale;
}

/* Rows are prompts, columns strengths: one seed a row. */
int lora_run_sheet(struct lora_run *r, char **path, struct error *err)
{
    static const double strengths[] = {0, .5, .8, 1};
    static const char *const titles[] = {"without", "0.5", "0.8", "1"};
    enum { COLUMNS = 4 };
    int rows = r->o->prompt_count, side = r->resolution, small = text_scale(side), big = small + 1;
    int gap = 8 * small, cell = side + gap, below = (CANVAS_ROWS + 5) * small;
    int head = gap + CANVAS_ROWS * big + below + CANVAS_ROWS * big + gap;
    struct pixels sheet;
    char text[512];
    int rc = pixels_new(&sheet, COLUMNS * cell + gap, head + rows * (side + below + gap), 3, err);
    if (rc) return rc;
    int width = sheet.width - 2 * gap;
    canvas_fill(&sheet, 0, 0, sheet.width, sheet.height, paper);
    canvas_text_fit(&sheet, gap, gap, big, width, r->o->name, dark);
    snprintf(text, sizeof text, "%s, %lld steps, rank %d; columns: strength of the LoRA",
             r->model->info.path[0] ? base_name(r->model->info.path) : "", (long long)r->o->steps,
             r->o->lora.rank);
    canvas_text_fit(&sheet, gap, gap + CANVAS_ROWS * big + 2 * small, small, width, text, soft);
    for (int c = 0; c < COLUMNS; c++)
        canvas_text(&sheet, gap + c * cell, head - CANVAS_ROWS * big - small, big, titles[c], dark);
    for (int i = 0; i < rows * COLUMNS && !rc; i++) {
        struct pixels one;
        int row = i / COLUMNS, top = head + row * (side + below + gap);
        uint64_t seed = r->o->seed + (uint64_t)row;
        rc = lora_run_tell(r, "preview", i, rows * COLUMNS, err);
        if (!rc) rc = lora_run_draw(r, &one, r->o->prompts[row], seed, strengths[i % COLUMNS], err);
        if (rc) break;
        pixels_paste(&sheet, &one, gap + i % COLUMNS * cell, top);
        pixels_release(&one);
        if (i % COLUMNS) continue;
        snprintf(text, sizeof text, "%s   (seed %llu)", r->o->prompts[row],
                 (unsigned long long)seed);
        canvas_text_fit(&sheet, gap, top + side + 3 * small, small, width, text, dark);
    }
    if (rc) {
        pixels_release(&sheet);
        return rc;
    }
    return write_picture(&sheet, lora_run_path(r, "-sheet.png"), path, err);
}

/* ---- the curve ---- */

enum { WIDTH = 900, HEIGHT = 440, LEFT = 74, BOTTOM = 52, TOP = 48, RIGHT = 24 };

struct plot {
    struct pixels pixels;
    double top;
    int64_t steps;
};

static double plot_x(const struct plot *p, double step)
{
    return LEFT + (step - 1) / (double)(p->steps > 1 ? p->steps - 1 : 1) * (WIDTH - LEFT - RIGHT);
}

static double plot_y(const struct plot *p, double loss)
{
    double part = loss < p->top ? loss / p->top : 1;
    return HEIGHT - BOTTOM - part * (HEIGHT - BOTTOM - TOP);
}

static int by_size(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* 1, 2 or 5 times a power of ten, at least `least` */
static double round_up(double least)
{
    double unit = pow(10, floor(log10(least)));
    return unit * (least <= unit ? 1 : least <= 2 * unit ? 2 : least <= 5 * unit ? 5 : 10);
}

/* What 98 of 100 steps stay below: a few high noise levels must not squash the rest. */
static double plot_top(const float *losses, int64_t steps)
{
    float *sorted = alloc_zero((size_t)steps, sizeof *sorted);
    int64_t count = 0;
    for (int64_t i = 0; i < steps; i++)
        if (isfinite(losses[i])) sorted[count++] = losses[i];
    qsort(sorted, (size_t)count, sizeof *sorted, by_size);
    double top = count ? 1.1 * (double)sorted[(count - 1) * 98 / 100] : 1;
    free(sorted);
    return top > 0 ? top : 1;
}

static void draw_axes(struct plot *p, const char *name, int64_t window)
{
    char text[200];
    double tick = round_up(p->top / 5), step = fmax(1, round_up((double)p->steps / 8));
    p->top = tick * ceil(p->top / tick);
    canvas_fill(&p->pixels, 0, 0, WIDTH, HEIGHT, paper);
    for (int i = 0; i * tick <= p->top * 1.0001; i++) {
        int y = (int)plot_y(p, i * tick);
        canvas_fill(&p->pixels, LEFT, y, WIDTH - LEFT - RIGHT, 1, faint);
        snprintf(text, sizeof text, "%g", i * tick);
        canvas_text(&p->pixels, LEFT - 8 - canvas_text_width(1, text), y - 3, 1, text, dark);
    }
    for (double at = 0; at <= (double)p->steps * 1.0001; at += step) {
        int x = (int)plot_x(p, at < 1 ? 1 : at);
        canvas_fill(&p->pixels, x, HEIGHT - BOTTOM, 1, 5, dark);
        snprintf(text, sizeof text, "%.0f", at < 1 ? 1 : at);
        canvas_text(&p->pixels, x - canvas_text_width(1, text) / 2, HEIGHT - BOTTOM + 9, 1, text,
                    dark);
    }
    canvas_fill(&p->pixels, LEFT, HEIGHT - BOTTOM, WIDTH - LEFT - RIGHT, 1, dark);
    canvas_fill(&p->pixels, LEFT, TOP, 1, HEIGHT - BOTTOM - TOP, dark);
    canvas_text(&p->pixels, (WIDTH + LEFT) / 2 - 24, HEIGHT - 22, 2, "step", dark);
    canvas_text(&p->pixels, LEFT - 66, TOP - 26, 2, "loss", dark);
    canvas_text_fit(&p->pixels, LEFT, 10, 2, WIDTH / 2 - LEFT, name, dark);
    canvas_fill(&p->pixels, WIDTH - RIGHT - 330, 14, 4, 4, point);
    canvas_text(&p->pixels, WIDTH - RIGHT - 318, 13, 1, "a step", soft);
    canvas_fill(&p->pixels, WIDTH - RIGHT - 250, 15, 24, 3, line);
    snprintf(text, sizeof text, "mean of the last %lld steps", (long long)window);
    canvas_text(&p->pixels, WIDTH - RIGHT - 218, 13, 1, text, soft);
}

/* Dots: each step; line: mean of the last tenth of the run, at most 100 steps. */
int lora_run_curve(struct lora_run *r, char **path, struct error *err)
{
    struct plot p = {.steps = r->o->steps, .top = plot_top(r->losses, r->o->steps)};
    int64_t window = p.steps / 10 < 1 ? 1 : p.steps / 10 > 100 ? 100 : p.steps / 10, seen = 0;
    int rc = pixels_new(&p.pixels, WIDTH, HEIGHT, 3, err);
    if (rc) return rc;
    draw_axes(&p, r->o->name, window);
    for (int64_t i = 0; i < p.steps; i++)
        if (!isnan(r->losses[i]))
            canvas_fill(&p.pixels, (int)plot_x(&p, (double)i + 1) - 1,
                        (int)plot_y(&p, (double)r->losses[i]) - 1, 3, 3, point);
    double sum = 0, last_x = 0, last_y = 0, mean = NAN;
    for (int64_t i = 0; i < p.steps; i++) {
        if (isnan(r->losses[i])) continue; /* before the checkpoint that this run went on from */
        sum += (double)r->losses[i];
        seen++;
        if (i >= window && !isnan(r->losses[i - window])) {
            sum -= (double)r->losses[i - window];
            seen--;
        }
        mean = sum / (double)seen;
        double x = plot_x(&p, (double)i + 1), y = plot_y(&p, mean);
        for (int thick = -1; thick <= 1 && last_x > 0; thick++)
            canvas_line(&p.pixels, last_x, last_y + thick, x, y + thick, line);
        last_x = x;
        last_y = y;
    }
    if (last_x > 0) {
        char text[32];
        snprintf(text, sizeof text, "%.4f", mean);
        canvas_text(&p.pixels, (int)last_x - canvas_text_width(2, text), (int)last_y - 24, 2, text,
                    line);
    }
    return write_picture(&p.pixels, lora_run_path(r, "-loss.png"), path, err);
}
