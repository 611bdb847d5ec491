#include "diffusion/train/lora_train.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/now.h"
#include "base/str.h"
#include "diffusion/text/clip_text.h"
#include "diffusion/train/lora_run.h"

void lora_train_defaults(struct lora_train_options *o)
{
    *o = (struct lora_train_options){
        .name = "lora",
        .steps = 1000,
        .lora = {.cover = LORA_BLOCKS, .rank = 16, .alpha = 16},
        .rate = {RATE_COSINE, 1e-4, 1e-6, 30, 0, 200},
        .weight_decay = .01,
        .clip = 1,
        .batch = 1,
        .accumulation = 1,
        .buckets = true,
        .cuts = 1,
        .zoom = 1.25,
        .mask = -1,
        .caption_dropout = .05,
        .pyramid_discount = .3,
        .min_snr = 5,
        .t_max = NOISE_LEVELS - 1,
        .save_every = 250,
        .preview_every = 250,
        .preview_steps = 20,
        .preview_cfg = 5,
        .prior_weight = 1,
        .seed = 1,
    };
}

/* ---- what the run says ---- */

char *lora_run_path(const struct lora_run *r, const char *format, ...)
{
    char suffix[128];
    va_list args;
    va_start(args, format);
    vsnprintf(suffix, sizeof suffix, format, args);
    va_end(args);
    const char *out = r->o->out;
    size_t length = strlen(out);
    if (str_ends(out, ".safetensors")) length -= strlen(".safetensors");
    return alloc_printf("%.*s%s", (int)length, out, suffix);
}

void lora_run_note(const struct lora_run *r, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (r->hooks && r->hooks->note) r->hooks->note(r->hooks->context, text);
}

int lora_run_tell(struct lora_run *r, const char *phase, int64_t step, int64_t steps,
                  struct error *err)
{
    const struct lora_train_hooks *h = r->hooks;
    double seconds = r->done ? (now_seconds() - r->started) / (double)r->done : NAN;
    struct lora_train_progress p = {phase, step, steps, r->average, seconds};
    if (h && h->progress) h->progress(h->context, &p);
    if (h && h->canceled && h->canceled(h->context))
        return error_set(err, ERR_CANCELED, "training stopped at step %lld", (long long)step);
    return 0;
}

/* ---- which examples a step sees ---- */

/* Picture number k of an endless row: every epoch is a permutation of its own (Fisher-Yates). */
static int nth_example(uint64_t seed, uint64_t stream, int64_t k, int count, int *order)
{
    struct noise_cpu g;
    objective_seed(&g, seed, k / count, 0x100 + stream);
    for (int i = 0; i < count; i++) order[i] = i;
    for (int i = count - 1; i > 0; i--) {
        float u;
        noise_cpu_uniform(&g, &u, 1);
        int j = (int)(u * (float)(i + 1));
        if (j > i) j = i;
        int swap = order[i];
        order[i] = order[j];
        order[j] = swap;
    }
    return order[k % count];
}

struct drawn {
    bool prior;
    const struct cache *cache;
    const struct example *example;
    const struct cached_text *text;
    bool flip;
    int t;
    struct noise_cpu g;
};

static void draw_example(const struct lora_run *r, struct drawn *d, bool prior, int64_t step,
                         int64_t k, int *order)
{
    d->prior = prior;
    d->cache = prior ? &r->prior : &r->cache;
    d->example = &d->cache->example[nth_example(r->o->seed, prior, k, d->cache->count, order)];
    objective_seed(&d->g, r->o->seed, step, (uint64_t)k * 2 + prior);
    float u[2];
    noise_cpu_uniform(&d->g, u, 2);
    bool empty = u[0] < (float)r->o->caption_dropout;
    d->text = &d->cache->text[empty ? 0 : d->example->text];
    d->flip = d->example->flipped && u[1] < .5f;
}

/* ---- one pass: images of one size and one count of text rows ---- */

