/* daemon/ledger and daemon/clerk: durable, append-only, mended after damage, and right after kill
 * -9. */
#include <fcntl.h>
#include <math.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "base/alloc.h"
#include "base/now.h"
#include "base/str.h"
#include "daemon/clerk.h"
#include "daemon/ledger.h"

static char folder[64];

static int make_folder(void **state)
{
    strcpy(folder, "/tmp/kiln-ledger-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int drop_folder(void **state)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    return system(command);
}

static struct ledger *open_ledger(void)
{
    struct ledger *l = NULL;
    struct error err = {0};
    struct ledger_options options = {.ballast_bytes = 65536};
    int rc = ledger_open(&l, folder, &options, &err);
    if (rc) fail_msg("%s", err.text);
    return l;
}

static struct ledger_job job_named(const char *id, const char *pop, int index, int count)
{
    struct ledger_job j = {.batch_index = index,
                           .batch_count = count,
                           .width_px = 512,
                           .height_px = 512,
                           .steps = 30,
                           .seed = UINT64_MAX - 1,
                           .popped_wall_ms = now_wall_ms(),
                           .popped_boot_ms = now_ms(),
                           .ttl_s = 150};
    str_copy(j.id, sizeof j.id, id);
    str_copy(j.pop, sizeof j.pop, pop);
    str_copy(j.what, sizeof j.what, "stable_diffusion");
    str_copy(j.sampler, sizeof j.sampler, "k_euler");
    str_copy(j.boot, sizeof j.boot, "b007");
    return j;
}

static void pop_one(struct ledger *l, const char *id)
{
    struct ledger_job j = job_named(id, id, 0, 1);
    int fresh = 0;
    assert_int_equal(ledger_begin(l, NULL), 0);
    assert_int_equal(ledger_popped(l, id, "{\"prompt\"}", 10, &j, 1, &fresh, NULL), 0);
    assert_int_equal(ledger_commit(l, NULL), 0);
}

static int walk(struct ledger *l, const char *id, const enum job_event *events, int count)
{
    int rc = ledger_begin(l, NULL);
    for (int i = 0; i < count && !rc; i++) rc = ledger_event(l, id, events[i], NULL, NULL);
    return rc ? rc : ledger_commit(l, NULL);
}

static const enum job_event good_life[] = {JOB_EVENT_PREPARED, JOB_EVENT_STARTED, JOB_EVENT_PASSED,
                                           JOB_EVENT_STORED,   JOB_EVENT_SENT,    JOB_EVENT_PAID};

/* horde-api, recordings 416 to 418: the form is given out again under its old id */
static void a_form_given_back_may_come_again(void **state)
{
    struct ledger *l = open_ledger();
    struct error err = {0};
    struct ledger_job form = job_named("f-1", "f-1", 0, 1), image = job_named("i-1", "i-1", 0, 1);
    struct buf reply;
    int fresh = 0;
    form.form = true;
    static const enum job_event back[] = {JOB_EVENT_FAULT_SENT, JOB_EVENT_FAULT_TAKEN};
    assert_int_equal(ledger_begin(l, &err), 0);
    assert_int_equal(ledger_popped(l, "f-1", "first", 5, &form, 1, &fresh, &err), 0);
    assert_int_equal(ledger_popped(l, "i-1", "image", 5, &image, 1, &fresh, &err), 0);
    assert_int_equal(ledger_commit(l, &err), 0);
    assert_int_equal(walk(l, "f-1", back, 2), 0);
    assert_int_equal(walk(l, "i-1", back, 2), 0);
    assert_int_equal(ledger_begin(l, &err), 0);
    assert_int_equal(ledger_popped(l, "i-1", "image", 5, &image, 1, &fresh, &err), 0);
    assert_int_equal(fresh, 0); /* an image comes under a new id */
    form.ttl_s = 77;
    assert_int_equal(ledger_popped(l, "f-1", "second", 6, &form, 1, &fresh, &err), 0);
    assert_int_equal(fresh, 1);
    assert_int_equal(ledger_popped(l, "f-1", "third", 5, &form, 1, &fresh, &err), 0);
    assert_int_equal(fresh, 0); /* it is open already */
    assert_int_equal(ledger_commit(l, &err), 0);
    buf_init(&reply, 100);
    assert_int_equal(ledger_reply(l, "f-1", &reply, &err), 0);
    assert_memory_equal(reply.data, "second", 6);
    buf_release(&reply);
    struct ledger_job now;
    assert_int_equal(ledger_job_get(l, "f-1", &now, &err), 0);
    assert_int_equal(now.state, JOB_POPPED);
    assert_int_equal(now.ttl_s, 77);
    assert_int_equal(walk(l, "f-1", good_life, 6), 0);
    assert_int_equal(ledger_begin(l, &err), 0);
    assert_int_equal(ledger_popped(l, "f-1", "fourth", 6, &form, 1, &fresh, &err), 0);
    assert_int_equal(fresh, 0); /* paid is paid */
    assert_int_equal(ledger_commit(l, &err), 0);
    ledger_close(l);
}

static void a_job_is_kept_from_pop_to_pay(void **state)
{
    struct ledger *l = open_ledger();
    struct error err = {0};
    struct ledger_job pair[] = {job_named("a-1", "a-1", 0, 2), job_named("a-2", "a-1", 1, 2)};
    int fresh = 0;
    assert_int_equal(ledger_begin(l, &err), 0);
    assert_int_equal(ledger_popped(l, "a-1", "reply", 5, pair, 2, &fresh, &err), 0);
    assert_int_equal(fresh, 2);
    assert_int_equal(ledger_popped(l, "a-1", "reply", 5, pair, 2, &fresh, &err), 0);
    assert_int_equal(fresh, 0); /* the same reply twice is one job */
    assert_int_equal(ledger_commit(l, &err), 0);
    ledger_close(l);

    l = open_ledger();
    struct ledger_job j;
    assert_int_equal(ledger_job_get(l, "a-2", &j, &err), 0);
    assert_true(j.seed == UINT64_MAX - 1);
    assert_int_equal(j.state, JOB_POPPED);
    assert_true(isnan(j.joules) && j.told_milli == -1);
    assert_int_equal(walk(l, "a-1", good_life, 5), 0);
    assert_int_equal(ledger_begin(l, &err), 0);
    assert_int_equal(ledger_checked(l, "a-1", "a-1.image", "ok", "", 1.5, 42, &err), 0);
    assert_int_equal(ledger_intent(l, "a-1", EFFECT_SUBMIT, &err), 0);
    assert_int_equal(ledger_result(l, "a-1", EFFECT_SUBMIT, 200, NULL, &err), 0);
    assert_int_equal(ledger_event(l, "a-1", JOB_EVENT_PAID, NULL, &err), 0);
    assert_int_equal(ledger_earn(l, "a-1", 6550, 750, &err), 0);
    assert_int_equal(ledger_earn(l, "a-1", 6550, 750, &err), 0); /* twice is once */
    assert_int_equal(ledger_commit(l, &err), 0);

    struct buf reply;
    buf_init(&reply, 100);
    assert_int_equal(ledger_reply(l, "a-1", &reply, &err), 0); /* a-2 is open */
    assert_string_equal((char *)reply.data, "reply");
    assert_int_equal(
        walk(l, "a-2", (enum job_event[]){JOB_EVENT_FAULT_SENT, JOB_EVENT_FAULT_TAKEN}, 2), 0);
    buf_clear(&reply);
    assert_int_equal(ledger_reply(l, "a-1", &reply, &err), ERR_NOT_FOUND); /* the prompt is gone */
    buf_release(&reply);

    struct ledger_totals t;
    assert_int_equal(ledger_totals(l, 0, &t, &err), 0);
    assert_int_equal(t.told_milli, 6550);
    assert_int_equal(t.credited_milli, 4913);
    assert_int_equal(t.balance_milli, t.credited_milli);
    assert_int_equal(t.by_state[JOB_SETTLED], 1);
    assert_int_equal(t.by_state[JOB_FAULTED], 1);
    assert_true(t.joules_mean == 42);
    struct ledger_posting *p;
    int count;
    int64_t total;
    assert_int_equal(ledger_postings(l, 0, 10, &p, &count, &total, &err), 0);
    assert_int_equal(count, 2);
    assert_string_equal(p[1].kind, "earned");
    assert_int_equal(p[1].certainty, POSTING_EXACT);
    assert_string_equal(p[0].kind, "corrected");
    assert_int_equal(p[0].certainty, POSTING_ESTIMATED);
    free(p);
    struct ledger_job *list;
    assert_int_equal(ledger_jobs(l, JOB_SETTLED, NULL, 10, &list, &count, &total, &err), 0);
    assert_int_equal(count, 1);
    assert_int_equal(list[0].told_milli, 6550);
    free(list);
    ledger_close(l);
}

static void a_lost_amount_is_pending(void **state)
{
    struct ledger *l = open_ledger();
    pop_one(l, "a");
    assert_int_equal(walk(l, "a", good_life, 6), 0);
    assert_int_equal(ledger_begin(l, NULL), 0);
    assert_int_equal(ledger_earn(l, "a", -1, 750, NULL), 0);
    assert_int_equal(ledger_commit(l, NULL), 0);
    struct ledger_totals t;
    assert_int_equal(ledger_totals(l, 0, &t, NULL), 0);
    assert_int_equal(t.pending_count, 1);
    assert_int_equal(t.balance_milli, 0);
    ledger_close(l);
}

static void wrong_moves_change_nothing(void **state)
{
    struct ledger *l = open_ledger();
    struct error err = {0};
    pop_one(l, "a");
    assert_int_equal(walk(l, "a", (enum job_event[]){JOB_EVENT_PAID}, 1), ERR_INTERNAL);
    ledger_rollback(l);
    assert_int_equal(ledger_begin(l, NULL), 0);
    assert_int_equal(ledger_event(l, "nobody", JOB_EVENT_PAID, NULL, &err), ERR_NOT_FOUND);
    /* of two tasks in one commit, one fails and is undone alone */
    assert_int_equal(ledger_mark(l, NULL), 0);
    assert_int_equal(ledger_event(l, "a", JOB_EVENT_PREPARED, NULL, NULL), 0);
    ledger_back_to(l);
    assert_int_equal(ledger_mark(l, NULL), 0);
    struct ledger_posting p = {.kind = "spent", .milli = -1000};
    assert_int_equal(ledger_post(l, &p, NULL), 0);
    ledger_drop_mark(l);
    assert_int_equal(ledger_commit(l, NULL), 0);
    struct ledger_job j;
    assert_int_equal(ledger_job_get(l, "a", &j, NULL), 0);
    assert_int_equal(j.state, JOB_POPPED);
    struct ledger_totals t;
    assert_int_equal(ledger_totals(l, 0, &t, NULL), 0);
    assert_int_equal(t.balance_milli, -1000);
    ledger_close(l);
}

static int run_sql(const char *sql)
{
    sqlite3 *db;
    char *path = alloc_printf("%s/ledger.db", folder);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    int rc = sqlite3_exec(db, sql, NULL, NULL, NULL);
    sqlite3_close(db);
    free(path);
    return rc;
}

static void postings_are_only_added(void **state)
{
    struct ledger *l = open_ledger();
    assert_int_equal(ledger_begin(l, NULL), 0);
    struct ledger_posting p = {.kind = "uptime", .milli = 40000};
    assert_int_equal(ledger_post(l, &p, NULL), 0);
    assert_int_equal(ledger_commit(l, NULL), 0);
    ledger_close(l);
    assert_int_not_equal(run_sql("UPDATE posting SET milli = 1"), SQLITE_OK);
    assert_int_not_equal(run_sql("DELETE FROM posting"), SQLITE_OK);
    assert_int_not_equal(run_sql("INSERT INTO posting VALUES(NULL, NULL, 'x', 1.5, 0, 0, '')"),
                         SQLITE_OK);
}

static void two_daemons_do_not_share_a_folder(void **state)
{
    struct ledger *l = open_ledger(), *second = NULL;
    struct error err = {0};
    assert_int_equal(ledger_open(&second, folder, NULL, &err), ERR_BUSY);
    assert_null(second);
    ledger_close(l);
}

static void a_newer_schema_is_refused(void **state)
{
    ledger_close(open_ledger());
    assert_int_equal(run_sql("PRAGMA user_version = 99"), SQLITE_OK);
    struct ledger *l = NULL;
    struct error err = {0};
    assert_int_equal(ledger_open(&l, folder, NULL, &err), ERR_UNSUPPORTED);
    assert_non_null(strstr(err.text, "schema 99"));
}

static void post(struct ledger *l, const char *job, int64_t milli)
{
    struct ledger_posting p = {.kind = "earned", .milli = milli};
    str_copy(p.job, sizeof p.job, job);
    assert_int_equal(ledger_begin(l, NULL), 0);
    assert_int_equal(ledger_post(l, &p, NULL), 0);
    assert_int_equal(ledger_commit(l, NULL), 0);
}

/* damage after a backup: the backup comes back, the journal brings the later postings */
static void damage_is_mended(void **state)
{
    struct ledger *l = open_ledger();
    post(l, "before", 1000);
    for (int i = 0; i < LEDGER_BACKUPS_KEPT + 2; i++) {
        now_turn_ms(1000);
        assert_int_equal(ledger_backup(l, NULL), 0);
    }
    post(l, "after", 2345);
    post(l, "", 7);
    ledger_close(l);
    char command[256];
    snprintf(command, sizeof command, "test $(ls %s/backup | wc -l) -eq %d", folder,
             LEDGER_BACKUPS_KEPT);
    assert_int_equal(system(command), 0);

    char *path = alloc_printf("%s/ledger.db", folder);
    int fd = open(path, O_WRONLY);
    char junk[8192];
    memset(junk, 0xa5, sizeof junk);
    assert_int_equal(pwrite(fd, junk, sizeof junk, 0), sizeof junk);
    close(fd);
    char *journal = alloc_printf("%s/postings.journal", folder);
    FILE *f = fopen(journal, "a"); /* a torn line */
    fputs("v1 9 99 torn earned 77", f);
    fclose(f);

    l = open_ledger();
    assert_non_null(ledger_news(l));
    assert_non_null(strstr(ledger_news(l), "2 postings replayed"));
    struct ledger_totals t;
    assert_int_equal(ledger_totals(l, 0, &t, NULL), 0);
    assert_int_equal(t.balance_milli, 1000 + 2345 + 7);
    ledger_close(l);
    snprintf(command, sizeof command, "ls %s | grep -q damaged", folder);
    assert_int_equal(system(command), 0);
    l = open_ledger();
    assert_null(ledger_news(l));
    ledger_close(l);
    free(path);
    free(journal);
}

static void the_spool_holds_open_jobs_only(void **state)
{
    struct ledger *l = open_ledger();
    struct error err = {0};
    char name[80], other[80];
    pop_one(l, "a");
    assert_int_equal(ledger_spool_write(l, "a", "bytes", 5, name, &err), 0);
    assert_int_equal(ledger_spool_write(l, "orphan", "x", 1, other, &err), 0);
    assert_int_equal(ledger_spool_write(l, "../../etc/x", "x", 1, other, &err), ERR_INVALID);
    assert_int_equal(ledger_begin(l, NULL), 0);
    assert_int_equal(ledger_checked(l, "a", name, "ok", "", NAN, NAN, NULL), 0);
    assert_int_equal(ledger_commit(l, NULL), 0);
    assert_int_equal(ledger_spool_sweep(l), 1);
    struct buf b;
    buf_init(&b, 100);
    assert_int_equal(ledger_spool_read(l, name, &b, &err), 0);
    assert_string_equal((char *)b.data, "bytes");
    assert_int_equal(ledger_spool_read(l, "../lock", &b, &err), ERR_INVALID);
    ledger_spool_remove(l, name);
    assert_int_equal(ledger_spool_read(l, name, &b, &err), ERR_NOT_FOUND);
    buf_release(&b);
    ledger_close(l);
}

static void figures_are_reconciled(void **state)
{
    struct ledger *l = open_ledger();
    struct ledger_account a;
    struct ledger_figure f = {.wall_ms = 1, .kudos_milli = 100000, .trusted = true};
    assert_int_equal(ledger_begin(l, NULL), 0);
    assert_int_equal(ledger_account(l, &a, NULL), ERR_NOT_FOUND);
    assert_int_equal(ledger_reconcile(l, &f, &a, NULL), 0);
    assert_false(a.alarm);
    assert_int_equal(ledger_commit(l, NULL), 0);
    for (int i = 0; i < 4; i++) {
        char id[16];
        snprintf(id, sizeof id, "j%d", i);
        pop_one(l, id);
        assert_int_equal(walk(l, id, good_life, 6), 0);
        assert_int_equal(ledger_begin(l, NULL), 0);
        assert_int_equal(ledger_earn(l, id, 8070, 750, NULL), 0);
        assert_int_equal(ledger_commit(l, NULL), 0);
    }
    assert_int_equal(ledger_begin(l, NULL), 0);
    f.kudos_milli = 124000; /* 4 x 6.05, in whole kudos */
    assert_int_equal(ledger_reconcile(l, &f, &a, NULL), 0);
    assert_false(a.alarm);
    assert_int_equal(a.told_milli, 4 * 8070);
    assert_string_equal(a.verdict, "agrees");
    f.kudos_milli = 150000; /* 26 kudos out of nowhere */
    assert_int_equal(ledger_reconcile(l, &f, &a, NULL), 0);
    assert_true(a.alarm);
    assert_int_equal(a.unexplained_milli, 26000);
    assert_int_equal(ledger_commit(l, NULL), 0);

    pop_one(l, "silent");
    assert_int_equal(walk(l, "silent", good_life, 6), 0);
    assert_int_equal(ledger_begin(l, NULL), 0);
    assert_int_equal(ledger_earn(l, "silent", 8070, 1000, NULL), 0);
    assert_int_equal(ledger_reconcile(l, &f, &a, NULL), 0); /* may still be on its way */
    assert_false(a.alarm);
    assert_int_equal(a.pending_milli, 8070);
    assert_int_equal(ledger_reconcile(l, &f, &a, NULL), 0); /* a minute later: never came */
    assert_true(a.alarm);
    assert_int_equal(ledger_commit(l, NULL), 0);
    ledger_close(l);
}

/* ---- kill -9 ---- */

/* The child settles jobs and says on the pipe which commit returned; then it dies anywhere. */
static void child_life(int says, unsigned seed)
{
    struct ledger *l = NULL;
    struct ledger_options options = {.ballast_bytes = 4096};
    if (ledger_open(&l, folder, &options, NULL)) _exit(3);
    for (unsigned i = 0;; i++) {
        char id[40];
        snprintf(id, sizeof id, "k-%u-%u", seed, i);
        struct ledger_job j = job_named(id, id, 0, 1);
        if (ledger_begin(l, NULL) || ledger_popped(l, id, "r", 1, &j, 1, NULL, NULL)) _exit(4);
        for (unsigned e = 0; e < COUNT_OF(good_life); e++)
            if (ledger_event(l, id, good_life[e], NULL, NULL)) _exit(5);
        if (ledger_earn(l, id, 1000 + i, 1000, NULL) || ledger_commit(l, NULL)) _exit(6);
        if (write(says, &i, sizeof i) != sizeof i) _exit(7);
    }
}

static void kill_at_any_moment_loses_and_doubles_nothing(void **state)
{
    int rounds = getenv("KILN_LONG_TESTS") ? 500 : 40;
    srand(20261124);
    print_message("seed 20261124, %d kills\n", rounds);
    int64_t told = 0;
    for (int round = 0; round < rounds; round++) {
        int ends[2];
        assert_int_equal(pipe(ends), 0);
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (!pid) {
            close(ends[0]);
            child_life(ends[1], (unsigned)round);
        }
        close(ends[1]);
        usleep(10000 + (unsigned)(rand() % 25000));
        kill(pid, SIGKILL);
        int status;
        waitpid(pid, &status, 0);
        assert_true(WIFSIGNALED(status));
        unsigned i, count = 0;
        while (read(ends[0], &i, sizeof i) == sizeof i) count++;
        close(ends[0]);
        struct ledger *l = open_ledger();
        assert_null(ledger_news(l));
        struct ledger_totals t;
        assert_int_equal(ledger_totals(l, 0, &t, NULL), 0);
        for (unsigned k = 0; k < count; k++) told += 1000 + k;
        /* the last commit may have been made and not been told */
        int64_t more = t.told_milli - told;
        if (more) assert_int_equal(more, 1000 + count);
        told += more;
        assert_int_equal(t.by_state[JOB_SETTLED], t.sum_count ? t.sums[0].count : 0);
        ledger_close(l);
    }
    assert_true(told > 0);
}

/* ---- a full disk ---- */

/* a file system of our own, as root or in a user namespace */
static int mount_small(void)
{
    char map[32];
    int length = snprintf(map, sizeof map, "0 %d 1", (int)getuid());
    if (getuid() && unshare(CLONE_NEWUSER)) return -1;
    if (getuid()) {
        int fd = open("/proc/self/uid_map", O_WRONLY);
        if (fd < 0 || write(fd, map, (size_t)length) != length) return -1;
        close(fd);
    }
    if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL)) return -1;
    return mount("kiln", folder, "tmpfs", 0, "size=1280k,mode=0700");
}

