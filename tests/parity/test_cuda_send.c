/* Weights beside the work, over the emulator: through pinned buffers that are filled again only when they
 * are free, in pieces, into a pool; by a second thread's handle; a card that breaks under a copy, or never
 * ends one; and memory that others give back in the middle of a job. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/emulator/emulator.h"
#include "kernels/weight_pool.h"

static struct device *device_of_test(void)
{
    struct device *d;
    struct error err;
    if (cuda_device_open(&d, NULL, &err)) fail_msg("%s", err.text);
    return d;
}

static uint16_t number(size_t i, uint32_t salt)
{
    return (uint16_t)(((uint32_t)i * 2654435761u + salt) >> 18); /* small positive F16 */
}

/* [rows,cols] of F16, in memory of its own */
static struct kernel_weight make_weight(int64_t rows, int64_t cols, uint32_t salt,
                                        struct weight_pool *pool)
{
    uint16_t *data = alloc_zero((size_t)(rows * cols), 2);
    for (size_t i = 0; i < (size_t)(rows * cols); i++) data[i] = number(i, salt);
    return (struct kernel_weight){
        .data = data, .dtype = DTYPE_F16, .rank = 2, .dim = {rows, cols}, .pool = pool};
}

static void weight_is(struct device *d, const struct kernel_weight *w)
{
    struct error err;
    const struct cuda_weight *p = w->packed;
    size_t bytes = (size_t)(w->dim[0] * w->dim[1]) * 2;
    uint16_t *back = alloc_zero(bytes, 1);
    if (d->kernels->download(d, back, p->data, bytes, &err)) fail_msg("%s", err.text);
    assert_memory_equal(back, w->data, bytes);
    free(back);
}

/* Larger than both pinned buffers and both landing places: each is used many times. The host's copy is
 * destroyed at once, so that a copy which reads it later is seen. */
static void many_pieces(void **state)
{
    struct device *d = device_of_test();
    struct error err;
    struct weight_pool *pool = weight_pool_new(d);
    enum { COUNT = 3 };
    struct kernel_weight w[COUNT];
    static const int64_t rows[COUNT] = {9000, 33, 7001};
    for (int i = 0; i < COUNT; i++) {
        w[i] = make_weight(rows[i], 1024, (uint32_t)i, pool);
        if (d->kernels->pack(d, &w[i], DTYPE_F16, &err)) fail_msg("%s", err.text);
    }
    assert_true(cuda_state(d)->sending.bytes >= (9000 + 33 + 7001) * 1024 * 2);
    assert_true(cuda_state(d)->sending.landing[0].bytes == LANDING_BYTES);
    for (int i = 0; i < COUNT; i++) weight_is(d, &w[i]);
    for (int i = 0; i < COUNT; i++) {
        d->kernels->unpack(d, &w[i]);
        free((void *)(uintptr_t)w[i].data);
    }
    assert_int_equal(weight_pool_used(pool), 0);
    weight_pool_free(pool);
    device_close(d);
}

/* What lies in one pool one after the other needs no joining. */
static void joined_where_they_lie(void **state)
{
    struct device *d = device_of_test();
    struct error err;
    struct weight_pool *pool = weight_pool_new(d);
    struct kernel_weight w[3], *list[3] = {&w[0], &w[1], &w[2]};
    struct cuda_weight *first;
    for (int i = 0; i < 3; i++) w[i] = make_weight(16, 64, (uint32_t)i, pool);
    if (cuda_weight_join(d, list, 3, DTYPE_F16, &first, &err)) fail_msg("%s", err.text);
    assert_int_equal(weight_pool_used(pool), 3 * 16 * 64 * 2);
    assert_null(first->joint);
    for (int i = 0; i < 3; i++) {
        weight_is(d, &w[i]);
        const struct cuda_weight *p = w[i].packed;
        assert_ptr_equal((char *)p->data, (char *)first->data + i * 16 * 64 * 2);
    }
    /* in another order they do not, and are copied */
    struct kernel_weight *turned[3] = {&w[2], &w[0], &w[1]};
    if (cuda_weight_join(d, turned, 3, DTYPE_F16, &first, &err)) fail_msg("%s", err.text);
    assert_non_null(first->joint);
    for (int i = 0; i < 3; i++) weight_is(d, &w[i]);
    for (int i = 0; i < 3; i++) {
        d->kernels->unpack(d, &w[i]);
        free((void *)(uintptr_t)w[i].data);
    }
    assert_int_equal(weight_pool_used(pool), 0);
    weight_pool_free(pool);
    device_close(d);
}

