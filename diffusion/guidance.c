#include "diffusion/guidance.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "diffusion/control/control_net.h"
#include "tensor/pass_plan.h"

/* Latents in one network call: four pictures of 512x512. More gains nothing on any device here
 * and costs memory. */
#define CALL_LATENTS_MAX (4 * 64 * 64)

static int sides(const struct guidance *g)
{
    return g->negative ? 2 : 1;
}

static size_t latent_count(const struct guidance *g)
{
    return (size_t)(g->model->unet.config.out_channels * g->h * g->w);
}

int guidance_open(struct guidance *g, struct error *err)
{
    const struct unet_config *c = &g->model->unet.config;
    int64_t each = g->h * g->w;
    g->chunk = (int)(CALL_LATENTS_MAX / (each > 0 ? each : 1));
    if (g->lean) g->chunk = 1;
    if (g->chunk > g->images) g->chunk = g->images;
    if (g->chunk < 1) g->chunk = 1;
    size_t batch = (size_t)(g->chunk * sides(g));
    g->in = alloc_try(batch * (size_t)(c->in_channels * each), sizeof *g->in);
    g->out = alloc_try(batch * latent_count(g), sizeof *g->out);
    g->mixed = alloc_try(latent_count(g) * (size_t)g->images, sizeof *g->mixed);
    if (g->in && g->out && g->mixed) return 0;
    guidance_close(g);
    return error_set(err, ERR_NO_MEMORY, "no memory for latents of %lldx%lld", (long long)g->w,
                     (long long)g->h);
}

static void close_context(struct guidance *g)
{
    if (!g->context_open) return;
    for (int i = 0; i < 2; i++) {
        unet_context_release(&g->batch[i].context);
        for (int k = 0; k < g->control_count; k++) unet_context_release(&g->batch[i].control[k]);
        g->batch[i].images = 0;
        g->batch[i].planned = false;
    }
    unet_steps_release(&g->steps);
    pass_finish(&g->context_pass, NULL);
    g->context_open = false;
}

/* The same for a ControlNet, and its view of the picture. */
static int make_control(struct guidance *g, struct guidance_batch *b, int i, int64_t batch,
                        struct tensor text, struct tensor vector)
{
    struct pass *p = &g->context_pass;
    const struct guidance_control *c = &g->controls[i];
    int64_t f = vae_factor(&g->model->vae);
    struct tensor picture = pass_input(p, c->picture, 4, TENSOR_DIM(1, g->h * f, g->w * f, 3));
    b->hint[i] = op_repeat_batch(p, control_net_hint(p, c->net, picture), batch);
    return control_net_context(&b->control[i], p, c->net, text, vector);
}

void guidance_close(struct guidance *g)
{
    close_context(g);
    free(g->in);
    free(g->out);
    free(g->mixed);
    g->in = g->out = g->mixed = NULL;
}

/* pooled text and the six sizes as one row: [vector] */
static void vector_row(const struct guidance *g, const struct conditioning *c, float *row)
{
    int64_t width = g->model->unet.config.vector, size = g->model->size_width;
    int64_t pooled = c->pooled ? c->pooled_width : 0;
    memset(row, 0, (size_t)width * sizeof *row);
    if (pooled > width) pooled = width;
    if (pooled) memcpy(row, c->pooled, (size_t)pooled * sizeof *row);
    int64_t n = size > 0 ? (width - pooled) / size : 0;
    double value[6];
    memcpy(value, g->sizes, sizeof value);
    /* the refiner ends with an aesthetic score instead of the target size */
    if (n == 5) value[4] = c == g->negative ? 2.5 : 6.0;
    unet_sinusoid(row + pooled, value, (int)(n > 6 ? 6 : n), size);
}

/* The rows of residual blocks for all known steps, where the device computes while it is asked (on others a
 * recorded step reads the time from one place). */
