#include "diffusion/text/tokens.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "diffusion/text/unicode.h"

void tokens_init(struct tokens *t)
{
    *t = (struct tokens){0};
}

void tokens_release(struct tokens *t)
{
    free(t->id);
    free(t->word);
    *t = (struct tokens){0};
}

static int push(struct tokens *t, int32_t id, struct error *err)
{
    if (t->count == t->capacity) {
        size_t capacity = t->capacity ? 2 * t->capacity : 128;
        int32_t *grown = realloc(t->id, capacity * sizeof *grown);
        if (!grown) return error_set(err, ERR_NO_MEMORY, "no memory for %zu tokens", capacity);
        t->id = grown;
        t->capacity = capacity;
    }
    t->id[t->count++] = id;
    return 0;
}

/* The next id begins a word; word[words] always closes the list. */
static int open_word(struct tokens *t, struct error *err)
{
    if (t->words + 2 > t->word_capacity) {
        size_t capacity = t->word_capacity ? 2 * t->word_capacity : 64;
        size_t *grown = realloc(t->word, capacity * sizeof *grown);
        if (!grown) return error_set(err, ERR_NO_MEMORY, "no memory for %zu words", capacity);
        t->word = grown;
        t->word_capacity = capacity;
    }
    t->word[t->words++] = t->count;
    t->word[t->words] = t->count;
    return 0;
}

/* --- byte-pair merging: lowest rank first, leftmost of equals; a heap keeps long pieces fast --- */

struct link {
    int32_t id;            /* -1: swallowed */
    int32_t before, after; /* indices, -1 at the ends */
};

struct candidate {
    int32_t rank, left;        /* index of the left part */
    int32_t left_id, right_id; /* as they were: stale when either changed */
    int32_t joined;
};

struct merger {
    const struct vocab *vocab;
    struct link *links;
    struct candidate *heap;
    size_t heap_count;
};

static bool sooner(const struct candidate *a, const struct candidate *b)
{
    return a->rank != b->rank ? a->rank < b->rank : a->left < b->left;
}

static void heap_push(struct merger *m, struct candidate c)
{
    size_t at = m->heap_count++;
    while (at && sooner(&c, &m->heap[(at - 1) / 2])) {
        m->heap[at] = m->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    m->heap[at] = c;
}

static struct candidate heap_pop(struct merger *m)
{
    struct candidate top = m->heap[0], c = m->heap[--m->heap_count];
    size_t at = 0;
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= m->heap_count) break;
        if (child + 1 < m->heap_count && sooner(&m->heap[child + 1], &m->heap[child])) child++;
        if (!sooner(&m->heap[child], &c)) break;
        m->heap[at] = m->heap[child];
        at = child;
    }
    m->heap[at] = c;
    return top;
}

static void consider(struct merger *m, int32_t left)
{
    if (left < 0 || m->links[left].after < 0) return;
    struct candidate c = {.left = left, .left_id = m->links[left].id};
    c.right_id = m->links[m->links[left].after].id;
    c.rank = vocab_merge(m->vocab, c.left_id, c.right_id, &c.joined);
    if (c.rank >= 0) heap_push(m, c);
}

static int merge_piece(struct tokens *t, const struct vocab *v, const char *bytes, size_t length,
                       struct error *err)
{
    struct merger m = {.vocab = v};
    m.links = alloc_try(length, sizeof *m.links);
    m.heap = alloc_try(3 * length, sizeof *m.heap); /* each merge adds at most two */
    int rc = 0;
    if (!m.links || !m.heap) {
        rc = error_set(err, ERR_NO_MEMORY, "no memory for a word of %zu bytes", length);
        goto out;
    }
    for (size_t i = 0; i < length; i++) {
        int32_t id = vocab_byte(v, (uint8_t)bytes[i], i + 1 == length);
        if (id < 0) id = vocab_end(v); /* the tokenizer's "unknown" */
        m.links[i] = (struct link){id, (int32_t)i - 1, i + 1 == length ? -1 : (int32_t)i + 1};
    }
    for (size_t i = 0; i < length; i++) consider(&m, (int32_t)i);
    while (m.heap_count) {
        struct candidate c = heap_pop(&m);
        struct link *left = &m.links[c.left];
        if (left->id != c.left_id || left->after < 0) continue;
        struct link *right = &m.links[left->after];
        if (right->id != c.right_id) continue;
        left->id = c.joined;
        right->id = -1;
        left->after = right->after;
        if (left->after >= 0) m.links[left->after].before = c.left;
        consider(&m, left->before);
        consider(&m, c.left);
    }
    for (int32_t i = 0; !rc && i >= 0; i = m.links[i].after) rc = push(t, m.links[i].id, err);
out:
    free(m.links);
    free(m.heap);
    return rc;
}

