#include <stdlib.h>
#include <sys/mman.h>

#include "base/alloc.h"
#include "tensor/pass_memory.h"

/* Chunks start on multiples of this and so does everything in them: a cache line, and what 128-bit
 * loads and cp.async on a GPU like. */
#define ALIGNMENT ((size_t)256)
#define HOST_CHUNK_BYTES ((size_t)1 << 36)
#define DEVICE_CHUNK_BYTES ((size_t)256 << 20)

struct pass_chunk {
    struct pass_chunk *next;
    char *memory;
    size_t start, bytes; /* start: height of the stack at its first byte */
};

struct pass_block {
    struct pass_block *next;
    void *memory;
    size_t bytes;
    bool used;
};

void pass_memory_init(struct pass_memory *m, struct device *device, size_t limit_bytes)
{
    *m = (struct pass_memory){.device = device, .limit_bytes = limit_bytes};
}

/* Without a move of the device: recordings know a memory's addresses by its generation. */
static void device_give(struct device *d, void *memory)
{
    uint64_t moves = d->moves;
    d->kernels->free(d, memory);
    d->moves = moves;
}

static void chunk_free(struct pass_memory *m, struct pass_chunk *c)
{
    m->reserved_bytes -= c->bytes;
    if (m->device->host_memory)
        munmap(c->memory, c->bytes);
    else
        device_give(m->device, c->memory);
    free(c);
}

static void chunks_free(struct pass_memory *m)
{
    while (m->chunks) {
        struct pass_chunk *next = m->chunks->next;
        chunk_free(m, m->chunks);
        m->chunks = next;
    }
    m->generation++;
}

static void idle_blocks_free(struct pass_memory *m)
{
    for (struct pass_block **at = &m->blocks; *at;) {
        struct pass_block *b = *at;
        if (b->used) {
            at = &b->next;
            continue;
        }
        *at = b->next;
        m->reserved_bytes -= b->bytes;
        m->device->kernels->free(m->device, b->memory);
        free(b);
    }
}

void pass_memory_release(struct pass_memory *m)
{
    if (!m->device) return;
    for (struct pass_block *b = m->blocks; b; b = b->next) b->used = false;
    idle_blocks_free(m);
    chunks_free(m);
    *m = (struct pass_memory){0};
}

void pass_memory_trim(struct pass_memory *m)
{
    idle_blocks_free(m);
    if (m->used_bytes) return;
    m->peak_bytes = 0;
    if (!m->device->host_memory) {
        chunks_free(m);
        return;
    }
    for (struct pass_chunk *c = m->chunks; c; c = c->next)
        madvise(c->memory, c->bytes, MADV_DONTNEED);
}

struct pass_memory *pass_memory_get(struct device *device, enum pass_role role)
{
    struct pass_memory *m = device->shared[role];
    if (!m) {
        m = alloc_zero(1, sizeof *m);
        pass_memory_init(m, device, 0);
        device->shared[role] = m;
    }
    m->users++;
    return m;
}

void pass_memory_put(struct pass_memory *m)
{
    if (!m || --m->users > 0) return;
    for (size_t i = 0; i < COUNT_OF(m->device->shared); i++)
        if (m->device->shared[i] == m) m->device->shared[i] = NULL;
    pass_memory_release(m);
    free(m);
}

/* Several device chunks become one of their whole size, so that the next pass wastes no tails. */
void pass_memory_settle(struct pass_memory *m)
{
    if (m->used_bytes || m->device->host_memory || !m->chunks || !m->chunks->next) return;
    size_t whole = 0;
    for (struct pass_chunk *c = m->chunks; c; c = c->next) whole += c->bytes;
    chunks_free(m);
    pass_memory_reserve(m, whole, NULL);
}

static void *host_reserve(size_t *bytes, size_t least)
{
    for (;;) {
        void *memory = mmap(NULL, *bytes, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory != MAP_FAILED) {
            madvise(memory, *bytes, MADV_HUGEPAGE);
            return memory;
        }
        if (*bytes <= least) return NULL;
        *bytes = *bytes / 2 > least ? *bytes / 2 : least;
    }
}

