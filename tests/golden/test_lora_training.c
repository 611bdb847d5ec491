/* LoRA training on the tiny UNets T1 (SD1) and T2 (SDXL) against torch and PEFT in double precision: four
 * steps with every number printed (T7), every adapter's gradient, and the losses of twenty steps; the same with
 * text encoders, and SD2's target.
 * data/ is written by make_lora_training.py and make_text_training.py. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "diffusion/text/clip_text.h"
#include "diffusion/train/branches.h"
#include "diffusion/train/objective.h"
#include "tensor/tape.h"
#include "tests/support/golden_weights.h"

#define C 4
#define H 16
#define W 24
#define COUNT (C * H * W)
#define TOKENS 77
#define POOLED 48
#define SIZE_EMBEDDING 16
#define SD1_MATRICES 564 /* down and up of every linear and convolution layer */
#define SDXL_MATRICES 748
#define VECTOR (POOLED + 6 * SIZE_EMBEDDING)

static const struct unet_config t1 = {.levels = 4,
                                      .blocks = {2, 2, 2, 2},
                                      .in_channels = 4,
                                      .out_channels = 4,
                                      .channels = {32, 64, 128, 128},
                                      .depth_down = {{1, 1}, {1, 1}, {1, 1}},
                                      .depth_up = {{1, 1, 1}, {1, 1, 1}, {1, 1, 1}},
                                      .depth_mid = 1,
                                      .mid_second = true,
                                      .mid_present = true,
                                      .heads = {4, 4, 4, 4},
                                      .context = 48,
                                      .time = 128,
                                      .groups = 32,
                                      .conv_proj = true};

static const struct unet_config t2 = {.levels = 3,
                                      .blocks = {2, 2, 2},
                                      .in_channels = 4,
                                      .out_channels = 4,
                                      .channels = {32, 64, 128},
                                      .depth_down = {{0}, {2, 2}, {3, 3}},
                                      .depth_up = {{0}, {2, 2, 2}, {3, 3, 3}},
                                      .depth_mid = 3,
                                      .mid_second = true,
                                      .mid_present = true,
                                      .heads = {2, 4, 8},
                                      .context = 80,
                                      .time = 128,
                                      .vector = VECTOR,
                                      .groups = 32};

struct rig {
    struct device *device;
    struct pass_memory memory;
    struct tape *tape;
    struct model model; /* its UNet, and in some tests its text encoders */
    struct clip_text clip[2];
    const char *golden_prefix;
    struct params params;
    struct branches set;
    struct objective objective;
    float *z, *context, vector[VECTOR];
    void **owned;
    size_t owned_count;
};

static int give_golden(struct weight_visitor *v, struct weight *w, const struct weight_site *site,
                       struct error *err)
{
    struct rig *r = v->context;
    char key[2 * WEIGHT_NAME_BYTES];
    if (r->golden_prefix)
        snprintf(key, sizeof key, "%s%s", r->golden_prefix, site->name[DIALECT_HF]);
    else
        snprintf(key, sizeof key, "model.diffusion_model.%s", site->name[DIALECT_LDM]);
    w->k.rank = site->rank;
    memcpy(w->k.dim, site->dim, sizeof w->k.dim);
    w->k.dtype = DTYPE_F32;
    float *data = alloc_zero((size_t)weight_count(w), sizeof *data);
    golden_weight(data, key, site->rank, site->dim);
    w->k.data = data;
    r->owned = alloc_grow(r->owned, r->owned_count + 1, sizeof *r->owned);
    r->owned[r->owned_count++] = data;
    return 0;
}

static void golden_down(float *down, int64_t count, int64_t fan_in, const char *kohya)
{
    char key[512];
    snprintf(key, sizeof key, "%s.lora_down.weight", kohya);
    golden_normal(down, golden_crc32(key), (size_t)count);
    for (int64_t i = 0; i < count; i++) down[i] /= sqrtf((float)fan_in);
}

/* [C,H,W] as torch draws it to [H,W,C] */
static void channels_last(float *to, const float *from)
{
    for (int c = 0; c < C; c++)
        for (int i = 0; i < H * W; i++) to[i * C + c] = from[c * H * W + i];
}

static void draw_last(float *to, uint64_t seed, float factor)
{
    float planes[COUNT];
    golden_normal(planes, seed, COUNT);
    for (int i = 0; i < COUNT; i++) planes[i] *= factor;
    channels_last(to, planes);
}

static void fill_vector(float *vector)
{
    static const double sizes[6] = {128, 192, 8, 16, 128, 192};
    golden_normal(vector, 2, POOLED);
    unet_sinusoid(vector + POOLED, sizes, 6, SIZE_EMBEDDING);
}

