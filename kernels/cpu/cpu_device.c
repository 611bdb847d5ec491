#include "kernels/cpu/cpu_device.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#ifdef __linux__
#include <sys/syscall.h>
#endif
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/now.h"
#include "base/str.h"
#include "kernels/cpu/cpu_packed.h"

/* The instruction sets that this binary carries, best first. */
#define DECLARE(isa)                                                                               \
    extern const struct kernels cpu_table_##isa;                                                   \
    int cpu_pack_forward_##isa(struct device *d, struct kernel_weight *w,                          \
                               enum dtype activation_dtype, struct error *err);                    \
    double cpu_peak_loop_##isa(int64_t rounds, enum dtype dtype);
#define USE(isa) &cpu_table_##isa, cpu_pack_forward_##isa, cpu_peak_loop_##isa
#if defined(__x86_64__)
DECLARE(avx512bf16)
DECLARE(avx512)
DECLARE(avx2)
#endif
DECLARE(portable)

#if defined(__x86_64__)
static bool has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

static bool has_avx512(void)
{
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

static bool has_avx512bf16(void)
{
    return has_avx512() && __builtin_cpu_supports("avx512bf16") &&
           __builtin_cpu_supports("avx512vnni");
}
#endif

static bool has_portable(void)
{
    return true;
}

static const struct path {
    const char *asked; /* KILN_CPU; avx512-only leaves bf16 instructions alone, for tests */
    const char *label;
    const struct kernels *table;
    int (*pack_forward)(struct device *d, struct kernel_weight *w, enum dtype activation_dtype,
                        struct error *err);
    double (*peak_loop)(int64_t rounds, enum dtype dtype);
    bool (*present)(void);
    bool fast_bf16; /* bfloat16 products in one instruction */
} paths[] = {
#if defined(__x86_64__)
    {"avx512", "avx512 bf16", USE(avx512bf16), has_avx512bf16, true},
    {"avx512", "avx512", USE(avx512), has_avx512, false},
    {"avx512-only", "avx512", USE(avx512), has_avx512, false},
    {"avx2", "avx2", USE(avx2), has_avx2, false},
#endif
    {"portable", "portable", USE(portable), has_portable, false},
};

static int choose_path(const struct path **path, struct error *err)
{
    const char *asked = getenv("KILN_CPU");
    if (asked && !*asked) asked = NULL;
    bool known = false;
    for (size_t i = 0; i < COUNT_OF(paths); i++) {
        if (asked && strcmp(asked, paths[i].asked) != 0) continue;
        known = true;
        if (!paths[i].present()) continue;
        *path = &paths[i];
        return 0;
    }
    if (!known && strncmp(asked, "avx", 3) != 0)
        return error_set(err, ERR_INVALID,
                         "KILN_CPU=%.40s is no CPU path: it is one of avx512, avx2, portable",
                         asked);
    return error_set(err, ERR_UNSUPPORTED, "KILN_CPU=%s: this CPU lacks those instructions", asked);
}

#define HUGE_PAGE ((size_t)2 << 20)

static void allow_huge_pages(void *memory, size_t bytes)
{
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    if (bytes >= HUGE_PAGE) madvise(memory, bytes / HUGE_PAGE * HUGE_PAGE, MADV_HUGEPAGE);
#endif
}

static size_t round_up(size_t bytes, size_t to)
{
    return (bytes + to - 1) / to * to;
}

/* Large blocks are mappings of their own: freed weights go back to the kernel, not into a heap with
 * holes. */
void *cpu_big_alloc(size_t bytes)
{
    if (bytes > SIZE_MAX / 2) return NULL;
    if (bytes < HUGE_PAGE) return alloc_try_aligned(64, round_up(bytes + 64, 64));
    size_t length = round_up(bytes + 64, 4096), whole = length + HUGE_PAGE;
    char *map = mmap(NULL, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED) return NULL;
    char *memory = (char *)round_up((uintptr_t)map, HUGE_PAGE);
    if (memory > map) munmap(map, (size_t)(memory - map));
    if (map + whole > memory + length)
        munmap(memory + length, (size_t)(map + whole - (memory + length)));
    allow_huge_pages(memory, length);
    return memory;
}

void cpu_big_free(void *memory, size_t bytes)
{
    if (!memory) return;
    if (bytes < HUGE_PAGE)
        free(memory);
    else
        munmap(memory, round_up(bytes + 64, 4096));
}

#ifdef SYS_mbind
#define INTERLEAVE 3 /* MPOL_INTERLEAVE of linux/mempolicy.h */
#endif

void cpu_spread(struct device *d, void *memory, size_t bytes)
{
#ifdef SYS_mbind
    unsigned long nodes = cpu_state(d)->spread_nodes;
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t from = ((uintptr_t)memory + page - 1) & ~(page - 1);
    uintptr_t to = ((uintptr_t)memory + bytes) & ~(page - 1);
    if (nodes && bytes >= HUGE_PAGE)
        (void)!syscall(SYS_mbind, from, to - from, INTERLEAVE, &nodes, 8 * sizeof nodes + 1, 0);
#endif
}

void cpu_forget_pages(const void *data, size_t bytes)
{
#ifdef __linux__
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t from = ((uintptr_t)data + page - 1) & ~(page - 1);
    uintptr_t to = ((uintptr_t)data + bytes) & ~(page - 1);
    if (to > from) madvise((void *)from, to - from, MADV_DONTNEED);
#endif
}

/* Memory of the device that only grows, its content not kept. */
static int reserve(char **memory, size_t *room, size_t bytes, struct error *err)
{
    if (bytes <= *room) return 0;
    cpu_big_free(*memory, *room);
    *room = 0;
    *memory = cpu_big_alloc(bytes);
    if (!*memory) return error_set(err, ERR_NO_MEMORY, "no memory for %zu bytes", bytes);
    *room = bytes;
    return 0;
}

int cpu_scratch_start(struct device *d, size_t bytes, struct error *err)
{
    struct cpu_state *s = cpu_state(d);
    s->scratch_used = 0;
    return reserve(&s->scratch, &s->scratch_bytes, bytes, err);
}

int cpu_panels_reserve(struct device *d, size_t bytes, struct error *err)
{
    struct cpu_state *s = cpu_state(d);
    if (bytes <= s->panels_bytes) return 0;
    int rc = reserve(&s->panels, &s->panels_bytes, bytes, err);
    if (!rc) cpu_spread(d, s->panels, bytes);
    return rc;
}

int cpu_band_reserve(struct device *d, size_t bytes, struct error *err)
{
    struct cpu_state *s = cpu_state(d);
    return reserve(&s->band, &s->band_bytes, bytes, err);
}

void *cpu_scratch_take(struct device *d, size_t bytes)
{
    struct cpu_state *s = cpu_state(d);
    char *piece = s->scratch + s->scratch_used;
    s->scratch_used += (bytes + 63) / 64 * 64;
    KILN_ASSERT(s->scratch_used <= (s->scratch_bytes + 63) / 64 * 64, "%zu of %zu", s->scratch_used,
                s->scratch_bytes);
    return piece;
}

static int cpu_alloc(struct device *d, void **memory, size_t bytes, struct error *err)
{
    size_t alignment = bytes >= HUGE_PAGE ? HUGE_PAGE : 64;
    void *block =
        bytes > SIZE_MAX / 2 ? NULL : alloc_try_aligned(alignment, round_up(bytes + 64, 64));
    if (!block) return error_set(err, ERR_NO_MEMORY, "no memory for %zu bytes", bytes);
    allow_huge_pages(block, bytes);
    *memory = block;
    return 0;
}

static void cpu_free(struct device *d, void *memory)
{
    free(memory);
}

static int cpu_move(struct device *d, void *to, const void *from, size_t bytes, struct error *err)
{
    if (bytes) memcpy(to, from, bytes);
    return 0;
}

static int cpu_zero(struct device *d, void *memory, size_t bytes, struct error *err)
{
    if (bytes) memset(memory, 0, bytes);
    return 0;
}

static int cpu_finish(struct device *d, struct error *err)
{
    return 0;
}

/* The form that nearly all matrices need; the kernels make any other when they meet it. */
static int cpu_pack(struct device *d, struct kernel_weight *w, enum dtype activation_dtype,
                    struct error *err)
{
    if (w->rank < 2) return 0;
    return cpu_state(d)->pack_forward(d, w, activation_dtype, err);
}

static void cpu_unpack(struct device *d, struct kernel_weight *w)
{
    struct packed *p = w->packed;
    for (int form = 0; p && form < PACK_FORMS; form++)
        for (int half = 0; half < 2; half++)
            cpu_big_free(p->form[form][half], p->bytes[form][half]);
    free(p);
    w->packed = NULL;
}

#define X(name, args)                                                                              \
    static int dispatch_##name(struct device *d, const struct args *a, struct error *err)          \
    {                                                                                              \
        return cpu_state(d)->table->name(d, a, err);                                               \
    }
KERNEL_TABLE(X)
CPU_FUSED_TABLE(X)
#undef X

const struct kernels cpu_kernels = {.name = "cpu",
                                    .alloc = cpu_alloc,
                                    .free = cpu_free,
                                    .upload = cpu_move,
                                    .download = cpu_move,
                                    .zero = cpu_zero,
                                    .finish = cpu_finish,
                                    .pack = cpu_pack,
                                    .unpack = cpu_unpack,
#define X(name, args) .name = dispatch_##name,
                                    KERNEL_TABLE(X) CPU_FUSED_TABLE(X)
#undef X
};

struct peak {
    double (*loop)(int64_t rounds, enum dtype dtype);
    enum dtype dtype;
    double until;
    double rate[POOL_THREADS_MAX];
};

/* A task a worker, in the thread's own processor time: other programs do not lower the peak. */
static void peak_task(void *context, int64_t task, int worker)
{
    struct peak *p = context;
    struct timespec before, after;
    double done = 0;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &before);
    while (now_seconds() < p->until) done += p->loop(20000, p->dtype);
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &after);
    double spent =
        (double)(after.tv_sec - before.tv_sec) + (double)(after.tv_nsec - before.tv_nsec) * 1e-9;
    if (done > 0) p->rate[worker] = done / spent * 1e-9;
}