struct beside {
    struct device *first;
    struct device *twin;
    struct kernel_weight w;
    int rc;
    struct error err;
};

static void *load_beside(void *context)
{
    struct beside *b = context;
    b->rc = device_twin(b->first, &b->twin, &b->err);
    if (!b->rc) b->rc = b->twin->kernels->pack(b->twin, &b->w, DTYPE_F16, &b->err);
    if (!b->rc) b->rc = b->twin->kernels->finish(b->twin, &b->err);
    return NULL;
}

static void beside_open(struct beside *b, struct device *d, pthread_t *thread)
{
    *b = (struct beside){.first = d, .w = make_weight(4000, 1024, 9, NULL)};
    assert_int_equal(pthread_create(thread, NULL, load_beside, b), 0);
}

static void beside_close(struct beside *b)
{
    if (b->w.packed) b->first->kernels->unpack(b->first, &b->w);
    device_close(b->twin);
    free((void *)(uintptr_t)b->w.data);
}

/* The first handle computes, and records a graph, while the second one loads. */
static void a_twin_loads(void **state)
{
    struct device *d = device_of_test();
    struct error err;
    struct beside b;
    pthread_t thread;
    float x[64], y[64];
    void *memory, *graph;
    assert_int_equal(d->kernels->alloc(d, &memory, sizeof x, &err), 0);
    for (int i = 0; i < 64; i++) x[i] = (float)i;
    struct add_args twice = {.y = memory, .a = memory, .count = 64, .alpha = 2, .dtype = DTYPE_F32};
    beside_open(&b, d, &thread);
    for (int round = 0; round < 50; round++) {
        assert_int_equal(d->kernels->upload(d, memory, x, sizeof x, &err), 0);
        assert_int_equal(d->recorder->begin(d, &err), 0);
        assert_int_equal(d->kernels->add(d, &twice, &err), 0);
        assert_int_equal(d->recorder->end(d, &graph, &err), 0);
        assert_int_equal(d->recorder->replay(d, graph, &err), 0);
        assert_int_equal(d->kernels->download(d, y, memory, sizeof y, &err), 0);
        for (int i = 0; i < 64; i++) assert_true(y[i] == 2 * x[i]);
        d->recorder->free(d, graph);
    }
    pthread_join(thread, NULL);
    if (b.rc) fail_msg("%s", b.err.text);
    weight_is(d, &b.w); /* and the first one reads what the second one packed */
    uint64_t moves = d->moves;
    d->kernels->free(d, memory);
    assert_int_equal(d->moves, moves + 1);
    beside_close(&b);
    device_close(d);
}

/* ERR_DEVICE for the loader, and for the work at its next question. */
static void a_copy_breaks(void **state)
{
    struct device *d = device_of_test();
    struct beside b;
    struct error err;
    pthread_t thread;
    emulator_fail_copies(1, 0);
    beside_open(&b, d, &thread);
    pthread_join(thread, NULL);
    emulator_fail_copies(0, 0);
    assert_int_equal(b.rc, ERR_DEVICE);
    assert_non_null(strstr(b.err.text, "a broken copy"));
    assert_int_equal(d->kernels->finish(d, &err), ERR_DEVICE);
    emulator_clear();
    beside_close(&b);
    device_close(d);
}

