/*
 * Adapters as PEFT saves them against the weights that PEFT merges (make_peft.py): OFT by series and
 * exactly, shared and bounded; BOFT of one and of three factors; VeRA.
 *
 * usage: test_peft DATA
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "diffusion/lora/lora_delta.h"

static const char *data;
static struct weight_store *weights;

static void open_case(struct lora_file *f, const char *name)
{
    struct error err;
    char *path = alloc_printf("%s/%s/adapter_model.safetensors", data, name);
    if (lora_file_open(f, path, &err)) fail_msg("%s", err.text);
    free(path);
}

/* "base_model.model.attn1.to_q" and "oft-exact": the tensor "oft-exact.attn1.to_q" */
static const struct safetensors_entry *tensor_of(const char *first, const char *place,
                                                 const char *last)
{
    const char *path = place + strlen("base_model.model.");
    char *name = *first ? alloc_printf("%s.%s", first, path) : alloc_printf("%s%s", path, last);
    const struct safetensors_entry *e = weight_store_find(weights, name);
    if (!e) fail_msg("%s is missing", name);
    free(name);
    return e;
}

static struct lora_shape shape_of(const struct safetensors_entry *e)
{
    struct lora_shape s = {e->dim[0], e->dim[1], 1};
    for (int i = 2; i < e->rank; i++) s.area *= e->dim[i];
    return s;
}

/* The largest difference from PEFT's weight, of its largest value. */
static double off(const struct lora_module *m, const char *name, double strength)
{
    const struct safetensors_entry *before = tensor_of("", m->base, ".base"),
                                   *after = tensor_of(name, m->base, "");
    struct lora_shape s = shape_of(before);
    struct error err;
    int64_t n = s.out * s.in * s.area;
    float *w = alloc_zero((size_t)n, sizeof *w);
    const float *old = before->data, *want = after->data;
    double most = 0, worst = 0;
    memcpy(w, old, (size_t)n * sizeof *w);
    if (lora_delta_merge(w, m, s, strength, &err)) fail_msg("%s", err.text);
    for (int64_t i = 0; i < n; i++) {
        double wanted = (double)old[i] + strength * ((double)want[i] - (double)old[i]);
        worst = fmax(worst, fabs((double)w[i] - wanted));
        most = fmax(most, fabs(wanted));
    }
    free(w);
    return worst / most;
}

static void weights_are_peft_s(void **state)
{
    static const struct {
        const char *name;
        size_t modules;
    } cases[] = {{"oft-series", 3}, {"oft-seven-terms", 3}, {"oft-three-terms", 3},
                 {"oft-exact", 3},  {"oft-shared", 3},      {"oft-bounded", 3},
                 {"boft", 3},       {"boft-by-number", 3},  {"boft-three-factors", 3},
                 {"vera", 2}};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct lora_file f;
        double worst = 0;
        open_case(&f, cases[i].name);
        assert_int_equal(f.count, cases[i].modules);
        for (size_t k = 0; k < f.count; k++) {
            worst = fmax(worst, off(&f.modules[k], cases[i].name, 1));
            worst = fmax(worst, off(&f.modules[k], cases[i].name, 0.5));
        }
        print_message("%s: %.1e\n", cases[i].name, worst);
        assert_true(worst < 1e-5);
        lora_file_close(&f);
    }
}

/* What does not fit is refused; nothing is written. */
static void other_layers_are_refused(void **state)
{
    static const char *const names[] = {"oft-series", "oft-exact", "boft", "boft-three-factors",
                                        "vera"};
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        struct lora_file f;
        struct error err;
        float w[20 * 50] = {1, 2, 3};
        open_case(&f, names[i]);
        for (size_t k = 0; k < f.count; k++)
            assert_int_equal(
                lora_delta_merge(w, &f.modules[k], (struct lora_shape){20, 50, 1}, 1, &err),
                ERR_FORMAT);
        assert_true(w[0] == 1 && w[1] == 2 && w[2] == 3 && w[3] == 0);
        lora_file_close(&f);
    }
}

static void projections_are_shared_or_missing(void **state)
{
    struct lora_file f;
    open_case(&f, "vera");
    for (size_t k = 0; k < f.count; k++) {
        assert_non_null(f.modules[k].tensor[LORA_VERA_A]);
        assert_ptr_equal(f.modules[k].tensor[LORA_VERA_A], f.modules[0].tensor[LORA_VERA_A]);
        assert_ptr_equal(f.modules[k].tensor[LORA_VERA_B], f.modules[0].tensor[LORA_VERA_B]);
    }
    lora_file_close(&f);
    open_case(&f, "vera-bare");
    assert_null(f.modules[0].tensor[LORA_VERA_A]);
    lora_file_close(&f);
}

int main(int argc, char **argv)
{
    if (argc < 2) return 2;
    data = argv[1];
    char *path = alloc_printf("%s/weights.safetensors", data);
    if (weight_store_open(&weights, path, NULL)) return 1;
    const struct CMUnitTest tests[] = {cmocka_unit_test(weights_are_peft_s),
                                       cmocka_unit_test(other_layers_are_refused),
                                       cmocka_unit_test(projections_are_shared_or_missing)};
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    weight_store_close(weights);
    free(path);
    return rc;
}
