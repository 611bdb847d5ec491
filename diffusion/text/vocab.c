#include "diffusion/text/vocab.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <jansson.h>
#include <zlib.h>

#include "base/alloc.h"
#include "base/arena.h"
#include "base/buf.h"
#include "base/str.h"
#include "diffusion/text/unicode.h"

enum { SYMBOLS_MAX = 1 << 20, FILE_MAX = 64 << 20 };
/* The public merge list has 262,144 lines; CLIP uses as many as make 49,408 entries. */
enum { CLIP_MERGES = 49152 - 256 - 2 };

static const char *const START = "<|startoftext|>", *const END = "<|endoftext|>";

struct pair {
    int32_t left, right; /* left -1: empty */
    int32_t rank, joined;
};

struct vocab {
    struct arena arena;
    const char **symbol; /* by id */
    int32_t count;
    int32_t *by_symbol; /* hash table of ids, -1: empty */
    struct pair *pairs; /* hash table */
    uint32_t symbol_mask, pair_mask;
    int32_t byte[2][256];
    int32_t start, end;
};

/* --- tables --- */

static uint32_t hash_bytes(const char *s, size_t length)
{
    uint32_t h = 2166136261u;
    for (size_t i = 0; i < length; i++) h = (h ^ (uint8_t)s[i]) * 16777619u;
    return h ^ h >> 15;
}

static uint32_t hash_pair(int32_t left, int32_t right)
{
    uint64_t h = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * UINT64_C(0x9e3779b97f4a7c15);
    return (uint32_t)(h >> 32);
}

static uint32_t table_size(size_t count)
{
    uint32_t size = 16;
    while (size < 2 * count) size *= 2;
    return size;
}

int32_t vocab_find(const struct vocab *v, const char *symbol, size_t length)
{
    uint32_t at = hash_bytes(symbol, length);
    for (;; at++) {
        int32_t id = v->by_symbol[at & v->symbol_mask];
        if (id < 0) return -1;
        const char *s = v->symbol[id];
        if (!strncmp(s, symbol, length) && !s[length]) return id;
    }
}

int32_t vocab_merge(const struct vocab *v, int32_t left, int32_t right, int32_t *joined)
{
    for (uint32_t at = hash_pair(left, right);; at++) {
        const struct pair *p = &v->pairs[at & v->pair_mask];
        if (p->left < 0) return -1;
        if (p->left == left && p->right == right) {
            *joined = p->joined;
            return p->rank;
        }
    }
}

static int alloc_tables(struct vocab *v, size_t symbols, size_t merges, struct error *err)
{
    uint32_t ids = table_size(symbols), pairs = table_size(merges);
    v->symbol = alloc_try(symbols, sizeof *v->symbol);
    v->by_symbol = alloc_try(ids, sizeof *v->by_symbol);
    v->pairs = alloc_try(pairs, sizeof *v->pairs);
    if (!v->symbol || !v->by_symbol || !v->pairs)
        return error_set(err, ERR_NO_MEMORY, "no memory for a vocabulary of %zu symbols", symbols);
    v->symbol_mask = ids - 1;
    v->pair_mask = pairs - 1;
    for (uint32_t i = 0; i < ids; i++) v->by_symbol[i] = -1;
    for (uint32_t i = 0; i < pairs; i++) v->pairs[i].left = -1;
    return 0;
}

static int add_symbol(struct vocab *v, int32_t id, const char *text, size_t length,
                      struct error *err)
{
    if (v->symbol[id]) return error_set(err, ERR_FORMAT, "id %d stands twice", (int)id);
    v->symbol[id] = arena_string_n(&v->arena, text, length);
    uint32_t at = hash_bytes(text, length);
    while (v->by_symbol[at & v->symbol_mask] >= 0) at++;
    v->by_symbol[at & v->symbol_mask] = id;
    return 0;
}

static void add_merge(struct vocab *v, int32_t left, int32_t right, int32_t rank, int32_t joined)
{
    uint32_t at = hash_pair(left, right);
    while (v->pairs[at & v->pair_mask].left >= 0) {
        const struct pair *p = &v->pairs[at & v->pair_mask];
        if (p->left == left && p->right == right) return; /* the first rank counts */
        at++;
    }
    v->pairs[at & v->pair_mask] = (struct pair){left, right, rank, joined};
}