static void a_copy_never_ends(void **state)
{
    struct device *d = device_of_test();
    struct beside b;
    pthread_t thread;
    cuda_state(d)->runtime.patience_ms = 50;
    emulator_fail_copies(0, 1);
    beside_open(&b, d, &thread);
    pthread_join(thread, NULL);
    emulator_fail_copies(0, 0);
    assert_int_equal(b.rc, ERR_DEVICE);
    assert_non_null(strstr(b.err.text, "does not answer"));
    beside_close(&b);
    device_close(d);
}

/* ---- memory ---- */

static void *held[4];
static int asked;

static bool give_back(void *context)
{
    struct device *d = context;
    asked++;
    for (int i = 0; i < 4; i++) {
        if (!held[i]) continue;
        d->kernels->free(d, held[i]);
        held[i] = NULL;
        return true;
    }
    return false;
}

/* Others give back one after the other, until there is room or nothing is left; landing places go first. */
static void others_give_back(void **state)
{
    enum { MIB = 1 << 20 };
    struct device *d = device_of_test();
    struct error err;
    void *memory = NULL;
    struct kernel_weight w = make_weight(64, 64, 1, NULL);
    size_t used =
        SIZE_MAX / 2 - emulator_free_bytes(SIZE_MAX / 2); /* what tests before left behind */
    emulator_limit_memory(used + (size_t)64 * MIB);
    assert_int_equal(d->kernels->pack(d, &w, DTYPE_F16, &err), 0);
    assert_true(cuda_state(d)->sending.landing[1].bytes == LANDING_BYTES);
    d->relief = give_back;
    d->relief_context = d;
    asked = 0;
    for (int i = 0; i < 4; i++) assert_int_equal(d->kernels->alloc(d, &held[i], 10 * MIB, &err), 0);
    assert_int_equal(d->kernels->alloc(d, &memory, 20 * MIB, &err), 0);
    assert_null(cuda_state(d)->sending.landing[1].memory);
    assert_int_equal(asked, 0);
    d->kernels->free(d, memory);
    assert_int_equal(d->kernels->alloc(d, &memory, 40 * MIB, &err), 0);
    assert_int_equal(asked, 2);
    d->kernels->free(d, memory);
    assert_int_equal(d->kernels->alloc(d, &memory, 80 * MIB, &err), ERR_NO_MEMORY);
    assert_int_equal(asked, 5); /* two that gave, one that had nothing */
    weight_is(d, &w);
    d->kernels->unpack(d, &w);
    free((void *)(uintptr_t)w.data);
    emulator_limit_memory(0);
    device_close(d);
}

static bool stop_now(void *context)
{
    return ++*(int *)context > 2;
}

/* Told to stop between two pieces: ERR_CANCELED, and the weight is as if it had never been asked for. */
static void stopped_on_the_way(void **state)
{
    struct device *d = device_of_test();
    struct error err;
    int count = 0;
    struct weight_pool *pool = weight_pool_new(d);
    struct kernel_weight w = make_weight(20000, 1024, 1, pool);
    d->canceled = stop_now;
    d->canceled_context = &count;
    assert_int_equal(d->kernels->pack(d, &w, DTYPE_F16, &err), ERR_CANCELED);
    assert_null(w.packed);
    assert_int_equal(weight_pool_used(pool), 0);
    d->canceled = NULL;
    assert_int_equal(d->kernels->pack(d, &w, DTYPE_F16, &err), 0);
    weight_is(d, &w);
    weight_pool_end(pool);
    d->kernels->unpack(d, &w);
    weight_pool_free(pool);
    free((void *)(uintptr_t)w.data);
    device_close(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_pieces),        cmocka_unit_test(joined_where_they_lie),
        cmocka_unit_test(a_twin_loads),       cmocka_unit_test(a_copy_breaks),
        cmocka_unit_test(a_copy_never_ends),  cmocka_unit_test(others_give_back),
        cmocka_unit_test(stopped_on_the_way),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