/* --- splitting --- */

enum kind { KIND_SPACE, KIND_LETTER, KIND_NUMBER, KIND_OTHER };

static enum kind kind_of(uint32_t c)
{
    if (unicode_is_space(c)) return KIND_SPACE;
    if (unicode_is_letter(c)) return KIND_LETTER;
    return unicode_is_number(c) ? KIND_NUMBER : KIND_OTHER;
}

static size_t starts_with(const uint32_t *c, size_t left, const char *ascii)
{
    size_t i = 0;
    for (; ascii[i]; i++)
        if (i == left || c[i] != (uint32_t)ascii[i]) return 0;
    return i;
}

/* Length of the piece at c: 's 't 're 've 'm 'll 'd, letters, one number, or the rest. */
static size_t piece_length(const uint32_t *c, size_t left)
{
    static const char *const endings[] = {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"};
    for (size_t i = 0; i < COUNT_OF(endings); i++) {
        size_t n = starts_with(c, left, endings[i]);
        if (n) return n;
    }
    enum kind kind = kind_of(c[0]);
    size_t n = 1;
    if (kind != KIND_NUMBER)
        while (n < left && kind_of(c[n]) == kind) n++;
    return n;
}

static int encode_points(struct tokens *t, const struct vocab *v, const uint32_t *c, size_t count,
                         struct error *err)
{
    char *bytes = alloc_try(count, 4);
    if (!bytes) return error_set(err, ERR_NO_MEMORY, "no memory for %zu letters", count);
    bool inside = false; /* a word */
    int rc = 0;
    for (size_t at = 0; !rc && at < count;) {
        if (unicode_is_space(c[at])) {
            inside = false;
            at++;
            continue;
        }
        if (!inside) rc = open_word(t, err);
        if (rc) break;
        inside = true;
        size_t special = starts_with(c + at, count - at, "<|startoftext|>");
        int32_t id = vocab_start(v);
        if (!special) {
            special = starts_with(c + at, count - at, "<|endoftext|>");
            id = vocab_end(v);
        }
        size_t n = special ? special : piece_length(c + at, count - at), length = 0;
        if (special) {
            rc = push(t, id, err);
        } else {
            for (size_t i = 0; i < n; i++) length += utf8_put(bytes + length, c[at + i]);
            rc = merge_piece(t, v, bytes, length, err);
        }
        t->word[t->words] = t->count;
        at += n;
    }
    free(bytes);
    return rc;
}

int tokens_encode(struct tokens *t, const struct vocab *v, const char *text, size_t length,
                  struct error *err)
{
    if (!length) return 0;
    uint32_t *c = alloc_try(length, 2 * sizeof *c);
    if (!c) return error_set(err, ERR_NO_MEMORY, "no memory for a text of %zu bytes", length);
    size_t count = 0;
    for (size_t at = 0; at < length;) c[count++] = utf8_next(text, length, &at);
    int rc = 0;
    if (!unicode_nfc(&c, &count)) {
        rc = error_set(err, ERR_NO_MEMORY, "no memory for a text of %zu bytes", length);
    } else {
        for (size_t i = 0; i < count; i++) {
            if (c[i] == 0x130) { /* the one letter whose small form is two */
                memmove(c + i + 1, c + i, (count - i) * sizeof *c);
                c[i++] = 'i';
                c[i] = 0x307;
                count++;
            } else {
                c[i] = unicode_lower(c[i]);
            }
        }
        rc = encode_points(t, v, c, count, err);
    }
    free(c);
    return rc;
}
