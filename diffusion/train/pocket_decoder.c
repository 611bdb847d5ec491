/* The pocket model's decoder, better than it left the autoencoder: colours first, whole pictures. */
#include <math.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "diffusion/train/objective.h"
#include "diffusion/train/pocket_model.h"
#include "diffusion/train/rate.h"

#define FLAT_SQUARE 2.0f /* of a pixel's error d: its gradient is FLAT_SQUARE d + sign(d) / 2 */
#define FLAT_EDGE .03f   /* below it the sign fades */
#define BLOCK_PX 8
#define BLOCK_SQUARE 4.0f /* and so much of its block's mean error */
#define BATCH 2
#define LATENT_NOISE .1 /* what a sampled latent is off by, about */

/* The block at `aim`, in pictures `side` wide. */
static void aim_block(float *aim, const float *x, const float *y, int side)
{
    for (int c = 0; c < 3; c++) {
        float mean = 0;
        for (int i = 0; i < BLOCK_PX * BLOCK_PX; i++) {
            size_t at = (size_t)(i / BLOCK_PX * side + i % BLOCK_PX) * 3 + (size_t)c;
            mean += (y[at] - x[at]) / (BLOCK_PX * BLOCK_PX);
        }
        for (int i = 0; i < BLOCK_PX * BLOCK_PX; i++) {
            size_t at = (size_t)(i / BLOCK_PX * side + i % BLOCK_PX) * 3 + (size_t)c;
            float d = y[at] - x[at];
            float sign = d / fmaxf(fabsf(d), FLAT_EDGE);
            aim[at] = y[at] - (FLAT_SQUARE * d + .5f * sign + BLOCK_SQUARE * mean);
        }
    }
}

void pocket_aim(float *aim, const float *x, const float *y, int batch, int side)
{
    for (int row = 0; row < batch * side; row += BLOCK_PX)
        for (int column = 0; column < side; column += BLOCK_PX) {
            size_t at = ((size_t)row * (size_t)side + (size_t)column) * 3;
            aim_block(aim + at, x + at, y + at, side);
        }
}

struct pairs {
    float *z, *noise, *x, *y, *aim;
};

static void draw_pairs(const struct pocket *m, struct noise_cpu *g, const struct pairs *p)
{
    for (int b = 0; b < BATCH; b++) {
        float u;
        noise_cpu_uniform(g, &u, 1);
        int index = (int)(u * (float)m->options->pictures);
        const float *latent = m->latents + (size_t)index * POCKET_LATENT_COUNT;
        const uint8_t *picture = m->pictures + (size_t)index * POCKET_PICTURE_BYTES;
        noise_cpu_normal(g, p->noise, POCKET_LATENT_COUNT);
        for (size_t i = 0; i < POCKET_LATENT_COUNT; i++)
            p->z[(size_t)b * POCKET_LATENT_COUNT + i] =
                (float)((latent[i] + LATENT_NOISE * p->noise[i]) / POCKET_SCALE);
        for (size_t i = 0; i < POCKET_PICTURE_BYTES; i++)
            p->x[(size_t)b * POCKET_PICTURE_BYTES + i] = (float)picture[i] / 127.5f - 1;
    }
}

static int decoder_step(struct pocket *m, const struct pairs *d, double *loss, struct error *err)
{
    const int64_t pixels[] = {BATCH, POT_SIDE_PX, POT_SIDE_PX, 3};
    const int64_t latent[] = {BATCH, POCKET_LATENT_PX, POCKET_LATENT_PX, POCKET_LATENT_CHANNELS};
    const struct tensor none = {0};
    struct pass p;
    pass_start(&p, &m->memory, DTYPE_F32, m->tape);
    struct tensor y = vae_decode(&p, &m->vae, pass_input(&p, d->z, 4, latent));
    pass_output(&p, d->y, y);
    pocket_aim(d->aim, d->x, d->y, BATCH, POT_SIDE_PX);
    struct tensor error = op_mse(&p, y, pass_input(&p, d->aim, 4, pixels), none);
    tape_backward(&p, error, 1);
    int rc = pass_finish(&p, err);
    tape_clear(m->tape);
    double square = 0;
    size_t count = (size_t)BATCH * POCKET_PICTURE_BYTES;
    for (size_t i = 0; i < count; i++)
        square += (double)(d->y[i] - d->x[i]) * (double)(d->y[i] - d->x[i]);
    *loss = square / (double)count;
    return rc;
}

int pocket_tune_decoder(struct pocket *m, struct error *err)
{
    static const char *const trained[] = {"vae.decoder.", "vae.post_quant_conv.", NULL};
    const struct pocket_options *o = m->options;
    struct params *params = &m->vae_params;
    size_t pixels = (size_t)BATCH * POCKET_PICTURE_BYTES;
    size_t latents = (size_t)BATCH * POCKET_LATENT_COUNT;
    float *memory = alloc_zero(3 * pixels + 2 * latents, sizeof *memory);
    struct pairs d = {memory, memory + latents, memory + 2 * latents, memory + 2 * latents + pixels,
                      memory + 2 * latents + 2 * pixels};
    char *state = alloc_printf("%s/decoder.safetensors", o->work);
    struct rate rate = {RATE_COSINE, o->vae_rate * .4, o->vae_rate * .004, 20, o->decoder_steps, 0};
    struct adamw adamw = {.beta1 = .9, .beta2 = .99, .eps = 1e-8, .weight_decay = 1e-4, .clip = 1};
    int64_t done = 0;
    double average = 0;
    int rc = params_restart(params, trained, err);
    if (!rc) rc = params_load(params, state, &done, err);
    if (rc == ERR_NOT_FOUND) rc = 0;
    for (int64_t step = done + 1; step <= o->decoder_steps && !rc; step++) {
        struct noise_cpu g;
        double loss;
        objective_seed(&g, o->seed, step, 3);
        draw_pairs(m, &g, &d);
        rc = params_zero_grad(params, err);
        if (!rc) rc = decoder_step(m, &d, &loss, err);
        if (rc) break;
        adamw.lr = rate_at(&rate, step);
        adamw.mean_decay = fmin(.99, (double)step / (double)(step + 10));
        rc = params_update(params, &adamw, step, 1, NULL, err);
        average = step == done + 1 ? loss : .98 * average + .02 * loss;
        if (!rc) rc = pocket_tell(m, "decoder", step, o->decoder_steps, average, err);
        if (!rc && (step % o->save_every == 0 || step == o->decoder_steps))
            rc = params_save(params, state, step, NULL, 0, err);
    }
    if (!rc) rc = params_use_mean(params, err);
    free(state);
    free(memory);
    return rc;
}
