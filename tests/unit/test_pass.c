/* tensor/pass and tape: memory, failure at every point, cancelling, and the same numbers always. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/plain/plain.h"
#include "tensor/pass_plan.h"
#include "tests/support/tiny_net.h"

enum { OUTPUTS = TINY_N * TINY_H * TINY_W * TINY_C };

/* --- a heap that fails the n-th time (linked with --wrap) ------------------------------------- */

static int heap_countdown; /* 0: never fails */

void *__real_alloc_try(size_t count, size_t size);
void *__wrap_alloc_try(size_t count, size_t size);
void *__wrap_alloc_try(size_t count, size_t size)
{
    if (heap_countdown && --heap_countdown == 0) return NULL;
    return __real_alloc_try(count, size);
}

void *__real_alloc_try_aligned(size_t alignment, size_t bytes);
void *__wrap_alloc_try_aligned(size_t alignment, size_t bytes);
void *__wrap_alloc_try_aligned(size_t alignment, size_t bytes)
{
    if (heap_countdown && --heap_countdown == 0) return NULL;
    return __real_alloc_try_aligned(alignment, bytes);
}

/* --- a device whose memory the host may not touch --------------------------------------------- */

static struct {
    int allocated, uploads, downloads;
} remote;

static int remote_alloc(struct device *d, void **memory, size_t bytes, struct error *err)
{
    int rc = plain_kernels.alloc(d, memory, bytes, err);
    if (!rc) remote.allocated++;
    return rc;
}

static void remote_free(struct device *d, void *memory)
{
    if (memory) remote.allocated--;
    plain_kernels.free(d, memory);
}

static int remote_upload(struct device *d, void *to, const void *from, size_t bytes,
                         struct error *err)
{
    remote.uploads++;
    return plain_kernels.upload(d, to, from, bytes, err);
}

static int remote_download(struct device *d, void *to, const void *from, size_t bytes,
                           struct error *err)
{
    remote.downloads++;
    return plain_kernels.download(d, to, from, bytes, err);
}

static void remote_open(struct device *d, struct kernels *table)
{
    memset(&remote, 0, sizeof(remote));
    *table = plain_kernels;
    table->name = "remote";
    table->alloc = remote_alloc;
    table->free = remote_free;
    table->upload = remote_upload;
    table->download = remote_download;
    *d = (struct device){.kernels = table, .name = "remote", .default_dtype = DTYPE_F32};
}

/* --- one run ---------------------------------------------------------------------------------- */

struct run {
    struct device *device;
    struct pass_memory memory;
    struct tiny_net net;
    struct error error;
    float y[OUTPUTS], loss;
    size_t peak;
};

static void run_open_on(struct run *r, const char *device, bool trains)
{
    memset(r, 0, sizeof(*r));
    assert_int_equal(device_open(&r->device, device, NULL), 0);
    pass_memory_init(&r->memory, r->device, 0);
    tiny_init(&r->net, trains);
}

static void run_close(struct run *r)
{
    tiny_release(&r->net, r->device);
    pass_memory_release(&r->memory);
    if (r->device->close) device_close(r->device);
}

static void run_open(struct run *r, bool trains)
{
    run_open_on(r, "plain", trains);
}

static int run_once(struct run *r, enum dtype dtype, struct tape *tape)
{
    struct pass p;
    pass_start(&p, &r->memory, dtype, tape);
    struct tensor y = tiny_forward(&p, &r->net);
    assert_int_equal(y.rank, 4);
    assert_int_equal(tensor_count(y), OUTPUTS);
    pass_output(&p, r->y, y);
    struct tensor loss = tiny_loss(&p, &r->net, y);
    if (tape) tape_backward(&p, loss, 1);
    pass_output(&p, &r->loss, loss);
    r->peak = p.peak_bytes;
    int rc = pass_finish(&p, &r->error);
    if (tape) tape_clear(tape);
    assert_int_equal(r->memory.used_bytes, 0);
    assert_int_equal(r->memory.block_bytes, 0);
    return rc;
}

static void grads_clear(struct tiny_net *net)
{
    for (int i = 0; i < TINY_WEIGHTS; i++) {
        memset(net->w[i].grad, 0, (size_t)weight_count(&net->w[i]) * sizeof(float));
    }
}

