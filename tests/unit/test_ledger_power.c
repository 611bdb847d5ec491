/* daemon/ledger under power loss: kill -9 does not test fsync, because the page cache survives. A VFS
 * under SQLite records every write, truncation and sync; afterwards the disk as it may have looked at
 * any moment is built again - what was synced whole, of the rest a random part, sector by sector -
 * and opened. Every commit that was told must be there, and nothing may be damaged (reliability G2). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "base/alloc.h"
#include "base/str.h"
#include "daemon/ledger.h"

#define SECTOR 512
#define COMMITS 60

enum kind { WRITE, TRUNCATE, SYNC };

struct op {
    enum kind kind;
    int file; /* 0 the database, 1 its log */
    int64_t at;
    size_t length;
    uint8_t *data;
};

static struct op *ops;
static size_t op_count;
static bool recording;

static void record(enum kind kind, int file, int64_t at, const void *data, size_t length)
{
    if (!recording || file < 0) return;
    ops = alloc_grow(ops, op_count + 1, sizeof *ops);
    struct op *o = &ops[op_count++];
    *o = (struct op){.kind = kind, .file = file, .at = at, .length = length};
    if (data) {
        o->data = alloc_zero(length ? length : 1, 1);
        memcpy(o->data, data, length);
    }
}

/* ---- the VFS: a file of ours with the real one behind it ---- */

struct witness {
    sqlite3_file base;
    int file;
    sqlite3_file *real;
};

static sqlite3_vfs *real_vfs;

#define REAL(f) (((struct witness *)(f))->real)

static int w_close(sqlite3_file *f)
{
    int rc = REAL(f)->pMethods->xClose(REAL(f));
    free(REAL(f));
    return rc;
}
static int w_read(sqlite3_file *f, void *to, int length, sqlite3_int64 at)
{
    return REAL(f)->pMethods->xRead(REAL(f), to, length, at);
}
static int w_write(sqlite3_file *f, const void *from, int length, sqlite3_int64 at)
{
    record(WRITE, ((struct witness *)f)->file, at, from, (size_t)length);
    return REAL(f)->pMethods->xWrite(REAL(f), from, length, at);
}
static int w_truncate(sqlite3_file *f, sqlite3_int64 size)
{
    record(TRUNCATE, ((struct witness *)f)->file, size, NULL, 0);
    return REAL(f)->pMethods->xTruncate(REAL(f), size);
}
static int w_sync(sqlite3_file *f, int flags)
{
    record(SYNC, ((struct witness *)f)->file, 0, NULL, 0);
    return REAL(f)->pMethods->xSync(REAL(f), flags);
}
static int w_size(sqlite3_file *f, sqlite3_int64 *size)
{
    return REAL(f)->pMethods->xFileSize(REAL(f), size);
}
static int w_lock(sqlite3_file *f, int level)
{
    return REAL(f)->pMethods->xLock(REAL(f), level);
}
static int w_unlock(sqlite3_file *f, int level)
{
    return REAL(f)->pMethods->xUnlock(REAL(f), level);
}
static int w_reserved(sqlite3_file *f, int *result)
{
    return REAL(f)->pMethods->xCheckReservedLock(REAL(f), result);
}
static int w_control(sqlite3_file *f, int op, void *arg)
{
    return REAL(f)->pMethods->xFileControl(REAL(f), op, arg);
}
static int w_sector(sqlite3_file *f)
{
    return REAL(f)->pMethods->xSectorSize(REAL(f));
}
static int w_traits(sqlite3_file *f)
{
    return 0; /* promise nothing: no power-safe overwrite, no atomic writes */
}

/* version 1: without shared memory, which an exclusive lock in WAL mode does not need */
static const sqlite3_io_methods methods = {1,         w_close,  w_read,  w_write,  w_truncate,
                                           w_sync,    w_size,   w_lock,  w_unlock, w_reserved,
                                           w_control, w_sector, w_traits};

static int w_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *f, int flags, int *out)
{
    struct witness *w = (struct witness *)f;
    w->real = alloc_zero(1, (size_t)real_vfs->szOsFile);
    int rc = real_vfs->xOpen(real_vfs, name, w->real, flags, out);
    if (rc != SQLITE_OK) {
        free(w->real);
        w->base.pMethods = NULL;
        return rc;
    }
    w->file = name && str_ends(name, "/ledger.db")       ? 0
              : name && str_ends(name, "/ledger.db-wal") ? 1
                                                         : -1;
    w->base.pMethods = &methods;
    return SQLITE_OK;
}

static void install(void)
{
    static sqlite3_vfs vfs;
    real_vfs = sqlite3_vfs_find(NULL);
    vfs = *real_vfs;
    vfs.zName = "witness";
    vfs.szOsFile = sizeof(struct witness);
    vfs.xOpen = w_open;
    assert_int_equal(sqlite3_vfs_register(&vfs, 1), SQLITE_OK);
}

/* ---- the disk as it may have been ---- */

struct disk {
    uint8_t *data;
    size_t length, room;
};

static void disk_put(struct disk *d, int64_t at, const uint8_t *data, size_t length)
{
    size_t end = (size_t)at + length;
    if (end > d->room) {
        d->data = alloc_grow(d->data, end * 2, 1);
        memset(d->data + d->room, 0, end * 2 - d->room);
        d->room = end * 2;
    }
    memcpy(d->data + at, data, length);
    if (end > d->length) d->length = end;
}

