/* CPUs in the order that threads take them, from sysfs trees made up here. */
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "kernels/cpu/cpu_topology.h"

static char root[64];

/* A file of the tree and the folders above it. */
static void put(const char *path, const char *text)
{
    char whole[256];
    snprintf(whole, sizeof whole, "%s/%s", root, path);
    for (char *slash = whole + strlen(root) + 1; (slash = strchr(slash, '/')); slash++) {
        *slash = 0;
        mkdir(whole, 0700);
        *slash = '/';
    }
    FILE *f = fopen(whole, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static void put_cpu(int cpu, int package, int core)
{
    char path[128], value[16];
    snprintf(path, sizeof path, "devices/system/cpu/cpu%d/topology/physical_package_id", cpu);
    snprintf(value, sizeof value, "%d\n", package);
    put(path, value);
    snprintf(path, sizeof path, "devices/system/cpu/cpu%d/topology/core_id", cpu);
    snprintf(value, sizeof value, "%d\n", core);
    put(path, value);
}

static int new_tree(void **unused)
{
    strcpy(root, "/tmp/kiln-topology-XXXXXX");
    return mkdtemp(root) ? 0 : -1;
}

static int remove_tree(void **unused)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", root);
    return system(command);
}

/* The topology as "count/cores/nodes: cpu@node ..." */
static void expect(const char *text, uint64_t mask)
{
    struct topology t;
    bool allowed[TOPOLOGY_CPUS_MAX] = {0};
    for (int i = 0; i < 64; i++) allowed[i] = mask >> i & 1;
    topology_read(&t, root, allowed);
    char got[512];
    int at = snprintf(got, sizeof got, "%d/%d/%d:", t.count, t.cores, t.nodes);
    for (int i = 0; i < t.count; i++)
        at += snprintf(got + at, sizeof got - (size_t)at, " %d@%d", t.cpu[i], t.node[i]);
    assert_string_equal(got, text);
}

static void one_node_two_cores(void **unused)
{
    put("devices/system/cpu/online", "0-1\n");
    put("devices/system/node/node0/cpulist", "0-1\n");
    put_cpu(0, 0, 0);
    put_cpu(1, 0, 1);
    expect("2/2/1: 0@0 1@0", 3);
    expect("1/1/1: 1@0", 2);
}

/* eight cores, their second threads numbered from 8 on, as Linux does */
static void two_nodes(void)
{
    put("devices/system/cpu/online", "0-15\n");
    put("devices/system/node/node0/cpulist", "0-3,8-11\n");
    put("devices/system/node/node1/cpulist", "4-7,12-15\n");
    for (int i = 0; i < 16; i++) put_cpu(i, i % 8 / 4, i % 4); /* core numbers repeat a package */
}

static void two_nodes_with_twins(void **unused)
{
    two_nodes();
    expect("16/8/2: 0@0 1@0 2@0 3@0 4@1 5@1 6@1 7@1 8@0 9@0 10@0 11@0 12@1 13@1 14@1 15@1", 0xffff);
}

static void affinity_is_respected(void **unused)
{
    two_nodes();
    expect("5/4/2: 9@0 10@0 4@1 7@1 12@1", 1 << 9 | 1 << 10 | 1 << 4 | 1 << 7 | 1 << 12);
    expect("2/1/1: 6@1 14@1", 1 << 6 | 1 << 14);
    expect("0/0/1:", 0);
}

static void offline_cpus_are_left_out(void **unused)
{
    two_nodes();
    put("devices/system/cpu/online", "0,2-5,9,15\n");
    expect("7/7/2: 0@0 2@0 3@0 9@0 4@1 5@1 15@1", 0xffff);
}

static void numbers_with_gaps_and_nothing_at_all(void **unused)
{
    expect("3/3/1: 0@0 5@0 63@0", 1 | 1 << 5 | (uint64_t)1 << 63);
    put("devices/system/node/node2/cpulist", "5\n");
    put("devices/system/node/node3/cpulist", "\n"); /* memory without CPUs */
    expect("3/3/2: 0@0 63@0 5@2", 1 | 1 << 5 | (uint64_t)1 << 63);
    put("devices/system/node/node2/cpulist", "5-4,x,7-99999999999\n");
    expect("2/2/1: 0@0 5@0", 1 | 1 << 5);
}

static void pins(void **unused)
{
    const struct topology one = {.count = 2, .cores = 2, .nodes = 1};
    const struct topology twins = {.count = 4, .cores = 2, .nodes = 1};
    const struct topology far = {.count = 8, .cores = 8, .nodes = 2};
    assert_false(topology_pins(&one, 2, NULL));
    assert_true(topology_pins(&twins, 2, NULL));
    assert_false(topology_pins(&twins, 5, NULL));
    assert_true(topology_pins(&far, 8, NULL));
    assert_true(topology_pins(&far, 3, "1"));
    assert_false(topology_pins(&far, 8, "0"));
    assert_false(topology_pins(&far, 9, NULL));
}

/* Two nodes, of three cores and of one. The first tasks that its workers claim lie in a node's own share, three
 * quarters of the tasks and one; what is left of a share anyone does. */
struct nodes {
    atomic_int claimed, ran[100], first[4];
};

static void node_task(void *context, int64_t task, int worker)
{
    struct nodes *n = context;
    atomic_fetch_add(&n->ran[task], 1);
    int none = -1;
    if (!atomic_compare_exchange_strong(&n->first[worker], &none, (int)task)) return;
    atomic_fetch_add(&n->claimed, 1);
    while (atomic_load(&n->claimed) < 4) sched_yield(); /* until each worker has its first */
}

static void tasks_by_node(void **unused)
{
    put("devices/system/cpu/online", "0-3\n");
    put("devices/system/node/node0/cpulist", "0-2\n");
    put("devices/system/node/node5/cpulist", "3\n");
    for (int i = 0; i < 4; i++) put_cpu(i, i / 3, i);
    bool allowed[TOPOLOGY_CPUS_MAX] = {true, true, true, true};
    struct topology t;
    topology_read(&t, root, allowed);
    assert_int_equal(t.nodes, 2);
    for (int round = 0; round < 20; round++) {
        struct pool *pool;
        assert_int_equal(pool_new_on(&pool, &t, 4, NULL), 0);
        assert_int_equal(pool_threads(pool), 4);
        assert_int_equal(pool_memory_nodes(pool), 1 | 1 << 5);
        struct nodes n = {.claimed = 0};
        for (int i = 0; i < 4; i++) atomic_store(&n.first[i], -1);
        pool_run(pool, 100, node_task, &n);
        for (int i = 0; i < 100; i++) assert_int_equal(atomic_load(&n.ran[i]), 1);
        for (int i = 0; i < 3; i++) assert_true(atomic_load(&n.first[i]) < 75);
        assert_int_equal(atomic_load(&n.first[3]), 75);
        pool_free(pool);
    }
    for (int tasks = 0; tasks < 100; tasks++) { /* shares may be empty */
        struct pool *pool;
        assert_int_equal(pool_new_on(&pool, &t, 4, NULL), 0);
        struct nodes n = {.claimed = 4};
        for (int i = 0; i < 4; i++) atomic_store(&n.first[i], -1);
        pool_run(pool, tasks, node_task, &n);
        for (int i = 0; i < 100; i++) assert_int_equal(atomic_load(&n.ran[i]), i < tasks);
        pool_free(pool);
    }
    struct pool *pool; /* fewer threads than the first node has cores: one share, one node */
    assert_int_equal(pool_new_on(&pool, &t, 3, NULL), 0);
    assert_int_equal(pool_memory_nodes(pool), 1);
    pool_free(pool);
    setenv("KILN_CPU_PIN", "0", 1); /* workers that wander belong nowhere */
    assert_int_equal(pool_new_on(&pool, &t, 4, NULL), 0);
    assert_int_equal(pool_memory_nodes(pool), 0);
    pool_free(pool);
    unsetenv("KILN_CPU_PIN");
}

static void quotas(void **unused)
{
    assert_int_equal(topology_quota(root, "/a/b"), 0);
    put("fs/cgroup/a/b/cpu.max", "max 100000\n");
    assert_int_equal(topology_quota(root, "/a/b"), 0);
    put("fs/cgroup/a/cpu.max", "250000 100000\n");
    assert_int_equal(topology_quota(root, "/a/b"), 3);
    put("fs/cgroup/a/b/cpu.max", "100000 100000\n");
    assert_int_equal(topology_quota(root, "/a/b"), 1);
    assert_int_equal(topology_quota(root, "/a"), 3);
    assert_int_equal(topology_quota(root, ""), 0);
    put("fs/cgroup/cpu.max", "1000 100000\n");
    assert_int_equal(topology_quota(root, ""), 1);
}

int main(void)
{
#define IN_TREE(test) cmocka_unit_test_setup_teardown(test, new_tree, remove_tree)
    const struct CMUnitTest tests[] = {
        IN_TREE(one_node_two_cores),
        IN_TREE(two_nodes_with_twins),
        IN_TREE(affinity_is_respected),
        IN_TREE(offline_cpus_are_left_out),
        IN_TREE(numbers_with_gaps_and_nothing_at_all),
        cmocka_unit_test(pins),
        IN_TREE(tasks_by_node),
        IN_TREE(quotas),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
