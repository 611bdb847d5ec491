#include "diffusion/safety/clip_pair.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "diffusion/safety/clip_vision.h"
#include "diffusion/text/tokens.h"

struct clip_pair {
    struct device *device;
    struct weight_store *store;
    struct clip_vision vision;
    struct clip_text text;     /* open while reading */
    const struct vocab *vocab; /* borrowed while reading; NULL otherwise */
    struct pass_memory memory;
    int width;
};

/* ---- loading ---- */

struct part {
    void (*visit)(struct weight_visitor *v, void *model);
    void *model;
    const char *component;
};

static void visit_vision(struct weight_visitor *v, void *model)
{
    clip_vision_visit(v, model);
}

static void visit_text(struct weight_visitor *v, void *model)
{
    clip_text_visit(v, model);
}

static int load(struct clip_pair *c, const struct part *part, enum dialect dialect,
                struct error *err)
{
    struct weight_loading loading = {
        .store = c->store, .prefix = "", .component = part->component, .dialect = dialect};
    struct weight_visitor v = {.visit = weight_load, .context = &loading, .err = err};
    part->visit(&v, part->model);
    return v.failed ? v.failed : weight_loading_check(&loading, err);
}

static int pack(struct clip_pair *c, const struct part *part, struct error *err)
{
    struct weight_packing packing = {c->device, c->store, DTYPE_F32};
    struct weight_visitor v = {.visit = weight_pack, .context = &packing, .err = err};
    part->visit(&v, part->model);
    return v.failed;
}

static int open_vision(struct clip_pair *pair, struct error *err)
{
    struct clip_vision_config c;
    enum dialect dialect;
    struct part part = {visit_vision, &pair->vision, "the CLIP vision transformer"};
    int rc = clip_vision_detect(&c, pair->store, &dialect, err);
    if (!rc) rc = clip_vision_init(&pair->vision, &c, err);
    if (!rc) rc = load(pair, &part, dialect, err);
    if (rc) return rc;
    clip_vision_prepare(&pair->vision);
    pair->width = (int)c.projection;
    return pack(pair, &part, err);
}

int clip_pair_open(struct clip_pair **pair, struct device *device, const char *model_path,
                   struct error *err)
{
    struct clip_pair *c = alloc_zero(1, sizeof *c);
    c->device = device;
    pass_memory_init(&c->memory, device, 0);
    int rc = weight_store_open(&c->store, model_path, err);
    if (!rc) rc = open_vision(c, err);
    if (rc)
        clip_pair_close(c);
    else
        *pair = c;
    return rc;
}

void clip_pair_close(struct clip_pair *c)
{
    if (!c) return;
    clip_pair_end_reading(c);
    pass_memory_release(&c->memory);
    clip_vision_release(&c->vision, c->device);
    weight_store_close(c->store);
    free(c);
}

int clip_pair_width(const struct clip_pair *c)
{
    return c->width;
}

const char *clip_pair_path(const struct clip_pair *c)
{
    return weight_store_path(c->store);
}

uint64_t clip_pair_mark(const struct clip_pair *c)
{
    const struct safetensors_entry *e = weight_store_find(c->store, "text_projection.weight");
    if (!e) e = weight_store_find(c->store, "text_projection");
    uint64_t mark = UINT64_C(14695981039346656037);
    if (!e) return mark;
    size_t bytes = dtype_bytes(e->dtype);
    for (int i = 0; i < e->rank; i++) bytes *= (size_t)e->dim[i];
    const uint8_t *at = e->data;
    for (size_t i = 0; i < bytes; i++) mark = (mark ^ at[i]) * UINT64_C(1099511628211);
    return mark;
}

/* ---- phrases ---- */

static int open_text(struct clip_pair *pair, const struct vocab *vocab, struct error *err)
{
    struct clip_text_config c;
    enum dialect dialect;
    struct part part = {visit_text, &pair->text, "the CLIP text transformer"};
    int rc = clip_text_detect(&c, pair->store, "", &dialect, err);
    if (rc) return rc;
    c.act = ACT_QUICK_GELU;
    if (c.projection != pair->width)
        return error_set(err, ERR_FORMAT, "%s: texts become %lld numbers, pictures %d",
                         weight_store_path(pair->store), (long long)c.projection, pair->width);
    if (c.vocab < vocab_count(vocab))
        return error_set(err, ERR_FORMAT, "%s knows %lld words, the vocabulary has %d",
                         weight_store_path(pair->store), (long long)c.vocab, vocab_count(vocab));
    rc = clip_text_init(&pair->text, &c, err);
    if (!rc) rc = load(pair, &part, dialect, err);
    return rc ? rc : pack(pair, &part, err);
}

int clip_pair_begin_reading(struct clip_pair *c, const struct vocab *vocab, struct error *err)
{
    clip_pair_end_reading(c);
    int rc = open_text(c, vocab, err);
    c->vocab = vocab;
    if (rc) clip_pair_end_reading(c);
    return rc;
}