struct micro {
    float *noisy, *target, *weight, *noise, *context, *vector;
    double *time;
    int n;
};

static void fill_vector(const struct lora_run *r, const struct drawn *d, float *vector)
{
    const struct conditioning *states = &d->text->states;
    memcpy(vector, states->pooled, (size_t)states->pooled_width * sizeof *vector);
    int64_t sizes = (r->model->unet.config.vector - states->pooled_width) / r->model->size_width;
    unet_sinusoid(vector + states->pooled_width, d->example->sizes, (int)(sizes > 6 ? 6 : sizes),
                  r->model->size_width);
}

static float mask_at(const struct drawn *d, size_t cell)
{
    const struct example *e = d->example;
    size_t w = (size_t)e->w;
    if (!e->mask) return 1;
    return e->mask[d->flip ? cell - cell % w + (w - 1 - cell % w) : cell];
}

static void fill_micro(const struct lora_run *r, struct micro *m, const struct drawn *drawn)
{
    const struct example *first = drawn[0].example;
    int channels = r->cache.channels;
    size_t count = (size_t)first->h * (size_t)first->w * (size_t)channels;
    size_t context = (size_t)drawn[0].text->states.rows * (size_t)drawn[0].text->states.width;
    for (int i = 0; i < m->n; i++) {
        const struct drawn *d = &drawn[i];
        struct noise_cpu g = d->g;
        size_t at = (size_t)i * count;
        int t = objective_draw(&r->objective, &g, m->noise, first->h, first->w, channels);
        double weight =
            objective_noisy(&r->objective, m->noisy + at, m->target + at,
                            d->flip ? d->example->flipped : d->example->latent, m->noise, count, t);
        weight *= d->example->weight;
        for (size_t j = 0; j < count; j++)
            m->weight[at + j] = (float)weight * mask_at(d, j / (size_t)channels);
        m->time[i] = t;
        memcpy(m->context + (size_t)i * context, d->text->states.context, context * sizeof(float));
        if (r->model->unet.config.vector)
            fill_vector(r, d, m->vector + i * r->model->unet.config.vector);
    }
}

/* The text encoders under the tape: context [n,77,width] and what SDXL adds to the time embedding. */
static void encode_under_tape(struct lora_run *r, struct pass *p, const struct drawn *drawn, int n,
                              struct tensor *context, struct tensor *pooled)
{
    const struct text_side *side = &r->model->text;
    *context = *pooled = (struct tensor){0};
    for (int i = 0; i < side->encoders; i++) {
        struct clip_input input;
        int32_t *ids = alloc_zero((size_t)n * CHUNK_TOKENS, sizeof *ids);
        for (int k = 0; k < n; k++)
            memcpy(ids + k * CHUNK_TOKENS, drawn[k].text->ids[i], sizeof drawn[k].text->ids[i]);
        conditioning_input(&input, side, i);
        input.id = ids;
        input.n = n;
        struct clip_states states = clip_text_forward(p, side->encoder[i], &input);
        *context = i ? op_concat(p, *context, states.context) : states.context;
        if (states.pooled.rank) *pooled = states.pooled;
        free(ids); /* read at once */
    }
}

static struct tensor vector_of(struct lora_run *r, struct pass *p, const struct micro *m,
                               struct tensor pooled)
{
    int64_t width = r->model->unet.config.vector;
    if (!width) return (struct tensor){0};
    struct tensor vector = pass_input(p, m->vector, 2, TENSOR_DIM(m->n, width));
    if (!pooled.rank) return vector;
    int64_t own = tensor_last(pooled);
    return op_concat(p, pooled, op_slice(p, vector, own, width - own));
}

/* The prior's examples stand last in a group. What the model without branches predicts for them
 * becomes their target: a distance of zero at the start, free of the noise that a target drawn by
 * chance has. */