static int add_chunk(struct pass_memory *m, size_t wanted, size_t bytes, struct error *err)
{
    bool host = m->device->host_memory;
    if (!host && m->limit_bytes) {
        size_t left = m->limit_bytes > m->reserved_bytes ? m->limit_bytes - m->reserved_bytes : 0;
        if (wanted > left) wanted = left;
    }
    if (wanted < bytes) wanted = bytes;
    struct pass_chunk *c = alloc_zero(1, sizeof(*c)), **at = &m->chunks;
    c->bytes = (wanted + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    if (host) {
        c->memory = host_reserve(&c->bytes, (bytes + 4095) / 4096 * 4096);
    } else if (m->device->kernels->alloc(m->device, (void **)&c->memory, c->bytes, NULL) != 0) {
        c->memory = NULL;
    }
    if (!c->memory) {
        free(c);
        return error_set(err, ERR_NO_MEMORY, "the device has no room for %zu MiB more",
                         bytes >> 20);
    }
    for (; *at; at = &(*at)->next) c->start = (*at)->start + (*at)->bytes;
    *at = c;
    m->reserved_bytes += c->bytes;
    return 0;
}

int pass_memory_reserve(struct pass_memory *m, size_t bytes, struct error *err)
{
    size_t wanted = m->device->host_memory ? HOST_CHUNK_BYTES : DEVICE_CHUNK_BYTES;
    return add_chunk(m, wanted, bytes, err);
}

static bool within_limit(const struct pass_memory *m, size_t stack, size_t blocks)
{
    return !m->limit_bytes || (stack <= m->limit_bytes && blocks <= m->limit_bytes - stack);
}

static int over_limit(const struct pass_memory *m, size_t bytes, struct error *err)
{
    return error_set(err, ERR_NO_MEMORY,
                     "%.1f MiB more would pass the limit of %.1f MiB (%.1f in use)",
                     (double)bytes / 1048576, (double)m->limit_bytes / 1048576,
                     (double)(m->used_bytes + m->block_bytes) / 1048576);
}

int pass_memory_push(struct pass_memory *m, void **memory, size_t bytes, struct error *err)
{
    size_t whole;
    if (!size_add(bytes ? bytes : 1, ALIGNMENT - 1, &whole)) {
        return error_set(err, ERR_NO_MEMORY, "%zu bytes are more than any machine has", bytes);
    }
    whole = whole / ALIGNMENT * ALIGNMENT;
    for (;;) {
        size_t end = 0;
        for (struct pass_chunk *c = m->chunks; c; c = c->next) {
            size_t start = m->used_bytes > c->start ? m->used_bytes : c->start;
            end = c->start + c->bytes;
            if (start >= end || end - start < whole) continue;
            if (!within_limit(m, start + whole, m->block_bytes)) return over_limit(m, bytes, err);
            *memory = c->memory + (start - c->start);
            m->used_bytes = start + whole;
            if (m->used_bytes > m->peak_bytes) m->peak_bytes = m->used_bytes;
            return 0;
        }
        if (m->limit_bytes && !within_limit(m, m->used_bytes + whole, m->block_bytes)) {
            return over_limit(m, bytes, err);
        }
        int rc = pass_memory_reserve(m, whole, err);
        if (rc) return rc;
    }
}

int pass_memory_hold(struct pass_memory *m, size_t bytes, struct error *err)
{
    if (m->used_bytes || m->device->host_memory) return 0;
    if (m->chunks && !m->chunks->next && m->chunks->bytes >= bytes) return 0;
    if (!within_limit(m, bytes, m->block_bytes)) return over_limit(m, bytes, err);
    chunks_free(m);
    return add_chunk(m, bytes, bytes, err);
}

void pass_memory_pop(struct pass_memory *m, size_t height)
{
    if (height < m->used_bytes) m->used_bytes = height;
}

/* The smallest idle block that fits without wasting more than a quarter of itself. */
static struct pass_block *idle_block(struct pass_memory *m, size_t bytes)
{
    struct pass_block *best = NULL;
    for (struct pass_block *b = m->blocks; b; b = b->next) {
        if (b->used || b->bytes < bytes || b->bytes - bytes > b->bytes / 4) continue;
        if (!best || b->bytes < best->bytes) best = b;
    }
    return best;
}

int pass_memory_take(struct pass_memory *m, void **memory, size_t bytes, struct error *err)
{
    struct pass_block *b = idle_block(m, bytes);
    size_t whole = b ? b->bytes : (bytes + ALIGNMENT) / ALIGNMENT * ALIGNMENT;
    if (!within_limit(m, m->used_bytes, m->block_bytes + whole)) return over_limit(m, bytes, err);
    if (!b) {
        void *fresh;
        if (m->device->kernels->alloc(m->device, &fresh, whole, NULL) != 0) {
            idle_blocks_free(m); /* another size may have been kept for nothing */
            int rc = m->device->kernels->alloc(m->device, &fresh, whole, err);
            if (rc) return rc;
        }
        b = alloc_zero(1, sizeof(*b));
        *b = (struct pass_block){.next = m->blocks, .memory = fresh, .bytes = whole};
        m->blocks = b;
        m->reserved_bytes += whole;
    }
    b->used = true;
    m->block_bytes += b->bytes;
    *memory = b->memory;
    return 0;
}

void pass_memory_give(struct pass_memory *m, void *memory)
{
    if (!memory) return;
    for (struct pass_block *b = m->blocks; b; b = b->next) {
        if (b->memory != memory) continue;
        b->used = false;
        m->block_bytes -= b->bytes;
        return;
    }
    KILN_ASSERT(false, "a block that is not this memory's");
}
