#include "kernels/cuda/emulator/emulator.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <fcntl.h>
#include <mutex>
#include <sys/mman.h>
#include <unistd.h>

#include "kernels/cuda/emulator/fiber.h"
#include "kernels/cuda/emulator/graph.h"
#include "kernels/cuda/emulator/machine.h"
#include "kernels/cuda/emulator/memory.h"
#include "kernels/cuda/wrap.h"

enum lane_state { LANE_READY, LANE_WARP, LANE_BARRIER, LANE_SLEEP, LANE_DONE };

struct pending_copy {
    shared_t to;
    const void *from; /* NULL: zeros */
    const char *file;
    int line, group;
};

struct lane {
    struct fiber fiber;
    struct emulated_place place;
    enum lane_state state;
    const struct emulated_operands *operands;
    const char *file;
    int line;
    const char *asleep; /* LANE_SLEEP: what it waits for */
    int group;          /* of cp.async, counts commits */
    size_t copies_done, copies_count;
    struct pending_copy copies[256];
};

struct warp {
    int first, arrived, done;
    uint32_t ready;
    uint32_t epoch; /* of __syncwarp */
};

static const int max_threads = 1024;

static struct machine {
    struct emulator_options options;
    struct emulator_counts counts;
    char failure[512];
    bool failed;
    /* the launch */
    const char *name;
    emulator_body body;
    const void *params;
    /* the block */
    int threads, warps, waiting, done, running, last_warp;
    struct fiber scheduler;
    struct lane *lanes;
    struct warp warp[max_threads / 32];
    uint64_t random;
    uint64_t hang_at;                            /* launches from this one on never end; 0: none */
    uint64_t copies, copy_fail_at, copy_hang_at; /* of emulator_stream_copy; 0: none */
} machine;

/* a launch is whole before another thread's begins */
static std::recursive_mutex machine_lock;

struct emulated_place *emulated_here;
float emulated_f16_table[65536];

static struct lane *current()
{
    return &machine.lanes[machine.running];
}