static int ask_unchanged(struct lora_run *r, struct micro *m, const struct drawn *drawn,
                         struct error *err)
{
    int first = 0;
    while (first < m->n && !drawn[first].prior) first++;
    int n = m->n - first;
    if (!n) return 0;
    const struct example *e = drawn[first].example;
    const struct conditioning *states = &drawn[first].text->states;
    const int64_t width = r->model->unet.config.vector;
    const size_t count = (size_t)e->h * (size_t)e->w * (size_t)r->cache.channels;
    struct unet_context context = {0};
    struct pass p;
    branches_strength(&r->branches, 0);
    pass_start(&p, r->model->memory, r->model->dtype, NULL);
    struct tensor text = pass_input(&p, m->context + (size_t)(first * states->rows * states->width),
                                    3, TENSOR_DIM(n, states->rows, states->width));
    struct tensor vector = {0};
    if (width) vector = pass_input(&p, m->vector + first * width, 2, TENSOR_DIM(n, width));
    int rc = unet_context_init(&context, &p, &r->model->unet, text, vector);
    if (!rc) {
        struct tensor x = pass_input(&p, m->noisy + (size_t)first * count, 4,
                                     TENSOR_DIM(n, e->h, e->w, r->cache.channels));
        struct tensor y = unet_forward(&p, &r->model->unet, x, m->time + first, &context, NULL);
        pass_output(&p, m->target + (size_t)first * count, y);
    }
    int finished = pass_finish(&p, err);
    unet_context_release(&context);
    branches_strength(&r->branches, 1);
    return rc ? rc : finished;
}

static int run_micro(struct lora_run *r, const struct micro *m, const struct drawn *drawn,
                     double share, double *loss, struct error *err)
{
    const struct example *e = drawn[0].example;
    const struct conditioning *states = &drawn[0].text->states;
    const int64_t shape[] = {m->n, e->h, e->w, r->cache.channels};
    struct unet_context context = {0};
    struct pass p;
    float value = 0;
    pass_start(&p, r->model->memory, r->model->dtype, r->tape);
    struct tensor text, pooled = {0};
    if (r->o->lora.text)
        encode_under_tape(r, &p, drawn, m->n, &text, &pooled);
    else
        text = pass_input(&p, m->context, 3, TENSOR_DIM(m->n, states->rows, states->width));
    struct tensor vector = vector_of(r, &p, m, pooled);
    int rc = unet_context_init(&context, &p, &r->model->unet, text, vector);
    if (!rc) {
        struct tensor x = pass_input(&p, m->noisy, 4, shape);
        struct tensor y = unet_forward(&p, &r->model->unet, x, m->time, &context, NULL);
        struct tensor error = op_mse(&p, y, pass_input(&p, m->target, 4, shape),
                                     objective_weights(&p, m->weight, 4, shape));
        tape_backward(&p, error, share);
        pass_output(&p, &value, error);
    }
    int finished = pass_finish(&p, err);
    if (p.peak_bytes > r->peak_bytes) r->peak_bytes = p.peak_bytes;
    tape_clear(r->tape);
    unet_context_release(&context);
    *loss = (double)value;
    return rc ? rc : finished;
}

static int micro_alloc(struct micro *m, const struct lora_run *r, const struct drawn *first, int n,
                       struct error *err)
{
    size_t count =
        (size_t)first->example->h * (size_t)first->example->w * (size_t)r->cache.channels;
    size_t context = (size_t)first->text->states.rows * (size_t)first->text->states.width;
    size_t vector = (size_t)r->model->unet.config.vector, images = (size_t)n;
    float *memory = alloc_try(images * (3 * count + context + vector) + count, sizeof *memory);
    *m = (struct micro){.n = n, .time = alloc_zero(images, sizeof(double))};
    if (!memory) {
        free(m->time);
        return error_set(err, ERR_NO_MEMORY, "no memory for a batch of %d", n);
    }
    m->noisy = memory;
    m->target = m->noisy + images * count;
    m->weight = m->target + images * count;
    m->context = m->weight + images * count;
    m->vector = m->context + images * context;
    m->noise = m->vector + images * vector;
    return 0;
}

