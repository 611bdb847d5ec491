/* diffusion/unet, diffusion/vae on small networks made by the weight
 * rule of tests/support/golden_weights.h: goldens of the CompVis and diffusers code in double. */
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
#include "diffusion/unet/unet.h"
#include "diffusion/vae/vae.h"
#include "kernels/cpu/cpu_device.h"
#include "tests/support/golden_weights.h"

/* A float32 engine may differ by so much of the norm. */
#define RELATIVE 1e-4
/* the printed digits of the goldens */
#define DIGITS 2e-6

struct fixture {
    struct device *device;
    struct pass_memory memory;
    const char *prefix;
    size_t tensors, parameters;
    void **owned;
    size_t owned_count;
};

static int give_golden(struct weight_visitor *v, struct weight *w, const struct weight_site *site,
                       struct error *err)
{
    struct fixture *f = v->context;
    char key[WEIGHT_NAME_BYTES * 2];
    snprintf(key, sizeof key, "%s%s", f->prefix, site->name[DIALECT_LDM]);
    w->k.rank = site->rank;
    memcpy(w->k.dim, site->dim, sizeof w->k.dim);
    w->k.dtype = DTYPE_F32;
    float *data = alloc_zero((size_t)weight_count(w), sizeof *data);
    golden_weight(data, key, site->rank, site->dim);
    w->k.data = data;
    f->owned = alloc_grow(f->owned, f->owned_count + 1, sizeof *f->owned);
    f->owned[f->owned_count++] = data;
    f->tensors++;
    f->parameters += (size_t)weight_count(w);
    return 0;
}

static struct fixture open_fixture(const char *prefix)
{
    struct fixture f = {.prefix = prefix};
    struct error err;
    assert_int_equal(device_open(&f.device, "cpu", &err), 0);
    pass_memory_init(&f.memory, f.device, 0);
    return f;
}

static void close_fixture(struct fixture *f)
{
    pass_memory_release(&f->memory);
    device_close(f->device);
    for (size_t i = 0; i < f->owned_count; i++) free(f->owned[i]);
    free(f->owned);
}

struct golden {
    const char *what;
    int count;
    double first[8], sum, norm;
};

static void check(const float *y, size_t n, struct golden g)
{
    double sum = 0, squares = 0;
    for (size_t i = 0; i < n; i++) {
        sum += (double)y[i];
        squares += (double)y[i] * (double)y[i];
    }
    double norm = sqrt(squares), rms = g.norm / sqrt((double)n);
    for (int i = 0; i < g.count; i++)
        if (!(fabs((double)y[i] - g.first[i]) <= 10 * RELATIVE * rms + DIGITS))
            fail_msg("%s: element %d is %.6f, not %.6f", g.what, i, (double)y[i], g.first[i]);
    if (!(fabs(norm - g.norm) <= RELATIVE * g.norm))
        fail_msg("%s: norm %.5f, not %.5f", g.what, norm, g.norm);
    if (g.sum != 0 && !(fabs(sum - g.sum) <= RELATIVE * g.norm * sqrt((double)n)))
        fail_msg("%s: sum %.5f, not %.5f", g.what, sum, g.sum);
}

/* R(seed; n,c,h,w) in torch's order as a channels-last tensor */
static struct tensor normal_image(struct pass *p, const uint64_t *seed, int n, int64_t c, int64_t h,
                                  int64_t w, double low)
{
    size_t each = (size_t)(c * h * w);
    float *host = alloc_zero((size_t)n * each, sizeof *host);
    for (int i = 0; i < n; i++) golden_normal(host + (size_t)i * each, seed[i], each);
    for (size_t i = 0; low < 0 && i < (size_t)n * each; i++)
        host[i] = fminf(fmaxf(host[i], (float)low), (float)-low);
    struct tensor t = pass_input(p, host, 4, TENSOR_DIM(n, c, h, w));
    free(host);
    return op_to_channels_last(p, t);
}

