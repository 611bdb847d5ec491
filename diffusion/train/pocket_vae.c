/* The pocket model's first half: an autoencoder with a latent of fixed noise and unit covariance. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "diffusion/train/objective.h"
#include "diffusion/train/pocket_model.h"
#include "diffusion/train/rate.h"

#define CROP_PX 64
#define CROP_COUNT (CROP_PX * CROP_PX * 3)
#define CROP_LATENT_COUNT (CROP_PX / 8 * (CROP_PX / 8) * POCKET_LATENT_CHANNELS)
#define LATENT_NOISE .2  /* standard deviation added to the latent in training */
#define LATENT_SIZE 1e-3 /* price of its mean square, so that the noise stays felt */
/* Crops of pictures into x[batch, CROP, CROP, 3], values in [-1, 1]. */
static void draw_crops(const struct pocket *m, struct noise_cpu *g, float *x, int batch)
{
    for (int b = 0; b < batch; b++) {
        float u[3];
        noise_cpu_uniform(g, u, 3);
        int index = (int)(u[0] * (float)m->options->pictures);
        int left = (int)(u[1] * (POT_SIDE_PX - CROP_PX + 1));
        int top = (int)(u[2] * (POT_SIDE_PX - CROP_PX + 1));
        const uint8_t *picture = m->pictures + (size_t)index * POCKET_PICTURE_BYTES;
        for (int y = 0; y < CROP_PX; y++) {
            const uint8_t *row = picture + ((top + y) * POT_SIDE_PX + left) * 3;
            for (int i = 0; i < CROP_PX * 3; i++) *x++ = (float)row[i] / 127.5f - 1;
        }
    }
}

struct crops {
    float *x, *y, *aim, *noise, *zero;
};

static int vae_step(struct pocket *m, struct crops *c, double *loss, struct error *err)
{
    int batch = m->options->vae_batch;
    const int64_t pixels[] = {batch, CROP_PX, CROP_PX, 3};
    const int64_t latent[] = {batch, CROP_PX / 8, CROP_PX / 8, POCKET_LATENT_CHANNELS};
    const struct tensor none = {0};
    struct pass pass;
    pass_start(&pass, &m->memory, DTYPE_F32, m->tape);
    struct tensor x = pass_input(&pass, c->x, 4, pixels);
    struct tensor mean = op_slice(&pass, vae_encode(&pass, &m->vae, x), 0, POCKET_LATENT_CHANNELS);
    struct tensor z = op_mix(&pass, 1, mean, LATENT_NOISE, pass_input(&pass, c->noise, 4, latent));
    struct tensor y = vae_decode(&pass, &m->vae, z);
    pass_output(&pass, c->y, y);
    pocket_aim(c->aim, c->x, c->y, batch, CROP_PX);
    struct tensor error = op_mse(&pass, y, pass_input(&pass, c->aim, 4, pixels), none);
    struct tensor size = op_mse(&pass, mean, pass_input(&pass, c->zero, 4, latent), none);
    struct tensor sum = op_mix(&pass, 1, error, LATENT_SIZE, size);
    tape_backward(&pass, sum, 1);
    int rc = pass_finish(&pass, err);
    tape_clear(m->tape);
    double square = 0;
    for (size_t i = 0; i < (size_t)batch * CROP_COUNT; i++)
        square += (double)(c->y[i] - c->x[i]) * (c->y[i] - c->x[i]);
    *loss = square / ((double)batch * CROP_COUNT);
    return rc;
}