static int make_steps(struct guidance *g, const struct guidance_batch *b)
{
    struct model *m = g->model;
    struct pass *p = &g->context_pass;
    struct tensor vector = b->context.vector;
    if (!g->time_count || g->steps.count || !m->device->host_memory) return 0;
    if (vector.rank && sides(g) > 1 && b->images > 1) /* one row a side is enough */
        vector = op_concat_batch(p, op_slice_batch(p, vector, 0, 1),
                                 op_slice_batch(p, vector, b->images, 1));
    else if (vector.rank)
        vector = op_slice_batch(p, vector, 0, sides(g));
    return unet_steps_init(&g->steps, p, &m->unet, g->times, g->time_count, vector);
}

/* Keys and values for calls over n images. */
static int make_batch(struct guidance *g, struct guidance_batch *b, int n, struct error *err)
{
    struct model *m = g->model;
    const struct conditioning *side[2] = {g->positive, g->negative};
    int64_t rows = g->positive->rows, width = g->positive->width, batch = (int64_t)n * sides(g);
    int64_t vector = m->unet.config.vector;
    size_t each = (size_t)(rows * width);
    float *text = alloc_try((size_t)batch * each, sizeof *text);
    float *extra = alloc_try((size_t)(batch * vector) + 1, sizeof *extra);
    if (!text || !extra) {
        free(text);
        free(extra);
        return error_set(err, ERR_NO_MEMORY, "no memory for %lld text rows", (long long)rows);
    }
    for (int64_t i = 0; i < batch; i++) {
        const struct conditioning *c = side[i / n];
        memcpy(text + (size_t)i * each, c->context, each * sizeof *text);
        if (vector) vector_row(g, c, extra + i * vector);
    }
    if (!g->context_open) pass_start(&g->context_pass, m->context, m->dtype, NULL);
    g->context_open = true;
    struct tensor t = pass_input(&g->context_pass, text, 3, TENSOR_DIM(batch, rows, width));
    struct tensor v = {0};
    if (vector) v = pass_input(&g->context_pass, extra, 2, TENSOR_DIM(batch, vector));
    free(text);
    free(extra);
    int rc = unet_context_init(&b->context, &g->context_pass, &m->unet, t, v);
    for (int i = 0; i < g->control_count && !rc; i++) rc = make_control(g, b, i, batch, t, v);
    b->images = n;
    return rc ? rc : make_steps(g, b);
}

static int find_batch(struct guidance *g, const struct guidance_batch **batch, int n,
                      struct error *err)
{
    struct guidance_batch *b = &g->batch[n != g->chunk];
    *batch = b;
    if (b->images == n) return 0;
    KILN_ASSERT(!b->images, "calls of %d, %d and %d images", g->chunk, b->images, n);
    int rc = make_batch(g, b, n, err);
    if (!rc) return 0;
    if (g->context_open && g->context_pass.failed) {
        error_set(err, g->context_pass.failed, "%s", g->context_pass.error.text);
    }
    close_context(g);
    return rc;
}

/* ---- a network call ---- */

struct call {
    struct guidance *g;
    const struct guidance_batch *batch;
    struct tensor x, out; /* [n,c,h,w] and [n * sides,c,h,w]: first all positive */
    struct unet_time time, control_time[REQUEST_CONTROLS_MAX];
};

/* What all ControlNets together add to the skips and the middle. */
static void run_controls(struct pass *p, const struct call *call, struct tensor x,
                         struct unet_residuals *sum)
{
    const struct guidance_batch *b = call->batch;
    for (int i = 0; i < call->g->control_count; i++) {
        const struct guidance_control *c = &call->g->controls[i];
        struct unet_residuals own, *r = i ? &own : sum;
        control_net_forward(p, c->net, x, call->control_time[i], &b->control[i], b->hint[i],
                            c->strength, r);
        for (int k = 0; i && k < sum->count; k++)
            sum->skip[k] = op_add(p, sum->skip[k], own.skip[k]);
        if (i) sum->middle = op_add(p, sum->middle, own.middle);
    }
}

static void run_network(struct pass *p, void *context)
{
    const struct call *call = context;
    struct guidance *g = call->g;
    struct tensor t = op_to_channels_last(p, call->x), y = call->out;
    struct unet_residuals r;
    if (g->control_count) {
        struct tensor x = op_slice(p, t, 0, g->model->unet.config.out_channels);
        run_controls(p, call, sides(g) > 1 ? op_repeat_batch(p, x, sides(g)) : x, &r);
    }
    t = unet_forward_at(p, &g->model->unet, t, call->time, &call->batch->context,
                        g->control_count ? &r : NULL);
    op_to_channels_first_into(p, &y, t);
}

