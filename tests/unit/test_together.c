#include "engine/together.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

/* Alone first, then once together, then what was faster; the other way again after some chances. */
static void test_decision(void **state)
{
    struct together t = {0};
    assert_false(together_wanted(&t, 5));
    together_learn(&t, 5, 1, 1.0);
    assert_true(together_wanted(&t, 5));
    together_learn(&t, 5, 3, 0.6);
    int apart = 0;
    for (int i = 0; i < 4 * TOGETHER_TRY_EVERY; i++) apart += !together_wanted(&t, 5);
    assert_int_equal(apart, 4);

    together_learn(&t, 6, 1, 1.0);
    together_learn(&t, 6, 2, 1.0); /* no gain */
    int joined = 0;
    for (int i = 0; i < 4 * TOGETHER_TRY_EVERY; i++) joined += together_wanted(&t, 6);
    assert_int_equal(joined, 4);
    for (int i = 0; i < 10; i++) together_learn(&t, 6, 2, 0.5); /* the machine has changed */
    assert_true(together_image_seconds(&t, 6, 2) == 0.5);
    assert_true(together_image_seconds(&t, 6, 1) == 1.0);
    assert_true(together_image_seconds(&t, 7, 1) == 0);
}

/* A slow run (capturing, tuning, a crowded machine) does not stand for long. */
static void test_times(void **state)
{
    struct together t = {0};
    together_learn(&t, 1, 1, 0.2);
    together_learn(&t, 1, 1, 9.0);
    assert_true(together_image_seconds(&t, 1, 1) < 0.22);
    for (int i = 0; i < 100; i++) together_learn(&t, 1, 1, 0.5);
    assert_true(together_image_seconds(&t, 1, 1) > 0.47);
    /* more kinds than places: the one not used for longest goes */
    for (uint64_t k = 2; k < 2 + TOGETHER_KINDS; k++) together_learn(&t, k, 1, 1);
    assert_true(together_image_seconds(&t, 1, 1) == 0);
    assert_true(together_image_seconds(&t, 2, 1) == 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decision),
        cmocka_unit_test(test_times),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