static void give_encoders(struct rig *r, const struct clip_text_config *configs, int count)
{
    static const char *const prefixes[] = {"text0.", "text1."};
    struct error err;
    for (int i = 0; i < count; i++) {
        struct weight_visitor v = {.visit = give_golden, .context = r, .err = &err};
        assert_int_equal(clip_text_init(&r->clip[i], &configs[i], &err), 0);
        r->golden_prefix = prefixes[i];
        clip_text_visit(&v, &r->clip[i]);
        r->model.text.encoder[i] = &r->clip[i];
    }
    r->model.text.encoders = count;
}

static void rig_open_full(struct rig *r, const char *device, const struct unet_config *config,
                          const struct lora_options *options, enum optimizer optimizer,
                          const struct clip_text_config *encoders, int encoder_count)
{
    struct error err;
    memset(r, 0, sizeof *r);
    assert_int_equal(device_open(&r->device, device, &err), 0);
    pass_memory_init(&r->memory, r->device, 0);
    r->tape = tape_new();
    assert_int_equal(unet_init(&r->model.unet, config, &err), 0);
    struct weight_visitor v = {.visit = give_golden, .context = r, .err = &err};
    unet_visit(&v, &r->model.unet);
    give_encoders(r, encoders, encoder_count);
    r->model.info.family = config->vector ? FAMILY_SDXL : FAMILY_SD1;
    params_init(&r->params, r->device, false);
    r->params.optimizer = optimizer;
    int rc = branches_attach(&r->set, &r->params, &r->model, options, golden_down, &err);
    if (rc) fail_msg("%s", err.text);
    objective_init(&r->objective, PREDICTION_EPSILON);
    r->z = alloc_zero(COUNT, sizeof *r->z);
    draw_last(r->z, 10, .8f);
    size_t context = TOKENS * (size_t)config->context;
    r->context = alloc_zero(context, sizeof *r->context);
    golden_normal(r->context, 1, context);
    fill_vector(r->vector);
}

static void rig_open_with(struct rig *r, const char *device, const struct unet_config *config,
                          enum lora_cover cover, int rank, enum optimizer optimizer)
{
    struct lora_options options = {.cover = cover, .rank = rank, .alpha = rank};
    rig_open_full(r, device, config, &options, optimizer, NULL, 0);
}

static void rig_open(struct rig *r, const char *device, const struct unet_config *config,
                     enum lora_cover cover, int rank)
{
    rig_open_with(r, device, config, cover, rank, OPTIMIZER_ADAMW);
}

static void rig_close(struct rig *r)
{
    tape_free(r->tape);
    branches_release(&r->set, r->device);
    params_release(&r->params);
    pass_memory_release(&r->memory);
    unet_release(&r->model.unet, r->device);
    for (int i = 0; i < r->model.text.encoders; i++) clip_text_release(&r->clip[i], r->device);
    device_close(r->device);
    for (size_t i = 0; i < r->owned_count; i++) free(r->owned[i]);
    free(r->owned);
    free(r->context);
    free(r->z);
}

/* As lora_train.c runs them: the words of make_text_training.py through every encoder. */
static void encode_words(struct rig *r, struct pass *p, struct tensor *context,
                         struct tensor *pooled)
{
    static const int32_t words[] = {998, 3, 141, 59, 26, 5, 999};
    int count = r->model.text.encoders;
    for (int i = 0; i < count; i++) {
        int32_t id[TOKENS];
        for (int k = 0; k < TOKENS; k++) id[k] = k < (int)COUNT_OF(words) ? words[k] : i ? 0 : 999;
        struct clip_input in = {.id = id,
                                .n = 1,
                                .skip = count > 1 ? 2 : 1,
                                .final_norm = count == 1,
                                .end_id = i ? 999 : -1};
        struct clip_states states = clip_text_forward(p, &r->clip[i], &in);
        *context = i ? op_concat(p, *context, states.context) : states.context;
        if (states.pooled.rank) *pooled = states.pooled;
    }
}

