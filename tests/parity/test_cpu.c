/* The CPU back end against the plain kernels: every kernel, odd sizes and tails, every epilogue,
 * every instruction set that this machine has, fp32 and bf16. */
#include <stdlib.h>

#include "base/alloc.h"
#include "kernels/cpu/cpu_device.h"
#include "tests/parity/test_cpu.h"

static struct device *device; /* the one under test, one path after the other */

void cpu_check(struct parity_case *c)
{
    struct parity_case copy = *c;
    for (int half = 0; half < 2; half++) {
        /* rounding to bf16 comes second, so the values of the first run stay exact */
        parity_check(&copy, device, half ? DTYPE_BF16 : DTYPE_F32);
    }
    /* weights of 16 bits are packed call by call; bf16 last but one, so that all can hold the values */
    static const enum dtype pairs[][2] = {{DTYPE_BF16, DTYPE_BF16},
                                          {DTYPE_BF16, DTYPE_F16},
                                          {DTYPE_F32, DTYPE_F16},
                                          {DTYPE_F32, DTYPE_BF16}};
    for (size_t i = 0; copy.rank && i < COUNT_OF(pairs); i++)
        parity_check_stored(&copy, device, pairs[i][0], pairs[i][1]);
    parity_case_release(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define X(test) {.name = #test, .test_func = test_##test},
        CPU_TESTS(X)
#undef X
    };
    static const char *const paths[] = {"avx512", "avx512-only", "avx2", "portable"};
    int failed = 0;
    const char *seed = getenv("KILN_TEST_SEED");
    parity_seed(seed ? strtoull(seed, NULL, 10) : 20261124);
    for (size_t i = 0; i < COUNT_OF(paths); i++) {
        setenv("KILN_CPU", paths[i], 1);
        struct error err = {0};
        int rc = cpu_device_open(&device, i == 0 ? "3" : "2", &err);
        if (rc) {
            print_message("skipped: %s\n", err.text);
            continue;
        }
        print_message("path %s: %s\n", paths[i], device->label);
        failed += cmocka_run_group_tests_name(paths[i], tests, NULL, NULL);
        device_close(device);
    }
    return failed;
}
