/* Barriers and bulk copies of wrap_hopper.h. What completes later on the card completes as late as possible here (with
 * a seed: now and then earlier), so that whoever does not wait finds poison.
 *
 * Who may touch what is told by knowledge, not by time: a warp knows phases of barriers that have
 * passed and products that are over. It learns by waiting and tells by arriving. A copy may overwrite a
 * line only if its issuer knows that every product that reads the line is over; a line may be read only
 * by who knows of the phase that its copy counted for. */
#include <cstdlib>
#include <cstring>
#include <vector>

#include "kernels/cuda/emulator/emulator.h"
#include "kernels/cuda/emulator/hopper.h"
#include "kernels/cuda/emulator/machine.h"
#include "kernels/cuda/emulator/memory.h"
#include "kernels/cuda/emulator/tensor_map_emulated.h"
#include "kernels/cuda/wrap.h"
#include "kernels/cuda/wrap_hopper.h"

enum { BARRIERS = 32, LINE = 128, LINES = 228 * 1024 / LINE };

struct knowledge {
    uint32_t phases[BARRIERS]; /* so many have passed */
    uint32_t products[GROUPS]; /* commits up to this one are over */
};

struct barrier {
    size_t at;
    int arrivals, pending, bytes;
    uint32_t phase; /* the one under way */
    int owner;      /* thread that made it, until a block barrier has passed; -1: since then */
    bool visible;   /* to copies */
    struct knowledge told, passed; /* by arrivals of this phase; of those before */
};

struct line {
    uint32_t reader[GROUPS]; /* commit that reads it last, counted from 1 */
    int copies;              /* under way */
    int barrier;             /* of the copy that wrote it; -1: none */
    uint32_t phase;
};

struct copy {
    size_t to;
    struct emulated_map map;
    int at[4], tap_x, tap_y, barrier;
    uint32_t phase;
    const char *file;
    int line;
};

static struct {
    bool used;
    size_t bytes;
    int count;
    struct barrier barrier[BARRIERS];
    struct knowledge knows[32];
    struct line line[LINES];
    std::vector<struct copy> copies;
    std::vector<int> waiting[BARRIERS];
} h;

static void join(struct knowledge *to, const struct knowledge *from)
{
    for (int i = 0; i < BARRIERS; i++)
        if (from->phases[i] > to->phases[i]) to->phases[i] = from->phases[i];
    for (int i = 0; i < GROUPS; i++)
        if (from->products[i] > to->products[i]) to->products[i] = from->products[i];
}

static struct knowledge *own_knowledge()
{
    return &h.knows[machine_thread() / 32];
}

void hopper_used(const char *file, int line)
{
    if (machine_target() != 90)
        emulated_fail(file, line, "sm_%d has no such instruction: sm_90a has", machine_target());
    h.used = true;
}

void hopper_block_start(size_t shared_bytes)
{
    h.bytes = shared_bytes;
    if (!h.used) return;
    h.used = false;
    h.count = 0;
    memset(h.knows, 0, sizeof h.knows);
    memset(h.line, 0, sizeof h.line);
    h.copies.clear();
    for (std::vector<int> &w : h.waiting) w.clear();
    wgmma_block_start();
}

void hopper_block_end()
{
    if (!h.used) return;
    if (!h.copies.empty())
        emulated_fail(h.copies[0].file, h.copies[0].line, "bulk copy: never waited for");
    wgmma_block_end();
}

void hopper_barrier()
{
    if (!h.used) return;
    struct knowledge all = {};
    for (int i = 0; i < machine_threads() / 32; i++) join(&all, &h.knows[i]);
    for (int i = 0; i < machine_threads() / 32; i++) h.knows[i] = all;
    for (int i = 0; i < h.count; i++) h.barrier[i].owner = -1;
}

/* ---- barriers in shared memory ---- */

static struct barrier *find_barrier(shared_t a, const char *file, int line)
{
    for (int i = 0; i < h.count; i++)
        if (h.barrier[i].at == (size_t)a - shared_base()) return &h.barrier[i];
    emulated_fail(file, line, "barrier: there is none at shared byte %lld",
                  (long long)a - shared_base());
}

static int index_of(const struct barrier *b)
{
    return (int)(b - h.barrier);
}

static void check_made(const struct barrier *b, const char *file, int line)
{
    if (b->owner >= 0 && b->owner != machine_thread())
        emulated_fail(file, line, "barrier: made by thread %d with no block barrier since",
                      b->owner);
}

void emulated_phase_init(shared_t a, int arrivals, const char *file, int line)
{
    hopper_used(file, line);
    size_t at = (size_t)a - shared_base();
    if (a < shared_base() || at + 8 > h.bytes || at % 8)
        emulated_fail(file, line, "barrier: shared byte %lld is outside or not aligned",
                      (long long)a - shared_base());
    if (h.count == BARRIERS) emulated_fail(file, line, "barrier: more than %d", BARRIERS);
    for (int i = 0; i < h.count; i++)
        if (h.barrier[i].at == at) emulated_fail(file, line, "barrier: there is one already");
    if (!h.count)
        for (struct line &l : h.line) l.barrier = -1;
    h.barrier[h.count] = {};
    struct barrier *b = &h.barrier[h.count++];
    b->at = at;
    b->arrivals = b->pending = arrivals;
    b->owner = machine_thread();
}