static double grads_sum(const struct tiny_net *net)
{
    double sum = 0;
    for (int i = 0; i < TINY_WEIGHTS; i++) {
        const float *grad = net->w[i].grad;
        for (int64_t j = 0; j < weight_count(&net->w[i]); j++)
            sum += fabs(grad[j]) * (1 + (double)j);
    }
    return sum;
}

/* --- tests ------------------------------------------------------------------------------------ */

static void a_tape_changes_no_bit(void **state)
{
    const enum dtype dtypes[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F16};
    for (int i = 0; i < 3; i++) {
        struct run r;
        float without[OUTPUTS];
        run_open(&r, true);
        assert_int_equal(run_once(&r, dtypes[i], NULL), 0);
        memcpy(without, r.y, sizeof(without));
        float loss = r.loss;
        double sums[2];
        for (int recompute = 0; recompute < 2; recompute++) {
            struct tape *tape = tape_new();
            tape_recompute(tape, recompute);
            grads_clear(&r.net);
            assert_int_equal(run_once(&r, dtypes[i], tape), 0);
            assert_memory_equal(r.y, without, sizeof(without));
            assert_true(r.loss == loss && isfinite(loss) && loss > 0);
            sums[recompute] = grads_sum(&r.net);
            tape_free(tape);
        }
        assert_true(sums[0] == sums[1] && sums[0] > 0);
        run_close(&r);
    }
}

static void narrow_gradients_are_near_wide_ones(void **state)
{
    struct run r;
    run_open(&r, true);
    struct tape *tape = tape_new();
    const enum dtype dtypes[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F16};
    const double tolerance[] = {0, 0.03, 0.004}; /* about four roundings of the storage type */
    float *wide[TINY_WEIGHTS];
    for (int i = 0; i < 3; i++) {
        grads_clear(&r.net);
        assert_int_equal(run_once(&r, dtypes[i], tape), 0);
        for (int w = 0; w < TINY_WEIGHTS; w++) {
            int64_t count = weight_count(&r.net.w[w]);
            float *grad = r.net.w[w].grad;
            double off = 0, size = 0;
            if (i == 0) wide[w] = memcpy(alloc_zero((size_t)count, 4), grad, (size_t)count * 4);
            for (int64_t j = 0; j < count; j++) {
                off += pow(grad[j] - wide[w][j], 2);
                size += pow(wide[w][j], 2);
            }
            if (sqrt(off) > tolerance[i] * sqrt(size)) {
                fail_msg("weight %d in %s: off by %g of its norm", w, dtype_name(dtypes[i]),
                         sqrt(off / size));
            }
        }
    }
    for (int w = 0; w < TINY_WEIGHTS; w++) free(wide[w]);
    tape_free(tape);
    run_close(&r);
}

static void the_same_pass_takes_the_same_addresses(void **state)
{
    struct run r;
    void *first = NULL;
    size_t peak = 0;
    run_open(&r, false);
    for (int i = 0; i < 3; i++) {
        struct pass p;
        pass_start(&p, &r.memory, DTYPE_F32, NULL);
        struct tensor y = tiny_forward(&p, &r.net);
        if (i == 0) first = y.data, peak = p.peak_bytes;
        assert_ptr_equal(y.data, first);
        assert_int_equal(p.peak_bytes, peak);
        assert_int_equal(pass_finish(&p, NULL), 0);
    }
    run_close(&r);
}