/* --- the byte alphabet: printable bytes stand for themselves, the rest from U+0100 on --- */

static bool printable(int byte)
{
    return (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
}

/* Symbols of the 256 bytes in vocabulary order; order[i] is the byte of the i-th. */
static void byte_alphabet(char symbol[256][8], uint8_t order[256])
{
    int n = 0, extra = 0;
    for (int byte = 0; byte < 256; byte++)
        if (printable(byte)) order[n++] = (uint8_t)byte;
    for (int byte = 0; byte < 256; byte++)
        if (!printable(byte)) order[n++] = (uint8_t)byte;
    for (int byte = 0; byte < 256; byte++) {
        uint32_t c = printable(byte) ? (uint32_t)byte : 0x100 + (uint32_t)extra++;
        symbol[byte][utf8_put(symbol[byte], c)] = 0;
    }
}

static int finish(struct vocab *v, struct error *err)
{
    char symbol[256][8], last[16];
    uint8_t order[256];
    byte_alphabet(symbol, order);
    for (int byte = 0; byte < 256; byte++) {
        snprintf(last, sizeof last, "%s</w>", symbol[byte]);
        v->byte[0][byte] = vocab_find(v, symbol[byte], strlen(symbol[byte]));
        v->byte[1][byte] = vocab_find(v, last, strlen(last));
    }
    v->start = vocab_find(v, START, strlen(START));
    v->end = vocab_find(v, END, strlen(END));
    if (v->start < 0 || v->end < 0)
        return error_set(err, ERR_FORMAT, "the vocabulary has no %s", v->start < 0 ? START : END);
    return 0;
}

/* --- merge lists: a line a merge, two symbols and a space --- */

static const char *next_line(const char **at, const char *end, size_t *length)
{
    const char *line = *at;
    const char *stop = memchr(line, '\n', (size_t)(end - line));
    *length = (size_t)((stop ? stop : end) - line);
    *at = stop ? stop + 1 : end;
    if (*length && line[*length - 1] == '\r') --*length;
    return line;
}

static size_t count_lines(const char *text, size_t bytes)
{
    size_t lines = 0;
    for (size_t i = 0; i < bytes; i++) lines += text[i] == '\n';
    return lines + 1;
}

/* Reads up to `limit` merges. With `make` the joined symbols get new ids from *next on (the public
 * list); else all three must be in the vocabulary. */
static int read_merges(struct vocab *v, const char *text, size_t bytes, size_t limit, bool make,
                       int32_t *next, struct error *err)
{
    const char *at = text, *end = text + bytes;
    int32_t rank = 0;
    for (size_t line_number = 1; at < end && (size_t)rank < limit; line_number++) {
        size_t length;
        const char *line = next_line(&at, end, &length);
        if (!length || (line_number == 1 && (*line == '#' || *line == '"'))) continue; /* header */
        const char *space = memchr(line, ' ', length);
        size_t left = space ? (size_t)(space - line) : 0, right = length - left - 1;
        if (!space || !left || !right || memchr(space + 1, ' ', right))
            return error_set(err, ERR_FORMAT, "merge line %zu is not two symbols and a space",
                             line_number);
        char joined[512];
        if (length >= sizeof joined)
            return error_set(err, ERR_FORMAT, "merge line %zu has %zu bytes; the limit is 511",
                             line_number, length);
        memcpy(joined, line, left);
        memcpy(joined + left, space + 1, right);
        int32_t a = vocab_find(v, line, left), b = vocab_find(v, space + 1, right), id;
        if (make) {
            id = (*next)++;
            int rc = add_symbol(v, id, joined, left + right, err);
            if (rc) return rc;
        } else {
            id = vocab_find(v, joined, left + right);
        }
        if (a < 0 || b < 0 || id < 0)
            return error_set(err, ERR_FORMAT, "merge line %zu names a symbol that is not there",
                             line_number);
        add_merge(v, a, b, rank++, id);
    }
    return 0;
}

/* --- vocab.json --- */

static int read_ids(struct vocab *v, json_t *root, struct error *err)
{
    const char *key;
    json_t *value;
    json_object_foreach(root, key, value)
    {
        json_int_t id = json_is_integer(value) ? json_integer_value(value) : -1;
        if (id < 0 || id >= v->count) {
            char shown[64];
            str_clean(shown, sizeof shown, key);
            return error_set(err, ERR_FORMAT, "symbol '%s' has no id within 0..%d", shown,
                             (int)v->count - 1);
        }
        int rc = add_symbol(v, (int32_t)id, key, strlen(key), err);
        if (rc) return rc;
    }
    return 0;
}

int vocab_parse(struct vocab **out, const char *json, size_t json_bytes, const char *merges,
                size_t merges_bytes, struct error *err)
{
    json_error_t where;
    json_t *root = json_loadb(json, json_bytes, JSON_REJECT_DUPLICATES, &where);
    if (!json_is_object(root)) {
        json_decref(root);
        return error_set(err, ERR_FORMAT, "vocab.json is not an object of ids: %s",
                         root ? "another kind of JSON" : where.text);
    }
    size_t count = json_object_size(root);
    struct vocab *v = NULL;
    int rc = 0;
    if (count < 2 || count > SYMBOLS_MAX) {
        rc = error_set(err, ERR_FORMAT, "vocab.json has %zu symbols; 2 to %d are possible", count,
                       SYMBOLS_MAX);
        goto out;
    }
    v = alloc_zero(1, sizeof *v);
    arena_init(&v->arena, 0);
    v->count = (int32_t)count;
    rc = alloc_tables(v, count, count_lines(merges, merges_bytes), err);
    if (!rc) rc = read_ids(v, root, err);
    if (!rc) rc = read_merges(v, merges, merges_bytes, SYMBOLS_MAX, false, NULL, err);
    if (!rc) rc = finish(v, err);
out:
    json_decref(root);
    if (rc)
        vocab_close(v);
    else
        *out = v;
    return rc;
}

static bool is_there(const char *path)
{
    struct stat s;
    return stat(path, &s) == 0;
}

static int open_tokenizer_json(struct vocab **v, const char *path, struct error *err)
{
    struct buf json;
    buf_init(&json, FILE_MAX);
    int rc = buf_read_file(&json, path, err);
    if (!rc) rc = vocab_parse_tokenizer(v, (const char *)json.data, json.length, err);
    if (rc) error_wrap(err, rc, "vocabulary %s", path);
    buf_release(&json);
    return rc;
}

/* vocab.json and merges.txt */
static int open_two_files(struct vocab **v, const char *folder, struct error *err)
{
    struct buf json, merges;
    buf_init(&json, FILE_MAX);
    buf_init(&merges, FILE_MAX);
    char *json_path = alloc_printf("%s/vocab.json", folder);
    char *merges_path = alloc_printf("%s/merges.txt", folder);
    int rc = buf_read_file(&json, json_path, err);
    if (!rc) rc = buf_read_file(&merges, merges_path, err);
    if (!rc) {
        rc = vocab_parse(v, (const char *)json.data, json.length,
                         merges.data ? (const char *)merges.data : "", merges.length, err);
        if (rc) error_wrap(err, rc, "vocabulary %s", folder);
    }
    free(json_path);
    free(merges_path);
    buf_release(&json);
    buf_release(&merges);
    return rc;
}

int vocab_open_folder(struct vocab **v, const char *folder, struct error *err)
{
    char *one = alloc_printf("%s/tokenizer.json", folder);
    char *two = alloc_printf("%s/vocab.json", folder);
    bool whole = is_there(one) && !is_there(two);
    int rc = whole ? open_tokenizer_json(v, one, err) : open_two_files(v, folder, err);
    free(one);
    free(two);
    return rc;
}

/* --- the public merge list --- */

static int read_compressed(struct buf *text, const char *path, struct error *err)
{
    gzFile file = gzopen(path, "rb"); /* reads plain text as it is */
    if (!file) return error_set(err, ERR_NOT_FOUND, "vocabulary %s cannot be opened", path);
    int rc = 0, got = 0;
    do {
        uint8_t *room = buf_reserve(text, 1 << 16, err);
        if (!room) {
            rc = ERR_NO_MEMORY;
            break;
        }
        got = gzread(file, room, 1 << 16);
        if (got > 0) buf_commit(text, (size_t)got);
    } while (got > 0);
    if (!rc && got < 0) rc = error_set(err, ERR_FORMAT, "vocabulary %s: broken gzip data", path);
    gzclose(file);
    return rc;
}

static int build_from_merges(struct vocab **out, const char *text, size_t bytes, struct error *err)
{
    struct vocab *v = alloc_zero(1, sizeof *v);
    arena_init(&v->arena, 0);
    size_t merges = count_lines(text, bytes);
    if (merges > CLIP_MERGES) merges = CLIP_MERGES;
    int rc = alloc_tables(v, 512 + merges + 2, merges, err);
    char symbol[256][8], last[16];
    uint8_t order[256];
    byte_alphabet(symbol, order);
    int32_t next = 0;
    for (int end = 0; !rc && end < 2; end++)
        for (int i = 0; !rc && i < 256; i++) {
            snprintf(last, sizeof last, "%s%s", symbol[order[i]], end ? "</w>" : "");
            rc = add_symbol(v, next++, last, strlen(last), err);
        }
    if (!rc) rc = read_merges(v, text, bytes, merges, true, &next, err);
    if (!rc) rc = add_symbol(v, next++, START, strlen(START), err);
    if (!rc) rc = add_symbol(v, next++, END, strlen(END), err);
    v->count = next;
    if (!rc) rc = finish(v, err);
    if (rc)
        vocab_close(v);
    else
        *out = v;
    return rc;
}

int vocab_open_merges(struct vocab **v, const char *path, struct error *err)
{
    struct buf text;
    buf_init(&text, FILE_MAX);
    int rc = read_compressed(&text, path, err);
    if (!rc && text.length < 16)
        rc = error_set(err, ERR_FORMAT, "%zu bytes are no merge list", text.length);
    if (!rc) rc = build_from_merges(v, (const char *)text.data, text.length, err);
    if (rc && rc != ERR_NOT_FOUND) error_wrap(err, rc, "vocabulary %s", path);
    buf_release(&text);
    return rc;
}

/* --- finding it --- */

static const char *const FILE_NAME = "bpe_simple_vocab_16e6.txt.gz";

static int open_any(struct vocab **v, const char *path, struct error *err)
{
    struct stat s;
    if (stat(path, &s) == 0 && S_ISDIR(s.st_mode)) {
        char *file = alloc_printf("%s/%s", path, FILE_NAME);
        int rc = is_there(file) ? vocab_open_merges(v, file, err) : vocab_open_folder(v, path, err);
        free(file);
        return rc;
    }
    return vocab_open_merges(v, path, err);
}

int vocab_open_default(struct vocab **v, struct error *err)
{
    const char *own = getenv("KILN_VOCAB");
    if (own && *own) return open_any(v, own, err);
    const char *state = getenv("STATE_DIRECTORY"), *data = getenv("XDG_DATA_HOME");
    const char *home = getenv("HOME");
    char *places[] = {
        state && *state ? alloc_printf("%s/%s", state, FILE_NAME) : NULL,
        data && *data ? alloc_printf("%s/kiln/%s", data, FILE_NAME) : NULL,
        home && *home ? alloc_printf("%s/.local/share/kiln/%s", home, FILE_NAME) : NULL,
        alloc_printf("%s/%s", KILN_DATA_DIR, FILE_NAME),
        alloc_printf("%s/%s", KILN_BUILD_DATA_DIR, FILE_NAME),
    };
    int rc = ERR_NOT_FOUND;
    bool found = false;
    for (size_t i = 0; i < COUNT_OF(places) && !found; i++) {
        found = places[i] && is_there(places[i]);
        if (found) rc = vocab_open_merges(v, places[i], err);
    }
    if (!found)
        error_set(err, rc,
                  "the checkpoint carries no vocabulary and %s was found neither through "
                  "KILN_VOCAB nor in the data folders; `./setup build` fetches it",
                  FILE_NAME);
    for (size_t i = 0; i < COUNT_OF(places); i++) free(places[i]);
    return rc;
}

void vocab_close(struct vocab *v)
{
    if (!v) return;
    arena_release(&v->arena);
    free(v->symbol);
    free(v->by_symbol);
    free(v->pairs);
    free(v);
}

int32_t vocab_count(const struct vocab *v)
{
    return v->count;
}

int32_t vocab_start(const struct vocab *v)
{
    return v->start;
}

int32_t vocab_end(const struct vocab *v)
{
    return v->end;
}

int32_t vocab_byte(const struct vocab *v, uint8_t byte, bool last)
{
    return v->byte[last][byte];
}

const char *vocab_symbol(const struct vocab *v, int32_t id)
{
    return id >= 0 && id < v->count ? v->symbol[id] : NULL;
}