double cpu_peak_gflops(struct device *d, enum dtype dtype, double seconds)
{
    struct peak p = {cpu_state(d)->peak_loop, dtype, now_seconds() + seconds, {0}};
    double sum = 0;
    pool_run(cpu_state(d)->pool, cpu_state(d)->threads, peak_task, &p);
    for (int i = 0; i < cpu_state(d)->threads; i++) sum += p.rate[i];
    return sum;
}

double cpu_flops(struct device *d)
{
    return cpu_state(d)->flops;
}

static void cpu_device_close(struct device *d)
{
    struct cpu_state *s = cpu_state(d);
    pool_free(s->pool);
    cpu_big_free(s->worker_memory, CPU_WORKER_BYTES * (size_t)s->threads);
    cpu_big_free(s->scratch, s->scratch_bytes);
    cpu_big_free(s->panels, s->panels_bytes);
    cpu_big_free(s->band, s->band_bytes);
    free(s);
    free(d);
}

/* "AMD EPYC 9654 96-Core Processor", or the architecture's name */
static void cpu_model(char *name, size_t room)
{
    str_copy(name, room, "CPU");
    FILE *f = fopen("/proc/cpuinfo", "r");
    char line[256];
    while (f && fgets(line, sizeof line, f)) {
        if (!str_starts(line, "model name")) continue;
        char *value = strchr(line, ':');
        if (value) str_clean(name, room, value + 1 + strspn(value + 1, " "));
        break;
    }
    if (f) fclose(f);
}