static void scopes_hand_memory_back(void **state)
{
    struct run r;
    run_open(&r, true);
    struct pass p;
    pass_start(&p, &r.memory, DTYPE_F32, NULL);
    struct tensor x = pass_input(&p, r.net.x, 2, TENSOR_DIM(8, TINY_C));
    size_t mark = pass_open_scope(&p), before = p.used_bytes;
    struct tensor first = op_scale(&p, x, 2);
    assert_int_equal(p.used_bytes, before + 256);
    pass_close_scope(&p, mark);
    assert_int_equal(p.used_bytes, before);
    assert_ptr_equal(op_scale(&p, x, 3).data, first.data);
    assert_int_equal(pass_finish(&p, NULL), 0);

    struct tape *tape = tape_new(); /* records pin what they point to, and only that */
    pass_start(&p, &r.memory, DTYPE_F32, tape);
    x = pass_input(&p, r.net.x, 2, TENSOR_DIM(8, TINY_C));
    before = p.used_bytes;
    mark = pass_open_scope(&p);
    op_scale(&p, x, 2);
    pass_close_scope(&p, mark);
    assert_int_equal(p.used_bytes, before);
    mark = pass_open_scope(&p);
    struct tensor h = op_linear(&p, x, &r.net.w[TINY_Q], NULL, NULL);
    op_scale(&p, x, 2);
    pass_close_scope(&p, mark);
    assert_int_equal(p.used_bytes, before + 256);
    assert_true(h.node > 0);
    assert_int_equal(pass_finish(&p, NULL), 0);
    assert_true(r.memory.used_bytes > 0);
    tape_free(tape);
    assert_int_equal(r.memory.used_bytes, 0);
    run_close(&r);
}

