/* A model's weights in blocks: pieces side by side, used again, merged; a random history against a map. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "kernels/device.h"
#include "kernels/weight_pool.h"

#define A WEIGHT_POOL_ALIGNMENT

static size_t left_bytes = SIZE_MAX;
static int blocks_out;
static const struct kernels *whole;

static int counted_alloc(struct device *d, void **memory, size_t bytes, struct error *err)
{
    if (bytes > left_bytes) return error_set(err, ERR_NO_MEMORY, "as was asked for");
    blocks_out++;
    return whole->alloc(d, memory, bytes, err);
}

static void counted_free(struct device *d, void *memory)
{
    blocks_out--;
    d->moves++;
    whole->free(d, memory);
}

static struct device *open_device(struct kernels *k)
{
    struct device *d;
    struct error err;
    if (device_open(&d, "plain", &err)) fail_msg("%s", err.text);
    whole = d->kernels;
    *k = *whole;
    k->alloc = counted_alloc;
    k->free = counted_free;
    d->kernels = k;
    blocks_out = 0;
    left_bytes = SIZE_MAX;
    return d;
}

static char *take(struct weight_pool *p, bool *fresh, size_t bytes)
{
    struct error err;
    void *memory;
    if (weight_pool_take(p, &memory, fresh, bytes, &err)) fail_msg("%s", err.text);
    return memory;
}

static void one_reservation(void **state)
{
    struct kernels k;
    struct device *d = open_device(&k);
    struct weight_pool *p = weight_pool_new(d);
    struct error err;
    bool fresh;
    assert_int_equal(weight_pool_reserve(p, 10 * A, &err), 0);
    assert_int_equal(weight_pool_reserve(p, 4 * A, &err), 0); /* there already */
    assert_int_equal(blocks_out, 1);
    char *first = take(p, &fresh, 1), *second = take(p, &fresh, 3 * A - 5), *third;
    assert_true(fresh);
    assert_ptr_equal(second, first + A);
    third = take(p, &fresh, 6 * A);
    assert_ptr_equal(third, first + 4 * A);
    assert_int_equal(blocks_out, 1);
    assert_int_equal(weight_pool_used(p), 10 * A);
    /* what comes back is used again, split and merged */
    uint64_t moves = d->moves;
    weight_pool_give(p, second);
    assert_int_equal(d->moves, moves + 1);
    char *again = take(p, &fresh, 2 * A);
    assert_false(fresh);
    assert_ptr_equal(again, second);
    assert_ptr_equal(take(p, &fresh, A), second + 2 * A);
    weight_pool_give(p, second + 2 * A);
    weight_pool_give(p, again);
    weight_pool_give(p, third);
    assert_ptr_equal(take(p, &fresh, 9 * A), second);
    assert_int_equal(blocks_out, 1);
    /* and more than was reserved is another block */
    take(p, &fresh, A);
    assert_true(fresh);
    assert_int_equal(blocks_out, 2);
    /* closing moves nothing that others know */
    moves = d->moves;
    weight_pool_end(p);
    weight_pool_give(p, first);
    weight_pool_free(p);
    assert_int_equal(d->moves, moves);
    assert_int_equal(blocks_out, 0);
    weight_pool_free(NULL);
    d->kernels = whole;
    device_close(d);
}

static void no_memory(void **state)
{
    struct kernels k;
    struct device *d = open_device(&k);
    struct weight_pool *p = weight_pool_new(d);
    struct error err;
    void *memory;
    bool fresh;
    left_bytes = (size_t)9 << 20;
    assert_int_equal(weight_pool_reserve(p, (size_t)10 << 20, &err), ERR_NO_MEMORY);
    assert_int_equal(weight_pool_bytes(p), 0);
    assert_int_equal(weight_pool_reserve(p, 2 * A, &err), 0);
    left_bytes = 100;
    assert_int_equal(weight_pool_take(p, &memory, &fresh, 3 * A, &err), ERR_NO_MEMORY);
    assert_int_equal(weight_pool_take(p, &memory, &fresh, 2 * A, &err), 0);
    assert_int_equal(weight_pool_used(p), 2 * A);
    weight_pool_free(p);
    d->kernels = whole;
    device_close(d);
}

enum { PIECES = 60 };

static void random_history(void **state)
{
    struct kernels k;
    struct device *d = open_device(&k);
    struct weight_pool *p = weight_pool_new(d);
    struct error err;
    struct {
        char *memory;
        size_t bytes;
        uint8_t mark;
    } piece[PIECES] = {0};
    unsigned seed = (unsigned)time(NULL);
    print_message("seed %u\n", seed);
    assert_int_equal(weight_pool_reserve(p, 500 * A, &err), 0);
    for (int round = 0; round < 4000; round++) {
        int i = rand_r(&seed) % PIECES;
        bool fresh;
        if (!piece[i].memory) {
            piece[i].bytes = (size_t)(rand_r(&seed) % 5000) + 1;
            piece[i].memory = take(p, &fresh, piece[i].bytes);
            assert_int_equal((uintptr_t)piece[i].memory % 64, 0);
            piece[i].mark = (uint8_t)rand_r(&seed);
            memset(piece[i].memory, piece[i].mark, piece[i].bytes);
            continue;
        }
        for (size_t at = 0; at < piece[i].bytes; at++)
            assert_int_equal((uint8_t)piece[i].memory[at], piece[i].mark);
        weight_pool_give(p, piece[i].memory);
        piece[i].memory = NULL;
    }
    for (int i = 0; i < PIECES; i++) weight_pool_give(p, piece[i].memory);
    assert_int_equal(weight_pool_used(p), 0);
    weight_pool_free(p);
    assert_int_equal(blocks_out, 0);
    d->kernels = whole;
    device_close(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_reservation),
        cmocka_unit_test(no_memory),
        cmocka_unit_test(random_history),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
