/* diffusion/text: the text transformer against the published goldens T4 and T5. */
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
#include "tests/support/golden_weights.h"

enum { L = 77, TENSORS_MAX = 256 };

struct fixture {
    struct device *device;
    struct pass_memory memory;
    struct clip_text clip;
    const char *prefix;
    enum dialect dialect;
    int tensors, layers; /* weights visited; those that can carry an adapter */
    float *owned[TENSORS_MAX];
};

/* The whole tensor as the file has it, then the part and orientation that the weight wants. */
static int give_golden(struct weight_visitor *v, struct weight *w, const struct weight_site *site,
                       struct error *err)
{
    struct fixture *f = v->context;
    enum dialect d = f->dialect;
    char key[WEIGHT_NAME_BYTES * 2];
    snprintf(key, sizeof key, "%s%s", f->prefix, site->name[d]);
    int64_t dim[4], rows = site->dim[0], columns = site->rank == 2 ? site->dim[1] : 1;
    memcpy(dim, site->dim, sizeof dim);
    if (site->stacked_of[d]) dim[0] = site->stacked_of[d];
    if (site->transposed[d]) dim[0] = columns, dim[1] = rows;
    float *whole = alloc_zero((size_t)(dim[0] * (site->rank == 2 ? dim[1] : 1)), sizeof *whole);
    float *part = alloc_zero((size_t)(rows * columns), sizeof *part);
    golden_weight(whole, key, site->rank, dim);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < columns; c++)
            part[r * columns + c] = site->transposed[d]
                                        ? whole[c * rows + r]
                                        : whole[(site->stacked_from[d] + r) * columns + c];
    free(whole);
    assert_true(f->tensors < TENSORS_MAX);
    f->owned[f->tensors++] = part;
    if (site->layer && w == &site->layer->w) f->layers++;
    w->k.data = part;
    w->k.dtype = DTYPE_F32;
    w->k.rank = site->rank;
    memcpy(w->k.dim, site->dim, sizeof w->k.dim);
    return 0;
}

static void open_fixture(struct fixture *f, const char *prefix, enum dialect dialect,
                         const struct clip_text_config *config)
{
    struct error err = {0};
    *f = (struct fixture){.prefix = prefix, .dialect = dialect};
    assert_int_equal(device_open(&f->device, "cpu", &err), 0);
    pass_memory_init(&f->memory, f->device, 0);
    assert_int_equal(clip_text_init(&f->clip, config, &err), 0);
    struct weight_visitor v = {.visit = give_golden, .context = f, .err = &err};
    clip_text_visit(&v, &f->clip);
    assert_int_equal(v.failed, 0);
}

static void close_fixture(struct fixture *f)
{
    clip_text_release(&f->clip, f->device);
    pass_memory_release(&f->memory);
    device_close(f->device);
    for (int i = 0; i < f->tensors; i++) free(f->owned[i]);
}

static void frame(int32_t *id, int32_t pad)
{
    static const int32_t words[] = {49406, 320, 1125, 539, 320, 2368, 49407};
    for (size_t i = 0; i < L; i++) id[i] = i < COUNT_OF(words) ? words[i] : pad;
}

static void assert_starts(const float *v, const double *wanted, size_t count, double tolerance)
{
    for (size_t i = 0; i < count; i++)
        if (!(fabs(v[i] - wanted[i]) <= tolerance))
            fail_msg("value %zu is %.7f, not %.7f", i, v[i], wanted[i]);
}

static void assert_sums(const float *v, size_t count, double sum, double norm)
{
    double s = 0, n = 0;
    for (size_t i = 0; i < count; i++) {
        s += v[i];
        n += (double)v[i] * v[i];
    }
    if (!isnan(sum) && !(fabs(s - sum) <= 2e-4 * norm)) fail_msg("sum %.5f, not %.5f", s, sum);
    if (!(fabs(sqrt(n) - norm) <= 1e-5 * norm)) fail_msg("norm %.5f, not %.5f", sqrt(n), norm);
}

static void run(struct fixture *f, float *context, float *pooled, const struct clip_input *in)
{
    struct pass p;
    struct error err = {0};
    pass_start(&p, &f->memory, DTYPE_F32, NULL);
    struct clip_states s = clip_text_forward(&p, &f->clip, in);
    if (context) pass_output(&p, context, s.context);
    if (pooled) pass_output(&p, pooled, s.pooled);
    if (pass_finish(&p, &err)) fail_msg("%s", err.text);
}