static uint64_t context_key(uint64_t key, const struct unet_context *c)
{
    for (int i = 0; i < c->count; i++) {
        key = record_key_tensor(key, c->k[i]);
        key = record_key_tensor(key, c->v[i]);
    }
    return record_key_tensor(key, c->vector);
}

/* All that run_network reads from the host. */
static uint64_t call_key(const struct call *call)
{
    const struct guidance *g = call->g;
    const struct model *m = g->model;
    uint64_t key = record_key_tensor(RECORD_KEY, call->x);
    key = record_key_tensor(key, call->out);
    key = record_key_tensor(key, call->time.sines);
    key = record_key_tensor(key, call->time.scale);
    key = record_key_add(key, &m->memory->generation, sizeof m->memory->generation);
    key = record_key_add(key, &m->layers_changed, sizeof m->layers_changed);
    key = record_key_add(key, &m->unet.circular, sizeof m->unet.circular);
    key = context_key(key, &call->batch->context);
    for (int i = 0; i < g->control_count; i++) {
        const struct guidance_control *c = &g->controls[i];
        key = record_key_add(key, &c->net, sizeof c->net);
        key = record_key_add(key, &c->strength, sizeof c->strength);
        key = record_key_tensor(key, call->batch->hint[i]);
        key = record_key_tensor(key, call->control_time[i].sines);
        key = record_key_tensor(key, call->control_time[i].scale);
        key = context_key(key, &call->batch->control[i]);
    }
    return key;
}

/* The same call over tensors of its own. */
static void plan_network(struct pass *p, void *context)
{
    struct call call = *(const struct call *)context;
    struct guidance *g = call.g;
    const struct unet_config *c = &g->model->unet.config;
    int n = call.batch->images, batch = n * sides(g);
    double times[2 * REQUEST_COUNT_MAX] = {0};
    call.x = pass_tensor(p, p->dtype, 4, TENSOR_DIM(n, c->in_channels, g->h, g->w));
    call.time = unet_time_input(p, &g->model->unet, times, n);
    for (int i = 0; i < g->control_count; i++)
        call.control_time[i] = control_net_time(p, g->controls[i].net, times, batch);
    call.out = pass_tensor(p, p->dtype, 4, TENSOR_DIM(batch, c->out_channels, g->h, g->w));
    size_t mark = pass_open_scope(p);
    run_network(p, &call);
    pass_close_scope(p, mark);
}

/* One network call: images `first` .. `first + n`, prediction of both sides into g->out. */
static int call_network(struct guidance *g, const float *x, int first, int n, double input,
                        double time, struct error *err)
{
    struct model *m = g->model;
    int64_t in = m->unet.config.in_channels, c = m->unet.config.out_channels, each = g->h * g->w;
    int batch = n * sides(g);
    double times[2 * REQUEST_COUNT_MAX];
    for (int i = 0; i < batch; i++) times[i] = time;
    for (int i = 0; i < n; i++) {
        const float *from = x + (size_t)(first + i) * latent_count(g);
        float *to = g->in + (size_t)i * (size_t)(in * each);
        for (int64_t k = 0; k < c * each; k++) to[k] = (float)(from[k] * input);
        if (in > c) memcpy(to + c * each, g->extra, (size_t)((in - c) * each) * sizeof *to);
    }
    struct call call = {.g = g};
    int rc = find_batch(g, &call.batch, n, err);
    struct guidance_batch *b = &g->batch[n != g->chunk];
    if (!rc && !b->planned) rc = pass_plan(m->memory, m->dtype, plan_network, &call, err);
    if (rc) return rc;
    b->planned = true;
    struct pass p;
    pass_start(&p, m->memory, m->dtype, NULL);
    p.canceled = g->canceled;
    p.canceled_context = g->canceled_context;
    call.x = pass_input(&p, g->in, 4, TENSOR_DIM(n, in, g->h, g->w));
    int step = g->steps.count ? unet_steps_find(&g->steps, time) : -1;
    if (step >= 0)
        call.time = (struct unet_time){.steps = &g->steps, .step = step};
    else
        call.time = unet_time_input(&p, &m->unet, times, n);
    for (int i = 0; i < g->control_count; i++)
        call.control_time[i] = control_net_time(&p, g->controls[i].net, times, batch);
    call.out = pass_tensor(&p, m->dtype, 4, TENSOR_DIM(batch, c, g->h, g->w));
    record_run(&m->steps, &p, call_key(&call), run_network, &call);
    pass_output(&p, g->out, call.out);
    size_t peak = p.peak_bytes + g->context_pass.peak_bytes;
    if (peak > g->peak_bytes) g->peak_bytes = peak;
    return pass_finish(&p, err);
}

