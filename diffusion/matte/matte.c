#include "diffusion/matte/matte.h"

#include <math.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/free_memory.h"
#include "base/now.h"
#include "diffusion/matte/matting.h"
#include "diffusion/matte/u2net.h"
#include "image/resize.h"

#define SIDE_PX 320

struct matte {
    struct device *device;
    struct weight_store *store;
    struct u2net net;
    struct pass_memory memory;
};

static int load(struct matte *m, const char *path, struct error *err)
{
    struct u2net_config c;
    enum dialect dialect;
    int rc = weight_store_open(&m->store, path, err);
    if (!rc) rc = u2net_detect(&c, m->store, &dialect, err);
    if (rc) return rc;
    u2net_init(&m->net, &c);
    struct weight_loading loading = {
        .store = m->store, .prefix = "", .component = "the U2-Net", .dialect = dialect};
    struct weight_visitor v = {.visit = weight_load, .context = &loading, .err = err};
    u2net_visit(&v, &m->net);
    rc = v.failed ? v.failed : weight_loading_check(&loading, err);
    return rc ? rc : u2net_fold(&m->net, err);
}

int matte_open(struct matte **matte, struct device *device, const char *path, struct error *err)
{
    struct matte *m = alloc_zero(1, sizeof *m);
    m->device = device;
    pass_memory_init(&m->memory, device, 0);
    int rc = load(m, path, err);
    if (rc) {
        matte_close(m);
        return rc;
    }
    *matte = m;
    return 0;
}

void matte_close(struct matte *m)
{
    if (!m) return;
    pass_memory_release(&m->memory);
    u2net_release(&m->net, m->device);
    weight_store_close(m->store);
    free(m);
}

static void normalise(float *to, const struct pixels *rgb)
{
    static const double mean[] = {0.485, 0.456, 0.406}, deviation[] = {0.229, 0.224, 0.225};
    int n = rgb->width * rgb->height * 3, most = 0;
    for (int i = 0; i < n; i++) most = rgb->data[i] > most ? rgb->data[i] : most;
    for (int i = 0; i < n; i++)
        to[i] = (float)((rgb->data[i] / fmax(most, 1e-6) - mean[i % 3]) / deviation[i % 3]);
}

/* Stretched so that the faintest is 0 and the strongest 255. */
static void stretch(struct pixels *mask, const float *saliency, int n)
{
    float least = saliency[0], most = saliency[0];
    for (int i = 1; i < n; i++) {
        least = fminf(least, saliency[i]);
        most = fmaxf(most, saliency[i]);
    }
    for (int i = 0; i < n; i++) {
        /* where nothing stands out, everything stays */
        float share = most > least ? (saliency[i] - least) / (most - least) : 1;
        mask->data[i] = (uint8_t)(fminf(fmaxf(share, 0), 1) * 255);
    }
}

static int run_net(struct matte *m, struct pixels *mask, const struct pixels *small,
                   struct error *err)
{
    int n = SIDE_PX * SIDE_PX;
    float *values = alloc_try((size_t)n * 3, sizeof *values);
    if (!values) return error_set(err, ERR_NO_MEMORY, "no memory for a mask");
    normalise(values, small);
    struct pass p;
    if (m->device->host_memory) m->memory.limit_bytes = free_memory_bytes();
    pass_start(&p, &m->memory, DTYPE_F32, NULL);
    struct tensor x = pass_input(&p, values, 4, TENSOR_DIM(1, SIDE_PX, SIDE_PX, 3));
    pass_output(&p, values, u2net_forward(&p, &m->net, x));
    int rc = pass_finish(&p, err);
    for (int i = 0; i < n && !rc; i++)
        if (!isfinite(values[i])) rc = error_set(err, ERR_INTERNAL, "the mask is not finite");
    if (!rc) rc = pixels_new(mask, SIDE_PX, SIDE_PX, 1, err);
    if (!rc) stretch(mask, values, n);
    free(values);
    return rc;
}

int matte_mask(struct matte *m, struct pixels *mask, const struct pixels *from, struct error *err)
{
    struct pixels rgb = {0}, small = {0}, made = {0};
    int rc = pixels_convert(&rgb, from, 3, err);
    if (!rc) rc = pixels_resize(&small, &rgb, SIDE_PX, SIDE_PX, RESIZE_LANCZOS, err);
    if (!rc) rc = run_net(m, &made, &small, err);
    if (!rc) rc = pixels_resize(mask, &made, from->width, from->height, RESIZE_LANCZOS, err);
    pixels_release(&rgb);
    pixels_release(&small);
    pixels_release(&made);
    return rc;
}

/* a * b / 255, rounded */
static uint8_t faded(int a, int b)
{
    int t = a * b + 128;
    return (uint8_t)((t + (t >> 8)) >> 8);
}

/* made: RGBA, raw. ERR_INVALID: the edge cannot be estimated. */
static int soften(struct pixels *made, const struct pixels *mask,
                  const struct pipeline_hooks *hooks, struct error *err)
{
    size_t n = (size_t)made->width * (size_t)made->height;
    uint8_t *trimap = alloc_try(n, 1);
    double *alpha = alloc_try(n, sizeof *alpha);
    float *colour = alloc_try(n * 3, sizeof *colour);
    int rc =
        trimap && alpha && colour ? 0 : error_set(err, ERR_NO_MEMORY, "no memory for soft edges");
    if (!rc) rc = matting_trimap(trimap, mask, err);
    if (!rc)
        rc = matting_alpha(alpha, made, trimap, hooks ? hooks->canceled : NULL,
                           hooks ? hooks->context : NULL, err);
    if (!rc) rc = matting_colour(colour, made, alpha, err);
    for (size_t i = 0; !rc && i < n; i++) {
        uint8_t *p = made->data + i * 4;
        for (size_t k = 0; k < 3; k++) p[k] = (uint8_t)(colour[i * 3 + k] * 255);
        p[3] = faded(p[3], (int)(alpha[i] * 255));
    }
    free(trimap);
    free(alpha);
    free(colour);
    return rc;
}

int matte_cut(struct pixels *to, const struct pixels *from, const struct pixels *mask,
              const struct pipeline_hooks *hooks, struct error *err)
{
    struct pixels made = {0};
    struct error why;
    int rc = pixels_convert(&made, from, 4, err);
    if (rc) return rc;
    rc = soften(&made, mask, hooks, &why);
    if (rc == ERR_INVALID) {
        rc = 0;
        for (int64_t i = 0; i < (int64_t)made.width * made.height; i++)
            for (int k = 0; k < 4; k++)
                made.data[i * 4 + k] = faded(made.data[i * 4 + k], mask->data[i]);
    }
    if (rc) {
        pixels_release(&made);
        return error_set(err, rc, "%s", why.text);
    }
    *to = made;
    return 0;
}

int matte_run(struct matte *m, struct pixels *to, const struct pixels *from,
              const struct pipeline_hooks *hooks, struct error *err)
{
    struct pixels mask = {0};
    double start = now_seconds();
    if (hooks && hooks->canceled && hooks->canceled(hooks->context))
        return error_set(err, ERR_CANCELED, "stopped on request");
    int rc = matte_mask(m, &mask, from, err);
    if (!rc) rc = matte_cut(to, from, &mask, hooks, err);
    pixels_release(&mask);
    if (rc) return rc;
    struct pipeline_progress now = {PHASE_DECODE, 1, 1, now_seconds() - start};
    if (hooks && hooks->progress) hooks->progress(hooks->context, &now);
    return 0;
}