int pocket_train_vae(struct pocket *m, struct error *err)
{
    const struct pocket_options *o = m->options;
    struct params *params = &m->vae_params;
    char *state = alloc_printf("%s/vae.safetensors", o->work);
    size_t pixels = (size_t)o->vae_batch * CROP_COUNT;
    size_t latents = (size_t)o->vae_batch * CROP_LATENT_COUNT;
    float *memory = alloc_zero(3 * pixels + 2 * latents, sizeof *memory);
    struct crops c = {memory, memory + pixels, memory + 2 * pixels, memory + 3 * pixels,
                      memory + 3 * pixels + latents};
    struct rate rate = {RATE_COSINE, o->vae_rate, o->vae_rate * .01, 100, o->vae_steps, 0};
    struct adamw adamw = {.beta1 = .9, .beta2 = .99, .eps = 1e-8, .weight_decay = 1e-4, .clip = 1};
    int64_t done = 0;
    double average = 0;
    int rc = params_load(params, state, &done, err);
    if (rc == ERR_NOT_FOUND) rc = 0;
    for (int64_t step = done + 1; step <= o->vae_steps && !rc; step++) {
        struct noise_cpu g;
        double loss;
        objective_seed(&g, o->seed, step, 1);
        draw_crops(m, &g, c.x, o->vae_batch);
        noise_cpu_normal(&g, c.noise, latents);
        rc = params_zero_grad(params, err);
        if (!rc) rc = vae_step(m, &c, &loss, err);
        if (rc) break;
        adamw.lr = rate_at(&rate, step);
        adamw.mean_decay = fmin(.995, (double)step / (double)(step + 10));
        rc = params_update(params, &adamw, step, 1, NULL, err);
        average = step == done + 1 ? loss : .98 * average + .02 * loss;
        if (!rc) rc = pocket_tell(m, "vae", step, o->vae_steps, average, err);
        if (!rc && (step % o->save_every == 0 || step == o->vae_steps))
            rc = params_save(params, state, step, NULL, 0, err);
    }
    if (!rc) rc = params_use_mean(params, err);
    free(memory);
    free(state);
    return rc;
}

/* ---- latents ---- */

#define Z POCKET_LATENT_CHANNELS

/* Eigenvalues and vectors (columns of v) of a small symmetric matrix, Jacobi's rotations. */
static void eigen(double a[Z][Z], double v[Z][Z])
{
    for (int i = 0; i < Z; i++)
        for (int j = 0; j < Z; j++) v[i][j] = i == j;
    for (int sweep = 0; sweep < 50; sweep++)
        for (int p = 0; p < Z; p++)
            for (int q = p + 1; q < Z; q++) {
                if (fabs(a[p][q]) < 1e-15) continue;
                double theta = .5 * atan2(2 * a[p][q], a[q][q] - a[p][p]);
                double c = cos(theta), s = sin(theta);
                for (int k = 0; k < Z; k++) {
                    double kp = a[k][p], kq = a[k][q];
                    a[k][p] = c * kp - s * kq;
                    a[k][q] = s * kp + c * kq;
                }
                for (int k = 0; k < Z; k++) {
                    double pk = a[p][k], qk = a[q][k], vp = v[k][p], vq = v[k][q];
                    a[p][k] = c * pk - s * qk;
                    a[q][k] = s * pk + c * qk;
                    v[k][p] = c * vp - s * vq;
                    v[k][q] = s * vp + c * vq;
                }
            }
}

/* white = to (z - mean); z = from white + mean. */
struct whitening {
    double mean[Z], to[Z][Z], from[Z][Z];
};

static void whitening_of(struct whitening *w, const float *z, size_t pixels)
{
    double covariance[Z][Z] = {{0}}, v[Z][Z];
    memset(w, 0, sizeof *w);
    for (size_t i = 0; i < pixels; i++)
        for (int c = 0; c < Z; c++) w->mean[c] += z[i * Z + c] / (double)pixels;
    for (size_t i = 0; i < pixels; i++)
        for (int c = 0; c < Z; c++)
            for (int d = 0; d < Z; d++)
                covariance[c][d] +=
                    (z[i * Z + c] - w->mean[c]) * (z[i * Z + d] - w->mean[d]) / (double)pixels;
    eigen(covariance, v);
    for (int i = 0; i < Z; i++)
        for (int j = 0; j < Z; j++)
            for (int k = 0; k < Z; k++) {
                double root = sqrt(covariance[k][k] + 1e-12);
                w->to[i][j] += v[i][k] * v[j][k] / root;
                w->from[i][j] += v[i][k] * v[j][k] * root;
            }
}

static struct param *find_param(struct params *p, const char *name)
{
    for (int i = 0; i < p->count; i++)
        if (!strcmp(p->item[i].name, name)) return &p->item[i];
    KILN_ASSERT(false, "no parameter %s", name);
    return NULL;
}