static struct tensor normal_rows(struct pass *p, const uint64_t *seed, int n, int64_t l, int64_t d)
{
    float *host = alloc_zero((size_t)(n * l * d), sizeof *host);
    for (int i = 0; i < n; i++) golden_normal(host + (int64_t)i * l * d, seed[i], (size_t)(l * d));
    struct tensor t = pass_input(p, host, 3, TENSOR_DIM(n, l, d));
    free(host);
    return t;
}

static float *output(struct pass *p, struct tensor t)
{
    float *host = alloc_zero((size_t)tensor_count(t), sizeof *host);
    pass_output(p, host, op_to_channels_first(p, t));
    struct error err;
    if (pass_finish(p, &err)) fail_msg("%s", err.text);
    return host;
}

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

static float *run_t1(struct fixture *f, struct unet *m, int n, const uint64_t *x_seed,
                     const uint64_t *context_seed, double t)
{
    struct pass p;
    struct unet_context c;
    double time[2] = {t, t};
    pass_start(&p, &f->memory, DTYPE_F32, NULL);
    struct tensor text = normal_rows(&p, context_seed, n, 77, 48);
    assert_int_equal(unet_context_init(&c, &p, m, text, (struct tensor){0}), 0);
    struct tensor x = normal_image(&p, x_seed, n, 4, 16, 24, 0);
    float *y = output(&p, unet_forward(&p, m, x, time, &c, NULL));
    unet_context_release(&c);
    return y;
}

/* Two sides of guidance over one latent: once with the latent repeated, once shared, once with the time's
 * rows made before. vector rank 0: none. */
static void compare_sides(struct fixture *f, struct unet *m, int64_t width, const float *vector,
                          int64_t vector_width)
{
    const double time[2] = {500, 500}, known[3] = {981, 500, 123};
    float *y[3];
    size_t bytes = 0;
    for (int way = 0; way < 3; way++) {
        struct pass p;
        struct unet_context c;
        struct unet_steps steps = {0};
        pass_start(&p, &f->memory, DTYPE_F32, NULL);
        struct tensor text = normal_rows(&p, (uint64_t[]){1, 6}, 2, 77, width), extra = {0};
        if (vector) extra = pass_input(&p, vector, 2, TENSOR_DIM(2, vector_width));
        assert_int_equal(unet_context_init(&c, &p, m, text, extra), 0);
        struct tensor x = normal_image(&p, (uint64_t[]){0, 0}, way ? 1 : 2, 4, 16, 24, 0);
        struct unet_time t = {0};
        if (way < 2) {
            t = unet_time_input(&p, m, time, x.dim[0]);
        } else {
            assert_int_equal(unet_steps_init(&steps, &p, m, known, 3, c.vector), 0);
            assert_int_equal(unet_steps_find(&steps, 7), -1);
            t = (struct unet_time){.steps = &steps, .step = unet_steps_find(&steps, 500)};
        }
        struct tensor out = unet_forward_at(&p, m, x, t, &c, NULL);
        assert_int_equal(out.dim[0], 2);
        bytes = (size_t)tensor_count(out) * sizeof(float);
        y[way] = output(&p, out);
        unet_context_release(&c);
        unet_steps_release(&steps);
    }
    assert_memory_equal(y[0], y[1], bytes);
    assert_memory_equal(y[0], y[2], bytes);
    assert_memory_not_equal(y[0], (char *)y[0] + bytes / 2, bytes / 2);
    for (int way = 0; way < 3; way++) free(y[way]);
}