static int fill_small_disk(void)
{
    if (mount_small()) return 77;
    struct ledger *l = NULL;
    struct ledger_options options = {.ballast_bytes = 512 * 1024};
    struct error err = {0};
    if (ledger_open(&l, folder, &options, &err) || ledger_is_tight(l)) return 1;
    char reply[20000];
    memset(reply, 'x', sizeof reply);
    int rc = 0, popped = 0;
    char id[16];
    for (; popped < 200 && !rc; popped++) {
        snprintf(id, sizeof id, "d%d", popped);
        struct ledger_job j = job_named(id, id, 0, 1);
        rc = ledger_begin(l, NULL);
        if (!rc) rc = ledger_popped(l, id, reply, sizeof reply, &j, 1, NULL, &err);
        if (!rc) rc = ledger_commit(l, &err);
    }
    if (rc != ERR_NO_MEMORY) return 2;
    ledger_rollback(l);
    ledger_make_room(l);
    for (int i = 0; i < popped - 1; i++) { /* everything in flight ends well */
        snprintf(id, sizeof id, "d%d", i);
        if (walk(l, id, good_life, 6)) return 3;
        if (ledger_begin(l, NULL) || ledger_earn(l, id, 1000, 1000, NULL) || ledger_commit(l, NULL))
            return 4;
    }
    struct ledger_totals t;
    if (ledger_totals(l, 0, &t, NULL) || t.told_milli != 1000 * (popped - 1)) return 5;
    ledger_close(l);
    return 0;
}

