/* The words of wrap_hopper.h. What completes later on the card completes as late as possible here (with
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
#include "kernels/cuda/emulator/machine.h"
#include "kernels/cuda/emulator/memory.h"
#include "kernels/cuda/emulator/tensor_map_emulated.h"
#include "kernels/cuda/wrap.h"
#include "kernels/cuda/wrap_hopper.h"

enum { BARRIERS = 32, GROUPS = 8, LINE = 128, LINES = 228 * 1024 / LINE };

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

/* Sums of a group that products under way add to; the threads' own registers hold NaN meanwhile. */
struct sums {
    float *registers[128];
    float value[64][256];
    int n, users;
};

struct product {
    struct emulated_product p;
    const uint32_t *a_registers[128];
    struct sums *sums;
    uint32_t commit;
    const char *file;
    int line;
};

struct group {
    int arrived, what, line;
    const char *file;
    const struct emulated_product *operands[128];
    uint32_t commits, done;
    bool fenced;
    std::vector<struct product> under_way;
    std::vector<struct sums *> held;
};

static struct {
    bool used;
    size_t bytes;
    int count;
    struct barrier barrier[BARRIERS];
    struct knowledge knows[32];
    struct line line[LINES];
    struct group group[GROUPS];
    int registers[GROUPS];
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

static void begin(const char *file, int line)
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
    memset(h.registers, 0, sizeof h.registers);
    h.copies.clear();
    for (std::vector<int> &w : h.waiting) w.clear();
    for (struct group &g : h.group) {
        for (struct sums *s : g.held) delete s;
        g = {};
    }
}

void hopper_block_end()
{
    if (!h.used) return;
    if (!h.copies.empty())
        emulated_fail(h.copies[0].file, h.copies[0].line, "bulk copy: never waited for");
    int registers = 0;
    for (int i = 0; i < machine_threads() / 128; i++) {
        struct group *g = &h.group[i];
        if (!g->under_way.empty())
            emulated_fail(g->under_way[0].file, g->under_way[0].line, "product: never waited for");
        registers += 128 * h.registers[i];
    }
    if (registers > 65536)
        emulated_fail(__FILE__, __LINE__, "registers: %d are more than a multiprocessor has",
                      registers);
}

void hopper_barrier()
{
    if (!h.used) return;
    struct knowledge all = {};
    for (int i = 0; i < machine_threads() / 32; i++) join(&all, &h.knows[i]);
    for (int i = 0; i < machine_threads() / 32; i++) h.knows[i] = all;
    for (int i = 0; i < h.count; i++) h.barrier[i].owner = -1;
}