static double step(struct rig *r, int t, uint64_t noise_seed, bool backward)
{
    float noise[COUNT], noisy[COUNT], target[COUNT], loss = 0;
    const int64_t shape[] = {1, H, W, C};
    const struct tensor none = {0};
    struct error err;
    draw_last(noise, noise_seed, 1);
    objective_noisy(&r->objective, noisy, target, r->z, noise, COUNT, t);
    assert_int_equal(params_zero_grad(&r->params, &err), 0);
    struct pass p;
    struct unet_context context;
    double time = t;
    pass_start(&p, &r->memory, DTYPE_F32, backward ? r->tape : NULL);
    const struct unet_config *c = &r->model.unet.config;
    struct tensor text = pass_input(&p, r->context, 3, TENSOR_DIM(1, TOKENS, c->context));
    struct tensor vector = c->vector ? pass_input(&p, r->vector, 2, TENSOR_DIM(1, VECTOR)) : none;
    if (r->model.text.encoders) {
        struct tensor pooled = {0};
        encode_words(r, &p, &text, &pooled);
        if (pooled.rank)
            vector = op_concat(&p, pooled, op_slice(&p, vector, POOLED, VECTOR - POOLED));
    }
    assert_int_equal(unet_context_init(&context, &p, &r->model.unet, text, vector), 0);
    struct tensor x = pass_input(&p, noisy, 4, shape);
    struct tensor y = unet_forward(&p, &r->model.unet, x, &time, &context, NULL);
    struct tensor error = op_mse(&p, y, pass_input(&p, target, 4, shape), none);
    if (backward) tape_backward(&p, error, 1);
    pass_output(&p, &loss, error);
    if (pass_finish(&p, &err)) fail_msg("%s", err.text);
    tape_clear(r->tape);
    unet_context_release(&context);
    return (double)loss;
}

static const struct branch_target *target_named(const struct rig *r, const char *kohya)
{
    for (int i = 0; i < r->set.count; i++)
        if (!strcmp(r->set.item[i].kohya, kohya)) return &r->set.item[i];
    fail_msg("no target %s", kohya);
    return NULL;
}

static void check_near(const char *what, double value, double golden, double relative)
{
    if (!(fabs(value - golden) <= relative * fabs(golden)))
        fail_msg("%s is %.9g, not %.9g", what, value, golden);
}

static void check_first_gradients(const struct rig *r)
{
    static const struct {
        const char *name;
        double first[4];
    } golden[] = {
        {"lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q",
         {.001488731, .001777833, 6.297e-06, -.000591993}},
        {"lora_unet_up_blocks_3_attentions_2_proj_out",
         {-.00876204, .003807678, .001018177, .00807005}},
    };
    for (size_t i = 0; i < COUNT_OF(golden); i++) {
        const float *grad = r->params.item[target_named(r, golden[i].name)->up].grad;
        for (int j = 0; j < 4; j++) /* 1e-4 of the larger ones, and the printed digits */
            if (!(fabs((double)grad[j] - golden[i].first[j]) <= 1e-4 * .001 + 1e-8))
                fail_msg("gradient %d of %s is %.9g, not %.9g", j, golden[i].name, (double)grad[j],
                         golden[i].first[j]);
    }
    for (int i = 0; i < r->set.count; i++) {
        const struct param *down = &r->params.item[r->set.item[i].down];
        for (int64_t j = 0; j < down->count; j++) assert_true(down->grad[j] == 0);
    }
}

static void four_steps(const char *device, bool recompute)
{
    static const struct {
        int t;
        double loss, norm, up;
    } golden[] = {
        {700, 1.40011999, .29591229, -.00999993},
        {200, 1.26301538, .26534114, -.01664125},
        {450, 1.25669841, .26501458, -.01866680},
        {900, 1.23450140, .26954334, -.02180920},
    };
    struct rig r;
    struct error err;
    rig_open(&r, device, &t1, LORA_BLOCKS, 4);
    assert_int_equal(r.set.count, 192);
    tape_recompute(r.tape, recompute);
    struct adamw adamw = {.lr = .01, .beta1 = .9, .beta2 = .999, .eps = 1e-8, .weight_decay = .01};
    const struct branch_target *watched =
        target_named(&r, "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q");
    for (int k = 0; k < 4; k++) {
        double norm, loss = step(&r, golden[k].t, 20 + (uint64_t)k, true);
        check_near("loss", loss, golden[k].loss, 2e-5);
        if (k == 0) check_first_gradients(&r);
        assert_int_equal(params_update(&r.params, &adamw, k + 1, 1, &norm, &err), 0);
        check_near("gradient norm", norm, golden[k].norm, 1e-4);
        check_near("up[0,0]", (double)r.params.item[watched->up].data[0], golden[k].up, 1e-3);
    }
    check_near("loss afterwards", step(&r, 300, 30, false), 1.21409599, 2e-5);
    rig_close(&r);
}

static void four_steps_follow_torch(void **state)
{
    four_steps("cpu", false);
}

