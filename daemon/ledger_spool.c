/* ledger_spool.c - checked images between the engine and the object store (L5, L6). */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/str.h"
#include "daemon/ledger_sql.h"

#define SPOOL_FILE_BYTES_MAX (64u << 20)

static char *spool_path(const struct ledger *l, const char *name)
{
    return alloc_printf("%s/spool/%s", l->folder, name);
}

/* ids come from the Horde: only what cannot leave the folder becomes a file name */
static bool name_is_plain(const char *name)
{
    return *name &&
           strspn(name, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_.") ==
               strlen(name) &&
           *name != '.';
}

int ledger_spool_write(struct ledger *l, const char *id, const void *bytes, size_t length,
                       char name[80], struct error *err)
{
    if (!name_is_plain(id)) return error_set(err, ERR_INVALID, "a job id with strange characters");
    char file[80];
    snprintf(file, sizeof file, "%s.image", id);
    char *path = spool_path(l, file);
    int rc = 0;
    for (int attempt = 0; attempt < 2; attempt++) {
        int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
        int bad = fd < 0 || write_fully(fd, bytes, length) || fdatasync(fd) ? errno : 0;
        if (fd >= 0) close(fd);
        rc = bad ? error_set_errno(err, bad == ENOSPC ? ERR_NO_MEMORY : ERR_IO, bad, "writing %s",
                                   path)
                 : 0;
        if (rc) unlink(path);
        if (rc != ERR_NO_MEMORY || l->tight) break;
        ledger_make_room(l);
    }
    free(path);
    if (!rc) str_copy(name, 80, file);
    return rc;
}

int ledger_spool_read(struct ledger *l, const char *name, struct buf *bytes, struct error *err)
{
    if (!name_is_plain(name)) return error_set(err, ERR_INVALID, "no spool file \"%.40s\"", name);
    char *path = spool_path(l, name);
    int rc = buf_read_file(bytes, path, err);
    free(path);
    return rc;
}

void ledger_spool_remove(struct ledger *l, const char *name)
{
    if (!name_is_plain(name)) return;
    char *path = spool_path(l, name);
    unlink(path);
    free(path);
}

int ledger_spool_sweep(struct ledger *l)
{
    char *folder = ledger_path(l, "spool");
    DIR *d = opendir(folder);
    free(folder);
    int removed = 0;
    for (struct dirent *e; d && (e = readdir(d));) {
        if (e->d_name[0] == '.') continue;
        sqlite3_stmt *s =
            ledger_sql(l, "SELECT 1 FROM job WHERE spool = ? AND state < 6", NULL, "t", e->d_name);
        int found = s ? ledger_step(l, s, NULL) : -1;
        if (s) sqlite3_reset(s);
        if (found == 0) {
            ledger_spool_remove(l, e->d_name);
            removed++;
        }
    }
    if (d) closedir(d);
    return removed;
}
