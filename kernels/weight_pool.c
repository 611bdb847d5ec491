#include "kernels/weight_pool.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "kernels/device.h"

#define BLOCK_LEAST ((size_t)8 << 20) /* of a block that nobody reserved */

struct piece {
    size_t start, bytes;
    bool used;
};

struct block {
    struct block *next;
    char *memory;
    size_t bytes, end;   /* end: of what was ever cut off */
    struct piece *piece; /* in order, without holes, up to `end` */
    size_t count;
};

struct weight_pool {
    struct device *device;
    struct block *blocks; /* the newest first */
    size_t bytes, used;
    bool ended;
};

struct weight_pool *weight_pool_new(struct device *device)
{
    struct weight_pool *p = alloc_zero(1, sizeof *p);
    p->device = device;
    return p;
}

void weight_pool_free(struct weight_pool *p)
{
    if (!p) return;
    /* what recordings know of these blocks was the model's own, and is gone */
    uint64_t moves = p->device->moves;
    while (p->blocks) {
        struct block *next = p->blocks->next;
        p->device->kernels->free(p->device, p->blocks->memory);
        free(p->blocks->piece);
        free(p->blocks);
        p->blocks = next;
    }
    p->device->moves = moves;
    free(p);
}

void weight_pool_end(struct weight_pool *p)
{
    if (p) p->ended = true;
}

void weight_pool_move(struct weight_pool *p, struct device *to)
{
    if (p) p->device = to;
}

static size_t round_up(size_t bytes)
{
    return (bytes + WEIGHT_POOL_ALIGNMENT - 1) / WEIGHT_POOL_ALIGNMENT * WEIGHT_POOL_ALIGNMENT;
}

static int add_block(struct weight_pool *p, size_t bytes, struct error *err)
{
    void *memory;
    int rc = p->device->kernels->alloc(p->device, &memory, bytes, err);
    if (rc) return rc;
    struct block *b = alloc_zero(1, sizeof *b);
    *b = (struct block){.next = p->blocks, .memory = memory, .bytes = bytes};
    p->blocks = b;
    p->bytes += bytes;
    return 0;
}

int weight_pool_reserve(struct weight_pool *p, size_t bytes, struct error *err)
{
    if (!bytes || (p->blocks && p->blocks->bytes - p->blocks->end >= bytes)) return 0;
    return add_block(p, round_up(bytes), err);
}

static void insert_piece(struct block *b, size_t at, struct piece piece)
{
    b->piece = alloc_grow(b->piece, b->count + 1, sizeof *b->piece);
    memmove(b->piece + at + 1, b->piece + at, (b->count - at) * sizeof *b->piece);
    b->piece[at] = piece;
    b->count++;
}

/* A piece that was given back, split when it is larger. */
static bool reuse(struct weight_pool *p, void **memory, size_t bytes)
{
    for (struct block *b = p->blocks; b; b = b->next)
        for (size_t i = 0; i < b->count; i++) {
            struct piece *piece = &b->piece[i];
            if (piece->used || piece->bytes < bytes) continue;
            struct piece rest = {piece->start + bytes, piece->bytes - bytes, false};
            piece->bytes = bytes;
            piece->used = true;
            *memory = b->memory + piece->start;
            if (rest.bytes) insert_piece(b, i + 1, rest);
            return true;
        }
    return false;
}

int weight_pool_take(struct weight_pool *p, void **memory, bool *fresh, size_t bytes,
                     struct error *err)
{
    size_t whole = round_up(bytes ? bytes : 1);
    struct block *b = p->blocks;
    while (b && b->bytes - b->end < whole) b = b->next;
    *fresh = b != NULL;
    if (!b && reuse(p, memory, whole)) {
        p->used += whole;
        return 0;
    }
    if (!b) {
        int rc = add_block(p, whole > BLOCK_LEAST ? whole : BLOCK_LEAST, err);
        if (rc) return rc;
        b = p->blocks;
        *fresh = true;
    }
    insert_piece(b, b->count, (struct piece){b->end, whole, true});
    *memory = b->memory + b->end;
    b->end += whole;
    p->used += whole;
    return 0;
}

static void remove_piece(struct block *b, size_t at)
{
    memmove(b->piece + at, b->piece + at + 1, (b->count - at - 1) * sizeof *b->piece);
    b->count--;
}

/* Neighbours that are free as well become one. */
static void merge(struct block *b, size_t at)
{
    if (at + 1 < b->count && !b->piece[at + 1].used) {
        b->piece[at].bytes += b->piece[at + 1].bytes;
        remove_piece(b, at + 1);
    }
    if (at > 0 && !b->piece[at - 1].used) {
        b->piece[at - 1].bytes += b->piece[at].bytes;
        remove_piece(b, at);
    }
}

static size_t piece_at(const struct block *b, size_t start)
{
    size_t low = 0, high = b->count;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (b->piece[middle].start <= start)
            low = middle;
        else
            high = middle;
    }
    return low;
}

void weight_pool_give(struct weight_pool *p, void *memory)
{
    if (!memory || p->ended) return;
    for (struct block *b = p->blocks; b; b = b->next) {
        if ((char *)memory < b->memory || (char *)memory >= b->memory + b->end) continue;
        size_t at = piece_at(b, (size_t)((char *)memory - b->memory));
        struct piece *piece = &b->piece[at];
        KILN_ASSERT(piece->used && b->memory + piece->start == memory, "no piece of this pool");
        piece->used = false;
        p->used -= piece->bytes;
        p->device->moves++; /* a recording may know it */
        merge(b, at);
        return;
    }
    KILN_ASSERT(false, "a piece that is not this pool's");
}

size_t weight_pool_bytes(const struct weight_pool *p)
{
    return p ? p->bytes : 0;
}

size_t weight_pool_used(const struct weight_pool *p)
{
    return p ? p->used : 0;
}
