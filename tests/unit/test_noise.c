/* diffusion/sample: torch's generators, the Brownian tree, variation seeds. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <zlib.h>

#include "base/alloc.h"
#include "diffusion/sample/noise.h"
#include "tests/support/golden_weights.h"

enum { PICTURE = 4 * 64 * 64 };

static void assert_close(double a, double b, double tolerance)
{
    if (!(fabs(a - b) <= tolerance)) fail_msg("%.9g is not within %g of %.9g", a, tolerance, b);
}

static void assert_starts(const float *v, const double *wanted, size_t count, double tolerance)
{
    for (size_t i = 0; i < count; i++) assert_close(v[i], (float)wanted[i], tolerance);
}

static void sums(const float *v, size_t count, double *sum, double *squares)
{
    *sum = *squares = 0;
    for (size_t i = 0; i < count; i++) {
        *sum += v[i];
        *squares += (double)v[i] * v[i];
    }
}

static void torch_cpu_pictures(void **state)
{
    static const struct {
        uint64_t seed;
        double first[4], sum, squares;
    } goldens[] = {
        {0, {-1.12583983, -1.15236020, -0.25057858, -0.43387881}, -124.1127, 16522.1103},
        {1, {-1.52559590, -0.75023180, -0.65398091, -1.60948479}, NAN, 16475.6504},
        {42, {1.92691529, 1.48728406, 0.90071720, -2.10552096}, 149.7648, NAN},
        {1234567890, {0.669828, -0.002884, 0.232806, -0.508514}, NAN, NAN},
        {(UINT64_C(77) << 32) + 42,
         {1.92691529, 1.48728406, 0.90071720, -2.10552096},
         149.7648,
         NAN},
    };
    static float v[PICTURE];
    for (size_t k = 0; k < COUNT_OF(goldens); k++) {
        double sum, squares;
        golden_normal(v, goldens[k].seed, PICTURE);
        sums(v, PICTURE, &sum, &squares);
        assert_starts(v, goldens[k].first, 4, 5e-7);
        if (!isnan(goldens[k].sum)) assert_close(sum, goldens[k].sum, 1e-3);
        if (!isnan(goldens[k].squares)) assert_close(squares, goldens[k].squares, 1e-3);
    }
}

/* torch.Generator().manual_seed(9); randn of 3, 16, 2, 3 */
static const double mixed_draws[] = {
    0.0447275378, 1.91123903,   -0.231030896, -0.971349537, -0.587272882, -2.32449627,
    -0.878408611, -0.185492292, 0.295559645,  1.01866198,   -0.13359274,  -0.118194796,
    0.84371227,   0.793364823,  -0.953925729, -0.512654245, -0.613327146, -0.636405051,
    -1.14425898,  0.345928162,  -0.838661969, -0.422899097, 0.0214538425, -0.154650807};

static void torch_cpu_short_draws_and_tails(void **state)
{
    float v[33];
    golden_normal(v, 0, 5);
    assert_starts(v, (double[]){1.54099607, -0.29342890, -2.17878938, 0.56843126, -1.08452237}, 5,
                  0);
    golden_normal(v, 0, 17);
    assert_starts(v, (double[]){-1.12583983, -1.6959312, 0.566650629}, 3, 0);
    assert_close(v[16], 0.931826591f, 0);
    struct noise_cpu g;
    noise_cpu_seed(&g, 0);
    noise_cpu_uniform(&g, v, 4);
    assert_starts(v, (double[]){0.49625659, 0.76822180, 0.08847743, 0.13203049}, 4, 0);
    /* one generator, randn of 3, 16, 2, 3: the scalar path keeps its second normal across calls */
    noise_cpu_seed(&g, 9);
    for (int k = 0, at = 0; k < 4; k++) {
        const int counts[] = {3, 16, 2, 3};
        noise_cpu_normal(&g, v + at, (size_t)counts[k]);
        at += counts[k];
    }
    assert_starts(v, mixed_draws, 24, 0);
}