static int exchange(struct params *p, const char *name, float *values, bool store,
                    struct error *err)
{
    struct param *item = find_param(p, name);
    const struct kernels *k = p->device->kernels;
    size_t bytes = (size_t)item->count * sizeof(float);
    if (!store) return k->download(p->device, values, item->data, bytes, err);
    item->w->k.version++;
    int rc = k->upload(p->device, item->data, values, bytes, err);
    return rc ? rc : k->upload(p->device, item->mean, values, bytes, err);
}

/* The encoder's last 1x1 convolution gives whitened means, over the scale that every program
 * multiplies by, and the log variance it was trained with; the decoder's first undoes it. */
static int fold(struct pocket *m, const struct whitening *w, struct error *err)
{
    float quant[2 * Z][2 * Z], bias[2 * Z], post[Z][Z], post_bias[Z];
    double wide[2 * Z][2 * Z] = {{0}}, wide_bias[2 * Z] = {0}, back[Z][Z] = {{0}};
    struct params *p = &m->vae_params;
    int rc = exchange(p, "vae.quant_conv.weight", quant[0], false, err);
    if (!rc) rc = exchange(p, "vae.quant_conv.bias", bias, false, err);
    if (!rc) rc = exchange(p, "vae.post_quant_conv.weight", post[0], false, err);
    if (!rc) rc = exchange(p, "vae.post_quant_conv.bias", post_bias, false, err);
    if (rc) return rc;
    double variance = 0;
    for (int i = 0; i < Z; i++) {
        for (int k = 0; k < Z; k++) {
            for (int j = 0; j < 2 * Z; j++) wide[i][j] += w->to[i][k] * quant[k][j] / POCKET_SCALE;
            wide_bias[i] += w->to[i][k] * (bias[k] - w->mean[k]) / POCKET_SCALE;
            variance += w->to[i][k] * w->to[i][k] / Z;
            for (int j = 0; j < Z; j++) back[i][j] += post[i][k] * w->from[k][j] * POCKET_SCALE;
        }
    }
    for (int i = 0; i < Z; i++) {
        double shift = 0;
        for (int k = 0; k < Z; k++) shift += post[i][k] * w->mean[k];
        post_bias[i] += (float)shift;
        wide_bias[Z + i] =
            log(LATENT_NOISE * LATENT_NOISE * variance / (POCKET_SCALE * POCKET_SCALE));
        for (int j = 0; j < Z; j++) post[i][j] = (float)back[i][j];
    }
    for (int i = 0; i < 2 * Z; i++) {
        bias[i] = (float)wide_bias[i];
        for (int j = 0; j < 2 * Z; j++) quant[i][j] = (float)wide[i][j];
    }
    rc = exchange(p, "vae.quant_conv.weight", quant[0], true, err);
    if (!rc) rc = exchange(p, "vae.quant_conv.bias", bias, true, err);
    if (!rc) rc = exchange(p, "vae.post_quant_conv.weight", post[0], true, err);
    return rc ? rc : exchange(p, "vae.post_quant_conv.bias", post_bias, true, err);
}

/* Means of `count` pictures from `from` on, as the network gives them. */
static int encode_some(struct pocket *m, float *out, int from, int count, struct error *err)
{
    float *x = alloc_zero((size_t)count * POCKET_PICTURE_BYTES, sizeof *x);
    const uint8_t *bytes = m->pictures + (size_t)from * POCKET_PICTURE_BYTES;
    for (size_t i = 0; i < (size_t)count * POCKET_PICTURE_BYTES; i++)
        x[i] = (float)bytes[i] / 127.5f - 1;
    struct pass pass;
    pass_start(&pass, &m->memory, DTYPE_F32, NULL);
    struct tensor input = pass_input(&pass, x, 4, TENSOR_DIM(count, POT_SIDE_PX, POT_SIDE_PX, 3));
    struct tensor moments = vae_encode(&pass, &m->vae, input);
    pass_output(&pass, out, op_slice(&pass, moments, 0, Z));
    int rc = pass_finish(&pass, err);
    free(x);
    return rc;
}

/* ---- what encoding gave, kept for a run that goes on ---- */

static const char *const folded[] = {"vae.quant_conv.weight", "vae.quant_conv.bias",
                                     "vae.post_quant_conv.weight", "vae.post_quant_conv.bias"};
