#include "kernels/cpu/cpu_pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifdef __linux__
#include <linux/futex.h>
#include <sys/syscall.h>
#endif

#include "base/alloc.h"
#include "kernels/cpu/cpu_topology.h"

#define SPIN_ROUNDS 2000 /* about 20 us: longer than the gap between two kernels */

/*
 * One job at a time. A share's `ticket` holds the job's number above the count of its tasks not yet claimed;
 * whoever lowers the count owns a task. A worker that comes late finds no task, or claims one of a later job,
 * whose fields it then reads: they cannot change while a claimed task is unfinished, and tickets are set
 * last. With several nodes each has a share, in the order of its workers: a kernel's tasks walk through memory, so
 * that equal parts of it stay with the node that touched them first. Who has done his own node's share
 * helps the next.
 */
struct share {
    _Alignas(64) atomic_ullong ticket;
    int64_t end;    /* of its tasks */
    int first, own; /* workers: those before it, and its own */
};

struct pool {
    int threads, shares;
    pthread_t thread[POOL_THREADS_MAX];
    int cpu[POOL_THREADS_MAX];
    int home[POOL_THREADS_MAX]; /* a worker's share */
    uint64_t memory_nodes;      /* those of the workers, bit by bit */
    pool_task function;
    void *context;
    _Alignas(64) atomic_uint job; /* workers sleep on it */
    atomic_uint sleeping;
    atomic_bool stop;
    struct share share[POOL_NODES_MAX];
    _Alignas(64) atomic_uint unfinished; /* tasks; the caller sleeps on it */
};

struct start {
    struct pool *pool;
    int worker;
};

static _Thread_local int inside = -1; /* worker number while in a task */

static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void wait_while(atomic_uint *word, unsigned value, atomic_uint *sleeping)
{
    for (int i = 0; i < SPIN_ROUNDS; i++) {
        if (atomic_load_explicit(word, memory_order_acquire) != value) return;
        relax();
    }
    atomic_fetch_add(sleeping, 1);
    while (atomic_load(word) == value)
#ifdef __linux__
        syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
#else
        sched_yield();
#endif
    atomic_fetch_sub(sleeping, 1);
}

static void wake(atomic_uint *word, int count)
{
#ifdef __linux__
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0);
#endif
}

/* Number of tasks left including the one that is now the caller's; 0: none. */
static unsigned claim(struct share *s)
{
    unsigned long long ticket = atomic_load_explicit(&s->ticket, memory_order_acquire);
    while ((unsigned)ticket)
        if (atomic_compare_exchange_weak_explicit(&s->ticket, &ticket, ticket - 1,
                                                  memory_order_acq_rel, memory_order_acquire))
            return (unsigned)ticket;
    return 0;
}

static void work(struct pool *p, int worker)
{
    int before = inside;
    unsigned left;
    inside = worker;
    for (int i = 0; i < p->shares; i++) {
        struct share *s = &p->share[(p->home[worker] + i) % p->shares];
        while ((left = claim(s))) {
            p->function(p->context, s->end - left, worker);
            if (atomic_fetch_sub(&p->unfinished, 1) == 1 && worker != 0) wake(&p->unfinished, 1);
        }
    }
    inside = before;
}

static void *worker_main(void *argument)
{
    struct start *start = argument;
    struct pool *p = start->pool;
    int worker = start->worker;
    free(start);
#ifdef __linux__
    if (p->cpu[worker] >= 0) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET(p->cpu[worker], &set);
        (void)!pthread_setaffinity_np(pthread_self(), sizeof set, &set);
    }
#endif
    unsigned seen = 0;
    for (;;) {
        wait_while(&p->job, seen, &p->sleeping);
        if (atomic_load(&p->stop)) return NULL;
        seen = atomic_load_explicit(&p->job, memory_order_acquire);
        work(p, worker);
    }
}

#ifdef __linux__
/* Of the process's control group in the unified hierarchy. */
static int own_quota(void)
{
    char line[2048];
    int quota = 0;
    FILE *f = fopen("/proc/self/cgroup", "r");
    while (f && fgets(line, sizeof line, f)) {
        if (strncmp(line, "0::/", 4) != 0) continue;
        line[strcspn(line, "\n")] = 0;
        quota = topology_quota("/sys", line[4] ? line + 3 : "");
    }
    if (f) fclose(f);
    return quota;
}
#endif