static void apply(struct disk *d, const struct op *o)
{
    if (o->kind == WRITE) disk_put(d, o->at, o->data, o->length);
    if (o->kind == TRUNCATE && (size_t)o->at < d->length) {
        memset(d->data + o->at, 0, d->length - (size_t)o->at);
        d->length = (size_t)o->at;
    }
}

/* of a write that was not synced each sector may or may not have arrived */
static void apply_partly(struct disk *d, const struct op *o)
{
    if (o->kind == TRUNCATE && rand() % 2) apply(d, o);
    for (size_t at = 0; o->kind == WRITE && at < o->length;) {
        size_t piece = SECTOR - ((size_t)o->at + at) % SECTOR;
        if (piece > o->length - at) piece = o->length - at;
        if (rand() % 2) disk_put(d, o->at + (int64_t)at, o->data + at, piece);
        at += piece;
    }
}

static void write_disk(const char *folder, const char *name, const struct disk *d)
{
    char *path = alloc_printf("%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    if (d->length) assert_int_equal(fwrite(d->data, 1, d->length, f), d->length);
    fclose(f);
    free(path);
}

static void build(const char *folder, size_t cut)
{
    static const char *const names[] = {"ledger.db", "ledger.db-wal"};
    for (int file = 0; file < 2; file++) {
        struct disk d = {0};
        size_t synced = 0;
        for (size_t i = 0; i < cut; i++)
            if (ops[i].file == file && ops[i].kind == SYNC) synced = i;
        for (size_t i = 0; i < cut; i++) {
            if (ops[i].file != file) continue;
            if (i < synced)
                apply(&d, &ops[i]);
            else
                apply_partly(&d, &ops[i]);
        }
        write_disk(folder, names[file], &d);
        free(d.data);
    }
}

/* ---- */

static void post(struct ledger *l, int i)
{
    struct ledger_posting p = {.kind = "earned", .milli = 1000 + i};
    char id[32];
    snprintf(id, sizeof id, "p-%d", i);
    str_copy(p.job, sizeof p.job, id);
    struct ledger_job j = {.batch_count = 1, .ttl_s = 150};
    str_copy(j.id, sizeof j.id, id);
    char reply[3000];
    memset(reply, 'r', sizeof reply);
    assert_int_equal(ledger_begin(l, NULL), 0);
    assert_int_equal(ledger_popped(l, id, reply, sizeof reply, &j, 1, NULL, NULL), 0);
    assert_int_equal(ledger_post(l, &p, NULL), 0);
    assert_int_equal(ledger_commit(l, NULL), 0);
}

/* in memory where that can be: the syncs are recorded, not needed */
static void make_folder(char path[48])
{
    snprintf(path, 48, "%s/kiln-power-XXXXXX", access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
    assert_non_null(mkdtemp(path));
}

static void every_told_commit_survives_power_loss(void **state)
{
    char folder[48], command[128];
    make_folder(folder);
    int cuts = getenv("KILN_LONG_TESTS") ? 5000 : 300;
    size_t told[COMMITS];
    struct ledger *l = NULL;
    struct ledger_options options = {.ballast_bytes = 4096};
    struct error err = {0};
    srand(20261124);
    install();
    recording = true;
    if (ledger_open(&l, folder, &options, &err)) fail_msg("%s", err.text);
    size_t made = op_count;
    for (int i = 0; i < COMMITS; i++) {
        post(l, i);
        told[i] = op_count;
    }
    recording = false;
    ledger_close(l);
    size_t syncs = 0, checkpoints = 0;
    for (size_t i = made; i < op_count; i++) {
        syncs += ops[i].kind == SYNC && ops[i].file == 1;
        checkpoints += ops[i].kind == SYNC && ops[i].file == 0;
    }
    assert_true(syncs >= COMMITS); /* synchronous=FULL: each commit flushes the log */
    assert_true(checkpoints >= 1); /* and moments inside a checkpoint are among the cuts */

    for (int c = 0; c < cuts; c++) {
        char place[48];
        make_folder(place);
        size_t cut = made + (size_t)rand() % (op_count - made + 1);
        build(place, cut);
        int rc = ledger_open(&l, place, &options, &err);
        if (rc) fail_msg("cut %zu of %zu: %s", cut, op_count, err.text);
        if (ledger_news(l)) fail_msg("cut %zu of %zu: %s", cut, op_count, ledger_news(l));
        int64_t least = 0, next = 0;
        for (int i = 0; i < COMMITS; i++) {
            if (told[i] <= cut)
                least += 1000 + i;
            else if (!next)
                next = 1000 + i;
        }
        struct ledger_totals t;
        assert_int_equal(ledger_totals(l, 0, &t, NULL), 0);
        /* what was told, and at most the one that was about to be */
        if (t.told_milli != least && t.told_milli != least + next)
            fail_msg("cut %zu: %lld milli-kudos, told were %lld", cut, (long long)t.told_milli,
                     (long long)least);
        ledger_close(l);
        snprintf(command, sizeof command, "rm -rf '%s'", place);
        assert_int_equal(system(command), 0);
    }
    print_message("seed 20261124, %zu operations, %zu syncs, %zu checkpoints, %d cuts\n", op_count,
                  syncs, checkpoints, cuts);
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    assert_int_equal(system(command), 0);
    for (size_t i = 0; i < op_count; i++) free(ops[i].data);
    free(ops);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_told_commit_survives_power_loss)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