static void passes_lie_on_top_of_each_other(void **state)
{
    struct run r;
    float out[8] = {0};
    const float in[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    run_open(&r, false);
    struct pass outer, inner;
    pass_start(&outer, &r.memory, DTYPE_F32, NULL);
    struct tensor kept = pass_input(&outer, in, 1, TENSOR_DIM(8));
    pass_start(&inner, &r.memory, DTYPE_BF16, NULL);
    tiny_forward(&inner, &r.net);
    assert_int_equal(pass_finish(&inner, NULL), 0);
    pass_output(&outer, out, kept);
    assert_int_equal(pass_finish(&outer, NULL), 0);
    assert_memory_equal(in, out, sizeof(in));
    run_close(&r);
}

/* Every limit from nothing up to what is needed, in the allocator's own steps. */
static void memory_may_end_at_any_point(void **state)
{
    for (int training = 0; training < 2; training++) {
        struct run r;
        float y[OUTPUTS];
        run_open(&r, training);
        struct tape *tape = training ? tape_new() : NULL;
        assert_int_equal(run_once(&r, DTYPE_F32, tape), 0);
        memcpy(y, r.y, sizeof(y));
        size_t needed = r.peak, failures = 0;
        for (size_t limit = 256; limit < needed; limit += 256, failures++) {
            r.memory.limit_bytes = limit;
            if (run_once(&r, DTYPE_F32, tape) != ERR_NO_MEMORY) {
                fail_msg("limit %zu of %zu: %s", limit, needed, r.error.text);
            }
            assert_non_null(strstr(r.error.text, "limit"));
        }
        assert_true(failures > 20);
        r.memory.limit_bytes = needed; /* the peak is the plan */
        assert_int_equal(run_once(&r, DTYPE_F32, tape), 0);
        assert_memory_equal(r.y, y, sizeof(y));
        tape_free(tape);
        run_close(&r);
    }
}

/* The 1st, 2nd, 3rd ... allocation from the heap fails: widened copies, packed weights, scratch of the
 * fast kernels, blocks for gradients, chunks of a far device. */
static void heap_ends_on(struct run *r, struct tape *tape, int least)
{
    float y[OUTPUTS];
    int failures = 0;
    assert_int_equal(run_once(r, DTYPE_BF16, tape), 0);
    memcpy(y, r->y, sizeof(y));
    for (int nth = 1;; nth++) {
        pass_memory_trim(&r->memory);
        for (int i = 0; i < TINY_WEIGHTS; i++) weight_release(&r->net.w[i], r->device);
        heap_countdown = nth;
        int rc = run_once(r, DTYPE_BF16, tape);
        bool reached = heap_countdown == 0;
        heap_countdown = 0;
        if (!reached) break;
        /* One that failed may have been got over: an idle block was freed for it. */
        if (rc != ERR_NO_MEMORY && rc != 0) fail_msg("allocation %d: %s", nth, r->error.text);
        failures += rc != 0;
    }
    if (failures < least) fail_msg("%s: only %d failures", r->device->name, failures);
    assert_int_equal(run_once(r, DTYPE_BF16, tape), 0);
    assert_memory_equal(r->y, y, sizeof(y));
}

static void the_heap_may_end_at_any_point(void **state)
{
    const char *const names[] = {"plain", "cpu:2", "far"};
    for (int i = 0; i < 3; i++) {
        struct run r;
        struct device far;
        struct kernels table;
        run_open_on(&r, i == 1 ? names[1] : names[0], true);
        if (i == 2) {
            device_close(r.device);
            remote_open(&far, &table);
            r.device = r.memory.device = &far;
            r.memory.limit_bytes = 1 << 20; /* small chunks, as each run allocates anew */
        }
        struct tape *tape = tape_new();
        heap_ends_on(&r, tape, i == 1 ? 5 : 100); /* the CPU keeps no packed form at first use */
        tape_free(tape);
        run_close(&r);
        if (i == 2) assert_int_equal(remote.allocated, 0);
    }
}

static void assert_near(const float *a, const float *b, int64_t count, double tolerance, int what)
{
    double off = 0, size = 0;
    for (int64_t i = 0; i < count; i++) {
        off += pow((double)a[i] - b[i], 2);
        size += pow(b[i], 2);
    }
    if (!(sqrt(off) <= tolerance * sqrt(size))) fail_msg("%d: off by %g", what, sqrt(off / size));
}

static void the_cpu_walks_back_as_plain_does(void **state)
{
    struct run plain, cpu;
    run_open_on(&plain, "plain", true);
    run_open_on(&cpu, "cpu:2", true);
    struct tape *tape = tape_new();
    assert_int_equal(run_once(&plain, DTYPE_F32, tape), 0);
    assert_int_equal(run_once(&cpu, DTYPE_F32, tape), 0);
    assert_near(cpu.y, plain.y, OUTPUTS, 1e-5, -1);
    for (int i = 0; i < TINY_WEIGHTS; i++) {
        struct weight *w = &plain.net.w[i];
        assert_near(cpu.net.w[i].grad, w->grad, weight_count(w), 1e-5, i);
    }
    tape_free(tape);
    run_close(&plain);
    run_close(&cpu);
}

static void a_far_device_gives_the_same(void **state)
{
    struct run near, distant;
    struct device far;
    struct kernels table;
    run_open(&near, true);
    run_open(&distant, true);
    device_close(distant.device);
    remote_open(&far, &table);
    distant.device = distant.memory.device = &far;
    struct tape *tape = tape_new();
    assert_int_equal(run_once(&near, DTYPE_F32, tape), 0);
    assert_int_equal(run_once(&distant, DTYPE_F32, tape), 0);
    assert_memory_equal(near.y, distant.y, sizeof(near.y));
    assert_true(grads_sum(&near.net) == grads_sum(&distant.net));
    assert_int_equal(remote.uploads, 4);   /* x, time, target, the loss's own gradient */
    assert_int_equal(remote.downloads, 2); /* y and the loss */
    tape_free(tape);
    run_close(&near);
    run_close(&distant);
    assert_int_equal(remote.allocated, 0);
}

static void chunks_of_a_device_settle_into_one(void **state)
{
    struct device far;
    struct kernels table;
    struct pass_memory memory;
    struct pass p;
    remote_open(&far, &table);
    pass_memory_init(&memory, &far, 0);
    const int64_t dim = 200 << 20; /* two of these do not fit one chunk */
    uint64_t generation[3];
    void *second[3];
    for (int i = 0; i < 3; i++) {
        pass_start(&p, &memory, DTYPE_F32, NULL);
        pass_tensor(&p, DTYPE_U8, 1, &dim);
        second[i] = pass_tensor(&p, DTYPE_U8, 1, &dim).data;
        assert_non_null(second[i]);
        assert_int_equal(pass_finish(&p, NULL), 0);
        generation[i] = memory.generation;
    }
    assert_true(generation[0] != generation[1] && generation[1] == generation[2]);
    assert_ptr_equal(second[1], second[2]);
    assert_int_equal(remote.allocated, 1);
    memory.limit_bytes = 300 << 20;
    pass_start(&p, &memory, DTYPE_F32, NULL);
    pass_tensor(&p, DTYPE_U8, 1, &dim);
    assert_null(pass_tensor(&p, DTYPE_U8, 1, &dim).data);
    assert_int_equal(pass_finish(&p, NULL), ERR_NO_MEMORY);
    pass_memory_trim(&memory);
    assert_int_equal(remote.allocated, 0);
    assert_int_equal(memory.reserved_bytes, 0);
    pass_memory_release(&memory);
}

/* Models of a device take turns on one arena: what the first grew is there for the second, at the same
 * addresses, and goes with the last. */
static void one_arena_for_all(void **state)
{
    struct device far;
    struct kernels table;
    struct pass p;
    remote_open(&far, &table);
    struct pass_memory *a = pass_memory_get(&far, PASS_STEPS);
    struct pass_memory *b = pass_memory_get(&far, PASS_STEPS);
    struct pass_memory *other = pass_memory_get(&far, PASS_CONTEXT);
    assert_ptr_equal(a, b);
    assert_ptr_not_equal(a, other);
    const int64_t dim = 1000;
    pass_start(&p, a, DTYPE_F32, NULL);
    void *first = pass_tensor(&p, DTYPE_U8, 1, &dim).data;
    assert_int_equal(pass_finish(&p, NULL), 0);
    uint64_t generation = a->generation, moves = far.moves;
    pass_memory_put(a);
    assert_int_equal(remote.allocated, 1);
    pass_start(&p, b, DTYPE_F32, NULL);
    assert_ptr_equal(pass_tensor(&p, DTYPE_U8, 1, &dim).data, first);
    assert_int_equal(pass_finish(&p, NULL), 0);
    assert_true(b->generation == generation);
    assert_true(b->peak_bytes >= 1000);
    pass_memory_trim(b);
    assert_true(b->peak_bytes == 0 && b->generation > generation);
    assert_true(far.moves == moves); /* recordings know it by its generation */
    pass_memory_put(b);
    pass_memory_put(other);
    pass_memory_put(NULL);
    assert_null(far.shared[PASS_STEPS]);
    assert_null(far.shared[PASS_CONTEXT]);
    assert_int_equal(remote.allocated, 0);
}

static void three_maps(struct pass *p, void *context)
{
    const int64_t *count = context;
    struct tensor x = pass_tensor(p, DTYPE_F32, 1, count);
    size_t mark = pass_open_scope(p);
    struct tensor h = op_scale(p, x, 2);
    op_add(p, h, x);
    pass_close_scope(p, mark);
    op_scale(p, x, 3);
}

/* One reservation before the pass, of what it takes; too large a pass is told before it begins. */
static void planned_before(void **state)
{
    struct device far;
    struct kernels table;
    struct pass_memory memory;
    struct pass p;
    struct error err;
    int64_t count = 100 << 20; /* floats: 400 MiB a map, three at the most */
    remote_open(&far, &table);
    pass_memory_init(&memory, &far, 0);
    int allocated = remote.allocated;
    memory.limit_bytes = (size_t)1000 << 20;
    assert_int_equal(pass_plan(&memory, DTYPE_F32, three_maps, &count, &err), ERR_NO_MEMORY);
    assert_int_equal(remote.allocated, allocated);
    memory.limit_bytes = 0;
    count = 1 << 20;
    assert_int_equal(pass_plan(&memory, DTYPE_F32, three_maps, &count, &err), 0);
    assert_int_equal(remote.allocated, allocated + 1);
    assert_int_equal(memory.reserved_bytes, 12 << 20);
    uint64_t generation = memory.generation;
    pass_start(&p, &memory, DTYPE_F32, NULL);
    three_maps(&p, &count);
    assert_int_equal(p.peak_bytes, 12 << 20);
    pass_finish(&p, NULL);
    /* nothing more was taken, and a smaller plan moves nothing */
    count = 1000;
    assert_int_equal(pass_plan(&memory, DTYPE_F32, three_maps, &count, &err), 0);
    assert_int_equal(memory.reserved_bytes, 12 << 20);
    assert_true(memory.generation == generation);
    pass_memory_release(&memory);
    assert_int_equal(remote.allocated, allocated);
}

static bool after_some_questions(void *context)
{
    return --*(int *)context < 0;
}

static void canceling_stops_between_ops(void **state)
{
    struct run r;
    run_open(&r, true);
    struct tape *tape = tape_new();
    int canceled = 0;
    for (int questions = 0; questions < 400; questions++) {
        struct pass p;
        struct error err;
        int left = questions;
        pass_start(&p, &r.memory, DTYPE_F32, tape);
        p.canceled = after_some_questions;
        p.canceled_context = &left;
        struct tensor y = tiny_forward(&p, &r.net);
        tape_backward(&p, tiny_loss(&p, &r.net, y), 1);
        int rc = pass_finish(&p, &err);
        tape_clear(tape);
        assert_int_equal(r.memory.used_bytes, 0);
        if (rc == 0) break;
        assert_int_equal(rc, ERR_CANCELED);
        assert_int_equal(r.memory.block_bytes, 0);
        canceled++;
    }
    assert_true(canceled > 20 && canceled < 400);
    tape_free(tape);
    run_close(&r);
}

static void a_failed_pass_computes_nothing(void **state)
{
    struct run r;
    struct error err;
    float untouched[OUTPUTS] = {42};
    run_open(&r, true);
    struct pass p;
    struct tape *tape = tape_new();
    pass_start(&p, &r.memory, DTYPE_F32, tape);
    pass_fail(&p, ERR_FORMAT, "first", "reason %d", 1);
    pass_fail(&p, ERR_IO, "second", "not heard");
    struct tensor y = tiny_forward(&p, &r.net);
    assert_null(y.data);
    assert_int_equal(tensor_count(y), OUTPUTS);
    struct tensor loss = tiny_loss(&p, &r.net, y);
    tape_watch(&p, &y);
    tape_backward(&p, loss, 1);
    assert_null(tape_gradient(&p, y).data);
    pass_output(&p, untouched, y);
    assert_true(untouched[0] == 42);
    assert_int_equal(p.peak_bytes, 0);
    assert_int_equal(r.memory.reserved_bytes, 0);
    assert_int_equal(pass_finish(&p, &err), ERR_FORMAT);
    assert_string_equal(err.text, "first: reason 1");
    tape_free(tape);
    run_close(&r);
}

static void what_gets_no_gradient(void **state)
{
    struct run r;
    run_open(&r, false); /* nothing trains */
    struct tape *tape = tape_new();
    struct pass p;
    pass_start(&p, &r.memory, DTYPE_F32, tape);
    struct tensor unused = pass_input(&p, r.net.x, 1, TENSOR_DIM(4));
    tape_watch(&p, &unused);
    struct tensor y = tiny_forward(&p, &r.net);
    assert_int_equal(y.node, 0); /* so checkpoints have kept nothing either */
    tape_backward(&p, tiny_loss(&p, &r.net, y), 1);
    assert_null(tape_gradient(&p, unused).data);
    assert_true(pass_ok(&p));
    float nothing[4];
    pass_output(&p, nothing, tape_gradient(&p, unused));
    assert_int_equal(pass_finish(&p, NULL), ERR_INTERNAL);

    r.net.w[TINY_Q].trainable = true; /* but has no memory for a gradient */
    pass_start(&p, &r.memory, DTYPE_F32, tape);
    tape_backward(&p, tiny_loss(&p, &r.net, tiny_forward(&p, &r.net)), 1);
    struct error err;
    assert_int_equal(pass_finish(&p, &err), ERR_INVALID);
    assert_non_null(strstr(err.text, "tiny trains but has no memory"));
    tape_free(tape);
    run_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_tape_changes_no_bit),
        cmocka_unit_test(narrow_gradients_are_near_wide_ones),
        cmocka_unit_test(the_same_pass_takes_the_same_addresses),
        cmocka_unit_test(scopes_hand_memory_back),
        cmocka_unit_test(passes_lie_on_top_of_each_other),
        cmocka_unit_test(memory_may_end_at_any_point),
        cmocka_unit_test(the_heap_may_end_at_any_point),
        cmocka_unit_test(the_cpu_walks_back_as_plain_does),
        cmocka_unit_test(a_far_device_gives_the_same),
        cmocka_unit_test(chunks_of_a_device_settle_into_one),
        cmocka_unit_test(one_arena_for_all),
        cmocka_unit_test(planned_before),
        cmocka_unit_test(canceling_stops_between_ops),
        cmocka_unit_test(a_failed_pass_computes_nothing),
        cmocka_unit_test(what_gets_no_gradient),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