void clip_pair_end_reading(struct clip_pair *c)
{
    if (!c->vocab) return;
    clip_text_release(&c->text, c->device);
    pass_memory_trim(&c->memory);
    c->vocab = NULL;
}

bool clip_pair_normalise(float *v, int width)
{
    double square = 0;
    for (int i = 0; i < width; i++) square += (double)v[i] * v[i];
    double length = sqrt(square);
    if (!isfinite(length) || length <= 0) return false;
    for (int i = 0; i < width; i++) v[i] = (float)(v[i] / length);
    return true;
}

/* id [places], framed; what is too long loses its end, never the mark of the end. */
static int frame(int32_t *id, int64_t places, int *used, const struct vocab *vocab,
                 const char *text, struct error *err)
{
    struct tokens t;
    tokens_init(&t);
    int rc = tokens_encode(&t, vocab, text, strlen(text), err);
    if (!rc) {
        int count = (int64_t)t.count > places - 2 ? (int)places - 2 : (int)t.count;
        id[0] = vocab_start(vocab);
        if (count) memcpy(id + 1, t.id, (size_t)count * sizeof *id);
        for (int64_t i = count + 1; i < places; i++) id[i] = vocab_end(vocab);
        if (count + 2 > *used) *used = count + 2;
    }
    tokens_release(&t);
    return rc;
}

static int run_text(struct clip_pair *c, const struct clip_input *in, float *to, struct error *err)
{
    struct pass p;
    pass_start(&p, &c->memory, DTYPE_F32, NULL);
    pass_output(&p, to, clip_text_forward(&p, &c->text, in).pooled);
    return pass_finish(&p, err);
}

/* The text sees backwards only, so places after the last end of a batch need not be computed. */
static int read_framed(struct clip_pair *c, float *to, int32_t *id, const char *const *phrase,
                       int count, struct error *err)
{
    struct clip_text *text = &c->text;
    int64_t places = text->config.positions;
    int used = 0, rc = 0;
    for (int i = 0; i < count && !rc; i++)
        rc = frame(id + i * places, places, &used, c->vocab, phrase[i], err);
    if (rc) return rc;
    for (int i = 0; i < count; i++)
        memmove(id + i * used, id + i * places, (size_t)used * sizeof *id);
    struct clip_input in = {
        .id = id, .n = count, .skip = 1, .final_norm = true, .end_id = vocab_end(c->vocab)};
    text->config.positions = text->position.k.dim[0] = used;
    rc = run_text(c, &in, to, err);
    weight_release(&text->position, c->device); /* a device's copy has this length only */
    text->config.positions = text->position.k.dim[0] = places;
    return rc;
}

int clip_pair_read(struct clip_pair *c, float *to, const char *const *phrase, int count,
                   int *without, struct error *err)
{
    KILN_ASSERT(c->vocab && count <= CLIP_PAIR_BATCH, "%d phrases", count);
    int32_t *id = alloc_try((size_t)(c->text.config.positions * count), sizeof *id);
    if (!id) return error_set(err, ERR_NO_MEMORY, "no memory for %d phrases", count);
    int rc = read_framed(c, to, id, phrase, count, err);
    free(id);
    for (int i = 0; i < count && !rc; i++)
        if (!clip_pair_normalise(to + (size_t)i * (size_t)c->width, c->width)) {
            if (without) *without = i;
            rc = error_set(err, ERR_FORMAT, "%s: a phrase has no direction", clip_pair_path(c));
        }
    return rc;
}

/* ---- pictures ---- */

static int look(struct clip_pair *pair, const struct pixels *picture, float *vector,
                struct error *err)
{
    const struct clip_vision_config *c = &pair->vision.config;
    int64_t patches = c->grid * c->grid, values = 3 * c->patch * c->patch;
    size_t bytes = (size_t)(patches * values) * sizeof(float);
    float *cut = alloc_try((size_t)(patches * values), sizeof *cut);
    if (!cut) return error_set(err, ERR_NO_MEMORY, "no memory to look at a picture");
    int rc = clip_vision_patches(&pair->vision, cut, picture, err);
    if (!rc) {
        struct pass p;
        pass_start(&p, &pair->memory, DTYPE_F32, NULL);
        struct tensor x = pass_input(&p, cut, 3, TENSOR_DIM(1, patches, values));
        pass_output(&p, vector, clip_vision_forward(&p, &pair->vision, x));
        rc = pass_finish(&p, err);
    }
    explicit_bzero(cut, bytes);
    free(cut);
    return rc;
}

int clip_pair_look(struct clip_pair *c, float *vector, const struct pixels *p, struct error *err)
{
    float *v = vector ? vector : alloc_try((size_t)c->width, sizeof *v);
    if (!v) return error_set(err, ERR_NO_MEMORY, "no memory to look at a picture");
    int rc = look(c, p, v, err);
    double square = 0;
    for (int i = 0; i < c->width && !rc; i++) square += (double)v[i] * v[i];
    if (!rc && (!isfinite(square) || square <= 0))
        rc = error_set(err, ERR_INTERNAL, "%s gave no finite numbers", clip_pair_path(c));
    if (!vector) free(v);
    return rc;
}