static void t1_sd1_unet(void **state)
{
    struct fixture f = open_fixture("model.diffusion_model.");
    struct unet m;
    assert_int_equal(unet_init(&m, &t1, NULL), 0);
    struct weight_visitor v = {.visit = give_golden, .context = &f};
    unet_visit(&v, &m);
    assert_int_equal(f.tensors, 686);
    assert_int_equal(f.parameters, 8565348);

    float *y = run_t1(&f, &m, 1, (uint64_t[]){0}, (uint64_t[]){1}, 981);
    check(y, 1536,
          (struct golden){
              "t=981",
              8,
              {.371026, -.088934, -.116604, .061123, .288445, -.023123, -.150026, -.106506},
              154.57144,
              24.51817});
    free(y);
    y = run_t1(&f, &m, 1, (uint64_t[]){0}, (uint64_t[]){1}, 0);
    check(y, 1536,
          (struct golden){
              "t=0",
              8,
              {.358136, -.21879, -.161444, .019452, .254756, -.045075, -.109809, -.155246},
              156.18431,
              24.50647});
    free(y);
    y = run_t1(&f, &m, 2, (uint64_t[]){0, 5}, (uint64_t[]){1, 6}, 500);
    check(y, 3072,
          (struct golden){
              "t=500, two",
              8,
              {.400416, -.188807, -.082314, .061045, .277006, -.059652, -.136567, -.121929},
              311.83653,
              34.79308});
    free(y);
    compare_sides(&f, &m, 48, NULL, 0);
    unet_release(&m, f.device);
    close_fixture(&f);
}

/* T6: rank 4, alpha 2, strength 0.8 on the 192 places that kohya's trainer covers. */
static void give_factor(struct fixture *f, struct weight *w, const char *key, int64_t rows,
                        int64_t cols, const struct weight *like, double scale)
{
    w->k =
        (struct kernel_weight){.dtype = DTYPE_F32, .rank = like->k.rank, .dim = {rows, cols, 1, 1}};
    float *data = alloc_zero((size_t)(rows * cols), sizeof *data);
    golden_normal(data, golden_crc32(key), (size_t)(rows * cols));
    for (int64_t i = 0; i < rows * cols; i++) data[i] = (float)(data[i] * scale);
    w->k.data = data;
    f->owned = alloc_grow(f->owned, f->owned_count + 1, sizeof *f->owned);
    f->owned[f->owned_count++] = data;
}

static int attach_golden(struct weight_visitor *v, struct weight *w, const struct weight_site *site,
                         struct error *err)
{
    struct fixture *f = v->context;
    if (!site->layer || w != &site->layer->w || !strstr(site->name[DIALECT_HF], "attentions"))
        return 0;
    char name[WEIGHT_NAME_BYTES + 16], key[WEIGHT_NAME_BYTES + 64];
    int length = (int)(strlen(site->name[DIALECT_HF]) - strlen(".weight"));
    snprintf(name, sizeof name, "lora_unet_%.*s", length, site->name[DIALECT_HF]);
    for (char *c = name; *c; c++)
        if (*c == '.') *c = '_';
    struct adapter *a = layer_attach(site->layer, 0.8 * 2 / 4);
    snprintf(key, sizeof key, "%s.lora_down.weight", name);
    give_factor(f, &a->down, key, 4, w->k.dim[1], w, 1 / sqrt((double)w->k.dim[1]));
    snprintf(key, sizeof key, "%s.lora_up.weight", name);
    give_factor(f, &a->up, key, w->k.dim[0], 4, w, 0.5);
    f->tensors++;
    return 0;
}

static void t6_adapters(void **state)
{
    struct fixture f = open_fixture("model.diffusion_model.");
    struct unet m;
    assert_int_equal(unet_init(&m, &t1, NULL), 0);
    struct weight_visitor v = {.visit = give_golden, .context = &f};
    unet_visit(&v, &m);
    f.tensors = 0;
    v = (struct weight_visitor){.visit = attach_golden, .context = &f};
    unet_visit(&v, &m);
    assert_int_equal(f.tensors, 192);
    float *y = run_t1(&f, &m, 1, (uint64_t[]){0}, (uint64_t[]){1}, 981);
    check(
        y, 1536,
        (struct golden){"t=981 adapted",
                        8,
                        {.059492, .359092, -.000728, .214893, .297644, .026468, -.185554, .275013},
                        151.15478,
                        24.10997});
    free(y);
    unet_release(&m, f.device);
    close_fixture(&f);
}