static bool together(const struct drawn *a, const struct drawn *b)
{
    return a->example->h == b->example->h && a->example->w == b->example->w &&
           a->text->states.rows == b->text->states.rows;
}

/* One update's gradients: batch x accumulation pictures (and as many of the prior), those of one size in
 * one pass as far as the batch allows. */
static int step_gradients(struct lora_run *r, int64_t step, double *loss, struct error *err)
{
    int update = r->o->batch * r->o->accumulation, kinds = r->prior.count ? 2 : 1;
    int total = update * kinds;
    int most = r->cache.count > r->prior.count ? r->cache.count : r->prior.count;
    struct drawn *drawn = alloc_zero((size_t)total, sizeof *drawn);
    struct drawn *group = alloc_zero((size_t)total, sizeof *group);
    int *order = alloc_zero((size_t)most, sizeof *order);
    bool *used = alloc_zero((size_t)total, sizeof *used);
    int rc = 0;
    for (int i = 0; i < total; i++)
        draw_example(r, &drawn[i], i >= update, step, (step - 1) * update + i % update, order);
    *loss = 0;
    for (int i = 0; i < total && !rc; i++) {
        if (used[i]) continue;
        int n = 0;
        for (int j = i; j < total && n < r->o->batch * kinds; j++) {
            if (used[j] || !together(&drawn[i], &drawn[j])) continue;
            used[j] = true;
            group[n++] = drawn[j];
        }
        struct micro m;
        double one = 0, share = (double)n / total;
        rc = micro_alloc(&m, r, group, n, err);
        if (rc) break;
        fill_micro(r, &m, group);
        rc = ask_unchanged(r, &m, group, err);
        if (!rc) rc = run_micro(r, &m, group, share, &one, err);
        *loss += one * share;
        free(m.noisy);
        free(m.time);
    }
    free(used);
    free(order);
    free(group);
    free(drawn);
    return rc;
}

/* ---- state ---- */

/* What must be the same for a state to be gone on from. */
static char *fingerprint(const struct lora_run *r)
{
    const struct lora_train_options *o = r->o;
    uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a over the cached latents and captions */
    for (int i = 0; i < r->cache.count; i++) {
        const struct example *e = &r->cache.example[i];
        const uint8_t *bytes = (const uint8_t *)e->latent;
        size_t count = (size_t)e->h * (size_t)e->w * (size_t)r->cache.channels * sizeof(float);
        for (size_t j = 0; j < count; j++) hash = (hash ^ bytes[j]) * 0x100000001b3u;
        for (const char *p = r->cache.text[e->text].caption; *p; p++)
            hash = (hash ^ (uint8_t)*p) * 0x100000001b3u;
        bytes = (const uint8_t *)e->mask;
        count = bytes ? (size_t)e->h * (size_t)e->w * sizeof(float) : 0;
        for (size_t j = 0; j < count; j++) hash = (hash ^ bytes[j]) * 0x100000001b3u;
    }
    return alloc_printf(
        "v2 %016llx %s steps %lld rank %d alpha %g cover %d text %d rate %d %g %g %lld %lld "
        "decay %g clip %g batch %d x %d drop %g snr %g offset %g pyramid %d %g t %d-%d "
        "prior %d %g seed %llu",
        (unsigned long long)hash, optimizer_name(o->optimizer), (long long)o->steps, o->lora.rank,
        o->lora.alpha, (int)o->lora.cover, o->lora.text, (int)o->rate.shape, o->rate.peak,
        o->rate.low, (long long)o->rate.warmup, (long long)o->rate.period, o->weight_decay, o->clip,
        o->batch, o->accumulation, o->caption_dropout, o->min_snr, o->noise_offset, o->pyramid,
        o->pyramid_discount, o->t_min, o->t_max, r->prior.count, o->prior_weight,
        (unsigned long long)o->seed);
}

