/* ledger_journal.c - each posting once more, as a line of text, flushed before the commit (L9).
 *
 * A line: "v1 SEQ WALL_MS JOB KIND MILLI CERTAINTY NOTE|CRC\n"; JOB is "-" when there is none, CRC
 * the crc32 of what stands before the bar. A torn last line fails its sum and is passed over. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/str.h"
#include "daemon/ledger_sql.h"

static uint32_t crc32_of(const char *text, size_t length)
{
    uint32_t crc = ~0u;
    for (size_t i = 0; i < length; i++) {
        crc ^= (unsigned char)text[i];
        for (int k = 0; k < 8; k++) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
    }
    return ~crc;
}

int ledger_journal_open(struct ledger *l, struct error *err)
{
    char *path = ledger_path(l, "postings.journal");
    l->journal_fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    int rc = l->journal_fd < 0 ? error_set_errno(err, ERR_IO, errno, "opening %s", path) : 0;
    free(path);
    return rc;
}

int ledger_journal_note(struct ledger *l, const struct ledger_posting *p, struct error *err)
{
    char note[sizeof p->note], line[512];
    str_clean(note, sizeof note, p->note);
    for (char *c = note; *c; c++)
        if (*c == '|' || *c == '\n') *c = ' ';
    int length =
        snprintf(line, sizeof line, "v1 %" PRId64 " %" PRId64 " %s %s %" PRId64 " %d %s", p->seq,
                 p->wall_ms, p->job[0] ? p->job : "-", p->kind, p->milli, (int)p->certainty, note);
    return buf_printf(&l->journal, err, "%s|%08x\n", line, crc32_of(line, (size_t)length));
}

int ledger_journal_flush(struct ledger *l, struct error *err)
{
    while (l->journal.length) {
        ssize_t wrote = write(l->journal_fd, l->journal.data, l->journal.length);
        if (wrote < 0 && errno == EINTR) continue;
        if (wrote < 0)
            return error_set_errno(err, errno == ENOSPC ? ERR_NO_MEMORY : ERR_IO, errno,
                                   "writing the posting journal");
        buf_consume(&l->journal, (size_t)wrote);
        if (!l->journal.length && fdatasync(l->journal_fd))
            return error_set_errno(err, ERR_IO, errno, "flushing the posting journal");
    }
    return 0;
}

static bool read_line(char *line, struct ledger_posting *p)
{
    char *bar = strrchr(line, '|');
    unsigned sum;
    if (!bar || sscanf(bar + 1, "%8x", &sum) != 1 || crc32_of(line, (size_t)(bar - line)) != sum)
        return false;
    *bar = 0;
    int certainty, used = 0;
    memset(p, 0, sizeof *p);
    if (sscanf(line, "v1 %" SCNd64 " %" SCNd64 " %63s %15s %" SCNd64 " %d %n", &p->seq, &p->wall_ms,
               p->job, p->kind, &p->milli, &certainty, &used) != 6 ||
        certainty < 0 || certainty > POSTING_PENDING)
        return false;
    if (!strcmp(p->job, "-")) p->job[0] = 0;
    p->certainty = (enum posting_certainty)certainty;
    str_copy(p->note, sizeof p->note, used ? line + used : "");
    return true;
}

/* Straight into the table, without a line in the journal again. Postings of a job are known by
 * (job, kind), the others by their number and time. */
int ledger_journal_replay(struct ledger *l, int *replayed, struct error *err)
{
    char *path = ledger_path(l, "postings.journal");
    struct buf b;
    buf_init(&b, (size_t)1 << 30);
    int rc = buf_read_file(&b, path, err);
    free(path);
    if (rc == ERR_NOT_FOUND) rc = 0;
    if (!rc) rc = ledger_begin(l, err);
    for (char *line = (char *)b.data, *next; !rc && line && *line; line = next) {
        next = strchr(line, '\n');
        if (next) *next++ = 0;
        struct ledger_posting p;
        if (!read_line(line, &p)) continue;
        int64_t changed = 0;
        rc = ledger_run(l, err, &changed,
                        "INSERT OR IGNORE INTO posting(job, kind, milli, certainty, wall_ms, note)"
                        " SELECT ?1, ?2, ?3, ?4, ?5, ?6 WHERE ?1 IS NOT NULL OR NOT EXISTS"
                        " (SELECT 1 FROM posting WHERE job IS NULL AND kind = ?2 AND milli = ?3"
                        "  AND wall_ms = ?5)",
                        "ttinit", p.job[0] ? p.job : NULL, p.kind, p.milli, (int)p.certainty,
                        p.wall_ms, p.note);
        *replayed += (int)changed;
        if (!next) break;
    }
    buf_release(&b);
    buf_clear(&l->journal);
    if (!rc) rc = ledger_run(l, err, NULL, "COMMIT", "");
    if (rc) ledger_rollback(l);
    return rc;
}