void emulated_phase_visible()
{
    for (int i = 0; i < h.count; i++)
        if (h.barrier[i].owner == machine_thread()) h.barrier[i].visible = true;
}

static void check_passed(struct barrier *b)
{
    if (b->pending || b->bytes) return;
    b->phase++;
    b->pending = b->arrivals;
    join(&b->passed, &b->told);
    b->passed.phases[index_of(b)] = b->phase;
    b->told = {};
    for (int thread : h.waiting[index_of(b)]) machine_wake(thread);
    h.waiting[index_of(b)].clear();
}

void emulated_phase_arrive(shared_t a, int bytes, const char *file, int line)
{
    hopper_used(file, line);
    struct barrier *b = find_barrier(a, file, line);
    check_made(b, file, line);
    if (b->pending == 0)
        emulated_fail(file, line, "barrier: more than %d arrivals in a phase", b->arrivals);
    b->pending--;
    b->bytes += bytes;
    join(&b->told, own_knowledge());
    check_passed(b);
}

void emulated_phase_wait(shared_t a, int parity, const char *file, int line)
{
    hopper_used(file, line);
    if (parity != 0 && parity != 1) emulated_fail(file, line, "barrier: parity %d", parity);
    struct barrier *b = find_barrier(a, file, line);
    check_made(b, file, line);
    while ((int)(b->phase & 1) == parity) {
        h.waiting[index_of(b)].push_back(machine_thread());
        machine_sleep("barrier in shared memory", file, line);
    }
    join(own_knowledge(), &b->passed);
}

/* ---- bulk copies ---- */

static int rows_of(const struct emulated_map *m)
{
    return m->pixels ? m->box[0] : m->box[0] * m->box[1] * m->box[2];
}

/* The lines of shared memory that a copy fills. */
static int first_line(const struct copy *c)
{
    return (int)(c->to / LINE);
}

static void check_line(int i, int thread, const struct copy *c)
{
    const struct line *l = &h.line[i];
    if (l->copies)
        emulated_fail(c->file, c->line, "bulk copy: shared byte %d is being filled by another one",
                      i * LINE);
    for (int g = 0; g < GROUPS; g++)
        if (l->reader[g] > h.knows[thread / 32].products[g])
            emulated_fail(c->file, c->line,
                          "bulk copy: shared byte %d may still be read by a product of group %d",
                          i * LINE, g);
    for (int b = 0; b < h.count; b++)
        if (h.barrier[b].at / LINE == (size_t)i)
            emulated_fail(c->file, c->line, "bulk copy: over a barrier at shared byte %zu",
                          h.barrier[b].at);
}

void emulated_tensor_load(shared_t to, const tensor_map *map, shared_t barrier, const int *at,
                          int tap_x, int tap_y, const char *file, int line)
{
    hopper_used(file, line);
    struct copy c = {};
    struct barrier *b = find_barrier(barrier, file, line);
    memcpy(&c.map, map, sizeof c.map);
    memcpy(c.at, at, sizeof c.at);
    c.to = (size_t)to - shared_base();
    c.tap_x = tap_x, c.tap_y = tap_y;
    c.barrier = index_of(b);
    c.phase = b->phase;
    c.file = file, c.line = line;
    if (c.map.mark != emulated_map_mark || c.map.pixels != (tap_x >= 0))
        emulated_fail(file, line, "bulk copy: no tensor map of this kind");
    if ((uintptr_t)map % 64) emulated_fail(file, line, "bulk copy: the map is not aligned");
    if (!b->visible) emulated_fail(file, line, "bulk copy: the barrier is not visible to copies");
    if (tap_x > 255 || tap_y > 255) emulated_fail(file, line, "bulk copy: offset over 255");
    int rows = rows_of(&c.map);
    if (to < shared_base() || to % 1024 || c.to + (size_t)rows * LINE > h.bytes)
        emulated_fail(file, line, "bulk copy: shared byte %lld is outside or not aligned to 1024",
                      (long long)to - shared_base());
    machine_counts()->tensor_loads++;
    for (int i = 0; i < rows; i++) {
        check_line(first_line(&c) + i, machine_thread(), &c);
        h.line[first_line(&c) + i].copies++;
        memset(shared_memory_bytes() + c.to + (size_t)i * LINE, 0xff, LINE);
    }
    h.copies.push_back(c);
}