/* CRC-32 of all bytes: equal to torch bit for bit. */
static void torch_cpu_bytes(void **state)
{
    static const struct {
        uint64_t seed;
        size_t count;
        uint32_t crc;
    } goldens[] = {{0U, 16384, 0x983bc28f},
                   {1U, 17, 0x145a9b97},
                   {3U, 65536, 0x14cdc831},
                   {42U, 16387, 0x18776c9d},
                   {1234567890U, 1000, 0x63d8f0b1},
                   {4294967295U, 65536, 0x0fc3a724},
                   {77U, 31, 0x56a61539}};
    static float v[1 << 16];
    for (size_t k = 0; k < COUNT_OF(goldens); k++) {
        golden_normal(v, goldens[k].seed, goldens[k].count);
        uint32_t crc = (uint32_t)crc32(0, (const uint8_t *)v, (uInt)(goldens[k].count * 4));
        if (crc != goldens[k].crc)
            fail_msg("seed %u, %zu values: 0x%08x, not 0x%08x", (unsigned)goldens[k].seed,
                     goldens[k].count, crc, goldens[k].crc);
    }
}

static void philox_known_answers(void **state)
{
    const uint32_t ones = 0xffffffffu;
    uint32_t out[4];
    philox_4x32(out, (uint32_t[4]){0}, (uint32_t[2]){0});
    assert_memory_equal(out, ((uint32_t[]){0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}), 16);
    philox_4x32(out, (uint32_t[4]){ones, ones, ones, ones}, (uint32_t[2]){ones, ones});
    assert_memory_equal(out, ((uint32_t[]){0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}), 16);
}

static void torch_cuda_pictures(void **state)
{
    static const struct {
        uint64_t seed;
        int call;
        double first[8], sum, squares;
    } goldens[] = {
        {0,
         0,
         {-.924663, -.425344, -2.643846, .145184, -.120866, -.579726, -.622851, -.328387},
         -113.794,
         16412.53},
        {0,
         1,
         {.180826, -.552263, .923813, -.734971, 1.379995, .867631, .129656, -.94064},
         13.897,
         16485.28},
        {1,
         0,
         {-.296278, 2.676448, -.140846, -.844095, .290538, -.283831, -1.453456, 2.373681},
         -44.930,
         16597.11},
        {42,
         0,
         {.194019, 2.161374, -.172051, .84906, -1.924399, .652985, -.649441, -.817525},
         50.934,
         16282.63},
        {42,
         1,
         {.139137, -.108217, -.717422, .756649, .371488, -1.004941, .008295, .327658},
         -1.021,
         16448.61},
        {1234567890,
         0,
         {.236178, 1.26339, -.542224, -.683768, 1.500428, 1.477517, -.675058, 1.031154},
         33.685,
         16541.99},
    };
    static float v[PICTURE];
    for (size_t k = 0; k < COUNT_OF(goldens); k++) {
        struct noise_philox g;
        double sum, squares;
        noise_philox_seed(&g, goldens[k].seed);
        for (int call = 0; call <= goldens[k].call; call++) noise_philox_normal(&g, v, PICTURE);
        sums(v, PICTURE, &sum, &squares);
        assert_starts(v, goldens[k].first, 8, 2e-6);
        assert_close(sum, goldens[k].sum, 6e-3);
        assert_close(squares, goldens[k].squares, 2e-2);
    }
}

static void seed_sequences_are_numpys(void **state)
{
    uint32_t out[3];
    seed_sequence(out, 3, 7, NULL, 0);
    assert_memory_equal(out, ((uint32_t[]){0x520c648f, 0x25257c7a, 0x1a09bbd4}), sizeof out);
    seed_sequence(out, 3, UINT64_C(0x123456789ab), (uint64_t[]){5, 3}, 2);
    assert_memory_equal(out, ((uint32_t[]){0x5e901137, 0xb9df033c, 0x3c44d1ba}), sizeof out);
    seed_sequence(out, 3, 0, (uint64_t[]){UINT64_C(0x500000000), 0}, 2);
    assert_memory_equal(out, ((uint32_t[]){0x143df625, 0x4369301f, 0x887882e0}), sizeof out);
}

