#include "kernels/cuda/tuner.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/str.h"
#include "kernels/cuda/gemm.h"

#define FILE_BYTES_MAX ((size_t)256 << 10)
#define HEAD "kiln-cuda-tune 1\n"
#define SLOTS (2 * TUNER_SHAPES_MAX)

struct slot {
    struct tuner_key key;
    struct tuner_choice choice;
    bool used;
};

struct tuner {
    struct tuner_identity id;
    char *path;
    bool dirty;
    int count;
    struct slot slot[SLOTS];
};

static uint64_t fnv(const void *bytes, size_t n)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < n; i++) h = (h ^ ((const uint8_t *)bytes)[i]) * 0x100000001b3u;
    return h;
}

/* The key's slot, or the free one where it would go. */
static struct slot *slot_of(const struct tuner *t, const struct tuner_key *key)
{
    size_t at = (size_t)(fnv(key, sizeof *key) % SLOTS);
    while (t->slot[at].used && memcmp(&t->slot[at].key, key, sizeof *key) != 0)
        at = (at + 1) % SLOTS;
    return (struct slot *)&t->slot[at];
}

const struct tuner_choice *tuner_find(const struct tuner *t, const struct tuner_key *key)
{
    const struct slot *s = slot_of(t, key);
    return s->used ? &s->choice : NULL;
}

void tuner_add(struct tuner *t, const struct tuner_key *key, struct tuner_choice choice)
{
    struct slot *s = slot_of(t, key);
    if (!s->used && t->count == TUNER_SHAPES_MAX) return;
    if (!s->used) t->count++;
    *s = (struct slot){*key, choice, true};
    t->dirty = true;
}

int tuner_count(const struct tuner *t)
{
    return t->count;
}

/* ---- reading ---- */

static void head_of(const struct tuner *t, char *text, size_t bytes)
{
    snprintf(text, bytes, HEAD "card %s\ndriver %d\nkernels %016" PRIx64 "\n", t->id.card,
             t->id.driver, t->id.kernels);
}

/* The next number of a line, ended by `end`; false when it is none of the range. */
static bool number(const char **at, char end, int64_t least, int64_t most, int64_t *value)
{
    char text[24];
    size_t n = strspn(*at, "0123456789");
    if (n == 0 || n >= sizeof text || (*at)[n] != end) return false;
    memcpy(text, *at, n);
    text[n] = 0;
    *at += n + 1;
    return str_parse_i64(text, value) && *value >= least && *value <= most;
}

static bool read_line(struct tuner *t, const char **at)
{
    static const int64_t most[] = {
        1 << 27, 1 << 27, 1 << 27, 1 << 27, 1024, 0xffff, TUNER_KIND_COUNT - 1, GEMM_TILE_COUNT - 1,
        64};
    int64_t v[9];
    for (int i = 0; i < 9; i++)
        if (!number(at, i < 8 ? ' ' : '\n', i == 8 ? 1 : 0, most[i], &v[i])) return false;
    struct tuner_key key = {(int32_t)v[0], (int32_t)v[1], (int32_t)v[2],
                            (int32_t)v[3], (int32_t)v[4], (uint32_t)v[5]};
    if (t->count == TUNER_SHAPES_MAX || tuner_find(t, &key)) return false;
    tuner_add(t, &key, (struct tuner_choice){(enum tuner_kind)v[6], (int)v[7], (int)v[8]});
    return true;
}

static bool read_lines(struct tuner *t, const char *text, size_t length)
{
    const char *at = text;
    while (strncmp(at, "end ", 4) != 0)
        if (!read_line(t, &at)) return false;
    char last[64];
    snprintf(last, sizeof last, "end %d %016" PRIx64 "\n", t->count,
             fnv(text, (size_t)(at - text)));
    return strcmp(at, last) == 0 && (size_t)(at - text) + strlen(last) == length;
}

static void load(struct tuner *t, struct error *why)
{
    struct buf b;
    char head[256];
    buf_init(&b, FILE_BYTES_MAX);
    int rc = buf_read_file(&b, t->path, why);
    if (rc == ERR_NOT_FOUND) *why = (struct error){0};
    if (!rc) rc = buf_append(&b, "", 1, why); /* a string */
    if (rc) {
        buf_release(&b);
        return;
    }
    const char *text = (const char *)b.data;
    size_t length = b.length - 1;
    head_of(t, head, sizeof head);
    size_t skip = strlen(head);
    if (str_starts(text, HEAD) && !str_starts(text, head))
        error_set(why, ERR_NOT_FOUND,
                  "%s holds measurements of another card, driver or kernel version", t->path);
    else if (strlen(text) != length || !str_starts(text, head) ||
             !read_lines(t, text + skip, length - skip))
        error_set(why, ERR_FORMAT, "%s is damaged; products are measured anew", t->path);
    buf_release(&b);
    if (why->code) {
        memset(t->slot, 0, sizeof t->slot);
        t->count = 0;
    }
    t->dirty = false;
}

struct tuner *tuner_open(const struct tuner_identity *id, const char *path, struct error *why)
{
    struct tuner *t = alloc_zero(1, sizeof *t);
    struct error unused;
    if (!why) why = &unused;
    *why = (struct error){0};
    t->id = *id;
    for (char *c = t->id.card; *c; c++)
        if (*c < ' ' || *c > '~') *c = '?'; /* one line, whatever a driver says */
    t->path = alloc_string(path);
    if (path) load(t, why);
    return t;
}

void tuner_close(struct tuner *t)
{
    if (!t) return;
    free(t->path);
    free(t);
}

/* ---- writing ---- */

static int write_table(const struct tuner *t, struct buf *b, struct error *err)
{
    char head[256];
    head_of(t, head, sizeof head);
    int rc = buf_append_string(b, head, err);
    size_t from = b->length;
    for (int i = 0; i < SLOTS && !rc; i++) {
        const struct tuner_key *k = &t->slot[i].key;
        const struct tuner_choice *c = &t->slot[i].choice;
        if (t->slot[i].used)
            rc = buf_printf(b, err, "%d %d %d %d %d %u %d %d %d\n", k->m, k->n, k->k, k->c, k->taps,
                            k->form, (int)c->kind, c->tile, c->splits);
    }
    if (rc) return rc;
    return buf_printf(b, err, "end %d %016" PRIx64 "\n", t->count,
                      fnv(b->data + from, b->length - from));
}

int tuner_save(struct tuner *t, struct error *err)
{
    if (!t->dirty || !t->path) return 0;
    struct buf b;
    buf_init(&b, FILE_BYTES_MAX);
    t->dirty = false; /* a folder that takes nothing is not asked again for each shape */
    int rc = write_table(t, &b, err);
    if (!rc) rc = buf_write_file(&b, t->path, 0644, err);
    buf_release(&b);
    return rc;
}