static void recomputing_blocks_changes_nothing(void **state)
{
    four_steps("cpu", true);
}

/* ---- against the files of data/ ---- */

static FILE *open_data(const char *name, const char *family)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/%s_%s.txt", GOLDEN_DATA, name, family);
    FILE *file = fopen(path, "r");
    if (!file) fail_msg("%s is missing", path);
    return file;
}

static struct param *param_named(struct rig *r, const char *name)
{
    for (int i = 0; i < r->params.count; i++)
        if (!strcmp(r->params.item[i].name, name)) return &r->params.item[i];
    fail_msg("no parameter %s", name);
    return NULL;
}

/* up = .1 R(name), so that the gradients of down are not zero */
static void fill_up(struct rig *r)
{
    for (int i = 0; i < r->set.count; i++) {
        struct param *up = &r->params.item[r->set.item[i].up];
        golden_normal(up->data, golden_crc32(up->name), (size_t)up->count);
        for (int64_t j = 0; j < up->count; j++) up->data[j] *= .1f;
        up->w->k.version++;
    }
}

/* The gradient's norm, and its product with a random vector: a relative error of e in the gradient
 * moves the latter by about e times the norm. Where a group of a norm is one channel wide, the time
 * embedding before it has no effect and its adapters' true gradient is 0 (1e-17 in the files): theirs
 * must be below a millionth of what a matrix has in the mean. */
static void check_gradients(struct rig *r, const char *data, const char *family, int expected)
{
    fill_up(r);
    step(r, 500, 20, true);
    FILE *file = open_data(data, family);
    char name[512];
    double norm, product, all, worst = 0;
    struct error err;
    assert_int_equal(params_grad_norm(&r->params, &all, &err), 0);
    double mean = all / sqrt(r->params.count);
    int seen = 0;
    for (; fscanf(file, "%511s %lf %lf", name, &norm, &product) == 3; seen++) {
        const struct param *p = param_named(r, name);
        float *random = alloc_zero((size_t)p->count, sizeof *random);
        golden_normal(random, 7, (size_t)p->count);
        double square = 0, sum = 0;
        for (int64_t i = 0; i < p->count; i++) {
            square += (double)p->grad[i] * p->grad[i];
            sum += (double)p->grad[i] * random[i];
        }
        free(random);
        double error = fmax(fabs(sqrt(square) - norm), fabs(sum - product));
        error /= norm > 1e-12 ? norm : .01 * mean;
        if (error > worst) worst = error;
        if (!(error <= 1e-4)) fail_msg("gradient of %s is off by %.2g", name, error);
    }
    fclose(file);
    assert_int_equal(seen, expected);
    print_message("%s, %s: %d, worst relative error %.1e\n", family, data, seen, worst);
}

static void gradients_follow(const struct unet_config *config, const char *family, int expected)
{
    struct rig r;
    rig_open(&r, "cpu", config, LORA_ALL, 2);
    assert_int_equal(r.params.count, expected);
    check_gradients(&r, "lora_gradients", family, expected);
    rig_close(&r);
}

static void sd1_gradients_follow_torch(void **state)
{
    gradients_follow(&t1, "sd1", SD1_MATRICES);
}

static void sdxl_gradients_follow_torch(void **state)
{
    gradients_follow(&t2, "sdxl", SDXL_MATRICES);
}

static void check_losses(struct rig *r, const char *data, const char *family)
{
    struct error err;
    struct adamw adamw = {.lr = 2e-3, .beta1 = .9, .beta2 = .999, .eps = 1e-8, .weight_decay = .01};
    FILE *file = open_data(data, family);
    double golden, worst = 0;
    int k = 0;
    for (; fscanf(file, "%lf", &golden) == 1; k++) {
        double loss = step(r, (k * 379 + 211) % 1000, 40 + (uint64_t)k, true);
        double error = fabs(loss - golden) / golden;
        if (error > worst) worst = error;
        if (!(error <= 1e-3)) fail_msg("%s, step %d: loss %.6f, not %.6f", family, k, loss, golden);
        assert_int_equal(params_update(&r->params, &adamw, k + 1, 1, NULL, &err), 0);
    }
    fclose(file);
    assert_int_equal(k, 20);
    print_message("%s, %s: 20, worst relative error %.1e\n", family, data, worst);
}

static void losses_follow(const struct unet_config *config, const char *family)
{
    struct rig r;
    rig_open(&r, "cpu", config, LORA_ALL, 2);
    check_losses(&r, "lora_losses", family);
    rig_close(&r);
}

