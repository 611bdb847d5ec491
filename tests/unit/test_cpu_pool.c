/* Every task runs once, whatever the number of threads, tasks and nestings. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "kernels/cpu/cpu_pool.h"

#define TASKS_MAX 300

struct count {
    struct pool *pool;
    int threads;
    atomic_int ran[TASKS_MAX];
    atomic_int inner;
    atomic_int bad_worker;
};

static void inner_task(void *context, int64_t task, int worker)
{
    struct count *c = context;
    atomic_fetch_add(&c->inner, 1);
}

static void task(void *context, int64_t number, int worker)
{
    struct count *c = context;
    if (worker < 0 || worker >= c->threads) atomic_fetch_add(&c->bad_worker, 1);
    atomic_fetch_add(&c->ran[number], 1);
    if (number % 50 == 0) pool_run(c->pool, 7, inner_task, c); /* nested: on this worker alone */
}

static void many_jobs(struct pool *pool)
{
    for (int round = 0; round < 400; round++) {
        struct count c = {.pool = pool, .threads = pool_threads(pool)};
        int tasks = round * 13 % TASKS_MAX;
        pool_run(pool, tasks, task, &c);
        for (int i = 0; i < TASKS_MAX; i++) assert_int_equal(atomic_load(&c.ran[i]), i < tasks);
        assert_int_equal(atomic_load(&c.inner), (tasks + 49) / 50 * 7);
        assert_int_equal(atomic_load(&c.bad_worker), 0);
    }
}

static void each_thread_count(void **unused)
{
    for (int threads = 0; threads <= 9; threads++) {
        struct pool *pool;
        assert_int_equal(pool_new(&pool, threads, NULL), 0);
        if (threads) assert_int_equal(pool_threads(pool), threads);
        assert_true(pool_threads(pool) >= 1);
        many_jobs(pool);
        pool_free(pool);
    }
    pool_free(NULL);
}

static void *own_pool(void *unused)
{
    struct pool *pool;
    assert_int_equal(pool_new(&pool, 3, NULL), 0);
    many_jobs(pool);
    pool_free(pool);
    return NULL;
}

static void pools_beside_each_other(void **unused)
{
    pthread_t thread[4];
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, own_pool, NULL), 0);
    for (int i = 0; i < 4; i++) pthread_join(thread[i], NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_thread_count),
        cmocka_unit_test(pools_beside_each_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
