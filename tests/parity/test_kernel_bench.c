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

static void bench(const char *name, double limit)
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
    assert_null(strstr(text, "skipped"));
    free(text);
    device_close(d);
}

static void emulated(void **state)
{
    bench("cuda", 1e-3);
}

static void cpu(void **state)
{
    bench("cpu:1", 8e-3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(emulated), cmocka_unit_test(cpu)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