static int load_state(struct lora_run *r, const char *path, const char *mark, struct error *err)
{
    struct safetensors file;
    if (r->o->fresh || safetensors_open(&file, path, NULL)) return 0;
    const char *found = safetensors_meta_find(&file, "training");
    bool same = found && !strcmp(found, mark);
    safetensors_close(&file);
    if (!same) {
        lora_run_note(r, "%s belongs to a training with other settings or pictures; starting anew",
                      path);
        return 0;
    }
    int rc = params_load(&r->params, path, &r->done, err);
    if (!rc) lora_run_note(r, "going on after step %lld", (long long)r->done);
    return rc;
}

static int checkpoint(struct lora_run *r, const char *state, const char *mark, int64_t step,
                      struct error *err)
{
    const struct safetensors_meta meta = {"training", mark};
    int rc = branches_check(&r->branches, err);
    if (!rc && step < r->o->steps) {
        char *path = lora_run_path(r, "-%06lld.safetensors", (long long)step);
        rc = lora_run_save(r, path, step, err);
        free(path);
    }
    /* last: a state is there only when all that it stands for is */
    if (!rc) rc = params_save(&r->params, state, step, &meta, 1, err);
    if (!rc) r->saved = step;
    return rc ? error_wrap(err, rc, "the checkpoint of step %lld was not written", (long long)step)
              : 0;
}

/* What a run that stopped leaves behind. */
static int tell_what_stays(const struct lora_run *r, int rc, struct error *err)
{
    if (!rc || rc == ERR_CANCELED || rc == ERR_NO_MEMORY || !err) return rc;
    size_t length = strlen(err->text);
    if (r->saved)
        snprintf(err->text + length, sizeof err->text - length,
                 "; the checkpoint of step %lld stays", (long long)r->saved);
    else
        snprintf(err->text + length, sizeof err->text - length, "; no checkpoint was written yet");
    return rc;
}

/* Latents and text states are cached: only the UNet works from here on. */
static void rest(struct lora_run *r)
{
    if (!r->o->lora.text) model_rest(r->model);
}

/* ---- the run ---- */

static int train_steps(struct lora_run *r, struct error *err)
{
    const struct lora_train_options *o = r->o;
    struct rate rate = o->rate;
    rate.total = o->steps;
    struct adamw adamw = {
        .beta1 = .9, .beta2 = .999, .eps = 1e-8, .weight_decay = o->weight_decay, .clip = o->clip};
    char *mark = fingerprint(r), *state = lora_run_path(r, ".state");
    int rc = load_state(r, state, mark, err);
    int64_t from = r->saved = r->done;
    r->started = now_seconds();
    r->done = 0;
    if (!rc) rc = lora_run_tell(r, "train", from, o->steps, err);
    for (int64_t step = from + 1; step <= o->steps && !rc; step++) {
        double loss;
        rc = params_zero_grad(&r->params, err);
        if (!rc) rc = step_gradients(r, step, &loss, err);
        adamw.lr = rate_at(&rate, step);
        if (!rc && !isfinite(loss))
            rc = error_set(err, ERR_INVALID,
                           "the loss of step %lld is not a number (learning rate "
                           "%g): try a lower one",
                           (long long)step, adamw.lr);
        if (!rc) rc = params_update(&r->params, &adamw, step, 1, NULL, err);
        if (rc) break;
        r->losses[step - 1] = (float)loss;
        r->average_sum = .98 * r->average_sum + .02 * loss;
        r->average_share = .98 * r->average_share + .02;
        r->average = r->average_sum / r->average_share; /* not held by the first loss */
        r->done++;
        rc = lora_run_tell(r, "train", step, o->steps, err);
        bool last = step == o->steps;
        if (!rc && (last || (o->save_every && step % o->save_every == 0)))
            rc = checkpoint(r, state, mark, step, err);
        if (!rc && !last && o->preview_every && step % o->preview_every == 0 && o->prompt_count) {
            rc = lora_run_preview(r, step, err);
            rest(r);
        }
    }
    free(mark);
    free(state);
    return tell_what_stays(r, rc, err);
}

