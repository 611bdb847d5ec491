/* The runtime of runtime.h over the emulator. */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/str.h"
#include "kernels/cuda/emulator/emulator.h"
#include "kernels/cuda/runtime.h"

/* The stream of copies: nothing moves before somebody waits for it, so that a buffer that is filled again
 * too early, or a kernel that does not wait, is seen. Work is done when it is asked for. */
struct copies {
    struct copy {
        struct copy *next;
        void *to;
        const void *from;
        size_t bytes;
        uint64_t number;
    } * first, **last;
    uint64_t asked;                    /* copies so far */
    uint64_t recorded[RUNTIME_EVENTS]; /* how many an event covers; 0: it is the stream of work's */
};

static struct copies *copies_new(void)
{
    struct copies *c = alloc_zero(1, sizeof *c);
    c->last = &c->first;
    return c;
}

/* Does all that come before: number <= upto. */
static int copies_run(struct copies *c, uint64_t upto)
{
    int code = 0;
    while (c->first && c->first->number <= upto) {
        struct copy *done = c->first;
        int now = emulator_stream_copy(done->to, done->from, done->bytes);
        if (!code) code = now;
        c->first = done->next;
        if (!c->first) c->last = &c->first;
        free(done);
    }
    return code;
}

int runtime_send(struct runtime *r, void *to, const void *from, size_t bytes)
{
    struct copies *c = r->copies;
    struct copy *copy = alloc_zero(1, sizeof *copy);
    if (emulator_failure()) {
        free(copy);
        return 719;
    }
    *copy = (struct copy){NULL, to, from, bytes, ++c->asked};
    *c->last = copy;
    c->last = &copy->next;
    return 0;
}

int runtime_send_record(struct runtime *r, int event)
{
    struct copies *c = r->copies;
    c->recorded[event] = c->asked;
    return 0;
}

int runtime_send_after(struct runtime *r, int event)
{
    return 0; /* the work that it stands for is done */
}

static int run_recorded(struct runtime *r, int event)
{
    struct copies *c = r->copies;
    uint64_t upto = c->recorded[event];
    return upto ? copies_run(c, upto) : 0;
}

int runtime_work_after(struct runtime *r, int event)
{
    return run_recorded(r, event);
}

int runtime_twin(struct runtime *r, const struct runtime *first, struct error *err)
{
    *r = *first;
    r->copies = copies_new();
    return 0;
}

int runtime_open(struct runtime *r, int index, struct error *err)
{
    if (index != 0)
        return error_set(err, ERR_NOT_FOUND, "device cuda:%d: the emulator has one GPU, number 0",
                         index);
    struct emulator_options options;
    emulator_start_faults();
    emulator_get(&options);
    *r = (struct runtime){.capability = options.target,
                          .multiprocessors = 4,
                          .emulated = true,
                          .driver = 13000,
                          .patience_ms = runtime_patience_ms(),
                          .shared_limit = emulator_shared_limit(options.target),
                          .memory_bytes = (size_t)8 << 30};
    r->copies = copies_new();
    str_copy(r->label, sizeof r->label, "emulated GPU");
    return 0;
}

void runtime_close(struct runtime *r)
{
    struct copies *c = r->copies;
    while (c->first) {
        struct copy *next = c->first->next;
        free(c->first);
        c->first = next;
    }
    free(c);
}

int runtime_alloc(struct runtime *r, void **memory, size_t bytes)
{
    *memory = emulator_alloc(bytes ? bytes : 1);
    return *memory ? 0 : 2;
}

void runtime_free(struct runtime *r, void *memory)
{
    emulator_free(memory);
}

int runtime_alloc_pinned(struct runtime *r, void **memory, size_t bytes)
{
    *memory = malloc(bytes);
    return *memory ? 0 : 2;
}

void runtime_free_pinned(struct runtime *r, void *memory)
{
    free(memory);
}

/* 1: invalid value, as when a copy leaves the allocation */
static int move(void *to, const void *from, size_t bytes, const void *on_device)
{
    if (!bytes) return 0;
    if (emulator_failure()) return 719;
    if (!emulator_owns(on_device, bytes)) return 1;
    memcpy(to, from, bytes);
    return 0;
}

/* 900: not while capturing */
static int refuse_capture(void)
{
    if (!emulator_capturing()) return 0;
    emulator_capture_spoil();
    return 900;
}

int runtime_to_device(struct runtime *r, void *to, const void *from, size_t bytes)
{
    if (refuse_capture())
        return 900; /* a graph would read the pinned memory again at each replay */
    return move(to, from, bytes, to);
}

int runtime_to_host(struct runtime *r, void *to, const void *from, size_t bytes)
{
    if (refuse_capture()) return 900;
    return move(to, from, bytes, from);
}

int runtime_copy(struct runtime *r, void *to, const void *from, size_t bytes)
{
    if (bytes && !emulator_owns(from, bytes)) return 1;
    if (emulator_capture_copy(to, from, bytes)) return 0;
    return move(to, from, bytes, to);
}

int runtime_clear(struct runtime *r, void *memory, size_t bytes)
{
    if (!bytes) return 0;
    if (emulator_failure()) return 719;
    if (!emulator_owns(memory, bytes)) return 1;
    if (emulator_capture_copy(memory, NULL, bytes)) return 0;
    memset(memory, 0, bytes);
    return 0;
}

static double recorded_ms[RUNTIME_EVENTS];

int runtime_event_record(struct runtime *r, int event)
{
    struct copies *c = r->copies;
    c->recorded[event] = 0;
    recorded_ms[event] = emulator_clock();
    return 0;
}

static int query(struct runtime *r, int event)
{
    if (emulator_hangs()) return RUNTIME_BUSY;
    return emulator_failure() ? 719 : 0;
}

int runtime_event_wait(struct runtime *r, int event)
{
    if (emulator_capturing()) return refuse_capture();
    int code = run_recorded(r, event);
    return code ? code : runtime_wait(r, query, event);
}

int runtime_event_ms(struct runtime *r, int from, int to, float *ms)
{
    *ms = (float)(recorded_ms[to] - recorded_ms[from]);
    return 0;
}

int runtime_capture_begin(struct runtime *r)
{
    emulator_capture_begin();
    return 0;
}

int runtime_capture_end(struct runtime *r, void **graph)
{
    *graph = emulator_capture_end();
    return *graph ? 0 : 901;
}

int runtime_graph_launch(struct runtime *r, void *graph)
{
    return emulator_graph_launch(graph);
}

void runtime_graph_free(struct runtime *r, void *graph)
{
    emulator_graph_free(graph);
}

int runtime_finish(struct runtime *r)
{
    return emulator_capturing() ? refuse_capture() : runtime_wait(r, query, 0);
}

int runtime_free_bytes(struct runtime *r, size_t *bytes)
{
    *bytes = emulator_free_bytes(r->memory_bytes);
    return 0;
}

int runtime_check(int code, const char *what, struct error *err)
{
    if (code == 0) return 0;
    if (code == 2) return error_set(err, ERR_NO_MEMORY, "%s: the GPU has no memory left", what);
    const char *why = emulator_failure();
    if (code == RUNTIME_LOST)
        return error_set(err, ERR_DEVICE, "%s: the GPU does not answer any more", what);
    if (why) return error_set(err, ERR_DEVICE, "%s: the GPU failed: %s", what, why);
    return error_set(err, ERR_INTERNAL, "%s: CUDA error %d", what, code);
}

const char *runtime_error_text(int code)
{
    return code ? "emulated failure" : "no error";
}