#define FOLDED_MAX (4 * Z * Z)

static char *latents_path(const struct pocket *m)
{
    return alloc_printf("%s/latents.safetensors", m->options->work);
}

static char *latents_mark(const struct pocket *m)
{
    const struct pocket_options *o = m->options;
    return alloc_printf("seed %llu data %llu pictures %d vae %d x %d", (unsigned long long)o->seed,
                        (unsigned long long)o->data_seed, o->pictures, o->vae_steps, o->vae_batch);
}

static int keep_latents(struct pocket *m, struct error *err)
{
    struct safetensors_entry entry[COUNT_OF(folded) + 1];
    float values[COUNT_OF(folded)][FOLDED_MAX];
    int64_t count = (int64_t)m->options->pictures * POCKET_LATENT_COUNT;
    int rc = 0;
    for (size_t i = 0; i < COUNT_OF(folded) && !rc; i++) {
        int64_t n = find_param(&m->vae_params, folded[i])->count;
        rc = exchange(&m->vae_params, folded[i], values[i], false, err);
        entry[i] = (struct safetensors_entry){.name = folded[i],
                                              .dtype = DTYPE_F32,
                                              .rank = 1,
                                              .dim = {n},
                                              .data = values[i],
                                              .bytes = (size_t)n * sizeof(float)};
    }
    entry[COUNT_OF(folded)] = (struct safetensors_entry){.name = "latents",
                                                         .dtype = DTYPE_F32,
                                                         .rank = 1,
                                                         .dim = {count},
                                                         .data = m->latents,
                                                         .bytes = (size_t)count * sizeof(float)};
    char *path = latents_path(m), *mark = latents_mark(m);
    const struct safetensors_meta meta = {"training", mark};
    if (!rc) rc = safetensors_write(path, entry, COUNT_OF(entry), &meta, 1, err);
    free(mark);
    free(path);
    return rc;
}

/* False when there are none of this very training. */
static bool find_latents(struct pocket *m, struct error *err, int *rc)
{
    struct safetensors file;
    char *path = latents_path(m), *mark = latents_mark(m);
    bool found = !safetensors_open(&file, path, NULL);
    if (found) {
        const char *said = safetensors_meta_find(&file, "training");
        const struct safetensors_entry *e = safetensors_find(&file, "latents");
        size_t bytes = (size_t)m->options->pictures * POCKET_LATENT_COUNT * sizeof(float);
        found = said && !strcmp(said, mark) && e && e->bytes == bytes;
        if (found) memcpy(m->latents, e->data, bytes);
        for (size_t i = 0; i < COUNT_OF(folded) && found && !*rc; i++) {
            float values[FOLDED_MAX];
            e = safetensors_find(&file, folded[i]);
            if (!e || e->bytes > sizeof values) continue;
            memcpy(values, e->data, e->bytes);
            *rc = exchange(&m->vae_params, folded[i], values, true, err);
        }
        safetensors_close(&file);
    }
    free(mark);
    free(path);
    return found;
}

int pocket_encode(struct pocket *m, struct error *err)
{
    enum { TOGETHER = 16 };
    int pictures = m->options->pictures, rc = 0;
    if (find_latents(m, err, &rc)) return rc;
    for (int from = 0; from < pictures && !rc; from += TOGETHER) {
        int count = pictures - from < TOGETHER ? pictures - from : TOGETHER;
        rc = encode_some(m, m->latents + (size_t)from * POCKET_LATENT_COUNT, from, count, err);
        if (!rc) rc = pocket_tell(m, "latents", from + count, pictures, 0, err);
    }
    if (rc) return rc;
    struct whitening w;
    size_t pixels = (size_t)pictures * POCKET_LATENT_COUNT / Z;
    whitening_of(&w, m->latents, pixels);
    for (size_t i = 0; i < pixels; i++) {
        float *z = m->latents + i * Z, white[Z] = {0};
        for (int c = 0; c < Z; c++)
            for (int d = 0; d < Z; d++) white[c] += (float)(w.to[c][d] * (z[d] - w.mean[d]));
        memcpy(z, white, sizeof white);
    }
    rc = fold(m, &w, err);
    return rc ? rc : keep_latents(m, err);
}
