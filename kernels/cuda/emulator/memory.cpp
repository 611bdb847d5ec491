#include "kernels/cuda/emulator/memory.h"

#include <cstdlib>
#include <cstring>
#include <vector>

#include "kernels/cuda/emulator/emulator.h"

/* ---- shared memory ---- */

static const shared_t shared_first = 1152; /* = shared_base() */
static const size_t shared_most = 228 * 1024;

/* Who touched a cell of two bytes last. Two accesses are ordered when a block barrier lies between
 * them (epoch differs) or, inside one warp, a __syncwarp (warp epoch differs). */
struct cell {
    uint32_t write_epoch, read_epoch; /* block epochs; 0: never */
    uint16_t writer, reader;
    uint16_t write_warp_epoch, read_warp_epoch;
    bool many_lanes, many_warps; /* more readers than `reader` in read_epoch */
};

static uint8_t shared_bytes_of[shared_most];
static struct cell shadow[shared_most / 2];
static size_t shared_size;
static uint32_t shared_now = 1;
static bool shared_checked;

void shared_memory_start(size_t bytes, bool check_races)
{
    shared_size = bytes;
    shared_checked = check_races;
    memset(shared_bytes_of, 0xff, bytes);
    shared_now++;
}

uint8_t *shared_memory_bytes()
{
    return shared_bytes_of;
}

void shared_memory_epoch()
{
    shared_now++;
}

static void check_cell(struct cell *c, bool write, shared_t a, uint16_t thread, uint16_t warp_epoch,
                       const char *file, int line)
{
    bool live_write = c->write_epoch == shared_now && c->writer != thread &&
                      (c->writer / 32 != thread / 32 || c->write_warp_epoch == warp_epoch);
    if (live_write)
        emulated_fail(file, line, "race: shared byte %u was written by thread %d, %s by thread %d",
                      a, c->writer, write ? "written" : "read", thread);
    if (write) {
        bool live_read =
            c->read_epoch == shared_now &&
            (c->many_warps || c->reader / 32 != thread / 32 ||
             (c->read_warp_epoch == warp_epoch && (c->many_lanes || c->reader != thread)));
        if (live_read)
            emulated_fail(file, line,
                          "race: shared byte %u was read by thread %d, written by thread %d", a,
                          c->reader, thread);
        c->write_epoch = shared_now;
        c->writer = thread;
        c->write_warp_epoch = warp_epoch;
        return;
    }
    bool first = c->read_epoch != shared_now;
    if (first)
        c->many_lanes = c->many_warps = false;
    else if (c->reader / 32 != thread / 32)
        c->many_warps = true;
    else if (c->reader != thread && c->read_warp_epoch == warp_epoch)
        c->many_lanes = true;
    c->read_epoch = shared_now;
    c->reader = thread;
    c->read_warp_epoch = warp_epoch;
}

void shared_memory_access(bool write, shared_t a, void *value, size_t bytes, int thread,
                          uint32_t warp_epoch, const char *file, int line)
{
    size_t at = (size_t)a - shared_first;
    if (a < shared_first || at + bytes > shared_size)
        emulated_fail(file, line, "shared memory: byte %lld of %zu %s", (long long)a - shared_first,
                      shared_size, write ? "written" : "read");
    if (at % bytes)
        emulated_fail(file, line, "shared memory: %zu bytes at offset %zu are not aligned", bytes,
                      at);
    if (shared_checked)
        for (size_t i = at / 2; i < (at + bytes) / 2; i++)
            check_cell(&shadow[i], write, (shared_t)(2 * i), (uint16_t)thread, (uint16_t)warp_epoch,
                       file, line);
    if (write)
        memcpy(shared_bytes_of + at, value, bytes);
    else
        memcpy(value, shared_bytes_of + at, bytes);
}

/* ---- device memory ---- */

struct allocation {
    uint8_t *memory;
    size_t bytes;
    std::vector<uint32_t> *touched; /* one word per two bytes: launch tag, block + 1, write bit */
};