/* SD2's target, v = sqrt(a) n - sqrt(1 - a) z */
static void v_losses_follow_torch(void **state)
{
    struct rig r;
    rig_open(&r, "cpu", &t1, LORA_ALL, 2);
    objective_init(&r.objective, PREDICTION_V);
    check_losses(&r, "lora_losses", "sd2v");
    rig_close(&r);
}

/* ---- with branches on the text encoders ---- */

static const struct clip_text_config text_sd1[] = {{.layers = 3,
                                                    .width = 48,
                                                    .heads = 4,
                                                    .mlp = 192,
                                                    .vocab = 1000,
                                                    .positions = TOKENS,
                                                    .act = ACT_QUICK_GELU}};
static const struct clip_text_config text_sdxl[] = {{.layers = 3,
                                                     .width = 32,
                                                     .heads = 4,
                                                     .mlp = 128,
                                                     .vocab = 1000,
                                                     .positions = TOKENS,
                                                     .act = ACT_QUICK_GELU},
                                                    {.layers = 3,
                                                     .width = 48,
                                                     .heads = 4,
                                                     .mlp = 192,
                                                     .vocab = 1000,
                                                     .positions = TOKENS,
                                                     .projection = POOLED,
                                                     .act = ACT_GELU}};

static void text_follows(const struct unet_config *config, const struct clip_text_config *encoders,
                         int count, const char *family)
{
    struct lora_options options = {.cover = LORA_ALL, .rank = 2, .alpha = 2, .text = true};
    struct rig r;
    rig_open_full(&r, "cpu", config, &options, OPTIMIZER_ADAMW, encoders, count);
    check_gradients(&r, "text_gradients", family, count * 3 * 6 * 2);
    rig_close(&r);
    rig_open_full(&r, "cpu", config, &options, OPTIMIZER_ADAMW, encoders, count);
    check_losses(&r, "text_losses", family);
    rig_close(&r);
}

static void sd1_text_follows_torch(void **state)
{
    text_follows(&t1, text_sd1, 1, "sd1");
}

static void sdxl_text_follows_torch(void **state)
{
    text_follows(&t2, text_sdxl, 2, "sdxl");
}

static void sd1_losses_follow_torch(void **state)
{
    losses_follow(&t1, "sd1");
}

static void sdxl_losses_follow_torch(void **state)
{
    losses_follow(&t2, "sdxl");
}

/* Twenty steps of a real training: the losses with 8-bit moments beside those with whole ones. */
static void eight_bits_learn_as_well(void **state)
{
    struct rig whole, small;
    struct error err;
    double worst = 0, first = 0, last = 0, fall = 0;
    rig_open_with(&whole, "cpu", &t1, LORA_BLOCKS, 64, OPTIMIZER_ADAMW);
    rig_open_with(&small, "cpu", &t1, LORA_BLOCKS, 64, OPTIMIZER_ADAMW8);
    struct adamw adamw = {.lr = 2e-3, .beta1 = .9, .beta2 = .999, .eps = 1e-8, .weight_decay = .01};
    for (int k = 0; k < 20; k++) {
        int t = 500; /* one question again and again, so that the loss falls */
        double a = step(&whole, t, 40, true), b = step(&small, t, 40, true);
        assert_int_equal(params_update(&whole.params, &adamw, k + 1, 1, NULL, &err), 0);
        assert_int_equal(params_update(&small.params, &adamw, k + 1, 1, NULL, &err), 0);
        worst = fmax(worst, fabs(a - b) / a);
        if (k == 0) first = a;
        last = a;
        fall = b;
    }
    double ratio =
        (double)params_moment_bytes(&small.params) / (double)params_moment_bytes(&whole.params);
    print_message(
        "loss %.4f -> %.4f, with 8 bits %.4f; worst relative difference %.1e; moments %.1f %%\n",
        first, last, fall, worst, 100 * ratio);
    assert_true(last < .8 * first);
    assert_true(worst < .02);
    assert_true(ratio < .35); /* the small matrices keep theirs */
    rig_close(&whole);
    rig_close(&small);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(four_steps_follow_torch),
        cmocka_unit_test(recomputing_blocks_changes_nothing),
        cmocka_unit_test(sd1_gradients_follow_torch),
        cmocka_unit_test(sdxl_gradients_follow_torch),
        cmocka_unit_test(sd1_losses_follow_torch),
        cmocka_unit_test(sdxl_losses_follow_torch),
        cmocka_unit_test(v_losses_follow_torch),
        cmocka_unit_test(sd1_text_follows_torch),
        cmocka_unit_test(sdxl_text_follows_torch),
        cmocka_unit_test(eight_bits_learn_as_well),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