static void t2_sdxl_unet(void **state)
{
    static const struct unet_config t2 = {.levels = 3,
                                          .blocks = {2, 2, 2},
                                          .in_channels = 4,
                                          .out_channels = 4,
                                          .channels = {32, 64, 128},
                                          .depth_down = {{0, 0}, {2, 2}, {3, 3}},
                                          .depth_up = {{0, 0, 0}, {2, 2, 2}, {3, 3, 3}},
                                          .depth_mid = 3,
                                          .mid_second = true,
                                          .mid_present = true,
                                          .heads = {2, 4, 8},
                                          .context = 80,
                                          .time = 128,
                                          .vector = 144,
                                          .groups = 32};
    static const struct golden goldens[2] = {
        {"t=981",
         8,
         {.060488, .152499, .04305, .670691, .679745, -.159725, -.543267, -.144315},
         147.31460,
         23.55424},
        {"t=123",
         8,
         {.035503, .196747, -.003683, .584436, .490768, -.332666, -.529961, -.163884},
         148.17979,
         23.61192}};
    struct fixture f = open_fixture("model.diffusion_model.");
    struct unet m;
    assert_int_equal(unet_init(&m, &t2, NULL), 0);
    struct weight_visitor v = {.visit = give_golden, .context = &f};
    unet_visit(&v, &m);
    assert_int_equal(f.tensors, 840);
    assert_int_equal(f.parameters, 10387076);

    const double times[2] = {981, 123}, sizes[6] = {128, 192, 8, 16, 128, 192};
    for (int i = 0; i < 2; i++) {
        struct pass p;
        struct unet_context c;
        float vector[48 + 6 * 16];
        golden_normal(vector, 2, 48);
        unet_sinusoid(vector + 48, sizes, 6, 16);
        pass_start(&p, &f.memory, DTYPE_F32, NULL);
        struct tensor text = normal_rows(&p, (uint64_t[]){1}, 1, 77, 80);
        struct tensor pooled = pass_input(&p, vector, 2, TENSOR_DIM(1, 144));
        assert_int_equal(unet_context_init(&c, &p, &m, text, pooled), 0);
        struct tensor x = normal_image(&p, (uint64_t[]){0}, 1, 4, 16, 24, 0);
        float *y = output(&p, unet_forward(&p, &m, x, &times[i], &c, NULL));
        check(y, 1536, goldens[i]);
        free(y);
        unet_context_release(&c);
    }
    float sides[2 * 144];
    golden_normal(sides, 2, 288);
    compare_sides(&f, &m, 80, sides, 144);
    unet_release(&m, f.device);
    close_fixture(&f);
}

static void t3_vae(void **state)
{
    static const struct vae_config t3 = {.levels = 4,
                                         .blocks = 2,
                                         .channels = {32, 64, 128, 128},
                                         .latent_channels = 4,
                                         .groups = 32,
                                         .encoder = true,
                                         .decoder = true,
                                         .quant = true,
                                         .scale = 0.18215};
    struct fixture f = open_fixture("first_stage_model.");
    struct vae m;
    struct pass p;
    assert_int_equal(vae_init(&m, &t3, NULL), 0);
    struct weight_visitor v = {.visit = give_golden, .context = &f};
    vae_visit(&v, &m);
    assert_int_equal(f.tensors, 248);
    assert_int_equal(f.parameters, 5252487);

    pass_start(&p, &f.memory, DTYPE_F32, NULL);
    struct tensor x = normal_image(&p, (uint64_t[]){3}, 1, 3, 64, 96, -1);
    float *y = output(&p, vae_encode(&p, &m, x));
    check(y, 768,
          (struct golden){
              "moments",
              8,
              {-.310077, -.674196, .249584, -.045266, -.472107, -.449993, .071331, -.904457},
              -27.88484,
              15.38101});
    check(y, 384, (struct golden){"mean", 0, {0}, 41.26112, 10.03305});
    free(y);
    pass_start(&p, &f.memory, DTYPE_F32, NULL);
    struct tensor z = normal_image(&p, (uint64_t[]){4}, 1, 4, 8, 12, 0);
    y = output(&p, vae_decode(&p, &m, z));
    check(y, 3 * 64 * 96,
          (struct golden){"picture",
                          8,
                          {.208108, .110896, .198021, .261461, .200732, .280735, .332666, .265113},
                          -95.94134,
                          75.51036});
    free(y);
    vae_release(&m, f.device);
    close_fixture(&f);
}

