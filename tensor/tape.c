#include "tensor/tape.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/arena.h"
#include "kernels/real.h"
#include "tensor/pass_memory.h"
#include "tensor/tape_note.h"

/* A record makes one node; node n is records[n - 1]. Walking back pops the records, so a block that
 * is run again for its backward simply records on top of what is left. */
struct record {
    tape_undo undo; /* NULL: a watched input */
    const void *saved;
    struct tensor out;
    void *grad;    /* a block of the pass memory; NULL until touched */
    size_t height; /* of the pass's stack when the record was made */
};

struct watched {
    int32_t node;
    struct tensor grad;
};

struct tape {
    struct record *records;
    int32_t count, room;
    struct watched *watched;
    int32_t watched_count;
    struct arena host;          /* saved structs */
    struct pass_memory *memory; /* NULL: empty */
    size_t base;                /* height of the stack when the pass began */
    void **kept;
    int32_t kept_count;
    int paused; /* inside the first run of a checkpointed block */
    bool recompute;
    double seed;
    bool at_seed; /* the record being undone is where the walk began */
};

/* What tells a checkpointed block, whose first run records nothing, that its result needs a record. */
#define NODE_PAUSED (-1)

struct tape *tape_new(void)
{
    struct tape *t = alloc_zero(1, sizeof(*t));
    t->recompute = true;
    arena_init(&t->host, 0);
    return t;
}

void tape_clear(struct tape *t)
{
    if (!t->memory) return;
    for (int32_t i = 0; i < t->count; i++) pass_memory_give(t->memory, t->records[i].grad);
    for (int32_t i = 0; i < t->watched_count; i++) {
        pass_memory_give(t->memory, t->watched[i].grad.data);
    }
    for (int32_t i = 0; i < t->kept_count; i++) pass_memory_give(t->memory, t->kept[i]);
    pass_memory_pop(t->memory, t->base);
    arena_release(&t->host);
    arena_init(&t->host, 0);
    t->count = t->watched_count = t->kept_count = 0;
    t->paused = 0;
    t->memory = NULL;
}

void tape_free(struct tape *t)
{
    if (!t) return;
    tape_clear(t);
    arena_release(&t->host);
    free(t->records);
    free(t->watched);
    free(t->kept);
    free(t);
}

void tape_recompute(struct tape *t, bool on)
{
    t->recompute = on;
}

void tape_attach(struct tape *t, struct pass *p)
{
    t->memory = p->memory;
    t->base = p->memory->used_bytes;
}

size_t tape_floor(const struct tape *t)
{
    return t->count ? t->records[t->count - 1].height : t->base;
}

bool tape_records(const struct pass *p)
{
    return p->tape && !p->tape->paused && !p->failed;
}

static struct record *record_add(struct pass *p, struct tensor *y)
{
    struct tape *t = p->tape;
    if (t->count == t->room) {
        t->room = t->room ? t->room * 2 : 256;
        t->records = alloc_grow(t->records, (size_t)t->room, sizeof(t->records[0]));
    }
    struct record *r = &t->records[t->count++];
    y->node = t->count;
    *r = (struct record){.out = *y, .height = p->memory->used_bytes};
    return r;
}

void *tape_host_bytes(struct pass *p, size_t bytes)
{
    if (p->failed) return NULL;
    void *room = arena_try(&p->tape->host, bytes ? bytes : 1, 1);
    if (!room)
        pass_fail(p, ERR_NO_MEMORY, "tape", "no host memory for a record of %zu bytes", bytes);
    return room;
}

void *tape_note(struct pass *p, struct tensor *y, tape_undo undo, size_t saved_bytes)
{
    if (!p->tape || p->failed) return NULL;
    if (p->tape->paused) {
        y->node = NODE_PAUSED;
        return NULL;
    }
    void *saved = tape_host_bytes(p, saved_bytes);
    if (!saved) return NULL;
    struct record *r = record_add(p, y);
    r->undo = undo;
    r->saved = saved;
    return saved;
}