static double deviation(const float *x, size_t n)
{
    double sum = 0, squares = 0;
    for (size_t i = 0; i < n; i++) sum += (double)x[i];
    double mean = sum / (double)n;
    for (size_t i = 0; i < n; i++) squares += ((double)x[i] - mean) * ((double)x[i] - mean);
    return sqrt(squares / (double)(n > 1 ? n - 1 : 1));
}

/* F of one image out of both sides, guidance and rescale applied. */
static void guide(const struct guidance *g, float *f, const float *positive, const float *negative)
{
    size_t n = latent_count(g);
    if (!negative) {
        memcpy(f, positive, n * sizeof *f);
        return;
    }
    float s = (float)g->scale;
    for (size_t i = 0; i < n; i++) f[i] = negative[i] + s * (positive[i] - negative[i]);
    if (g->rescale <= 0) return;
    double guided = deviation(f, n);
    if (guided <= 0) return;
    double factor = g->rescale * deviation(positive, n) / guided + (1 - g->rescale);
    for (size_t i = 0; i < n; i++) f[i] = (float)(f[i] * factor);
}

/* The kept area follows the clean latent at the right noise. */
static const float *keep_known(struct guidance *g, const float *x, double sigma)
{
    if (!g->mask) return x;
    size_t n = latent_count(g), area = (size_t)(g->h * g->w);
    for (size_t i = 0; i < n * (size_t)g->images; i++) {
        size_t at = i % n;
        float known = (float)(g->latent[at] + g->noise[i] * sigma), m = g->mask[at % area];
        g->mixed[i] = x[i] * m + known * (1 - m);
    }
    return g->mixed;
}

static void restore_known(const struct guidance *g, float *denoised)
{
    if (!g->mask) return;
    size_t n = latent_count(g), area = (size_t)(g->h * g->w);
    for (size_t i = 0; i < n * (size_t)g->images; i++) {
        float m = g->mask[i % n % area];
        denoised[i] = denoised[i] * m + g->latent[i % n] * (1 - m);
    }
}

int guidance_denoise(void *context, float *denoised, const float *x, double sigma,
                     struct error *err)
{
    struct guidance *g = context;
    enum prediction kind = g->model->info.v_prediction ? PREDICTION_V : PREDICTION_EPSILON;
    struct scaling s = prediction_scaling(kind, sigma);
    double time = noise_levels_timestep(&g->model->levels, sigma);
    size_t n = latent_count(g);
    x = keep_known(g, x, sigma);
    for (int first = 0; first < g->images; first += g->chunk) {
        int count = g->images - first < g->chunk ? g->images - first : g->chunk;
        int rc = call_network(g, x, first, count, s.input, time, err);
        if (rc) return rc;
        for (int i = 0; i < count; i++) {
            float *d = denoised + (size_t)(first + i) * n;
            const float *from = x + (size_t)(first + i) * n;
            const float *f = g->out + (size_t)i * n;
            guide(g, d, f, g->negative ? f + (size_t)count * n : NULL);
            for (size_t k = 0; k < n; k++) d[k] = (float)(from[k] * s.skip + d[k] * s.output);
        }
    }
    restore_known(g, denoised);
    return 0;
}