static std::vector<struct allocation> allocations;
static size_t last_hit, allocated_bytes, limit_bytes;
static uint32_t launch_tag, block_number;
static bool blocks_checked;

static const size_t guard = 256;

struct machine_guard {
    machine_guard()
    {
        emulator_lock();
    }
    ~machine_guard()
    {
        emulator_unlock();
    }
};

void *emulator_alloc(size_t bytes)
{
    struct machine_guard alone;
    if (limit_bytes && allocated_bytes + bytes > limit_bytes) return nullptr;
    size_t rounded = (bytes + 255) / 256 * 256;
    uint8_t *memory = (uint8_t *)aligned_alloc(256, rounded + 2 * guard);
    if (!memory) return nullptr;
    memset(memory, 0xff, rounded + 2 * guard);
    allocations.push_back({memory + guard, bytes, nullptr});
    allocated_bytes += bytes;
    return memory + guard;
}

void emulator_free(void *memory)
{
    struct machine_guard alone;
    for (size_t i = 0; i < allocations.size(); i++) {
        if (allocations[i].memory != memory) continue;
        allocated_bytes -= allocations[i].bytes;
        delete allocations[i].touched;
        free(allocations[i].memory - guard);
        allocations.erase(allocations.begin() + (long)i);
        last_hit = 0;
        return;
    }
}

size_t emulator_free_bytes(size_t of)
{
    struct machine_guard alone;
    size_t most = limit_bytes ? limit_bytes : of;
    return most > allocated_bytes ? most - allocated_bytes : 0;
}

void emulator_limit_memory(size_t bytes)
{
    limit_bytes = bytes;
}

static struct allocation *find(const void *p, size_t bytes)
{
    const uint8_t *at = (const uint8_t *)p;
    size_t count = allocations.size();
    for (size_t i = 0; i < count; i++) {
        size_t j = last_hit + i;
        if (j >= count) j -= count;
        struct allocation *a = &allocations[j];
        if (at >= a->memory && at + bytes <= a->memory + a->bytes) {
            last_hit = j;
            return a;
        }
    }
    return nullptr;
}

bool emulator_owns(const void *p, size_t bytes)
{
    struct machine_guard alone;
    return find(p, bytes) != nullptr;
}

void device_memory_launch(bool check_blocks)
{
    blocks_checked = check_blocks;
    launch_tag++;
    if (launch_tag < 256) return;
    launch_tag = 1;
    for (struct allocation &a : allocations)
        if (a.touched) memset(a.touched->data(), 0, a.touched->size() * 4);
}

void device_memory_block(uint32_t block)
{
    block_number = block & 0x7fffff;
}

void device_memory_access(bool write, const void *p, size_t bytes, const char *file, int line)
{
    if ((uintptr_t)p % bytes)
        emulated_fail(file, line, "device memory: %zu bytes at %p are not aligned", bytes, p);
    struct allocation *a = find(p, bytes);
    if (!a)
        emulated_fail(file, line, "device memory: %zu bytes at %p %s, which no allocation holds",
                      bytes, p, write ? "written" : "read");
    if (!blocks_checked) return;
    if (!a->touched) a->touched = new std::vector<uint32_t>(a->bytes / 2 + 1, 0);
    size_t first = (size_t)((const uint8_t *)p - a->memory) / 2;
    size_t count = bytes < 2 ? 1 : bytes / 2;
    /* Readers are not kept: a block that writes what another one has read is told when the order
     * of the blocks is turned (seeds), for then it is a read of what was written. */
    uint32_t mine = launch_tag << 24 | block_number;
    for (size_t i = first; i < first + count; i++) {
        uint32_t seen = (*a->touched)[i];
        if (seen >> 24 == launch_tag && seen != mine)
            emulated_fail(file, line,
                          "blocks: global byte %zu was written by block %u, %s by block %u", 2 * i,
                          seen & 0x7fffff, write ? "written" : "read", block_number);
        if (write) (*a->touched)[i] = mine;
    }
}
