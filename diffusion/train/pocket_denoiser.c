/* The pocket model's second half: UNet and text encoder learn together what captions mean. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "diffusion/text/tokens.h"
#include "diffusion/train/objective.h"
#include "diffusion/train/pocket_model.h"
#include "diffusion/train/rate.h"

#define CAPTION_DROPOUT .1
#define MEAN_DECAY .998

struct batch {
    int32_t *id;                            /* [batch, POCKET_TOKENS] */
    float *noise, *noisy, *target, *weight; /* [batch, POCKET_LATENT_COUNT] */
    double *time;
};

int pocket_tokens(const struct pocket *m, const char *caption, int32_t id[POCKET_TOKENS],
                  struct error *err)
{
    struct tokens tokens;
    tokens_init(&tokens);
    int rc = tokens_encode(&tokens, m->vocab, caption, strlen(caption), err);
    size_t count = tokens.count < POCKET_TOKENS - 2 ? tokens.count : POCKET_TOKENS - 2;
    id[0] = vocab_start(m->vocab);
    for (size_t i = 0; i < count && !rc; i++) id[1 + i] = tokens.id[i];
    for (size_t i = 1 + count; i < POCKET_TOKENS; i++) id[i] = vocab_end(m->vocab);
    tokens_release(&tokens);
    return rc;
}

static int draw_batch(const struct pocket *m, const struct objective *objective, struct batch *b,
                      int64_t step, struct error *err)
{
    int rc = 0;
    for (int i = 0; i < m->options->batch && !rc; i++) {
        struct noise_cpu g;
        objective_seed(&g, m->options->seed, step, (uint64_t)i + 2);
        float u[3];
        noise_cpu_uniform(&g, u, 3);
        int index = (int)(u[0] * (float)m->options->pictures);
        struct pot_random words = {(uint64_t)(u[2] * 0x1p24) + (uint64_t)step * 977};
        char caption[POT_CAPTION_BYTES] = "";
        if (u[1] >= CAPTION_DROPOUT) pot_caption_varied(&m->pots[index], &words, caption);
        rc = pocket_tokens(m, caption, b->id + (size_t)i * POCKET_TOKENS, err);
        size_t at = (size_t)i * POCKET_LATENT_COUNT;
        int t = objective_draw(objective, &g, b->noise + at, POCKET_LATENT_PX, POCKET_LATENT_PX,
                               POCKET_LATENT_CHANNELS);
        double weight = objective_noisy(objective, b->noisy + at, b->target + at,
                                        m->latents + (size_t)index * POCKET_LATENT_COUNT,
                                        b->noise + at, POCKET_LATENT_COUNT, t);
        for (size_t j = 0; j < POCKET_LATENT_COUNT; j++) b->weight[at + j] = (float)weight;
        b->time[i] = t;
    }
    return rc;
}

static int denoiser_step(struct pocket *m, const struct batch *b, float *loss, struct error *err)
{
    int n = m->options->batch;
    const int64_t shape[] = {n, POCKET_LATENT_PX, POCKET_LATENT_PX, POCKET_LATENT_CHANNELS};
    const struct tensor none = {0};
    struct pass pass;
    struct unet_context context = {0};
    pass_start(&pass, &m->memory, DTYPE_F32, m->tape);
    struct clip_input input = {.id = b->id, .n = n, .skip = 1, .final_norm = true, .end_id = -1};
    struct clip_states text = clip_text_forward(&pass, &m->text, &input);
    int rc = unet_context_init(&context, &pass, &m->unet, text.context, none);
    if (!rc) {
        struct tensor x = pass_input(&pass, b->noisy, 4, shape);
        struct tensor y = unet_forward(&pass, &m->unet, x, b->time, &context, NULL);
        struct tensor error = op_mse(&pass, y, pass_input(&pass, b->target, 4, shape),
                                     objective_weights(&pass, b->weight, 4, shape));
        tape_backward(&pass, error, 1);
        pass_output(&pass, loss, error);
    }
    int finished = pass_finish(&pass, err);
    tape_clear(m->tape);
    unet_context_release(&context);
    return rc ? rc : finished;
}

int pocket_train_denoiser(struct pocket *m, struct error *err)
{
    const struct pocket_options *o = m->options;
    struct params *params = &m->denoiser_params;
    size_t count = (size_t)o->batch * POCKET_LATENT_COUNT;
    float *memory = alloc_zero(4 * count, sizeof *memory);
    struct batch b = {.noise = memory,
                      .noisy = memory + count,
                      .target = memory + 2 * count,
                      .weight = memory + 3 * count,
                      .time = alloc_zero((size_t)o->batch, sizeof(double)),
                      .id = alloc_zero((size_t)o->batch * POCKET_TOKENS, sizeof(int32_t))};
    char *state = alloc_printf("%s/denoiser.safetensors", o->work);
    struct objective objective;
    objective_init(&objective, PREDICTION_EPSILON);
    objective.min_snr = 5;
    struct rate rate = {RATE_TAIL, o->rate, o->rate * .003, 100, o->steps, o->tail};
    struct adamw adamw = {.beta1 = .9, .beta2 = .99, .eps = 1e-8, .weight_decay = 1e-2, .clip = 1};
    int64_t done = 0;
    double average = 0;
    int rc = params_load(params, state, &done, err);
    if (rc == ERR_NOT_FOUND) rc = 0;
    for (int64_t step = done + 1; step <= o->steps && !rc; step++) {
        float loss = 0;
        rc = draw_batch(m, &objective, &b, step, err);
        if (!rc) rc = params_zero_grad(params, err);
        if (!rc) rc = denoiser_step(m, &b, &loss, err);
        if (rc) break;
        adamw.lr = rate_at(&rate, step);
        adamw.mean_decay = fmin(MEAN_DECAY, (double)step / (double)(step + 10));
        rc = params_update(params, &adamw, step, 1, NULL, err);
        average = step == done + 1 ? loss : .98 * average + .02 * loss;
        if (!rc) rc = pocket_tell(m, "unet", step, o->steps, average, err);
        if (!rc && (step % o->save_every == 0 || step == o->steps)) {
            rc = params_save(params, state, step, NULL, 0, err);
            if (!rc) rc = pocket_save(m, err);
        }
    }
    free(state);
    free(b.id);
    free(b.time);
    free(memory);
    return rc;
}
