/* The code of `kiln bench kernels` over the emulated GPU and the CPU: every case runs, and the sampled
 * errors against float64 are those of fp16 (1e-3) and bf16 (8e-3). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/kernel_bench.h"
#include "kernels/kernel_families.h"

/* composed: the back end may compose so many families from others */
static void bench(const char *name, double limit, int composed)
{
    struct device *d;
    struct error err = {0};
    char *text;
    size_t bytes;
    if (device_open(&d, name, &err)) fail_msg("%s", err.text);
    FILE *out = open_memstream(&text, &bytes);
    struct kernel_bench_options options = {.quick = true};
    if (kernel_bench_run(d, &options, out, &err)) fail_msg("%s", err.text);
    fclose(out);
    int errors = 0;
    for (char *at = text; (at = strstr(at, "error ")); at++, errors++) {
        double error = strtod(at + 6, NULL);
        if (!(error < limit)) fail_msg("%s: an error over %g in\n%s", name, limit, text);
    }
    assert_int_equal(errors, 35); /* linear, convolution and attention cases */
    int families = 0;
    for (char *at = text; (at = strstr(at, "off plain ")); at++) families++;
    for (char *at = text; (at = strstr(at, "composed by this")); at++, composed--) families++;
    if (families != kernel_families_model_count + kernel_families_rest_count || composed < 0)
        fail_msg("%d families in\n%s", families, text);
    assert_null(strstr(text, "skipped"));
    assert_null(strstr(text, "WRONG"));
    free(text);
    device_close(d);
}

static void emulated(void **state)
{
    bench("cuda", 1e-3, 0);
}

static void cpu(void **state)
{
    bench("cpu:1", 8e-3, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(emulated), cmocka_unit_test(cpu)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
