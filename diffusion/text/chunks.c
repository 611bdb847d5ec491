#include "diffusion/text/chunks.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/alloc.h"
#include "base/str.h"

enum { TEXT_PLACES = CHUNK_TOKENS - 2, LONG_WORD = 8, CHUNKS_MAX = 1024 };

struct builder {
    struct chunks *c;
    const struct vocab *vocab;
    int32_t pad_id;
    int width;
    const struct embedding *embeddings;
    int embedding_count;
    bool plain_names;
    int capacity; /* chunks */
    int used;     /* text places taken in the last chunk */
    struct error *err;
};

/* An empty chunk: start, end at once, padding. Words move the end on. */
static int open_chunk(struct builder *b)
{
    struct chunks *c = b->c;
    if (c->count == CHUNKS_MAX)
        return error_set(b->err, ERR_INVALID, "a prompt of more than %d tokens",
                         CHUNKS_MAX * TEXT_PLACES);
    if (c->count == b->capacity) {
        int capacity = b->capacity ? 2 * b->capacity : 4;
        size_t places = (size_t)capacity * CHUNK_TOKENS;
        int32_t *id = realloc(c->id, places * sizeof *id);
        if (id) c->id = id;
        float *weight = realloc(c->weight, places * sizeof *weight);
        if (weight) c->weight = weight;
        const float **vector = realloc(c->vector, places * sizeof *vector);
        if (vector) c->vector = vector;
        if (!id || !weight || !vector)
            return error_set(b->err, ERR_NO_MEMORY, "no memory for %d chunks of text", capacity);
        b->capacity = capacity;
    }
    size_t first = (size_t)c->count++ * CHUNK_TOKENS;
    for (size_t i = first; i < first + CHUNK_TOKENS; i++) {
        c->id[i] = b->pad_id;
        c->weight[i] = 1;
        c->vector[i] = NULL;
    }
    c->id[first] = vocab_start(b->vocab);
    c->id[first + 1] = vocab_end(b->vocab);
    b->used = 0;
    return 0;
}

static void put(struct builder *b, int32_t id, const float *vector, float weight)
{
    struct chunks *c = b->c;
    size_t at = (size_t)(c->count - 1) * CHUNK_TOKENS + 1 + (size_t)b->used++;
    c->id[at] = id;
    c->vector[at] = vector;
    c->weight[at] = weight;
    c->id[at + 1] = vocab_end(b->vocab);
    if (weight != 1) c->weighted = true;
    if (vector) c->has_vectors = true;
}

/* A word stays in one chunk; one of 8 tokens or more is cut where the chunk ends. `vectors` NULL:
 * ids; else count vectors of the width. */
static int put_word(struct builder *b, const int32_t *id, const float *vectors, size_t count,
                    float weight)
{
    bool cut = count >= LONG_WORD;
    for (size_t done = 0; done < count;) {
        size_t room = (size_t)(TEXT_PLACES - b->used), left = count - done;
        size_t take = left <= room ? left : cut ? room : 0;
        for (size_t i = 0; i < take; i++, done++)
            put(b, vectors ? 0 : id[done], vectors ? vectors + done * (size_t)b->width : NULL,
                weight);
        if (done == count) break;
        int rc = open_chunk(b);
        if (rc) return rc;
    }
    return 0;
}

static const struct embedding *find_embedding(const struct builder *b, const char *name,
                                              size_t length)
{
    for (int i = 0; i < b->embedding_count; i++) {
        const char *own = b->embeddings[i].name;
        if (strlen(own) == length && !strncasecmp(own, name, length)) return &b->embeddings[i];
    }
    return NULL;
}

static int put_embedding(struct builder *b, const struct embedding *e, float weight)
{
    const struct embedding_part *part = embedding_for_width(e, b->width);
    if (!part) {
        char widths[64] = "";
        for (int i = 0; i < e->parts; i++) {
            size_t n = strlen(widths);
            snprintf(widths + n, sizeof widths - n, "%s%d", i ? " and " : "", e->part[i].width);
        }
        return error_set(b->err, ERR_INVALID,
                         "embedding '%s' is %s wide, made for another family; this model's text "
                         "encoder is %d wide",
                         e->name, widths, b->width);
    }
    return put_word(b, NULL, part->vector, (size_t)part->count, weight * (float)e->strength);
}

static int put_text(struct builder *b, const char *text, size_t length, float weight)
{
    struct tokens t;
    tokens_init(&t);
    int rc = tokens_encode(&t, b->vocab, text, length, b->err);
    for (size_t i = 0; !rc && i < t.words; i++)
        rc = put_word(b, t.id + t.word[i], NULL, t.word[i + 1] - t.word[i], weight);
    tokens_release(&t);
    return rc;
}

/* A name as a word of its own, with the comma or stop that may follow it. */
static size_t name_length(const char *word, size_t length)
{
    while (length && strchr(",.;", word[length - 1])) length--;
    return length;
}

static int put_plain_names(struct builder *b, const struct span *s)
{
    size_t length = strlen(s->text), run = 0;
    int rc = 0;
    for (size_t at = 0; !rc && at < length;) {
        while (at < length && isspace((unsigned char)s->text[at])) at++;
        size_t end = at;
        while (end < length && !isspace((unsigned char)s->text[end])) end++;
        size_t name = name_length(s->text + at, end - at);
        const struct embedding *e = name ? find_embedding(b, s->text + at, name) : NULL;
        if (e) {
            rc = put_text(b, s->text + run, at - run, s->weight);
            if (!rc) rc = put_embedding(b, e, s->weight);
            run = at + name;
        }
        at = end;
    }
    return rc ? rc : put_text(b, s->text + run, length - run, s->weight);
}

static int put_named(struct builder *b, const struct span *s)
{
    size_t length = strlen(s->text), name = length;
    const struct embedding *e = find_embedding(b, s->text, length);
    if (!e) {
        while (name && s->text[name - 1] == ',') name--;
        e = find_embedding(b, s->text, name);
    }
    if (e) {
        int rc = put_embedding(b, e, s->weight);
        return rc || name == length ? rc : put_text(b, s->text + name, length - name, s->weight);
    }
    if (!b->c->unknown_embeddings++) str_clean(b->c->unknown, sizeof b->c->unknown, s->text);
    return 0;
}

int chunks_build(struct chunks *c, const struct prompt *p, const struct vocab *v, int32_t pad_id,
                 int width, const struct embedding *embeddings, int embedding_count,
                 struct error *err)
{
    struct chunks made = {0};
    struct builder b = {
        .c = &made,
        .vocab = v,
        .pad_id = pad_id < 0 ? vocab_end(v) : pad_id,
        .width = width,
        .embeddings = embeddings,
        .embedding_count = embedding_count,
        .err = err,
    };
    int rc = open_chunk(&b);
    for (int i = 0; !rc && i < p->span_count; i++) {
        const struct span *s = &p->spans[i];
        if (s->kind == SPAN_BREAK)
            rc = open_chunk(&b);
        else if (s->kind == SPAN_EMBEDDING)
            rc = put_named(&b, s);
        else if (p->plain_names && embedding_count)
            rc = put_plain_names(&b, s);
        else
            rc = put_text(&b, s->text, strlen(s->text), s->weight);
    }
    if (rc)
        chunks_release(&made);
    else
        *c = made;
    return rc;
}

void chunks_release(struct chunks *c)
{
    free(c->id);
    free(c->weight);
    free(c->vector);
    *c = (struct chunks){0};
}