static void tiny_clip_l(void **state)
{
    enum { D = 32 };
    struct fixture f;
    open_fixture(&f, "cond_stage_model.transformer.", DIALECT_HF,
                 &(struct clip_text_config){.layers = 3,
                                            .width = D,
                                            .heads = 4,
                                            .mlp = 128,
                                            .vocab = 49408,
                                            .positions = L,
                                            .act = ACT_QUICK_GELU});
    assert_int_equal(f.tensors, 2 + 3 * 16 + 2);
    assert_int_equal(f.layers, 3 * 6);
    int32_t id[L];
    float y[L * D];
    frame(id, 49407);
    struct clip_input in = {.id = id, .n = 1, .skip = 1, .final_norm = true, .end_id = -1};
    run(&f, y, NULL, &in);
    assert_starts(
        y,
        (double[]){.838979, .607773, -.91502, -1.084953, -1.577993, 1.052385, -.727215, -.518174},
        8, 1e-5);
    assert_starts(y + 5 * D, (double[]){-.062892, 1.38861, .140481, .269663}, 4, 1e-5);
    assert_sums(y, L * D, -46.71155, 49.13971);
    in.skip = 2;
    run(&f, y, NULL, &in);
    assert_starts(y, (double[]){.899193, .501832, -.385492, -1.134824}, 4, 1e-5);
    assert_sums(y, L * D, -76.33464, 48.93849);
    in.final_norm = false;
    run(&f, y, NULL, &in);
    assert_starts(y, (double[]){1.270301, .507947, -.85894, -2.245656}, 4, 1e-5);
    assert_sums(y, L * D, NAN, 68.35611);
    in.skip = 99; /* more than there are: the first layer */
    run(&f, y, NULL, &in);
    close_fixture(&f);
}

static void tiny_open_clip(void **state)
{
    enum { D = 48 };
    struct fixture f;
    open_fixture(&f, "conditioner.embedders.1.model.", DIALECT_LDM,
                 &(struct clip_text_config){.layers = 3,
                                            .width = D,
                                            .heads = 4,
                                            .mlp = 192,
                                            .vocab = 49408,
                                            .positions = L,
                                            .projection = D,
                                            .act = ACT_GELU});
    assert_int_equal(f.tensors, 2 + 3 * 16 + 2 + 1);
    int32_t id[2 * L];
    float y[2 * L * D], pooled[2 * D];
    frame(id, 0);
    struct clip_input in = {.id = id, .n = 1, .skip = 2, .end_id = 49407};
    run(&f, y, pooled, &in);
    assert_starts(y, (double[]){-1.948146, 1.567556, 2.059666, 1.635979}, 4, 1e-5);
    assert_sums(y, L * D, 1237.70933, 81.89212);
    static const double first[] = {-.032184, .955655,  .41025,   -2.235867,
                                   .812321,  2.331528, -.669187, 1.380698};
    assert_starts(pooled, first, 8, 1e-5);
    assert_sums(pooled, D, NAN, 6.48139);
    in.final_norm = true;
    run(&f, y, NULL, &in);
    assert_starts(y, (double[]){-1.722949, .86352, 1.25415, .576368}, 4, 1e-5);
    assert_sums(y, L * D, -37.15826, 62.74540);
    /* two at once: each row of the batch is what it is alone */
    float alone[D];
    memcpy(id + L, id, sizeof(int32_t) * L);
    id[L + 3] = 9000;
    in = (struct clip_input){.id = id + L, .n = 1, .skip = 2, .end_id = 49407};
    run(&f, NULL, alone, &in);
    in = (struct clip_input){.id = id, .n = 2, .skip = 2, .end_id = 49407};
    run(&f, y, pooled, &in);
    assert_starts(pooled, first, 8, 1e-5);
    for (int i = 0; i < D; i++) assert_true(fabsf(pooled[D + i] - alone[i]) < 1e-5f);
    close_fixture(&f);
}

/* A vector equal to a token's own row changes nothing; another changes that place and what follows. */
static void vectors_stand_for_tokens(void **state)
{
    enum { D = 32 };
    struct fixture f;
    open_fixture(&f, "cond_stage_model.transformer.", DIALECT_HF,
                 &(struct clip_text_config){.layers = 2,
                                            .width = D,
                                            .heads = 4,
                                            .mlp = 64,
                                            .vocab = 49408,
                                            .positions = L,
                                            .act = ACT_QUICK_GELU});
    int32_t id[L];
    const float *vector[L] = {NULL};
    static float plain[L * D], same[L * D], other[L * D], given[D];
    frame(id, 49407);
    struct clip_input in = {.id = id, .n = 1, .skip = 1, .final_norm = true, .end_id = -1};
    run(&f, plain, NULL, &in);
    vector[3] = (const float *)f.clip.token.k.data + 539 * D;
    in.vector = vector;
    id[3] = 0;
    run(&f, same, NULL, &in);
    for (int i = 0; i < L * D; i++) assert_true(fabsf(same[i] - plain[i]) < 1e-6f);
    golden_normal(given, 4, D);
    vector[3] = given;
    run(&f, other, NULL, &in);
    for (int i = 0; i < L; i++) {
        float change = 0;
        for (int k = 0; k < D; k++) change += fabsf(other[i * D + k] - plain[i * D + k]);
        if (i < 3)
            assert_true(change < 1e-5f); /* causal */
        else
            assert_true(change > 1e-4f);
    }
    close_fixture(&f);
}

static void impossible_encoders_are_refused(void **state)
{
    struct clip_text m;
    struct error err = {0};
    struct clip_text_config c = {
        .layers = 2, .width = 32, .heads = 5, .mlp = 64, .vocab = 600, .positions = 77};
    assert_int_equal(clip_text_init(&m, &c, &err), ERR_FORMAT);
    assert_non_null(strstr(err.text, "width 32 does not divide into 5 heads"));
    c.heads = 4;
    c.layers = 0;
    assert_int_equal(clip_text_init(&m, &c, &err), ERR_FORMAT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tiny_clip_l),
        cmocka_unit_test(tiny_open_clip),
        cmocka_unit_test(vectors_stand_for_tokens),
        cmocka_unit_test(impossible_encoders_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