static uint64_t random_next()
{
    /* splitmix64 */
    uint64_t z = machine.random += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static const char *base_name(const char *file)
{
    const char *slash = strrchr(file, '/');
    return slash ? slash + 1 : file;
}

/* Notes the first broken rule and leaves the launch; does not come back. */
void emulated_fail(const char *file, int line, const char *format, ...)
{
    if (!machine.failed) {
        char text[320];
        va_list args;
        va_start(args, format);
        vsnprintf(text, sizeof text, format, args);
        va_end(args);
        snprintf(machine.failure, sizeof machine.failure,
                 "%s (%s:%d, kernel %s, block %d,%d,%d, thread %d)", text, base_name(file), line,
                 machine.name, emulated_here->block_x, emulated_here->block_y,
                 emulated_here->block_z, emulated_here->thread);
        machine.failed = true;
    }
    struct fiber dead;
    fiber_switch(&dead, &machine.scheduler);
    abort();
}

/* The next lane that can run, or -1. In file order the running warp keeps running, lowest lane
 * first; with a seed both are drawn. */
static int pick_ready()
{
    int chosen = -1;
    if (!machine.options.seed) {
        for (int i = 0; i < machine.warps && chosen < 0; i++) {
            int w = machine.last_warp + i;
            if (w >= machine.warps) w -= machine.warps;
            if (machine.warp[w].ready) chosen = w;
        }
        if (chosen < 0) return -1;
        machine.last_warp = chosen;
        return machine.warp[chosen].first + __builtin_ctz(machine.warp[chosen].ready);
    }
    uint64_t draw = random_next();
    hopper_early(draw >> 16);
    int start = machine.last_warp;
    if (!machine.warp[start].ready || draw % 4 == 0)
        start = (int)((draw >> 8) % (unsigned)machine.warps);
    for (int i = 0; i < machine.warps && chosen < 0; i++) {
        int w = start + i;
        if (w >= machine.warps) w -= machine.warps;
        if (machine.warp[w].ready) chosen = w;
    }
    if (chosen < 0) return -1;
    machine.last_warp = chosen;
    uint32_t ready = machine.warp[chosen].ready;
    int turn = (int)(draw >> 40) & 31;
    uint32_t turned = turn ? ready >> turn | ready << (32 - turn) : ready;
    return machine.warp[chosen].first + ((__builtin_ctz(turned) + turn) & 31);
}

/* The next lane to run, or -1 when all wait for nothing or are done. */
static int pick()
{
    int chosen;
    while ((chosen = pick_ready()) < 0)
        if (!hopper_idle(machine.options.seed ? random_next() : 0)) return -1;
    return chosen;
}

static void run_lane(struct fiber *from, int next)
{
    machine.running = next;
    emulated_here = &machine.lanes[next].place;
    fiber_switch(from, &machine.lanes[next].fiber);
}

static void set_ready(struct lane *l, bool ready)
{
    struct warp *w = &machine.warp[l->place.thread / 32];
    uint32_t bit = 1u << (l->place.thread & 31);
    w->ready = ready ? w->ready | bit : w->ready & ~bit;
}

/* The running lane waits (its state says for what); another one runs. */
static void wait_turn()
{
    struct lane *l = current();
    set_ready(l, false);
    int next = pick();
    if (next == machine.running) return; /* a copy that arrived just now has woken it */
    if (next < 0)
        fiber_switch(&l->fiber, &machine.scheduler);
    else
        run_lane(&l->fiber, next);
}

static void lane_main()
{
    machine.body(machine.params);
    struct lane *l = current();
    if (l->copies_done != l->copies_count)
        emulated_fail(l->copies[l->copies_done].file, l->copies[l->copies_done].line,
                      "asynchronous copy: never waited for");
    l->state = LANE_DONE;
    if (++machine.done == machine.threads) hopper_block_end();
    machine.warp[l->place.thread / 32].done++;
    wait_turn();
    abort();
}

static void deadlock()
{
    for (int i = 0; i < machine.threads; i++) {
        struct lane *l = &machine.lanes[i];
        if (l->state == LANE_DONE) continue;
        emulated_here = &l->place;
        snprintf(
            machine.failure, sizeof machine.failure,
            "deadlock: %d of %d threads ended, thread %d waits at a %s (%s:%d, kernel %s, block "
            "%d,%d,%d)",
            machine.done, machine.threads, i,
            l->state == LANE_BARRIER ? "block barrier"
            : l->state == LANE_SLEEP ? l->asleep
                                     : "warp collective",
            base_name(l->file), l->line, machine.name, l->place.block_x, l->place.block_y,
            l->place.block_z);
        machine.failed = true;
        return;
    }
}

void emulated_barrier(const char *file, int line)
{
    struct lane *l = current();
    l->file = file;
    l->line = line;
    if (++machine.waiting < machine.threads) {
        l->state = LANE_BARRIER;
        wait_turn();
        return;
    }
    machine.waiting = 0;
    machine.counts.barriers++;
    shared_memory_epoch();
    hopper_barrier();
    for (int i = 0; i < machine.threads; i++) {
        struct lane *other = &machine.lanes[i];
        if (other->line != line || other->file != file)
            emulated_fail(file, line, "barrier: thread %d is at another one, line %d", i,
                          other->line);
        if (other->state == LANE_BARRIER) {
            other->state = LANE_READY;
            set_ready(other, true);
        }
    }
}

/* ---- for hopper.cpp ---- */

int machine_thread()
{
    return machine.running;
}

int machine_threads()
{
    return machine.threads;
}

int machine_target()
{
    return machine.options.target;
}

struct emulator_counts *machine_counts()
{
    return &machine.counts;
}

void machine_sleep(const char *what, const char *file, int line)
{
    struct lane *l = current();
    l->asleep = what;
    l->file = file;
    l->line = line;
    l->state = LANE_SLEEP;
    wait_turn();
}

void machine_wake(int thread)
{
    struct lane *l = &machine.lanes[thread];
    if (l->state != LANE_SLEEP) return;
    l->state = LANE_READY;
    set_ready(l, true);
}

/* ---- warp collectives ---- */

static const struct emulated_operands *operands_of(struct warp *w, int lane)
{
    return machine.lanes[w->first + lane].operands;
}

static void compute_shuffle(struct warp *w, bool by_mask)
{
    float value[32];
    for (int i = 0; i < 32; i++) value[i] = *(const float *)operands_of(w, i)->a;
    for (int i = 0; i < 32; i++) {
        const struct emulated_operands *o = operands_of(w, i);
        int from = by_mask ? i ^ (int)o->value : (int)o->value;
        *(float *)o->out = value[from & 31];
    }
}

static void compute_matrix_load(struct warp *w, int matrices, bool transposed, const char *file,
                                int line)
{
    uint16_t m[4][8][8];
    machine.counts.matrix_loads++;
    for (int i = 0; i < matrices; i++) {
        uint32_t groups = 0;
        shared_t seen[8];
        for (int j = 0; j < 8; j++) {
            int lane = 8 * i + j;
            shared_t row = operands_of(w, lane)->value;
            shared_memory_access(false, row, m[i][j], 16, w->first + lane, w->epoch, file, line);
            /* two different rows in one group of four banks take two cycles */
            bool same = false;
            for (int k = 0; k < j; k++) same = same || seen[k] == row;
            uint32_t group = 1u << (row / 16 % 8);
            if (!same && (groups & group)) machine.counts.bank_conflicts++;
            groups |= group;
            seen[j] = row;
        }
    }
    for (int lane = 0; lane < 32; lane++) {
        uint32_t *r = (uint32_t *)operands_of(w, lane)->out;
        int g = lane / 4, t = lane % 4 * 2;
        for (int i = 0; i < matrices; i++)
            r[i] = transposed ? m[i][t][g] | (uint32_t)m[i][t + 1][g] << 16
                              : m[i][g][t] | (uint32_t)m[i][g][t + 1] << 16;
    }
}

template <class T> static float element(uint32_t word, int index)
{
    T v;
    v.bits = (uint16_t)(word >> (16 * index));
    return to_float(v);
}

/* Gathers A [16][k] and B [k][8] from the fragments of the PTX manual. */
template <class T> static void gather(struct warp *w, int k, float a[16][16], float b[16][8])
{
    for (int lane = 0; lane < 32; lane++) {
        const struct emulated_operands *o = operands_of(w, lane);
        const uint32_t *ra = (const uint32_t *)o->a, *rb = (const uint32_t *)o->b;
        int g = lane / 4, t = lane % 4 * 2;
        for (int half = 0; half < k / 8; half++) {
            for (int e = 0; e < 2; e++) {
                a[g][8 * half + t + e] = element<T>(ra[2 * half], e);
                a[g + 8][8 * half + t + e] = element<T>(ra[2 * half + 1], e);
                b[8 * half + t + e][g] = element<T>(rb[half], e);
            }
        }
    }
}

template <class T> static void compute_mma(struct warp *w, int k)
{
    float a[16][16], b[16][8], c[16][8];
    machine.counts.mma++;
    gather<T>(w, k, a, b);
    for (int lane = 0; lane < 32; lane++) {
        const float *rc = (const float *)operands_of(w, lane)->out;
        int g = lane / 4, t = lane % 4 * 2;
        c[g][t] = rc[0], c[g][t + 1] = rc[1], c[g + 8][t] = rc[2], c[g + 8][t + 1] = rc[3];
    }
    for (int i = 0; i < 16; i++)
        for (int x = 0; x < k; x++)
            for (int j = 0; j < 8; j++) c[i][j] += a[i][x] * b[x][j];
    for (int lane = 0; lane < 32; lane++) {
        float *rc = (float *)operands_of(w, lane)->out;
        int g = lane / 4, t = lane % 4 * 2;
        rc[0] = c[g][t], rc[1] = c[g][t + 1], rc[2] = c[g + 8][t], rc[3] = c[g + 8][t + 1];
    }
}

/* fp16 accumulators: sums of four products, rounded to fp16 each time */
static void compute_mma_half(struct warp *w)
{
    float a[16][16], b[16][8];
    machine.counts.mma++;
    gather<f16>(w, 16, a, b);
    for (int lane = 0; lane < 32; lane++) {
        uint32_t *rc = (uint32_t *)operands_of(w, lane)->out;
        int g = lane / 4, t = lane % 4 * 2;
        for (int r = 0; r < 2; r++) {
            float sum[2];
            unpack<f16>(rc[r], sum[0], sum[1]);
            for (int e = 0; e < 2; e++) {
                for (int x = 0; x < 16; x += 4) {
                    for (int i = 0; i < 4; i++) sum[e] += a[g + 8 * r][x + i] * b[x + i][t + e];
                    sum[e] = to_float(to_storage<f16>(sum[e]));
                }
            }
            rc[r] = pack<f16>(sum[0], sum[1]);
        }
    }
}

static void compute(struct warp *w, enum emulated_collective what, const char *file, int line)
{
    switch (what) {
    case COLLECTIVE_NONE: break;
    case COLLECTIVE_WARP_SYNC: w->epoch++; break;
    case COLLECTIVE_SHUFFLE_XOR: compute_shuffle(w, true); break;
    case COLLECTIVE_SHUFFLE: compute_shuffle(w, false); break;
    case COLLECTIVE_MATRIX_LOAD4: compute_matrix_load(w, 4, false, file, line); break;
    case COLLECTIVE_MATRIX_LOAD4_TRANSPOSED: compute_matrix_load(w, 4, true, file, line); break;
    case COLLECTIVE_MATRIX_LOAD2: compute_matrix_load(w, 2, false, file, line); break;
    case COLLECTIVE_MATRIX_LOAD2_TRANSPOSED: compute_matrix_load(w, 2, true, file, line); break;
    case COLLECTIVE_MMA_F16: compute_mma<f16>(w, 16); break;
    case COLLECTIVE_MMA_BF16: compute_mma<bf16>(w, 16); break;
    case COLLECTIVE_MMA_K8_F16: compute_mma<f16>(w, 8); break;
    case COLLECTIVE_MMA_K8_BF16: compute_mma<bf16>(w, 8); break;
    case COLLECTIVE_MMA_HALF: compute_mma_half(w); break;
    }
}

void emulated_meet(const struct emulated_operands *operands, const char *file, int line)
{
    struct lane *l = current();
    struct warp *w = &machine.warp[l->place.thread / 32];
    l->operands = operands;
    l->file = file;
    l->line = line;
    if (w->done)
        emulated_fail(file, line, "warp collective: %d lanes of the warp have ended", w->done);
    if (machine.options.target < 80 &&
        (operands->what == COLLECTIVE_MMA_BF16 || operands->what == COLLECTIVE_MMA_K8_BF16))
        emulated_fail(file, line, "sm_%d has no bf16 mma", machine.options.target);
    if (++w->arrived < 32) {
        l->state = LANE_WARP;
        wait_turn();
        return;
    }
    w->arrived = 0;
    for (int i = 0; i < 32; i++) {
        struct lane *other = &machine.lanes[w->first + i];
        if (other->operands->what != operands->what || other->line != line || other->file != file)
            emulated_fail(file, line, "divergence: lane %d of the warp is at line %d", i,
                          other->line);
    }
    compute(w, operands->what, file, line);
    for (int i = 0; i < 32; i++) {
        struct lane *other = &machine.lanes[w->first + i];
        other->state = LANE_READY;
    }
    w->ready = 0xffffffffu;
}

/* ---- memory words ---- */

static uint32_t warp_epoch()
{
    return machine.warp[current()->place.thread / 32].epoch;
}

void emulated_shared(bool write, shared_t a, void *value, size_t bytes, const char *file, int line)
{
    shared_memory_access(write, a, value, bytes, current()->place.thread, warp_epoch(), file, line);
    hopper_shared_access(write, a - shared_base(), bytes, file, line);
}

void emulated_global(bool write, const void *p, size_t bytes, const char *file, int line)
{
    (write ? machine.counts.store_bytes : machine.counts.load_bytes) += bytes;
    device_memory_access(write, p, bytes, file, line);
}

void emulated_copy(shared_t to, const void *from, bool valid, const char *file, int line)
{
    struct lane *l = current();
    machine.counts.async_bytes += valid ? 16 : 0;
    if (valid) device_memory_access(false, from, 16, file, line);
    word16 poison;
    memset(&poison, 0xff, sizeof poison);
    if (machine.options.target < 80) { /* a plain copy through registers */
        if (valid)
            memcpy(&poison, from, 16);
        else
            memset(&poison, 0, 16);
        emulated_shared(true, to, &poison, 16, file, line);
        return;
    }
    emulated_shared(true, to, &poison, 16, file, line);
    if (l->copies_count == sizeof l->copies / sizeof l->copies[0])
        emulated_fail(file, line, "asynchronous copy: more than %zu in flight", l->copies_count);
    l->copies[l->copies_count++] = {to, valid ? from : nullptr, file, line, l->group};
}

void emulated_copy_commit()
{
    current()->group++;
}

void emulated_copy_wait(int pending, const char *file, int line)
{
    struct lane *l = current();
    int newest = l->group - pending; /* groups below this one are complete */
    while (l->copies_done < l->copies_count && l->copies[l->copies_done].group < newest) {
        struct pending_copy *c = &l->copies[l->copies_done++];
        word16 v;
        memset(&v, 0, sizeof v);
        if (c->from) memcpy(&v, c->from, 16);
        emulated_shared(true, c->to, &v, 16, file, line);
    }
    if (l->copies_done == l->copies_count)
        l->copies_done = l->copies_count = 0;
    else if (l->copies_done > 128) {
        memmove(l->copies, l->copies + l->copies_done,
                (l->copies_count - l->copies_done) * sizeof l->copies[0]);
        l->copies_count -= l->copies_done;
        l->copies_done = 0;
    }
}

uint16_t emulated_to_f16(float v)
{
    return f32_to_f16(v);
}

/* ---- the clock ---- */

static double clock_ms; /* of emulator_clock */
static double (*clock_of)(const char *kernel, uint64_t blocks);

void emulator_set_clock(double (*ms)(const char *kernel, uint64_t blocks))
{
    clock_of = ms;
}

void emulator_clock_add(double ms)
{
    clock_ms += ms;
}

double emulator_clock()
{
    return clock_ms;
}

/* ---- launches ---- */

static void run_block(unsigned x, unsigned y, unsigned z, unsigned grid_x, size_t shared_bytes)
{
    machine.waiting = machine.done = machine.last_warp = 0;
    machine.counts.blocks++;
    shared_memory_start(shared_bytes, machine.options.check_races);
    hopper_block_start(shared_bytes);
    for (int i = 0; i < machine.warps; i++) machine.warp[i] = {32 * i, 0, 0, 0xffffffffu, 0};
    for (int i = 0; i < machine.threads; i++) {
        struct lane *l = &machine.lanes[i];
        l->place = {i, (int)x, (int)y, (int)z, (int)grid_x};
        l->state = LANE_READY;
        l->file = "";
        l->line = l->group = 0;
        l->copies_done = l->copies_count = 0;
        fiber_prepare(&l->fiber, (size_t)i, lane_main);
    }
    run_lane(&machine.scheduler, pick());
    if (!machine.failed && machine.done != machine.threads) deadlock();
}

void emulator_start_faults()
{
    static bool read;
    const char *target = getenv("KILN_EMULATOR_TARGET");
    if (target && !machine.options.target) machine.options.target = atoi(target);
    const char *fail = getenv("KILN_EMULATOR_FAIL"), *once = getenv("KILN_EMULATOR_FAIL_ONCE");
    if (read || !fail) return;
    read = true;
    if (once) {
        int fd = open(once, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
        if (fd < 0) return;
        close(fd);
    }
    const char *colon = strchr(fail, ':');
    uint64_t number = strtoull(colon ? colon + 1 : fail, nullptr, 10);
    if (strncmp(fail, "hang:", 5) == 0)
        machine.hang_at = number;
    else if (strncmp(fail, "memory:", 7) == 0)
        emulator_limit_memory((size_t)number << 20);
    else if (strncmp(fail, "copy:", 5) == 0)
        machine.copy_fail_at = number;
    else if (strncmp(fail, "copyhang:", 9) == 0)
        machine.copy_hang_at = number;
    else if (!machine.options.fail_at)
        machine.options.fail_at = number;
}

bool emulator_hangs()
{
    return (machine.hang_at && machine.counts.launches >= machine.hang_at) ||
           (machine.copy_hang_at && machine.copies >= machine.copy_hang_at);
}

void emulator_lock()
{
    machine_lock.lock();
}

void emulator_unlock()
{
    machine_lock.unlock();
}

void emulator_fail_copies(uint64_t fail_at, uint64_t hang_at)
{
    machine.copies = 0;
    machine.copy_fail_at = fail_at;
    machine.copy_hang_at = hang_at;
}

int emulator_stream_copy(void *to, const void *from, size_t bytes)
{
    std::lock_guard<std::recursive_mutex> guard(machine_lock);
    if (machine.failed) return 719;
    machine.copies++;
    if (emulator_hangs()) return 0;
    if (machine.copy_fail_at && machine.copies >= machine.copy_fail_at) {
        snprintf(machine.failure, sizeof machine.failure, "a broken copy, as was asked for");
        machine.failed = true;
        return 719;
    }
    if (!emulator_owns(to, bytes)) {
        snprintf(machine.failure, sizeof machine.failure,
                 "a copy of %zu bytes reached memory that was given back", bytes);
        machine.failed = true;
        return 700;
    }
    memcpy(to, from, bytes);
    return 0;
}

static int start_machine()
{
    if (machine.lanes) return 0;
    if (!machine.options.target) machine.options.target = 80;
    machine.lanes = (struct lane *)calloc(max_threads, sizeof *machine.lanes);
    if (!machine.lanes || !fiber_pool_reserve(max_threads)) return 2;
    for (int i = 0; i < 65536; i++) emulated_f16_table[i] = f16_to_f32((uint16_t)i);
    return 0;
}

static int check_launch(unsigned grid_y, unsigned grid_z, unsigned block, size_t shared_bytes)
{
    const char *what = nullptr;
    if (block == 0 || block > (unsigned)max_threads || block % 32) what = "threads in the block";
    if (shared_bytes > emulator_shared_limit(machine.options.target)) what = "shared memory";
    if (grid_y > 65535 || grid_z > 65535) what = "grid size";
    if (!what) return 0;
    snprintf(machine.failure, sizeof machine.failure,
             "launch: %s over the limit of sm_%d (kernel %s, block %u, shared %zu, grid y %u z %u)",
             what, machine.options.target, machine.name, block, shared_bytes, grid_y, grid_z);
    machine.failed = true;
    return 9;
}

int emulator_launch(const char *name, emulator_body body, const void *params, size_t params_bytes,
                    unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block,
                    size_t shared_bytes)
{
    std::lock_guard<std::recursive_mutex> guard(machine_lock);
    int rc = start_machine();
    if (rc) return rc;
    if (machine.failed) return 719;
    if (emulator_capturing()) {
        graph_keep_launch({name, body, grid_x, grid_y, grid_z, block, shared_bytes}, params,
                          params_bytes);
        return check_launch(grid_y, grid_z, block, shared_bytes);
    }
    machine.name = name;
    machine.body = body;
    machine.params = params;
    machine.counts.launches++;
    if (machine.options.fail_at && machine.counts.launches >= machine.options.fail_at) {
        snprintf(machine.failure, sizeof machine.failure, "an illegal address, as was asked for");
        machine.failed = true;
        return 700;
    }
    rc = check_launch(grid_y, grid_z, block, shared_bytes);
    if (rc || emulator_hangs()) return rc;
    machine.threads = (int)block;
    machine.warps = (int)block / 32;
    machine.random = machine.options.seed;
    device_memory_launch(machine.options.check_global);
    uint64_t blocks = (uint64_t)grid_x * grid_y * grid_z;
    if (clock_of) emulator_clock_add(clock_of(name, blocks));
    /* with a seed the blocks come in another order too: a step coprime to their number */
    uint64_t step = 1, at = 0;
    if (machine.options.seed && blocks > 1) {
        step = random_next() % blocks | 1;
        while (true) {
            uint64_t a = step, b = blocks;
            while (b) {
                uint64_t r = a % b;
                a = b, b = r;
            }
            if (a == 1) break;
            step++;
        }
        at = random_next() % blocks;
    }
    for (uint64_t i = 0; i < blocks && !machine.failed; i++, at = (at + step) % blocks) {
        device_memory_block((uint32_t)at);
        run_block((unsigned)(at % grid_x), (unsigned)(at / grid_x % grid_y),
                  (unsigned)(at / grid_x / grid_y), grid_x, shared_bytes);
    }
    if (machine.failed) fiber_pool_forget();
    return machine.failed ? 719 : 0;
}

void emulator_set(const struct emulator_options *options)
{
    machine.options = *options;
    if (!machine.options.target) machine.options.target = 80;
}

void emulator_get(struct emulator_options *options)
{
    *options = machine.options;
    if (!options->target) options->target = 80;
}

struct emulator_counts emulator_count()
{
    return machine.counts;
}

void emulator_count_reset()
{
    machine.counts = {};
}

const char *emulator_failure()
{
    return machine.failed ? machine.failure : nullptr;
}

void emulator_clear()
{
    machine.failed = false;
}

size_t emulator_shared_limit(int target)
{
    switch (target) {
    case 75: return 64 * 1024;
    case 80: return 163 * 1024;
    case 90: return 227 * 1024;
    default: return 99 * 1024;
    }
}
