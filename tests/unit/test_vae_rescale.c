/* diffusion/vae/vae_rescale: a VAE whose residual stream leaves F16's range decodes in F16 after it, and
 * in F32 every bit is as before. */
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
#include "diffusion/vae/vae.h"
#include "tests/support/golden_weights.h"

enum { H = 4, W = 5, FACTOR = 4, PIXELS = 3 * FACTOR * H * FACTOR * W, LATENTS = H * W * 4 };

static const struct vae_config config = {.levels = 3,
                                         .blocks = 1,
                                         .channels = {32, 32, 64},
                                         .latent_channels = 4,
                                         .groups = 8,
                                         .encoder = true,
                                         .decoder = true,
                                         .quant = true,
                                         .scale = 0.13025};

struct fixture {
    struct device *device;
    struct pass_memory memory;
    struct vae vae;
    float *owned[256];
    int owned_count;
};

static int give(struct weight_visitor *v, struct weight *w, const struct weight_site *site,
                struct error *err)
{
    struct fixture *f = v->context;
    w->k = (struct kernel_weight){.rank = site->rank, .dtype = DTYPE_F32};
    memcpy(w->k.dim, site->dim, sizeof w->k.dim);
    float *data = alloc_zero((size_t)weight_count(w), sizeof *data);
    golden_weight(data, site->name[DIALECT_LDM], site->rank, site->dim);
    /* the stream begins large, and the norms hide it from all but the stream */
    float factor = strstr(site->name[DIALECT_LDM], "conv_in") ? 0x1p18f : 1;
    for (int64_t i = 0; i < weight_count(w); i++) data[i] *= factor;
    w->k.data = data;
    assert_true(f->owned_count < 256);
    f->owned[f->owned_count++] = data;
    return 0;
}

static void open_fixture(struct fixture *f, int exponent)
{
    struct error err;
    *f = (struct fixture){0};
    assert_int_equal(device_open(&f->device, "plain", &err), 0);
    pass_memory_init(&f->memory, f->device, 0);
    assert_int_equal(vae_init(&f->vae, &config, NULL), 0);
    struct weight_visitor v = {.visit = give, .context = f};
    vae_visit(&v, &f->vae);
    if (exponent) assert_int_equal(vae_rescale(&f->vae, exponent, &err), 0);
}

static void close_fixture(struct fixture *f)
{
    vae_release(&f->vae, f->device);
    assert_null(f->vae.owned);
    pass_memory_release(&f->memory);
    device_close(f->device);
    for (int i = 0; i < f->owned_count; i++) free(f->owned[i]);
}

static void decode(int exponent, enum dtype dtype, float *y)
{
    struct fixture f;
    struct pass p;
    float z[LATENTS];
    golden_normal(z, 7, LATENTS);
    open_fixture(&f, exponent);
    pass_start(&p, &f.memory, dtype, NULL);
    struct tensor t = pass_input(&p, z, 4, TENSOR_DIM(1, H, W, 4));
    pass_output(&p, y, vae_decode(&p, &f.vae, t));
    assert_int_equal(pass_finish(&p, NULL), 0);
    close_fixture(&f);
}

static void encode(int exponent, enum dtype dtype, float *y)
{
    struct fixture f;
    struct pass p;
    float x[PIXELS];
    golden_normal(x, 8, PIXELS);
    open_fixture(&f, exponent);
    pass_start(&p, &f.memory, dtype, NULL);
    struct tensor t = pass_input(&p, x, 4, TENSOR_DIM(1, FACTOR * H, FACTOR * W, 3));
    pass_output(&p, y, vae_encode(&p, &f.vae, t));
    assert_int_equal(pass_finish(&p, NULL), 0);
    close_fixture(&f);
}

static bool all_finite(const float *y, int n)
{
    for (int i = 0; i < n; i++)
        if (!isfinite(y[i])) return false;
    return true;
}

static double relative(const float *y, const float *want, int n)
{
    double off = 0, norm = 0;
    for (int i = 0; i < n; i++) {
        off += ((double)y[i] - (double)want[i]) * ((double)y[i] - (double)want[i]);
        norm += (double)want[i] * (double)want[i];
    }
    return sqrt(off / norm);
}

static void same_bits_in_f32(void **state)
{
    float plain[PIXELS], scaled[PIXELS];
    decode(0, DTYPE_F32, plain);
    decode(5, DTYPE_F32, scaled);
    assert_memory_equal(plain, scaled, sizeof plain);
    encode(0, DTYPE_F32, plain);
    encode(5, DTYPE_F32, scaled);
    assert_memory_equal(plain, scaled, 2 * LATENTS * sizeof *plain);
}

static void in_range_in_f16(void **state)
{
    float want[PIXELS], plain[PIXELS], scaled[PIXELS];
    decode(0, DTYPE_F32, want);
    decode(0, DTYPE_F16, plain);
    decode(5, DTYPE_F16, scaled);
    assert_false(all_finite(plain, PIXELS)); /* else this test would show nothing */
    assert_true(all_finite(scaled, PIXELS));
    double off = relative(scaled, want, PIXELS);
    print_message("decoder: %.5f of the norm\n", off);
    assert_true(off < 0.01);
    encode(0, DTYPE_F32, want);
    encode(0, DTYPE_F16, plain);
    encode(5, DTYPE_F16, scaled);
    assert_false(all_finite(plain, 2 * LATENTS));
    assert_true(all_finite(scaled, 2 * LATENTS));
    off = relative(scaled, want, 2 * LATENTS);
    print_message("encoder: %.5f of the norm\n", off);
    assert_true(off < 0.01);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_bits_in_f32),
        cmocka_unit_test(in_range_in_f16),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
