#include "diffusion/text/conditioning.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "diffusion/text/clip_text.h"

/* What a family takes from its encoders when nothing is asked (model-formats 7.2, 8.2). */
static const struct {
    int skip;        /* 1: last layer, 2: penultimate */
    bool final_norm; /* over the states, whatever clip_skip says */
    bool pooled;     /* of the last encoder */
} families[FAMILY_COUNT] = {
    [FAMILY_SD1] = {1, true, false},          [FAMILY_SD2_512] = {2, true, false},
    [FAMILY_SD2_768] = {2, true, false},      [FAMILY_SDXL] = {2, false, true},
    [FAMILY_SDXL_REFINER] = {2, false, true},
};

/* Exact repeats up to here; 101 against 103 chunks would need 10,403. */
enum { MATCH_ROWS_MAX = 64 * CHUNK_TOKENS };
enum { BATCH = 8 }; /* chunks in one pass: bounds memory, prompts of any length */

struct encoded {
    float *states; /* [chunks * 77, width]; the empty prompt's chunk comes last when there is one */
    float *pooled;
    int width, pooled_width;
};

/* Ids below the vocabulary's padding rule: OpenCLIP pads with 0, CLIP-L with the end token. */
static int32_t pad_of(const struct clip_text *m, const struct vocab *v)
{
    return m->config.act == ACT_QUICK_GELU ? vocab_end(v) : 0;
}

static int encode_batch(struct clip_text *m, const struct clip_input *in, float *states,
                        float *pooled, struct pass_memory *memory, enum dtype dtype,
                        struct error *err)
{
    struct pass p;
    pass_start(&p, memory, dtype, NULL);
    struct clip_states out = clip_text_forward(&p, m, in);
    pass_output(&p, states, out.context);
    if (pooled) {
        /* of the first chunk of the batch */
        struct tensor first = op_slice_batch(&p, out.pooled, 0, 1);
        pass_output(&p, pooled, first);
    }
    return pass_finish(&p, err);
}

/* All chunks, and behind them the empty prompt when weights need it. */
static int encode_chunks(struct encoded *e, struct clip_text *m, const struct chunks *c,
                         struct clip_input in, struct pass_memory *memory, enum dtype dtype,
                         struct error *err)
{
    size_t places = (size_t)c->count * CHUNK_TOKENS * (size_t)m->config.width;
    int64_t pooled = m->config.projection ? m->config.projection : m->config.width;
    *e = (struct encoded){.width = (int)m->config.width, .pooled_width = (int)pooled};
    e->states = alloc_try(places, sizeof *e->states);
    e->pooled = in.end_id >= 0 ? alloc_try((size_t)pooled, sizeof *e->pooled) : NULL;
    if (!e->states || (in.end_id >= 0 && !e->pooled))
        return error_set(err, ERR_NO_MEMORY, "no memory for the states of %d chunks", c->count);
    int32_t end_id = in.end_id;
    for (int at = 0; at < c->count; at += BATCH) {
        in.n = c->count - at < BATCH ? c->count - at : BATCH;
        in.id = c->id + at * CHUNK_TOKENS;
        in.vector = c->has_vectors ? c->vector + at * CHUNK_TOKENS : NULL;
        in.end_id = at ? -1 : end_id;
        int rc = encode_batch(m, &in, e->states + (size_t)at * CHUNK_TOKENS * (size_t)e->width,
                              at ? NULL : e->pooled, memory, dtype, err);
        if (rc) return rc;
    }
    return 0;
}

/* z' = empty + w (z - empty), place by place. */
static void apply_weights(struct encoded *e, const struct chunks *c, const float *empty)
{
    size_t width = (size_t)e->width;
    for (int at = 0; at < c->count * CHUNK_TOKENS; at++) {
        float w = c->weight[at];
        if (w == 1) continue;
        float *z = e->states + (size_t)at * width;
        const float *z0 = empty + (size_t)(at % CHUNK_TOKENS) * width;
        for (size_t i = 0; i < width; i++) z[i] = z0[i] + w * (z[i] - z0[i]);
    }
}

static void encoded_release(struct encoded *e)
{
    free(e->states);
    free(e->pooled);
    *e = (struct encoded){0};
}

static struct clip_input input_of(const struct text_side *side, const struct clip_text *m, int skip,
                                  bool pooled)
{
    bool sd2 = side->family == FAMILY_SD2_512 || side->family == FAMILY_SD2_768;
    return (struct clip_input){
        .skip = sd2 && m->config.last_dropped && skip > 1 ? skip - 1 : skip,
        .final_norm = families[side->family].final_norm,
        .end_id = pooled ? vocab_end(side->vocab) : -1,
    };
}

void conditioning_input(struct clip_input *in, const struct text_side *side, int i)
{
    bool pooled = families[side->family].pooled && i == side->encoders - 1;
    *in = input_of(side, side->encoder[i], families[side->family].skip, pooled);
}

int32_t conditioning_pad(const struct text_side *side, int i)
{
    return pad_of(side->encoder[i], side->vocab);
}