void tape_watch(struct pass *p, struct tensor *t)
{
    struct tape *tape = p->tape;
    if (!tape_records(p)) return;
    tape->watched =
        alloc_grow(tape->watched, (size_t)tape->watched_count + 1, sizeof(tape->watched[0]));
    record_add(p, t);
    tape->watched[tape->watched_count++] = (struct watched){.node = t->node, .grad = *t};
    tape->watched[tape->watched_count - 1].grad.data = NULL;
}

struct tensor tape_gradient(struct pass *p, struct tensor t)
{
    struct tensor none = t;
    none.data = NULL;
    none.node = 0;
    for (int32_t i = 0; p->tape && !p->failed && i < p->tape->watched_count; i++) {
        if (p->tape->watched[i].node != t.node || !t.node) continue;
        none.data = p->tape->watched[i].grad.data;
    }
    return none;
}

/* A block of gradient memory; NULL fails the pass. */
static void *block_take(struct pass *p, size_t bytes)
{
    void *block;
    struct error err;
    if (p->failed) return NULL;
    int rc = pass_memory_take(p->memory, &block, bytes, &err);
    if (rc) {
        pass_fail(p, rc, "gradient memory", "%s", err.text);
        return NULL;
    }
    pass_measure(p);
    return block;
}

void tape_keep(struct pass *p, struct tensor *t)
{
    struct tape *tape = p->tape;
    void *block = block_take(p, tensor_bytes(*t));
    t->data = block;
    if (!block) return;
    tape->kept = alloc_grow(tape->kept, (size_t)tape->kept_count + 1, sizeof(tape->kept[0]));
    tape->kept[tape->kept_count++] = block;
}

static struct record *record_of(struct tape *t, int32_t node)
{
    KILN_ASSERT(node > 0 && node <= t->count, "node %d of %d", node, t->count);
    return &t->records[node - 1];
}

struct tensor tape_grad(struct pass *p, struct tensor input, bool *accumulate)
{
    struct tensor grad = input;
    grad.data = NULL;
    grad.node = 0;
    *accumulate = false;
    if (!input.node || p->failed) return grad;
    struct record *r = record_of(p->tape, input.node);
    *accumulate = r->grad != NULL;
    if (!r->grad) r->grad = block_take(p, tensor_bytes(input));
    grad.data = r->grad;
    return grad;
}

bool tape_give(struct pass *p, struct tensor input)
{
    struct tape *t = p->tape;
    struct record *from = &t->records[t->count - 1], *to = record_of(t, input.node);
    if (to->grad || tensor_bytes(input) != tensor_bytes(from->out)) return false;
    to->grad = from->grad;
    from->grad = NULL;
    return true;
}

void tape_add(struct pass *p, struct tensor input, struct tensor dy, double factor)
{
    if (!input.node || p->failed) return;
    struct record *r = record_of(p->tape, p->tape->count);
    if (factor == 1 && dy.data == r->grad && tape_give(p, input)) return;
    bool accumulate;
    struct tensor dx = tape_grad(p, input, &accumulate);
    if (!dx.data) return;
    struct add_args args = {.y = dx.data, .count = tensor_count(dx), .dtype = dx.dtype};
    args.a = accumulate ? dx.data : dy.data;
    args.alpha = accumulate ? 1 : factor;
    args.b = accumulate ? dy.data : NULL;
    args.b_count = args.count;
    args.beta = factor;
    struct error err;
    int rc = p->kernels->add(p->device, &args, &err);
    if (rc) pass_fail(p, rc, "add", "%s", err.text);
}

void *tape_weight_grad(struct pass *p, struct weight *w)
{
    if (!weight_trains(w) || p->failed) return NULL;
    if (!w->grad) {
        pass_fail(p, ERR_INVALID, "backward", "%s trains but has no memory for its gradient",
                  w->name ? w->name : "a weight");
    }
    return w->grad;
}

double tape_scalar(struct pass *p, struct tensor dy)
{
    if (p->tape->at_seed) return p->tape->seed;
    unsigned char raw[8];
    struct error err;
    if (p->failed) return 0;
    int rc = p->kernels->download(p->device, raw, dy.data, dtype_bytes(dy.dtype), &err);
    if (rc) pass_fail(p, rc, "backward", "%s", err.text);
    return rc ? 0 : dtype_get(raw, dy.dtype, 0);
}

