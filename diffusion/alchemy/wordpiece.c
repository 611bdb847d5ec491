#include "diffusion/alchemy/wordpiece.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/str.h"

enum { PIECES_MAX = 1 << 20, PIECE_BYTES_MAX = 200, FILE_BYTES_MAX = 16 << 20, ENTRY_BITS = 21 };

struct wordpiece {
    char *text;   /* the file with NUL at line ends */
    char **piece; /* [count] */
    int32_t count;
    int32_t *slot; /* hash table of 2^ENTRY_BITS ids; -1: free */
};

static uint32_t hash_of(const char *s, size_t n)
{
    uint32_t h = 2166136261u;
    for (size_t i = 0; i < n; i++) h = (h ^ (uint8_t)s[i]) * 16777619u;
    return h ^ h >> 15;
}

/* `##` in front when `inside`: the piece as it is written in the file. */
static int32_t find(const struct wordpiece *w, const char *s, size_t n, bool inside)
{
    char piece[PIECE_BYTES_MAX + 3];
    size_t mark = inside ? 2 : 0;
    if (n + mark > PIECE_BYTES_MAX) return -1;
    memcpy(piece, "##", mark);
    memcpy(piece + mark, s, n);
    piece[n += mark] = '\0';
    uint32_t at = hash_of(piece, n), mask = (1u << ENTRY_BITS) - 1;
    for (;; at++) {
        int32_t id = w->slot[at & mask];
        if (id < 0 || strcmp(w->piece[id], piece) == 0) return id;
    }
}

static int add_line(struct wordpiece *w, char *line, const char *name, struct error *err)
{
    size_t n = strlen(line);
    if (n && line[n - 1] == '\r') line[--n] = '\0';
    if (!n || n > PIECE_BYTES_MAX || !str_is_utf8(line, n))
        return error_set(err, ERR_FORMAT, "%s, line %d: no word piece of 1 to %d bytes", name,
                         w->count + 1, PIECE_BYTES_MAX);
    if (w->count == PIECES_MAX)
        return error_set(err, ERR_FORMAT, "%s has more than %d lines", name, PIECES_MAX);
    uint32_t at = hash_of(line, n), mask = (1u << ENTRY_BITS) - 1;
    while (w->slot[at & mask] >= 0 && strcmp(w->piece[w->slot[at & mask]], line)) at++;
    if (w->slot[at & mask] < 0) w->slot[at & mask] = w->count; /* the first of equals */
    w->piece[w->count++] = line;
    return 0;
}

int wordpiece_parse(struct wordpiece **wordpiece, const char *text, size_t bytes, const char *name,
                    struct error *err)
{
    if (memchr(text, '\0', bytes) || bytes > FILE_BYTES_MAX)
        return error_set(err, ERR_FORMAT, "%s is no vocabulary of word pieces", name);
    size_t lines = 1;
    for (size_t i = 0; i < bytes; i++) lines += text[i] == '\n';
    struct wordpiece *w = alloc_zero(1, sizeof *w);
    w->text = alloc_string_n(text, bytes);
    w->piece = alloc_zero(lines, sizeof *w->piece);
    w->slot = alloc_zero(1u << ENTRY_BITS, sizeof *w->slot);
    memset(w->slot, 0xff, (1u << ENTRY_BITS) * sizeof *w->slot);
    int rc = 0;
    for (char *line = w->text, *end; !rc && *line; line = end) {
        end = strchr(line, '\n');
        if (end) *end++ = '\0';
        rc = add_line(w, line, name, err);
        if (!end) break;
    }
    if (!rc && w->count < 2)
        rc = error_set(err, ERR_FORMAT, "%s is no vocabulary of word pieces", name);
    if (rc)
        wordpiece_close(w);
    else
        *wordpiece = w;
    return rc;
}

int wordpiece_open(struct wordpiece **w, const char *path, struct error *err)
{
    struct buf b;
    buf_init(&b, FILE_BYTES_MAX);
    int rc = buf_read_file(&b, path, err);
    if (!rc) rc = wordpiece_parse(w, b.data ? (char *)b.data : "", b.length, path, err);
    buf_release(&b);
    return rc;
}

void wordpiece_close(struct wordpiece *w)
{
    if (!w) return;
    free(w->text);
    free(w->piece);
    free(w->slot);
    free(w);
}

int32_t wordpiece_count(const struct wordpiece *w)
{
    return w->count;
}

int32_t wordpiece_find(const struct wordpiece *w, const char *piece)
{
    return find(w, piece, strlen(piece), false);
}

/* ---- text to ids ---- */

static int encode_word(const struct wordpiece *w, int32_t *id, int *count, int room, const char *s,
                       size_t n, struct error *err)
{
    for (size_t from = 0, to; from < n; from = to) {
        int32_t found = -1;
        for (to = n; to > from && (found = find(w, s + from, to - from, from > 0)) < 0; to--) {
        }
        if (found < 0 || *count == room)
            return error_set(err, ERR_INVALID, "the vocabulary has no pieces for \"%.*s\"", (int)n,
                             s);
        id[(*count)++] = found;
    }
    return 0;
}

int wordpiece_encode(const struct wordpiece *w, int32_t *id, int *count, int room, const char *text,
                     struct error *err)
{
    int rc = 0;
    *count = 0;
    while (!rc && *text) {
        size_t n = 0;
        while (isalnum((unsigned char)text[n])) n++;
        if (!n && *text != ' ') n = 1; /* a sign is a word */
        if (n) rc = encode_word(w, id, count, room, text, n, err);
        text += n ? n : 1;
    }
    return rc;
}

/* ---- ids to text ---- */

static bool special(const char *piece)
{
    static const char *const names[] = {"[PAD]",  "[UNK]", "[CLS]", "[SEP]",
                                        "[MASK]", "[DEC]", "[ENC]"};
    for (size_t i = 0; i < COUNT_OF(names); i++)
        if (str_equal(names[i], piece)) return true;
    return false;
}

/* Blanks that only the tokeniser put there go: "it ' s here ." -> "it's here." */
static void clean_up(char *text)
{
    static const char *const pairs[][2] = {
        {" .", "."},     {" ?", "?"},   {" !", "!"},   {" ,", ","},     {" ' ", "'"},
        {" n't", "n't"}, {" 'm", "'m"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"},
    };
    for (size_t i = 0; i < COUNT_OF(pairs); i++) {
        size_t from = strlen(pairs[i][0]), to = strlen(pairs[i][1]);
        for (char *at = text; (at = strstr(at, pairs[i][0])); at += to) {
            memcpy(at, pairs[i][1], to);
            memmove(at + to, at + from, strlen(at + from) + 1);
        }
    }
}

char *wordpiece_decode(const struct wordpiece *w, const int32_t *id, int count)
{
    size_t room = 1;
    for (int i = 0; i < count; i++)
        if (id[i] >= 0 && id[i] < w->count) room += strlen(w->piece[id[i]]) + 1;
    char *text = alloc_zero(room, 1), *at = text;
    for (int i = 0; i < count; i++) {
        if (id[i] < 0 || id[i] >= w->count || special(w->piece[id[i]])) continue;
        const char *piece = w->piece[id[i]];
        bool joined = at > text && str_starts(piece, "##");
        if (joined) piece += 2;
        if (at > text && !joined) *at++ = ' ';
        at = stpcpy(at, piece);
    }
    clean_up(text);
    return text;
}
