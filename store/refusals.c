#include "store/refusals.h"

#include <stdlib.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/now.h"
#include "store/digest.h"
#include "store/fetch.h"
#include "store/note.h"

#define FOLDER "refusals"
#define HOUR_MS INT64_C(3600000)
#define DAY_MS (24 * HOUR_MS)

static int64_t kept_ms(int status)
{
    switch (status) {
    case 404:
    case 410: return 7 * DAY_MS;
    case 451: return 90 * DAY_MS;
    case REFUSAL_WRONG_BYTES: return HOUR_MS;
    default: return 0;
    }
}

int refusal_check(const struct store *s, const char *url, struct error *err)
{
    char name[65], when[25];
    struct note n;
    int folder = store_folder(s, FOLDER, NULL);
    if (folder < 0) return 0;
    digest_text(url, name);
    note_read(&n, folder, name);
    close(folder);
    int status = (int)note_get_i64(&n, "status");
    int64_t at = note_get_i64(&n, "at_ms"), now = now_wall_ms();
    note_release(&n);
    /* a clock that went back must not keep it for ever */
    if (!kept_ms(status) || now > at + kept_ms(status) || at > now + HOUR_MS) return 0;
    now_format_utc(when, at);
    char *shown = fetch_show(url);
    int rc = status == REFUSAL_WRONG_BYTES
                 ? error_set(err, ERR_REFUSED,
                             "%s gave bytes with a wrong SHA-256 at %s; --again asks once more",
                             shown, when)
                 : error_set(err, status == 451 ? ERR_REFUSED : ERR_NOT_FOUND,
                             "%s said HTTP %d at %s; --again asks once more", shown, status, when);
    free(shown);
    return rc;
}

void refusal_remember(const struct store *s, const char *url, int status)
{
    char name[65];
    struct note n;
    if (!kept_ms(status)) return;
    int folder = store_folder(s, FOLDER, NULL);
    if (folder < 0) return;
    char *shown = fetch_show(url);
    note_init(&n);
    note_set_i64(&n, "status", status);
    note_set_i64(&n, "at_ms", now_wall_ms());
    note_set(&n, "url", shown);
    digest_text(url, name);
    note_write(&n, folder, name, NULL);
    note_release(&n);
    free(shown);
    close(folder);
}

void refusal_forget(const struct store *s, const char *url)
{
    char name[65];
    int folder = store_folder(s, FOLDER, NULL);
    if (folder < 0) return;
    digest_text(url, name);
    unlinkat(folder, name, 0);
    close(folder);
}