/* Keeps the gradient of a watched input, gives back any other. */
static void record_drop(struct tape *t, int32_t index)
{
    struct record *r = &t->records[index];
    for (int32_t i = 0; !r->undo && i < t->watched_count; i++) {
        if (t->watched[i].node != index + 1) continue;
        t->watched[i].grad.data = r->grad;
        r->grad = NULL;
    }
    pass_memory_give(t->memory, r->grad);
    r->grad = NULL;
}

static void seed_loss(struct pass *p, struct tensor loss, double seed)
{
    bool accumulate;
    unsigned char raw[8];
    struct error err;
    struct tensor grad = tape_grad(p, loss, &accumulate);
    if (!grad.data) return;
    dtype_set(raw, grad.dtype, 0, seed);
    int rc = p->kernels->upload(p->device, grad.data, raw, dtype_bytes(grad.dtype), &err);
    if (rc) pass_fail(p, rc, "backward", "%s", err.text);
}

void tape_backward(struct pass *p, struct tensor loss, double seed)
{
    struct tape *t = p->tape;
    KILN_ASSERT(t, "backward on a pass without a tape");
    if (pass_ok(p) && tensor_count(loss) != 1) {
        char text[64];
        pass_fail(p, ERR_INVALID, "backward", "the loss must be one number, not %s",
                  tensor_describe(loss, text));
    }
    if (pass_ok(p) && loss.node > 0) seed_loss(p, loss, seed);
    t->seed = seed;
    int32_t seed_count = loss.node;
    while (t->count > 0) {
        int32_t index = t->count - 1;
        struct record r = t->records[index];
        pass_memory_pop(p->memory, r.height);
        t->at_seed = t->count == seed_count;
        if (t->at_seed) seed_count = 0; /* the number may come again when a block is run again */
        if (r.grad && r.undo && pass_ok(p)) {
            struct tensor dy = r.out;
            dy.data = r.grad;
            dy.node = 0;
            r.undo(p, r.saved, dy);
        }
        /* A checkpointed block has replaced its own record by those of its inside. */
        if (t->count != index + 1 || t->records[index].saved != r.saved) continue;
        record_drop(t, index);
        t->count = index;
    }
    pass_memory_pop(p->memory, t->base);
    pass_measure(p);
}

#define BLOCK_INPUTS_MAX 8

struct block_saved {
    tape_block block;
    const void *context;
    struct tensor in[BLOCK_INPUTS_MAX];
    int count;
    size_t base; /* height of the stack before the first run: nothing above is needed any more */
};

static void block_undo(struct pass *p, const void *saved, struct tensor dy)
{
    const struct block_saved *s = saved;
    struct tape *t = p->tape;
    t->records[--t->count].grad = NULL; /* dy is ours now */
    pass_memory_pop(p->memory, s->base);
    struct tensor y = s->block(p, s->context, s->in, s->count);
    if (!p->failed && y.node > 0) {
        struct record *r = record_of(t, y.node);
        if (!r->grad) {
            r->grad = dy.data;
            return;
        }
        tape_add(p, y, dy, 1);
    }
    pass_memory_give(p->memory, dy.data);
}

struct tensor tape_checkpoint(struct pass *p, tape_block block, const void *context,
                              const struct tensor *in, int count)
{
    KILN_ASSERT(count <= BLOCK_INPUTS_MAX, "%d inputs", count);
    if (!tape_records(p) || !p->tape->recompute) return block(p, context, in, count);
    struct block_saved s = {.block = block, .context = context, .count = count};
    s.base = p->memory->used_bytes;
    memcpy(s.in, in, (size_t)count * sizeof(in[0]));
    p->tape->paused++;
    struct tensor y = block(p, context, in, count);
    p->tape->paused--;
    if (y.node != NODE_PAUSED) return y;
    y.node = 0;
    struct block_saved *room = tape_note(p, &y, block_undo, sizeof(*room));
    if (room) *room = s;
    return y;
}