/* Coordinates x, y, image of row i, or of dimensions 1, 2, 3. */
static void row_place(const struct copy *c, int i, int64_t place[3])
{
    const struct emulated_map *m = &c->map;
    if (!m->pixels) {
        place[0] = c->at[1] + i % m->box[0];
        place[1] = c->at[2] + i / m->box[0] % m->box[1];
        place[2] = c->at[3] + i / m->box[0] / m->box[1];
        return;
    }
    int64_t x = c->at[1], y = c->at[2], image = c->at[3];
    const int64_t last_x = (int64_t)m->dim[1] - 1 + m->upper_x;
    const int64_t last_y = (int64_t)m->dim[2] - 1 + m->upper_y;
    while (i-- > 0) {
        x += m->step;
        if (x <= last_x) continue;
        x = m->lower_x;
        y += m->step;
        if (y <= last_y) continue;
        y = m->lower_y;
        image++;
    }
    place[0] = x + c->tap_x, place[1] = y + c->tap_y, place[2] = image;
}

static void finish_copy(size_t index)
{
    struct copy c = h.copies[index];
    h.copies.erase(h.copies.begin() + (long)index);
    const struct emulated_map *m = &c.map;
    int rows = rows_of(m);
    for (int i = 0; i < rows; i++) {
        int64_t place[3];
        uint8_t row[LINE] = {};
        row_place(&c, i, place);
        bool inside = true;
        for (int d = 0; d < 3; d++) inside = inside && place[d] >= 0 && place[d] < m->dim[d + 1];
        for (int e = 0; inside && e < TENSOR_BOX; e += 8) {
            int64_t first = c.at[0] + e;
            if (first < 0 || first >= m->dim[0]) continue;
            int64_t live = m->dim[0] - first < 8 ? m->dim[0] - first : 8;
            const uint8_t *from = m->base + 2 * first;
            for (int d = 0; d < 3; d++) from += place[d] * m->pitch[d];
            for (int64_t j = 0; j < live; j++)
                device_memory_access(false, from + 2 * j, 2, c.file, c.line);
            machine_counts()->async_bytes += 2 * (uint64_t)live;
            memcpy(row + 2 * e, from, 2 * (size_t)live);
        }
        struct line *l = &h.line[first_line(&c) + i];
        l->copies--;
        l->barrier = c.barrier;
        l->phase = c.phase;
        uint8_t *to = shared_memory_bytes() + c.to + (size_t)i * LINE;
        for (int chunk = 0; chunk < 8; chunk++) {
            size_t swizzled = (size_t)(chunk ^ i) % 8; /* `to` is a multiple of 1024 */
            memcpy(to + 16 * swizzled, row + 16 * chunk, 16);
        }
    }
    struct barrier *b = &h.barrier[c.barrier];
    b->bytes -= rows * LINE;
    check_passed(b);
}

bool hopper_idle(uint64_t draw)
{
    if (!h.used || h.copies.empty()) return false;
    finish_copy((size_t)(draw % h.copies.size()));
    return true;
}

void hopper_early(uint64_t draw)
{
    if (h.used && !h.copies.empty() && draw % 61 == 0)
        finish_copy((size_t)(draw / 61 % h.copies.size()));
}

/* By warps from `warp` on. */
static void check_readable(size_t at, int warp, int warps, const char *file, int line)
{
    const struct line *l = &h.line[at / LINE];
    if (l->copies)
        emulated_fail(file, line, "shared byte %zu is read while a bulk copy fills it", at);
    for (int w = warp; w < warp + warps; w++)
        if (l->barrier >= 0 && h.knows[w].phases[l->barrier] <= l->phase)
            emulated_fail(
                file, line,
                "shared byte %zu is read by warp %d, which has not waited for its bulk copy", at,
                w);
}

void hopper_shared_access(bool write, size_t at, size_t bytes, const char *file, int line)
{
    if (!h.used || !h.count) return;
    for (int i = 0; i < h.count; i++)
        if (h.barrier[i].at < at + bytes && at < h.barrier[i].at + 8)
            emulated_fail(file, line, "shared byte %zu belongs to a barrier", at);
    if (!write) check_readable(at, machine_thread() / 32, 1, file, line);
    if (h.line[at / LINE].copies)
        emulated_fail(file, line, "shared byte %zu is written while a bulk copy fills it", at);
}

void hopper_read(int group, size_t a, uint32_t commit, const char *file, int line)
{
    size_t at = a - shared_base();
    if (a < shared_base() || at + 2 > h.bytes)
        emulated_fail(file, line, "product: operand at shared byte %lld is outside",
                      (long long)a - shared_base());
    struct line *l = &h.line[at / LINE];
    if (l->barrier < 0 && !l->copies)
        emulated_fail(file, line, "product: nothing was copied to shared byte %zu", at);
    check_readable(at, 4 * group, 4, file, line);
    l->reader[group] = commit;
}

void hopper_products_over(int group, uint32_t commit)
{
    for (int w = 4 * group; w < 4 * group + 4; w++) h.knows[w].products[group] = commit;
}
