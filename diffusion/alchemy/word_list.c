#include "diffusion/alchemy/word_list.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/str.h"

enum { LIST_BYTES_MAX = 16 << 20, WIDTH_MAX = 8192 };
static const char magic[8] = "KILNVEC1";

struct head {
    char magic[8];
    uint64_t list, network;
    uint32_t count, width;
};

static uint64_t mark_of(const uint8_t *data, size_t bytes)
{
    uint64_t mark = UINT64_C(14695981039346656037);
    for (size_t i = 0; i < bytes; i++) mark = (mark ^ data[i]) * UINT64_C(1099511628211);
    return mark;
}

static char *strip(char *line)
{
    while (*line == ' ' || *line == '\t') line++;
    size_t n = strlen(line);
    while (n && (line[n - 1] == ' ' || line[n - 1] == '\t' || line[n - 1] == '\r')) n--;
    line[n] = '\0';
    return line;
}

static int split(struct word_list *l, struct error *err)
{
    int number = 0;
    for (char *line = l->text, *end; line; line = end) {
        end = strchr(line, '\n');
        if (end) *end++ = '\0';
        number++;
        char *phrase = strip(line);
        size_t n = strlen(phrase);
        if (!n) continue;
        if (n > WORD_BYTES_MAX || !str_is_utf8(phrase, n))
            return error_set(err, ERR_FORMAT, "%s, line %d: no phrase of at most %d bytes", l->path,
                             number, WORD_BYTES_MAX);
        if (l->count == WORD_LIST_MAX)
            return error_set(err, ERR_FORMAT, "%s has more than %d phrases", l->path,
                             WORD_LIST_MAX);
        l->phrase[l->count++] = phrase;
    }
    return l->count ? 0 : error_set(err, ERR_FORMAT, "%s is empty", l->path);
}

int word_list_open(struct word_list *l, const char *path, struct error *err)
{
    struct buf b;
    buf_init(&b, LIST_BYTES_MAX);
    *l = (struct word_list){0};
    int rc = buf_read_file(&b, path, err);
    if (!rc && b.length && memchr(b.data, '\0', b.length))
        rc = error_set(err, ERR_FORMAT, "%s is no text", path);
    if (!rc) {
        size_t lines = 1;
        for (size_t i = 0; i < b.length; i++) lines += b.data[i] == '\n';
        if (lines > WORD_LIST_MAX) lines = WORD_LIST_MAX;
        l->path = alloc_string(path);
        l->mark = mark_of(b.data, b.length);
        l->text = alloc_string_n(b.data ? (char *)b.data : "", b.length);
        l->phrase = alloc_zero(lines, sizeof *l->phrase);
        rc = split(l, err);
    }
    buf_release(&b);
    if (rc) word_list_close(l);
    return rc;
}

void word_list_close(struct word_list *l)
{
    free(l->path);
    free(l->text);
    free(l->phrase);
    free(l->vectors);
    *l = (struct word_list){0};
}

/* ---- vectors ---- */

static char *beside(const struct word_list *l)
{
    const char *slash = strrchr(l->path, '/'), *name = slash ? slash + 1 : l->path;
    return alloc_printf("%.*s.%s.vectors", (int)(name - l->path), l->path, name);
}

static struct head head_of(const struct word_list *l, uint64_t network, int width)
{
    struct head h = {
        .list = l->mark, .network = network, .count = (uint32_t)l->count, .width = (uint32_t)width};
    memcpy(h.magic, magic, sizeof magic);
    return h;
}

/* Each has length 1; a torn file would not. */
static bool plausible(const float *v, int count, int width)
{
    for (int i = 0; i < count; i++) {
        double square = 0;
        for (int k = 0; k < width; k++) square += (double)v[k] * v[k];
        if (!(square > 0.99 && square < 1.01)) return false;
        v += width;
    }
    return true;
}

bool word_list_recall(struct word_list *l, uint64_t network, int width)
{
    if (l->vectors || width < 1 || width > WIDTH_MAX) return l->vectors != NULL;
    size_t bytes = (size_t)l->count * (size_t)width * sizeof(float);
    struct head want = head_of(l, network, width);
    char *path = beside(l);
    struct buf b;
    buf_init(&b, bytes + sizeof want);
    int rc = buf_read_file(&b, path, NULL);
    free(path);
    if (!rc && b.length == bytes + sizeof want && memcmp(b.data, &want, sizeof want) == 0) {
        float *v = alloc_try(bytes, 1);
        if (v) memcpy(v, b.data + sizeof want, bytes);
        if (v && plausible(v, l->count, width)) {
            l->vectors = v;
            l->width = width;
        } else {
            free(v);
        }
    }
    buf_release(&b);
    return l->vectors != NULL;
}

int word_list_keep(struct word_list *l, float *vectors, uint64_t network, int width,
                   struct error *err)
{
    size_t bytes = (size_t)l->count * (size_t)width * sizeof(float);
    struct head h = head_of(l, network, width);
    char *path = beside(l);
    struct buf b;
    free(l->vectors);
    l->vectors = vectors;
    l->width = width;
    buf_init(&b, bytes + sizeof h);
    int rc = buf_append(&b, &h, sizeof h, err);
    if (!rc) rc = buf_append(&b, vectors, bytes, err);
    if (!rc) rc = buf_write_file(&b, path, 0644, err);
    buf_release(&b);
    free(path);
    return rc;
}