/* Draws the prior's pictures with the model as it is before training. */
static int make_prior(struct lora_run *r, struct error *err)
{
    struct cache_options options = {
        .resolution = r->resolution, .weight = r->o->prior_weight, .outside = 1};
    int rc = r->o->prior_count ? cache_init(&r->prior, r->model, err) : 0;
    for (int i = 0; i < r->o->prior_count && !rc; i++) {
        struct pixels picture;
        rc = lora_run_tell(r, "prior", i, r->o->prior_count, err);
        if (!rc) rc = lora_run_draw(r, &picture, r->o->prior[i], r->o->seed + (uint64_t)i, 0, err);
        if (rc) break;
        rc = cache_add_picture(&r->prior, &picture, r->o->prior[i], &options, err);
        pixels_release(&picture);
    }
    return rc;
}

static int check(const struct lora_train_options *o, const struct model *model, struct error *err)
{
    const char *wrong = NULL;
    if (o->steps < 1 || o->steps > 1000000)
        wrong = "steps must be in 1..1000000";
    else if (o->batch < 1 || o->batch > 64)
        wrong = "the batch must be in 1..64";
    else if (o->accumulation < 1 || o->accumulation > 1024)
        wrong = "accumulation must be in 1..1024";
    else if (!(o->rate.peak > 0 && o->rate.peak < 1))
        wrong = "the learning rate must be in 0..1";
    else if (!(o->caption_dropout >= 0 && o->caption_dropout <= 1))
        wrong = "dropout must be in 0..1";
    else if (o->cuts < 1 || o->cuts > 64)
        wrong = "the random cuts must be 1..64";
    else if (!(o->zoom >= 1 && o->zoom <= 4))
        wrong = "the zoom of random cuts must be in 1..4";
    else if (!(o->mask <= 1))
        wrong = "the loss outside regions must weigh 0..1";
    else if (o->pyramid < 0 || o->pyramid > 16)
        wrong = "the levels of pyramid noise must be 0..16";
    else if (!(o->pyramid_discount > 0 && o->pyramid_discount <= 1))
        wrong = "the discount of pyramid noise must be above 0 and at most 1";
    else if (o->t_min < 0 || o->t_max >= NOISE_LEVELS || o->t_min > o->t_max)
        wrong = "timesteps must be a range in 0..999";
    else if (o->resolution && (o->resolution < 64 || o->resolution > 2048 || o->resolution % 64))
        wrong = "the resolution must be a multiple of 64 in 64..2048";
    if (wrong) return error_set(err, ERR_INVALID, "%s", wrong);
    if (model->eight_bits)
        return error_set(err, ERR_UNSUPPORTED,
                         "precision int8 is for drawing; training needs fp32, bf16 or fp16");
    if (model->info.inpainting || model->info.family == FAMILY_SDXL_REFINER)
        return error_set(err, ERR_UNSUPPORTED,
                         "%s is an inpainting or refiner model; a LoRA is "
                         "trained on a base model",
                         model->info.path);
    return 0;
}

int lora_train_resolution(const struct model *m)
{
    int own = m->info.family == FAMILY_SDXL ? 1024 : m->info.family == FAMILY_SD2_768 ? 768 : 512;
    /* small models of the same make are told by their width: 320 channels make 512 pixels */
    return m->unet.config.channels[0] >= 320 ? own : 128;
}