void emulated_registers(int count, const char *file, int line)
{
    begin(file, line);
    if (count < 24 || count > 256 || count % 8)
        emulated_fail(file, line, "registers: %d is not a multiple of 8 of 24 to 256", count);
    h.registers[machine_thread() / 128] = count;
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
    begin(file, line);
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
    begin(file, line);
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
    begin(file, line);
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
    begin(file, line);
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

/* ---- products of a group of four warps ---- */

enum { GROUP_PRODUCT, GROUP_FENCE, GROUP_COMMIT, GROUP_WAIT };

static struct group *own_group()
{
    return &h.group[machine_thread() / 128];
}

/* True in the last of the 128 threads, which then does it for all and calls leave. */
static bool meet(int what, const struct emulated_product *operands, const char *file, int line)
{
    begin(file, line);
    struct group *g = own_group();
    if (g->arrived && (g->what != what || g->line != line || g->file != file))
        emulated_fail(file, line, "divergence: the group's first thread is at line %d", g->line);
    g->what = what, g->line = line, g->file = file;
    g->operands[machine_thread() % 128] = operands;
    if (++g->arrived == 128) return true;
    machine_sleep("collective of four warps", file, line);
    return false;
}

static void leave()
{
    struct group *g = own_group();
    g->arrived = 0;
    int first = machine_thread() / 128 * 128;
    for (int i = 0; i < 128; i++)
        if (first + i != machine_thread()) machine_wake(first + i);
}

/* Byte of element (row or column i, k) that a descriptor names, before the swizzle: PTX ISA, canonical
 * layouts of the 128-byte swizzle. Rows: i steps by 128 bytes in eights, the stride step beyond; columns:
 * k does so, and i takes the leading step after 64. */
static size_t element_at(uint64_t descriptor, bool columns, int i, int k)
{
    size_t at = (size_t)(descriptor & 0x3fff) << 4;
    size_t leading = (size_t)(descriptor >> 16 & 0x3fff) << 4;
    size_t stride = (size_t)(descriptor >> 32 & 0x3fff) << 4;
    if (columns)
        at += (size_t)(i / 64) * leading + (size_t)(k / 8) * stride + (size_t)(k % 8) * 128 +
              (size_t)(i % 64) * 2;
    else
        at += (size_t)(i / 8) * stride + (size_t)(i % 8) * 128 + (size_t)k * 2;
    return at ^ (at >> 7 & 7) << 4; /* of the address itself, which is why tiles start at 1024s */
}

static void check_descriptor(uint64_t d, const char *file, int line)
{
    if (d >> 62 != 1 || (d >> 49 & 7) != 0)
        emulated_fail(file, line, "descriptor: %016llx is no 128-byte swizzle with base 0",
                      (unsigned long long)d);
}

static void note_read(struct group *g, size_t a, const char *file, int line)
{
    size_t at = a - shared_base();
    if (a < shared_base() || at + 2 > h.bytes)
        emulated_fail(file, line, "product: operand at shared byte %lld is outside",
                      (long long)a - shared_base());
    struct line *l = &h.line[at / LINE];
    if (l->barrier < 0 && !l->copies)
        emulated_fail(file, line, "product: nothing was copied to shared byte %zu", at);
    check_readable(at, machine_thread() / 128 * 4, 4, file, line);
    l->reader[g - h.group] = g->commits + 1;
}

/* Notes that the commit under way reads the operand; every line must have arrived. Both ends of what
 * lies in one line tell of all between. */
static void note_reads(struct group *g, uint64_t descriptor, bool columns, int count,
                       const char *file, int line)
{
    check_descriptor(descriptor, file, line);
    const int step_i = columns ? 63 : 1, step_k = columns ? 1 : 15;
    for (int i = 0; i < count; i += columns && i % 64 == 63 ? 1 : step_i)
        for (int k = 0; k < 16; k += step_k)
            note_read(g, element_at(descriptor, columns, i, k), file, line);
}

static struct sums *hold(struct group *g, int n, const char *file, int line)
{
    for (struct sums *s : g->held) {
        if (s->registers[0] != g->operands[0]->sums) continue;
        if (s->n != n) emulated_fail(file, line, "product: the sums had another width");
        return s;
    }
    if (!g->fenced) emulated_fail(file, line, "product: no fence since the sums were in use");
    struct sums *s = new struct sums();
    s->n = n;
    for (int t = 0; t < 128; t++) {
        float *r = s->registers[t] = g->operands[t]->sums;
        for (int i = 0; i < n / 2; i++) {
            int row = t / 32 * 16 + t % 32 / 4 + i / 2 % 2 * 8;
            s->value[row][i / 4 * 8 + t % 4 * 2 + i % 2] = r[i];
        }
        memset(r, 0xff, (size_t)n / 2 * sizeof *r);
    }
    g->held.push_back(s);
    return s;
}

static void hand_back(const struct sums *s)
{
    for (int t = 0; t < 128; t++)
        for (int i = 0; i < s->n / 2; i++) {
            int row = t / 32 * 16 + t % 32 / 4 + i / 2 % 2 * 8;
            s->registers[t][i] = s->value[row][i / 4 * 8 + t % 4 * 2 + i % 2];
        }
}

void emulated_wgmma(const struct emulated_product *p, const char *file, int line)
{
    if (!meet(GROUP_PRODUCT, p, file, line)) return;
    struct group *g = own_group();
    for (int t = 0; t < 128; t++)
        if (g->operands[t]->a != p->a || g->operands[t]->b != p->b ||
            g->operands[t]->keep != p->keep)
            emulated_fail(file, line, "product: thread %d has other descriptors", t);
    struct product q = {};
    q.p = *p;
    q.file = file, q.line = line;
    q.commit = g->commits + 1;
    for (int t = 0; t < 128; t++) q.a_registers[t] = g->operands[t]->a_registers;
    if (!p->a_registers) note_reads(g, p->a, false, 64, file, line);
    note_reads(g, p->b, p->b_columns, p->n, file, line);
    q.sums = hold(g, p->n, file, line);
    q.sums->users++;
    g->under_way.push_back(q);
    leave();
}

static float operand(uint64_t descriptor, bool columns, int i, int k, bool half)
{
    uint16_t bits;
    memcpy(&bits, shared_memory_bytes() + element_at(descriptor, columns, i, k) - shared_base(), 2);
    return half ? to_float(f16{bits}) : to_float(bf16{bits});
}

/* A [64][16] from registers: each warp has 16 rows, as for mma. */
static void gather_registers(const struct product *q, float a[64][16])
{
    for (int t = 0; t < 128; t++)
        for (int r = 0; r < 4; r++)
            for (int e = 0; e < 2; e++) {
                uint16_t bits = (uint16_t)(q->a_registers[t][r] >> (16 * e));
                int row = t / 32 * 16 + t % 32 / 4 + r % 2 * 8, k = r / 2 * 8 + t % 4 * 2 + e;
                a[row][k] = q->p.half ? to_float(f16{bits}) : to_float(bf16{bits});
            }
}

static void compute(const struct product *q)
{
    float a[64][16], b[16][256];
    int n = q->p.n;
    machine_counts()->wgmma++;
    if (q->p.a_registers)
        gather_registers(q, a);
    else
        for (int i = 0; i < 64; i++)
            for (int k = 0; k < 16; k++) a[i][k] = operand(q->p.a, false, i, k, q->p.half);
    for (int j = 0; j < n; j++)
        for (int k = 0; k < 16; k++) b[k][j] = operand(q->p.b, q->p.b_columns, j, k, q->p.half);
    for (int i = 0; i < 64; i++) {
        float *sum = q->sums->value[i];
        if (!q->p.keep) memset(sum, 0, (size_t)n * sizeof *sum);
        for (int k = 0; k < 16; k++)
            for (int j = 0; j < n; j++) sum[j] += a[i][k] * b[k][j];
    }
}

void emulated_group_fence(const char *file, int line)
{
    if (!meet(GROUP_FENCE, nullptr, file, line)) return;
    own_group()->fenced = true;
    leave();
}

void emulated_group_commit(const char *file, int line)
{
    if (!meet(GROUP_COMMIT, nullptr, file, line)) return;
    own_group()->commits++;
    leave();
}

void emulated_group_wait(int pending, const char *file, int line)
{
    if (!meet(GROUP_WAIT, nullptr, file, line)) return;
    struct group *g = own_group();
    uint32_t done = g->commits > (uint32_t)pending ? g->commits - (uint32_t)pending : 0;
    size_t over = 0;
    while (over < g->under_way.size() && g->under_way[over].commit <= done) {
        compute(&g->under_way[over]);
        g->under_way[over++].sums->users--;
    }
    g->under_way.erase(g->under_way.begin(), g->under_way.begin() + (long)over);
    for (size_t i = 0; i < g->held.size();) {
        if (g->held[i]->users) {
            i++;
            continue;
        }
        hand_back(g->held[i]);
        delete g->held[i];
        g->held.erase(g->held.begin() + (long)i);
        g->fenced = false; /* the registers are the program's again */
    }
    if (done > g->done) g->done = done;
    int first = machine_thread() / 128 * 4;
    for (int w = first; w < first + 4; w++) h.knows[w].products[g - h.group] = g->done;
    leave();
}