/* A decode in two rooms and bands of a few lines against the one in whole maps: the same bits. The largest
 * level's maps are 64 and 32 channels wide: two rooms of them instead of five maps. */
static void decodes_in_two_rooms(void **state)
{
    static const struct vae_config config = {.levels = 3,
                                             .blocks = 1,
                                             .channels = {32, 64, 96},
                                             .latent_channels = 4,
                                             .groups = 16,
                                             .decoder = true,
                                             .quant = true,
                                             .scale = 0.18215};
    enum { H = 11, W = 9, N = 2, PIXELS = 16 * H * W };
    const enum dtype dtypes[] = {DTYPE_F32, DTYPE_BF16};
    struct fixture f = open_fixture("first_stage_model.");
    struct vae m;
    assert_int_equal(vae_init(&m, &config, NULL), 0);
    struct weight_visitor v = {.visit = give_golden, .context = &f};
    vae_visit(&v, &m);
    cpu_state(f.device)->band_most = 40000;
    const struct kernels *whole = f.device->kernels;
    struct kernels without = *whole;
    without.norm_conv2d = NULL;
    for (int i = 0; i < 4; i++) {
        enum dtype dtype = dtypes[i % 2];
        float *y[2];
        size_t peak[2];
        m.circular = i / 2;
        for (int k = 0; k < 2; k++) {
            struct pass p;
            f.device->kernels = k ? &without : whole;
            pass_start(&p, &f.memory, dtype, NULL);
            y[k] =
                output(&p, vae_decode(&p, &m, normal_image(&p, (uint64_t[]){4, 5}, N, 4, H, W, 0)));
            peak[k] = p.peak_bytes;
        }
        assert_memory_equal(y[0], y[1], N * 3 * PIXELS * sizeof(float));
        size_t map = (size_t)(N * PIXELS) * 32 * dtype_bytes(dtype);
        size_t beside = (size_t)(N * PIXELS) * 3 * (dtype_bytes(dtype) * 2 + 4) + 100000;
        if (peak[0] > 3 * map + beside || peak[0] > peak[1] * 3 / 4)
            fail_msg("%zu bytes in rooms, %zu in maps of %zu", peak[0], peak[1], map);
        free(y[0]);
        free(y[1]);
    }
    f.device->kernels = whole;
    vae_release(&m, f.device);
    close_fixture(&f);
}

static void sinusoid_begins_with_cosines(void **state)
{
    float e[320];
    unet_sinusoid(e, (double[]){981}, 1, 320);
    static const double cosines[4] = {0.67995721, -0.79842919, 0.57806414, -0.67470044};
    static const double sines[4] = {0.73325181, 0.60208869, 0.81599128, 0.73809165};
    for (int i = 0; i < 4; i++) {
        assert_true(fabs((double)e[i] - cosines[i]) < 1e-4);
        assert_true(fabs((double)e[160 + i] - sines[i]) < 1e-4);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sinusoid_begins_with_cosines),
        cmocka_unit_test(t1_sd1_unet),
        cmocka_unit_test(t6_adapters),
        cmocka_unit_test(t2_sdxl_unet),
        cmocka_unit_test(t3_vae),
        cmocka_unit_test(decodes_in_two_rooms),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