static void brownian_tree_is_torchsdes(void **state)
{
    enum { N = 256 };
    static const double sigma[] = {14.614643, 7.902934, 4.027739, 1.910356,
                                   .828868,   .32112,   .107198,  .029167};
    static const double wanted[7][4] = {{-0.0906999, 0.07586372, 1.040921, -1.644399},
                                        {0.08491676, -0.3151626, 0.3059826, -0.1190491},
                                        {0.7506312, -0.2410193, -0.8322288, 0.4318564},
                                        {-0.7982346, 2.784437, 0.5788111, -2.846358},
                                        {-1.246087, -0.5088001, -0.1801129, -0.1601908},
                                        {-1.167518, 0.1940073, 0.5319133, 0.294527},
                                        {1.884486, 1.028727, -0.2774117, 1.129092}};
    struct brownian *b;
    float v[N], again[N];
    assert_int_equal(brownian_new(&b, 7, N, sigma[7], sigma[0], NULL), 0);
    for (int i = 0; i < 7; i++) {
        assert_int_equal(brownian_noise(b, v, sigma[i], sigma[i + 1], NULL), 0);
        assert_starts(v, wanted[i], 4, 2e-6);
    }
    /* the path does not depend on where it was cut before */
    struct brownian *fresh;
    assert_int_equal(brownian_new(&fresh, 7, N, sigma[7], sigma[0], NULL), 0);
    assert_int_equal(brownian_noise(fresh, again, sigma[6], sigma[7], NULL), 0);
    for (int i = 0; i < N; i++) assert_close(v[i], again[i], 0);
    /* and pieces add up to the whole */
    float whole[N], left[N], right[N];
    assert_int_equal(brownian_noise(b, whole, 8, 2, NULL), 0);
    assert_int_equal(brownian_noise(b, left, 8, 3, NULL), 0);
    assert_int_equal(brownian_noise(b, right, 3, 2, NULL), 0);
    for (int i = 0; i < N; i++)
        assert_close(whole[i] * sqrt(6), left[i] * sqrt(5) + right[i], 2e-5);
    brownian_free(fresh);
    brownian_free(b);
}

/* Far more nodes than the tree keeps: evicted ones must come back the same. */
static void brownian_tree_survives_eviction(void **state)
{
    enum { N = 16, CUTS = 200 };
    struct brownian *b;
    float first[N], v[N];
    assert_int_equal(brownian_new(&b, 11, N, 0.03, 14.6, NULL), 0);
    assert_int_equal(brownian_noise(b, first, 3.14159, 1.41421, NULL), 0);
    for (int i = 0; i < CUTS; i++)
        assert_int_equal(brownian_noise(b, v, 14.6 - 0.07 * i, 14.6 - 0.07 * (i + 1), NULL), 0);
    assert_int_equal(brownian_noise(b, v, 3.14159, 1.41421, NULL), 0);
    for (int i = 0; i < N; i++) assert_close(v[i], first[i], 0);
    brownian_free(b);
}

static void devices_differ_where_they_should(void **state)
{
    enum { N = 64 };
    float first[NOISE_HORDE + 1][N], step[NOISE_HORDE + 1][N];
    for (int d = NOISE_CPU; d <= NOISE_HORDE; d++) {
        struct noise n;
        noise_init(&n, (enum noise_device)d, 42);
        assert_int_equal(noise_first(&n, first[d], 1, N, 0, 0, NULL), 0);
        noise_step(&n, step[d], N);
        noise_release(&n);
    }
    float stream[2 * N];
    struct noise_cpu g;
    noise_cpu_seed(&g, 42);
    noise_cpu_normal(&g, stream, N);
    noise_cpu_normal(&g, stream + N, N);
    assert_memory_equal(first[NOISE_CPU], stream, sizeof first[0]);
    assert_memory_equal(step[NOISE_CPU], stream + N, sizeof step[0]);
    assert_memory_equal(first[NOISE_HORDE], stream, sizeof first[0]);
    assert_close(first[NOISE_CUDA][0], .194019, 2e-6);
    assert_close(step[NOISE_CUDA][0], .139137, 2e-6);
    assert_close(step[NOISE_HORDE][0], .194019, 2e-6); /* a new generator of the same seed */
}

