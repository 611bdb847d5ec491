/* A VAE's decoder in two rooms and bands of lines on the emulated GPU: the picture of whole maps to the bit,
 * in less memory of the pass. KILN_CUDA_PLUGIN names the emulated plug-in. */
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
#include "kernels/plan.h"
#include "tensor/pass_memory.h"
#include "tensor/pass_plan.h"
#include "tests/support/golden_weights.h"

enum { H = 5, W = 7, N = 2, FACTOR = 4 };

struct weights {
    void *data[512];
    int count;
};

static int give(struct weight_visitor *v, struct weight *w, const struct weight_site *site,
                struct error *err)
{
    struct weights *all = v->context;
    w->k.rank = site->rank;
    memcpy(w->k.dim, site->dim, sizeof w->k.dim);
    w->k.dtype = DTYPE_F32;
    float *data = alloc_zero((size_t)weight_count(w), sizeof *data);
    golden_weight(data, site->name[DIALECT_LDM], site->rank, site->dim);
    w->k.data = data;
    assert_true(all->count < 512);
    all->data[all->count++] = data;
    return 0;
}

static void planned(struct pass *p, void *context)
{
    vae_decode(p, context, pass_tensor(p, p->dtype, 4, TENSOR_DIM(N, H, W, 4)));
}

/* The pass's bytes; *picture is the caller's. */
static size_t decode(struct device *d, struct vae *m, enum dtype dtype, float **picture)
{
    struct error err = {0};
    struct pass_memory memory;
    struct pass p;
    float z[N * H * W * 4];
    for (int i = 0; i < N * H * W * 4; i++) z[i] = sinf((float)(i * i));
    *picture = alloc_zero((size_t)N * H * W * FACTOR * FACTOR * 3, sizeof **picture);
    pass_memory_init(&memory, d, 0);
    assert_int_equal(pass_plan(&memory, dtype, planned, m, &err), 0);
    pass_start(&p, &memory, dtype, NULL);
    pass_output(&p, *picture, vae_decode(&p, m, pass_input(&p, z, 4, TENSOR_DIM(N, H, W, 4))));
    size_t peak = p.peak_bytes;
    if (pass_finish(&p, &err)) fail_msg("%s", err.text);
    pass_memory_release(&memory);
    return peak;
}

static void decodes_in_bands(void **state)
{
    static const struct vae_config config = {.levels = 3,
                                             .blocks = 1,
                                             .channels = {32, 64, 96},
                                             .latent_channels = 4,
                                             .groups = 16,
                                             .decoder = true,
                                             .quant = true,
                                             .scale = 0.18215};
    const enum dtype dtypes[] = {DTYPE_F16, DTYPE_F32};
    struct error err = {0};
    struct weights weights = {.count = 0};
    struct device *d;
    struct vae m;
    if (device_open(&d, "cuda", &err)) fail_msg("%s", err.text);
    assert_true(d->band_bytes > 0);
    assert_int_equal(vae_init(&m, &config, NULL), 0);
    struct weight_visitor v = {.visit = give, .context = &weights};
    vae_visit(&v, &m);
    const struct kernels *bands = d->kernels;
    struct kernels whole = *bands;
    whole.norm_conv2d = NULL;
    for (int i = 0; i < 3; i++) {
        const enum dtype dtype = dtypes[i == 1];
        float *y[2];
        size_t peak[2];
        m.circular = i == 2;
        for (int k = 0; k < 2; k++) {
            d->kernels = k ? &whole : bands;
            d->band_bytes = k ? 0 : 5 * W * FACTOR * 64 * dtype_bytes(dtype); /* 5 lines */
            peak[k] = decode(d, &m, dtype, &y[k]);
        }
        assert_memory_equal(y[0], y[1], sizeof(float) * N * H * W * FACTOR * FACTOR * 3);
        print_message("%s: %zu bytes in bands, %zu in maps\n", dtype_name(dtype), peak[0], peak[1]);
        assert_true(peak[0] * 4 < peak[1] * 3);
        free(y[0]);
        free(y[1]);
    }
    d->kernels = bands;
    vae_release(&m, d);
    for (int i = 0; i < weights.count; i++) free(weights.data[i]);
    device_close(d);
}

/* What SD's decoder will take for 512x512, as the plan counts it. */
static size_t of_full_size(struct device *like, struct vae *m)
{
    struct device *d = plan_device_open(like);
    struct pass_memory memory;
    struct pass p;
    pass_memory_init(&memory, d, 0);
    pass_start(&p, &memory, DTYPE_F16, NULL);
    vae_decode(&p, m, pass_tensor(&p, DTYPE_F16, 4, TENSOR_DIM(1, 64, 64, 4)));
    const size_t peak = p.peak_bytes;
    assert_int_equal(pass_finish(&p, NULL), 0);
    pass_memory_release(&memory);
    device_close(d);
    return peak;
}

static int give_shape(struct weight_visitor *v, struct weight *w, const struct weight_site *site,
                      struct error *err)
{
    w->k.rank = site->rank;
    memcpy(w->k.dim, site->dim, sizeof w->k.dim);
    w->k.dtype = DTYPE_F32;
    w->k.data = v->context; /* nobody follows it */
    return 0;
}

static void plans_bands(void **state)
{
    static const struct vae_config config = {.levels = 4,
                                             .blocks = 2,
                                             .channels = {128, 256, 512, 512},
                                             .latent_channels = 4,
                                             .groups = 32,
                                             .decoder = true,
                                             .quant = true,
                                             .scale = 0.18215};
    struct error err = {0};
    struct device *d;
    struct vae m;
    float nothing;
    if (device_open(&d, "cuda", &err)) fail_msg("%s", err.text);
    assert_int_equal(vae_init(&m, &config, NULL), 0);
    struct weight_visitor v = {.visit = give_shape, .context = &nothing};
    vae_visit(&v, &m);
    const struct kernels *bands = d->kernels;
    struct kernels whole = *bands;
    whole.norm_conv2d = NULL;
    const size_t in_bands = of_full_size(d, &m);
    d->kernels = &whole;
    const size_t in_maps = of_full_size(d, &m);
    d->kernels = bands;
    print_message("512x512: %zu MiB in bands, %zu in maps\n", in_bands >> 20, in_maps >> 20);
    /* a map of 256 channels, one of 128, a band; the smallest level's map and the picture */
    assert_true(in_bands <= ((size_t)(128 + 64 + 4 + 2) << 20) + d->band_bytes);
    assert_true(in_bands * 4 < in_maps * 3);
    vae_release(&m, d);
    device_close(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(decodes_in_bands),
                                       cmocka_unit_test(plans_bands)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