static int prepare(struct lora_run *r, struct error *err)
{
    const struct lora_train_options *o = r->o;
    r->resolution = o->resolution ? o->resolution : lora_train_resolution(r->model);
    objective_init(&r->objective, r->model->info.v_prediction ? PREDICTION_V : PREDICTION_EPSILON);
    r->objective.min_snr = o->min_snr;
    r->objective.noise_offset = o->noise_offset;
    r->objective.pyramid = o->pyramid;
    r->objective.pyramid_discount = o->pyramid_discount;
    r->objective.t_min = o->t_min;
    r->objective.t_max = o->t_max;
    params_init(&r->params, r->model->device, false);
    r->params.optimizer = o->optimizer;
    r->tape = tape_new();
    tape_recompute(r->tape, o->lean);
    r->losses = alloc_zero((size_t)o->steps, sizeof *r->losses);
    for (int64_t i = 0; i < o->steps; i++) r->losses[i] = NAN;
    struct cache_options options = {.resolution = r->resolution,
                                    .buckets = o->buckets,
                                    .flip = o->flip,
                                    .weight = 1,
                                    .cuts = o->cuts,
                                    .zoom = o->zoom,
                                    .outside = o->mask < 0 ? 1 : o->mask,
                                    .seed = o->seed};
    int rc = lora_run_tell(r, "encode", 0, r->data->count, err);
    if (!rc) rc = cache_init(&r->cache, r->model, err);
    if (!rc) rc = cache_add(&r->cache, r->data, &options, err);
    for (int i = 0; i < r->cache.text_count && o->lora.text; i++)
        if (r->cache.text[i].cut)
            lora_run_note(
                r,
                "a caption is longer than 75 tokens; the text encoder learns its first 75: %.60s",
                r->cache.text[i].caption);
    bool masked = false;
    for (int i = 0; i < r->cache.count; i++) masked = masked || r->cache.example[i].mask;
    if (!rc && o->mask >= 0 && o->mask < 1 && !masked)
        lora_run_note(r, "no picture has a marked box or polygon: the loss counts everywhere");
    if (!rc) lora_run_digests(r);
    if (!rc) rc = make_prior(r, err);
    rest(r);
    struct lora_options lora = o->lora;
    lora.seed = o->seed;
    return rc ? rc : branches_attach(&r->branches, &r->params, r->model, &lora, NULL, err);
}

int lora_train(struct model *model, const struct dataset *data,
               const struct lora_train_options *options, const struct lora_train_hooks *hooks,
               struct lora_train_result *result, struct error *err)
{
    *result = (struct lora_train_result){0};
    int rc = check(options, model, err);
    if (rc) return rc;
    double before = now_seconds();
    struct lora_run r = {
        .model = model, .data = data, .o = options, .hooks = hooks, .average = NAN};
    rc = prepare(&r, err);
    if (!rc) rc = train_steps(&r, err);
    if (!rc) rc = lora_run_save(&r, options->out, options->steps, err);
    if (!rc) rc = lora_run_curve(&r, &result->curve, err);
    if (!rc && options->prompt_count) rc = lora_run_sheet(&r, &result->sheet, err);
    if (!rc && options->card) rc = lora_run_card(&r, result->sheet, now_seconds() - before, err);
    if (!rc) {
        char *state = lora_run_path(&r, ".state");
        unlink(state);
        free(state);
    }
    result->steps = options->steps;
    result->images = options->steps * options->batch * options->accumulation;
    result->seconds = now_seconds() - before;
    result->final_loss = r.average;
    result->peak_bytes = r.peak_bytes;
    branches_release(&r.branches, model->device);
    params_release(&r.params);
    tape_free(r.tape);
    cache_release(&r.cache);
    cache_release(&r.prior);
    free(r.losses);
    free(r.digest);
    if (rc) lora_train_result_release(result);
    if (rc == ERR_NO_MEMORY)
        return error_wrap(err, rc,
                          "training needs more memory than there is; lower the resolution "
                          "or batch, or train lean");
    return rc;
}

void lora_train_result_release(struct lora_train_result *result)
{
    free(result->sheet);
    free(result->curve);
    result->sheet = result->curve = NULL;
}
