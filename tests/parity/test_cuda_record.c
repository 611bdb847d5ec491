/* Steps recorded as CUDA graphs, over the emulator: replays follow their inputs, memory that was given
 * back makes them void, and what cannot be recorded runs op by op. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/emulator/emulator.h"
#include "tensor/ops.h"
#include "tensor/record.h"

enum { N = 64 };

struct step {
    struct record_cache cache;
    struct pass_memory memory;
    struct device *device;
    struct tensor x, y;
    bool uploads; /* the ops ask the host for something */
    int calls;
};

static void step_open(struct step *s)
{
    struct error err;
    *s = (struct step){0};
    if (cuda_device_open(&s->device, NULL, &err)) fail_msg("%s", err.text);
    pass_memory_init(&s->memory, s->device, 0);
}

static void step_close(struct step *s)
{
    record_cache_release(&s->cache);
    pass_memory_release(&s->memory);
    device_close(s->device);
}

static void ops(struct pass *p, void *context)
{
    struct step *s = context;
    s->calls++;
    struct tensor h = op_scale(p, s->x, 3), y = s->y; /* a failed op empties its copy */
    if (s->uploads) h = op_add(p, h, pass_input(p, (float[N]){0}, 1, TENSOR_DIM(N)));
    op_add_into(p, &y, h, s->x);
}

/* y = 4 x by one step; the pass's result */
static int run(struct step *s, uint64_t key, float value, struct error *err)
{
    struct pass p;
    float x[N], y[N];
    for (int i = 0; i < N; i++) x[i] = value + (float)i;
    pass_start(&p, &s->memory, DTYPE_F32, NULL);
    s->x = pass_input(&p, x, 1, TENSOR_DIM(N));
    s->y = pass_tensor(&p, DTYPE_F32, 1, TENSOR_DIM(N));
    record_run(&s->cache, &p, record_key_tensor(key, s->x), ops, s);
    pass_output(&p, y, s->y);
    int rc = pass_finish(&p, err);
    for (int i = 0; !rc && i < N; i++) assert_true(y[i] == 4 * x[i]);
    return rc;
}

static void replays_follow_inputs(void **state)
{
    struct step s;
    struct error err;
    step_open(&s);
    for (int i = 0; i < 6; i++) assert_int_equal(run(&s, 1, (float)i, &err), 0);
    assert_int_equal(s.calls, 2); /* plainly, recording */
    assert_int_equal(s.cache.recorded, 1);
    assert_int_equal(s.cache.replayed, 5);
    /* another key is another step */
    assert_int_equal(run(&s, 2, 1, &err), 0);
    assert_int_equal(s.calls, 3);
    /* more keys than room: the oldest goes, and comes again */
    for (uint64_t key = 3; key < 3 + RECORDS_MAX; key++)
        for (int i = 0; i < 3; i++) assert_int_equal(run(&s, key, (float)i, &err), 0);
    int calls = s.calls;
    assert_int_equal(run(&s, 1, 1, &err), 0);
    assert_int_equal(s.calls, calls + 1);
    step_close(&s);
}

static void memory_given_back(void **state)
{
    struct step s;
    struct error err;
    void *memory;
    step_open(&s);
    for (int i = 0; i < 3; i++) assert_int_equal(run(&s, 1, (float)i, &err), 0);
    assert_int_equal(s.cache.recorded, 1);
    assert_int_equal(s.device->kernels->alloc(s.device, &memory, 512, &err), 0);
    assert_int_equal(run(&s, 1, 7, &err), 0);
    assert_int_equal(s.calls, 2); /* more memory moves nothing */
    s.device->kernels->free(s.device, memory);
    for (int i = 0; i < 3; i++) assert_int_equal(run(&s, 1, (float)i, &err), 0);
    assert_int_equal(s.calls, 4);
    assert_int_equal(s.cache.recorded, 2);
    step_close(&s);
}

static void not_recordable(void **state)
{
    struct step s;
    struct error err;
    step_open(&s);
    s.uploads = true;
    for (int i = 0; i < 4; i++) assert_int_equal(run(&s, 1, (float)i, &err), 0);
    assert_int_equal(s.cache.recorded, 0);
    assert_int_equal(s.cache.replayed, 0);
    assert_int_equal(s.calls, 5); /* one was the trial */
    step_close(&s);
}

static void without_recorder(void **state)
{
    struct step s;
    struct error err;
    step_open(&s);
    s.device->recorder = NULL;
    for (int i = 0; i < 4; i++) assert_int_equal(run(&s, 1, (float)i, &err), 0);
    assert_int_equal(s.calls, 4);
    step_close(&s);
}

/* a card that breaks in a replay ends as one that breaks in a launch */
static void breaks_in_a_replay(void **state)
{
    struct step s;
    struct error err;
    struct emulator_options options, broken;
    step_open(&s);
    for (int i = 0; i < 3; i++) assert_int_equal(run(&s, 1, (float)i, &err), 0);
    emulator_get(&options);
    broken = options;
    broken.fail_at = emulator_count().launches + 1;
    emulator_set(&broken);
    assert_int_equal(run(&s, 1, 1, &err), ERR_DEVICE);
    emulator_set(&options);
    emulator_clear();
    step_close(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(replays_follow_inputs), cmocka_unit_test(memory_given_back),
        cmocka_unit_test(not_recordable),        cmocka_unit_test(without_recorder),
        cmocka_unit_test(breaks_in_a_replay),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
