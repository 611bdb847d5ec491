/* Products of four warps, wgmma: the sums hold NaN from the issue to the covering wait, where they are
 * computed from what then lies in shared memory. */
#include <cstring>
#include <vector>

#include "kernels/cuda/emulator/emulator.h"
#include "kernels/cuda/emulator/hopper.h"
#include "kernels/cuda/emulator/machine.h"
#include "kernels/cuda/emulator/memory.h"
#include "kernels/cuda/wrap.h"
#include "kernels/cuda/wrap_hopper.h"

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
    int registers; /* a thread, as last asked for */
    std::vector<struct product> under_way;
    std::vector<struct sums *> held;
};

static struct group groups[GROUPS];

void wgmma_block_start()
{
    for (struct group &g : groups) {
        for (struct sums *s : g.held) delete s;
        g = {};
    }
}

void wgmma_block_end()
{
    int registers = 0;
    for (int i = 0; i < machine_threads() / 128; i++) {
        const struct group *g = &groups[i];
        if (!g->under_way.empty())
            emulated_fail(g->under_way[0].file, g->under_way[0].line, "product: never waited for");
        registers += 128 * g->registers;
    }
    if (registers > 65536)
        emulated_fail(__FILE__, __LINE__, "registers: %d are more than a multiprocessor has",
                      registers);
}

void emulated_registers(int count, const char *file, int line)
{
    hopper_used(file, line);
    if (count < 24 || count > 256 || count % 8)
        emulated_fail(file, line, "registers: %d is not a multiple of 8 of 24 to 256", count);
    groups[machine_thread() / 128].registers = count;
}

enum { GROUP_PRODUCT, GROUP_FENCE, GROUP_COMMIT, GROUP_WAIT };

static struct group *own_group()
{
    return &groups[machine_thread() / 128];
}

/* True in the last of the 128 threads, which then does it for all and calls leave. */
static bool meet(int what, const struct emulated_product *operands, const char *file, int line)
{
    hopper_used(file, line);
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

/* Notes that the commit under way reads the operand; every line must have arrived. Both ends of what
 * lies in one line tell of all between. */
static void note_reads(struct group *g, uint64_t descriptor, bool columns, int count,
                       const char *file, int line)
{
    check_descriptor(descriptor, file, line);
    const int step_i = columns ? 63 : 1, step_k = columns ? 1 : 15;
    for (int i = 0; i < count; i += columns && i % 64 == 63 ? 1 : step_i)
        for (int k = 0; k < 16; k += step_k)
            hopper_read((int)(g - groups), element_at(descriptor, columns, i, k), g->commits + 1,
                        file, line);
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
    hopper_products_over((int)(g - groups), g->done);
    leave();
}