static void variation_moves_along_the_sphere(void **state)
{
    enum { N = 4096 };
    static float base[2 * N], other[2 * N], mixed[2 * N];
    struct noise n;
    noise_init(&n, NOISE_CPU, 1);
    assert_int_equal(noise_first(&n, base, 2, N, 0, 0, NULL), 0);
    golden_normal(other, 2, 2 * N);
    const double strengths[] = {1e-9, 0.3, 1};
    for (size_t k = 0; k < COUNT_OF(strengths); k++) {
        noise_init(&n, NOISE_CPU, 1);
        assert_int_equal(noise_first(&n, mixed, 2, N, 2, strengths[k], NULL), 0);
        double to_base = 0, to_other = 0, sum, squares;
        for (int i = 0; i < 2 * N; i++) {
            to_base = fmax(to_base, fabs(mixed[i] - base[i]));
            to_other = fmax(to_other, fabs(mixed[i] - other[i]));
        }
        sums(mixed, 2 * N, &sum, &squares);
        assert_close(squares / (2 * N), 1, 0.05); /* still unit normal: a straight mean has 0.58 */
        if (k == 0) assert_close(to_base, 0, 1e-6);
        if (k == 2) assert_close(to_other, 0, 1e-6);
        if (k == 1) assert_true(to_base > 0.1 && to_other > 0.1);
    }
}

static void golden_rule_of_weights(void **state)
{
    float v[4096];
    const char *conv = "model.diffusion_model.input_blocks.0.0.weight";
    assert_int_equal(golden_crc32(conv), 0xc1154559);
    golden_weight(v, conv, 4, (int64_t[]){32, 4, 3, 3});
    assert_starts(v, (double[]){-.273836, .091016, -.23803}, 3, 1e-6);
    const char *norm = "model.diffusion_model.input_blocks.1.0.in_layers.0.weight";
    assert_int_equal(golden_crc32(norm), 0xfeba17aa);
    golden_weight(v, norm, 1, (int64_t[]){32});
    assert_starts(v, (double[]){.773926, 1.082616, .961077}, 3, 1e-6);
    golden_weight(v, "model.diffusion_model.input_blocks.1.0.in_layers.0.bias", 1, (int64_t[]){32});
    assert_starts(v, (double[]){.097687, .027756, -.106407}, 3, 1e-6);
}

/* Streams joined in one run are those of the runs alone: first noise, step noise, Brownian noise. */
static void test_joined(void **state)
{
    enum { EACH = 48, FIRST = 2, SECOND = 1, THIRD = 3, ALL = (FIRST + SECOND + THIRD) * EACH };
    static const int images[] = {FIRST, SECOND, THIRD};
    static const uint64_t seeds[] = {7, 8, 123456789};
    float together[4][ALL], alone[4][ALL];
    for (int d = NOISE_CPU; d <= NOISE_HORDE; d++) {
        struct noise n;
        noise_init(&n, (enum noise_device)d, seeds[0]);
        n.images = images[0];
        noise_add(&n, seeds[1], images[1]);
        noise_add(&n, seeds[2], images[2]);
        assert_int_equal(noise_first(&n, together[0], 6, EACH, 99, 0.4, NULL), 0);
        noise_step(&n, together[1], ALL);
        noise_step(&n, together[2], ALL);
        assert_int_equal(noise_step_sde(&n, together[3], ALL, 5, 3, 0.1, 14, NULL), 0);
        noise_release(&n);
        size_t at = 0;
        for (int i = 0; i < 3; i++) {
            size_t count = (size_t)images[i] * EACH;
            noise_init(&n, (enum noise_device)d, seeds[i]);
            assert_int_equal(noise_first(&n, alone[0] + at, images[i], EACH, 99, 0.4, NULL), 0);
            noise_step(&n, alone[1] + at, count);
            noise_step(&n, alone[2] + at, count);
            assert_int_equal(noise_step_sde(&n, alone[3] + at, count, 5, 3, 0.1, 14, NULL), 0);
            noise_release(&n);
            at += count;
        }
        for (int k = 0; k < 4; k++) assert_memory_equal(together[k], alone[k], sizeof alone[k]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_joined),
        cmocka_unit_test(torch_cpu_pictures),
        cmocka_unit_test(torch_cpu_short_draws_and_tails),
        cmocka_unit_test(torch_cpu_bytes),
        cmocka_unit_test(philox_known_answers),
        cmocka_unit_test(torch_cuda_pictures),
        cmocka_unit_test(seed_sequences_are_numpys),
        cmocka_unit_test(brownian_tree_is_torchsdes),
        cmocka_unit_test(brownian_tree_survives_eviction),
        cmocka_unit_test(devices_differ_where_they_should),
        cmocka_unit_test(variation_moves_along_the_sphere),
        cmocka_unit_test(golden_rule_of_weights),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