static int cpu_twin(struct device *first, struct device **twin, struct error *err)
{
    int rc = cpu_device_open(twin, "1", err);
    if (!rc) (*twin)->default_dtype = first->default_dtype;
    return rc;
}

int cpu_device_open(struct device **device, const char *options, struct error *err)
{
    int64_t threads = 0;
    if (options && (!str_parse_i64(options, &threads) || threads < 1 || threads > POOL_THREADS_MAX))
        return error_set(err, ERR_INVALID,
                         "device cpu:%.40s: the part after the colon must be a number of threads, "
                         "1 to %d",
                         options, POOL_THREADS_MAX);
    const struct path *path = NULL;
    int rc = choose_path(&path, err);
    if (rc) return rc;
    struct device *d = alloc_zero(1, sizeof *d);
    struct cpu_state *s = alloc_zero(1, sizeof *s);
    d->state = s;
    d->close = cpu_device_close;
    d->twin = cpu_twin;
    s->table = path->table;
    s->pack_forward = path->pack_forward;
    s->peak_loop = path->peak_loop;
    s->band_most = CPU_BAND_BYTES;
    rc = pool_new(&s->pool, (int)threads, err);
    if (rc) goto fail;
    s->threads = pool_threads(s->pool);
    uint64_t nodes = pool_memory_nodes(s->pool);
    const char *policy = getenv("KILN_CPU_NUMA");
    bool several = nodes & (nodes - 1);
    if (several && !(policy && str_equal(policy, "local"))) s->spread_nodes = nodes;
    s->worker_memory = cpu_big_alloc(CPU_WORKER_BYTES * (size_t)s->threads);
    if (!s->worker_memory) {
        rc = error_set(err, ERR_NO_MEMORY, "no memory for %d threads", s->threads);
        goto fail;
    }
    char model[64];
    cpu_model(model, sizeof model);
    d->kernels = &cpu_kernels;
    d->host_memory = true;
    d->eight_bits = true;
    d->default_dtype = path->fast_bf16 ? DTYPE_BF16 : DTYPE_F32;
    str_copy(d->name, sizeof d->name, "cpu");
    snprintf(d->label, sizeof d->label, "%.50s, %d thread%s, %s", model, s->threads,
             s->threads == 1 ? "" : "s", path->label);
    *device = d;
    return 0;
fail:
    cpu_device_close(d);
    return rc;
}
