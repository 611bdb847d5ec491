#include "store/reference.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/now.h"
#include "base/str.h"
#include "store/known.h"
#include "store/note.h"

#define FOLDER "reference"
#define FRESH_MS INT64_C(3600000) /* the server itself reads them hourly */
#define BASE "https://raw.githubusercontent.com/Haidra-Org/AI-Horde-image-model-reference/main/"

static const struct {
    const char *file;
    enum store_kind kind;
} lists[REFERENCE_COUNT] = {
    {"stable_diffusion.json", STORE_MODEL},
    {"esrgan.json", STORE_POST},
    {"controlnet.json", STORE_CONTROLNET},
};

enum store_kind reference_kind(enum reference_list list)
{
    return lists[list].kind;
}

/* ---- one list ---- */

static int read_copy(struct buf *to, int folder, const char *file, struct error *err)
{
    int fd = openat(folder, file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) return error_set_errno(err, ERR_NOT_FOUND, errno, "%s", file);
    buf_clear(to);
    to->limit = FETCH_DOCUMENT_BYTES_MAX;
    int rc = 0;
    for (;;) {
        uint8_t *room = buf_reserve(to, 65536, err);
        ssize_t got = room ? read(fd, room, 65536) : -1;
        if (got < 0) rc = error_set(err, ERR_IO, "reading %s", file);
        if (got <= 0) break;
        buf_commit(to, (size_t)got);
    }
    close(fd);
    return rc;
}

static int parse(struct model_reference *to, const char *file, const struct buf *text,
                 struct error *err)
{
    if (!text->length) return error_set(err, ERR_FORMAT, "%s is empty", file);
    return model_reference_parse(to, file, (const char *)text->data, text->length, err);
}

static int keep_copy(const struct store *s, const struct buf *text, const char *file,
                     struct error *err)
{
    char *path = alloc_printf("%s/" FOLDER "/%s", s->folder, file);
    int rc = buf_write_file(text, path, 0600, err);
    free(path);
    return rc;
}

/* Asks, and puts what came into `list` when it is one. 304: nothing happens but the date. */
static int renew(struct model_reference *list, const struct store *s, struct fetch_client *client,
                 int folder, const char *file, struct note *n, struct error *err)
{
    struct fetch_reply reply;
    struct model_reference fresh = {0};
    struct buf text;
    char *url = alloc_printf(BASE "%s", file), *note = alloc_printf(".%s.note", file);
    buf_init(&text, FETCH_DOCUMENT_BYTES_MAX);
    int rc =
        fetch_document(client, url, list->count ? note_get(n, "etag") : "", &text, &reply, err);
    bool same = !rc && reply.status == 304 && list->count;
    if (!rc && !same) rc = parse(&fresh, file, &text, err);
    if (!rc && !same) rc = keep_copy(s, &text, file, err);
    if (!rc && !same) {
        model_reference_release(list);
        *list = fresh;
        note_set(n, "etag", reply.etag);
        fresh = (struct model_reference){0};
    }
    if (!rc) {
        note_set_i64(n, "fetched_ms", now_wall_ms());
        rc = note_write(n, folder, note, err);
    }
    model_reference_release(&fresh);
    buf_release(&text);
    free(url);
    free(note);
    return rc;
}

static int open_list(struct reference *r, int index, const struct store *s,
                     struct fetch_client *client, int folder, struct error *err)
{
    struct model_reference *list = &r->lists[index];
    const char *file = lists[index].file;
    struct error trouble = {0};
    struct buf text;
    struct note n;
    char *note = alloc_printf(".%s.note", file);
    note_read(&n, folder, note);
    buf_init(&text, FETCH_DOCUMENT_BYTES_MAX);
    int rc = read_copy(&text, folder, file, &trouble);
    if (!rc) rc = parse(list, file, &text, &trouble);
    int64_t age = now_wall_ms() - note_get_i64(&n, "fetched_ms");
    if (client && (!list->count || age < 0 || age > FRESH_MS))
        rc = renew(list, s, client, folder, file, &n, &trouble);
    if (rc && list->count) {
        r->stale = trouble;
        rc = 0;
    }
    r->fetched_ms[index] = note_get_i64(&n, "fetched_ms");
    if (rc) error_set(err, rc, "%s", trouble.text);
    note_release(&n);
    buf_release(&text);
    free(note);
    return rc;
}

int reference_open(struct reference *r, const struct store *s, struct fetch_client *client,
                   struct error *err)
{
    int got = 0, rc = 0;
    struct error first = {0};
    memset(r, 0, sizeof *r);
    int folder = store_folder(s, FOLDER, err);
    if (folder < 0) return folder;
    for (int i = 0; i < REFERENCE_COUNT; i++) {
        struct error trouble = {0};
        if (open_list(r, i, s, client, folder, &trouble)) {
            if (!first.code) first = trouble;
        } else {
            got++;
        }
    }
    close(folder);
    if (!got) {
        rc = error_set(err, first.code, "%s", first.text);
        reference_close(r);
    } else if (first.code && !r->stale.code) {
        r->stale = first;
    }
    return rc;
}

void reference_close(struct reference *r)
{
    for (int i = 0; i < REFERENCE_COUNT; i++) model_reference_release(&r->lists[i]);
}

/* ---- names ---- */

const char *reference_file_name(enum reference_list list, const struct reference_model *m)
{
    return list == REFERENCE_CONTROLNET && str_starts(m->name, "control_") ? m->name + 8 : m->name;
}

const struct reference_model *reference_find(const struct reference *r, const char *name,
                                             enum store_kind kind, enum reference_list *list)
{
    for (int loose = 0; loose < 2; loose++)
        for (int l = 0; l < REFERENCE_COUNT; l++) {
            if (kind != STORE_KIND_COUNT && kind != lists[l].kind) continue;
            for (int i = 0; i < r->lists[l].count; i++) {
                const struct reference_model *m = &r->lists[l].list[i];
                const char *here = reference_file_name((enum reference_list)l, m);
                bool same = loose ? str_equal_nocase(name, m->name) || str_equal_nocase(name, here)
                                  : str_equal(name, m->name) || str_equal(name, here);
                if (!same) continue;
                *list = (enum reference_list)l;
                return m;
            }
        }
    return NULL;
}

const char *reference_sha256(const struct reference *r, const struct store_entry *entry)
{
    for (int l = 0; l < REFERENCE_COUNT; l++) {
        if (lists[l].kind != entry->kind) continue;
        for (int i = 0; i < r->lists[l].count; i++) {
            const struct reference_model *m = &r->lists[l].list[i];
            if (str_equal(entry->name, reference_file_name((enum reference_list)l, m)) &&
                m->parts == 1)
                return m->sha256;
        }
    }
    const struct known_file *known = known_in_store(entry->kind, entry->name);
    return known ? known->sha256 : NULL;
}

const char *reference_nearest(const struct reference *r, const char *name)
{
    size_t total = 0, n = 0;
    for (int l = 0; l < REFERENCE_COUNT; l++) total += (size_t)r->lists[l].count;
    const char **names = alloc_zero(total + 1, sizeof *names);
    for (int l = 0; l < REFERENCE_COUNT; l++)
        for (int i = 0; i < r->lists[l].count; i++)
            names[n++] = reference_file_name((enum reference_list)l, &r->lists[l].list[i]);
    const char *near = str_nearest(name, names);
    free(names);
    return near;
}