/* One encoder over one prompt. */
static int encode(struct encoded *e, struct clip_text *m, const struct text_side *side,
                  const struct chunks *c, int skip, bool pooled, struct pass_memory *memory,
                  enum dtype dtype, struct error *err)
{
    if (m->config.positions != CHUNK_TOKENS)
        return error_set(err, ERR_UNSUPPORTED, "a text encoder of %lld places; Kiln's have %d",
                         (long long)m->config.positions, CHUNK_TOKENS);
    struct clip_input in = input_of(side, m, skip, pooled);
    int rc = encode_chunks(e, m, c, in, memory, dtype, err);
    if (rc || !c->weighted) return rc;

    struct prompt nothing = {0};
    struct chunks none = {0};
    struct encoded empty = {0};
    in.end_id = -1;
    rc = chunks_build(&none, &nothing, side->vocab, pad_of(m, side->vocab), 0, NULL, 0, err);
    if (!rc) rc = encode_chunks(&empty, m, &none, in, memory, dtype, err);
    if (!rc) apply_weights(e, c, empty.states);
    encoded_release(&empty);
    chunks_release(&none);
    return rc;
}

/* Encoders' states side by side: [rows, sum of widths]. The longer prompt's rows count; a shorter
 * one (embeddings of unlike vector counts) repeats its own. */
static int join(struct conditioning *c, const struct encoded *e, const struct chunks *chunks,
                int count, struct error *err)
{
    int rows = 0, width = 0;
    for (int i = 0; i < count; i++) {
        if (chunks[i].count * CHUNK_TOKENS > rows) rows = chunks[i].count * CHUNK_TOKENS;
        width += e[i].width;
    }
    c->rows = rows;
    c->width = width;
    c->context = alloc_try((size_t)rows * (size_t)width, sizeof *c->context);
    if (!c->context)
        return error_set(err, ERR_NO_MEMORY, "no memory for a context of %d x %d", rows, width);
    int column = 0;
    for (int i = 0; i < count; i++) {
        int own = chunks[i].count * CHUNK_TOKENS;
        for (int r = 0; r < rows; r++)
            memcpy(c->context + (size_t)r * (size_t)width + column,
                   e[i].states + (size_t)(r % own) * (size_t)e[i].width,
                   (size_t)e[i].width * sizeof(float));
        column += e[i].width;
    }
    return 0;
}

int conditioning_encode(struct conditioning *out, const struct text_side *side,
                        const struct text_request *request, struct pass_memory *memory,
                        enum dtype dtype, struct error *err)
{
    struct prompt prompt;
    int rc = prompt_parse(&prompt, request->prompt, request->rules, err);
    if (rc) return rc;
    struct conditioning made = {0};
    struct chunks chunks[2] = {0};
    struct encoded encoded[2] = {0};
    int skip = request->clip_skip > 0 ? request->clip_skip : families[side->family].skip;
    for (int i = 0; !rc && i < side->encoders; i++) {
        struct clip_text *m = side->encoder[i];
        bool pooled = families[side->family].pooled && i == side->encoders - 1;
        rc = chunks_build(&chunks[i], &prompt, side->vocab, pad_of(m, side->vocab),
                          (int)m->config.width, request->embeddings, request->embedding_count, err);
        if (!rc) rc = encode(&encoded[i], m, side, &chunks[i], skip, pooled, memory, dtype, err);
    }
    if (!rc) rc = join(&made, encoded, chunks, side->encoders, err);
    if (!rc) {
        struct encoded *last = &encoded[side->encoders - 1];
        made.pooled = last->pooled;
        made.pooled_width = last->pooled ? last->pooled_width : 0;
        last->pooled = NULL;
        made.unknown_embeddings = chunks[0].unknown_embeddings;
        memcpy(made.unknown, chunks[0].unknown, sizeof made.unknown);
        *out = made;
    }
    for (int i = 0; i < 2; i++) {
        encoded_release(&encoded[i]);
        chunks_release(&chunks[i]);
    }
    prompt_release(&prompt);
    return rc;
}

void conditioning_release(struct conditioning *c)
{
    free(c->context);
    free(c->pooled);
    *c = (struct conditioning){0};
}

/* The rows again and again, up to `rows`. */
static int extend(struct conditioning *c, int rows, struct error *err)
{
    if (rows == c->rows) return 0;
    size_t width = (size_t)c->width;
    float *longer = alloc_try((size_t)rows * width, sizeof *longer);
    if (!longer) return error_set(err, ERR_NO_MEMORY, "no memory for a context of %d rows", rows);
    for (int at = 0; at < rows; at += c->rows) {
        int take = rows - at < c->rows ? rows - at : c->rows;
        memcpy(longer + (size_t)at * width, c->context, (size_t)take * width * sizeof(float));
    }
    free(c->context);
    c->context = longer;
    c->rows = rows;
    return 0;
}

int conditioning_match(struct conditioning *a, struct conditioning *b, struct error *err)
{
    int64_t x = a->rows, y = b->rows;
    while (y) {
        int64_t rest = x % y;
        x = y;
        y = rest;
    }
    int64_t rows = a->rows / x * b->rows; /* least common multiple; x: greatest divisor */
    if (rows > MATCH_ROWS_MAX) rows = a->rows > b->rows ? a->rows : b->rows;
    int rc = extend(a, (int)rows, err);
    return rc ? rc : extend(b, (int)rows, err);
}