static void a_full_disk_still_settles(void **state)
{
    pid_t pid = fork();
    if (!pid) _exit(fill_small_disk());
    int status;
    waitpid(pid, &status, 0);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77) {
        print_message("no small file system to be had here\n");
        skip();
    }
    assert_int_equal(WEXITSTATUS(status), 0);
}

/* ---- the clerk ---- */

struct booking {
    char id[16];
    int rc, done;
};

static int apply_booking(struct ledger *l, void *data, struct error *err)
{
    struct booking *b = data;
    struct ledger_posting p = {.kind = "earned", .milli = 10};
    str_copy(p.job, sizeof p.job, b->id);
    int rc = ledger_post(l, &p, err);
    return rc || b->id[0] != 'x' ? rc : error_set(err, ERR_INVALID, "a task that fails");
}

static void booking_done(void *data, int rc, const struct error *err)
{
    struct booking *b = data;
    b->rc = rc;
    b->done++;
}

static void the_clerk_groups_and_answers_once(void **state)
{
    uv_loop_t loop;
    struct clerk *c = NULL;
    enum { COUNT = 500 };
    static struct booking b[COUNT];
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_int_equal(clerk_start(&c, &loop, open_ledger(), NULL), 0);
    double began = now_seconds();
    for (int i = 0; i < COUNT; i++) {
        snprintf(b[i].id, sizeof b[i].id, "%c%d", i % 50 == 7 ? 'x' : 'j', i);
        b[i].done = 0;
        clerk_give(c, apply_booking, booking_done, &b[i]);
        assert_int_equal(b[i].done, 0);
    }
    while (clerk_waiting(c)) uv_run(&loop, UV_RUN_ONCE);
    print_message("%d tasks in %.3f s\n", COUNT, now_seconds() - began);
    clerk_stop(c);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
    struct ledger *l = open_ledger();
    struct ledger_totals t;
    assert_int_equal(ledger_totals(l, 0, &t, NULL), 0);
    assert_int_equal(t.balance_milli, 10 * (COUNT - COUNT / 50));
    ledger_close(l);
    for (int i = 0; i < COUNT; i++) {
        assert_int_equal(b[i].done, 1);
        assert_int_equal(b[i].rc, i % 50 == 7 ? ERR_INVALID : 0);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, make_folder, drop_folder)
    const struct CMUnitTest tests[] = {
        TEST(a_form_given_back_may_come_again),
        TEST(a_job_is_kept_from_pop_to_pay),
        TEST(a_lost_amount_is_pending),
        TEST(wrong_moves_change_nothing),
        TEST(postings_are_only_added),
        TEST(two_daemons_do_not_share_a_folder),
        TEST(a_newer_schema_is_refused),
        TEST(damage_is_mended),
        TEST(the_spool_holds_open_jobs_only),
        TEST(figures_are_reconciled),
        TEST(kill_at_any_moment_loses_and_doubles_nothing),
        TEST(a_full_disk_still_settles),
        TEST(the_clerk_groups_and_answers_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