/* CPUs this process may use, and how many threads make sense there. */
static int look_around(struct topology *t)
{
    *t = (struct topology){.nodes = 1};
    int threads = 0;
#ifdef __linux__
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) {
        bool allowed[TOPOLOGY_CPUS_MAX] = {0};
        for (int i = 0; i < CPU_SETSIZE && i < TOPOLOGY_CPUS_MAX; i++)
            allowed[i] = CPU_ISSET(i, &set);
        topology_read(t, "/sys", allowed);
        int quota = own_quota();
        threads = quota && quota < t->cores ? quota : t->cores;
    }
#endif
    if (threads) return threads;
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online < 1 ? 1 : online > POOL_THREADS_MAX ? POOL_THREADS_MAX : (int)online;
}

/* Workers that stay where they are belong to their node's share; one share for all where they wander. */
static void share_out(struct pool *p, const struct topology *t, int threads, bool pinned)
{
    p->shares = 0;
    for (int i = 0; i < threads; i++) {
        p->cpu[i] = pinned ? t->cpu[i] : -1;
        bool same = i && (!pinned || t->node[i] == t->node[i - 1] || p->shares == POOL_NODES_MAX);
        if (!same) p->share[p->shares++].first = i;
        p->home[i] = p->shares - 1;
        if (pinned && t->node[i] < 64) p->memory_nodes |= (uint64_t)1 << t->node[i];
    }
}

/* Shares in proportion to the workers that there are. */
static void count_workers(struct pool *p)
{
    while (p->shares > 1 && p->share[p->shares - 1].first >= p->threads) p->shares--;
    for (int i = 0; i < p->shares; i++) {
        int next = i + 1 < p->shares ? p->share[i + 1].first : p->threads;
        p->share[i].own = next - p->share[i].first;
    }
}

int pool_new(struct pool **pool, int threads, struct error *err)
{
    struct topology t;
    int sensible = look_around(&t);
    return pool_new_on(pool, &t, threads > 0 ? threads : sensible, err);
}

int pool_new_on(struct pool **pool, const struct topology *t, int threads, struct error *err)
{
    struct pool *p = alloc_try_aligned(64, sizeof *p);
    if (!p) return error_set(err, ERR_NO_MEMORY, "no memory for a thread pool");
    memset(p, 0, sizeof *p);
    if (threads > POOL_THREADS_MAX) threads = POOL_THREADS_MAX;
    share_out(p, t, threads, topology_pins(t, threads, getenv("KILN_CPU_PIN")));
    p->threads = 1;
    for (int i = 1; i < threads; i++) {
        struct start *start = alloc_zero(1, sizeof *start);
        *start = (struct start){p, i};
        if (pthread_create(&p->thread[i], NULL, worker_main, start)) {
            free(start);
            break;
        }
        p->threads++;
    }
    count_workers(p);
    *pool = p;
    return 0;
}

void pool_free(struct pool *p)
{
    if (!p) return;
    atomic_store(&p->stop, true);
    atomic_fetch_add(&p->job, 1);
    wake(&p->job, POOL_THREADS_MAX);
    for (int i = 1; i < p->threads; i++) pthread_join(p->thread[i], NULL);
    free(p);
}

int pool_threads(const struct pool *p)
{
    return p->threads;
}

uint64_t pool_memory_nodes(const struct pool *p)
{
    return p->memory_nodes;
}

void pool_run(struct pool *p, int64_t tasks, pool_task function, void *context)
{
    if (inside >= 0 || p->threads == 1 || tasks <= 1) {
        int worker = inside >= 0 ? inside : 0;
        for (int64_t i = 0; i < tasks; i++) function(context, i, worker);
        return;
    }
    p->function = function;
    p->context = context;
    atomic_store_explicit(&p->unfinished, (unsigned)tasks, memory_order_relaxed);
    unsigned job = atomic_load_explicit(&p->job, memory_order_relaxed) + 1;
    for (int i = 0; i < p->shares; i++)
        p->share[i].end = tasks * (p->share[i].first + p->share[i].own) / p->threads;
    for (int i = 0; i < p->shares; i++) {
        int64_t own = p->share[i].end - (i ? p->share[i - 1].end : 0);
        atomic_store_explicit(&p->share[i].ticket, (unsigned long long)job << 32 | (unsigned)own,
                              memory_order_release);
    }
    atomic_store(&p->job, job);
    if (atomic_load(&p->sleeping)) wake(&p->job, p->threads);
    work(p, 0);
    unsigned left;
    atomic_uint alone = 0; /* the last to finish always wakes */
    while ((left = atomic_load_explicit(&p->unfinished, memory_order_acquire)))
        wait_while(&p->unfinished, left, &alone);
}
