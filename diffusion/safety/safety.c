#include "diffusion/safety/safety.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "diffusion/safety/clip_vision.h"
#include "diffusion/text/tokens.h"

/* Phrases of one pass: enough to fill the cores, little enough for any device. */
enum { BATCH = 16 };

struct safety {
    struct device *device;
    struct weight_store *store;
    struct clip_vision vision;
    struct safety_rules *rules;
    struct pass_memory memory;
    int width;
    float *phrases; /* [rules.count, width], of length 1 */
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

static int load(struct safety *s, const struct part *part, enum dialect dialect, struct error *err)
{
    struct weight_loading loading = {
        .store = s->store, .prefix = "", .component = part->component, .dialect = dialect};
    struct weight_visitor v = {.visit = weight_load, .context = &loading, .err = err};
    part->visit(&v, part->model);
    return v.failed ? v.failed : weight_loading_check(&loading, err);
}

static int pack(struct safety *s, const struct part *part, struct error *err)
{
    struct weight_packing packing = {s->device, s->store, DTYPE_F32};
    struct weight_visitor v = {.visit = weight_pack, .context = &packing, .err = err};
    part->visit(&v, part->model);
    return v.failed;
}

static int open_vision(struct safety *s, struct error *err)
{
    struct clip_vision_config c;
    enum dialect dialect;
    struct part part = {visit_vision, &s->vision, "the CLIP vision transformer"};
    int rc = clip_vision_detect(&c, s->store, &dialect, err);
    if (!rc) rc = clip_vision_init(&s->vision, &c, err);
    if (!rc) rc = load(s, &part, dialect, err);
    if (rc) return rc;
    clip_vision_prepare(&s->vision);
    s->width = (int)c.projection;
    return pack(s, &part, err);
}

static int open_text(struct safety *s, struct clip_text *text, const struct vocab *vocab,
                     struct error *err)
{
    struct clip_text_config c;
    enum dialect dialect;
    struct part part = {visit_text, text, "the CLIP text transformer"};
    int rc = clip_text_detect(&c, s->store, "", &dialect, err);
    if (rc) return rc;
    c.act = ACT_QUICK_GELU;
    if (c.projection != s->width)
        return error_set(err, ERR_FORMAT, "%s: texts become %lld numbers, pictures %d",
                         weight_store_path(s->store), (long long)c.projection, s->width);
    if (c.vocab < vocab_count(vocab))
        return error_set(err, ERR_FORMAT, "%s knows %lld words, the vocabulary has %d",
                         weight_store_path(s->store), (long long)c.vocab, vocab_count(vocab));
    rc = clip_text_init(text, &c, err);
    if (!rc) rc = load(s, &part, dialect, err);
    return rc ? rc : pack(s, &part, err);
}

/* ---- phrases ---- */

/* Length 1, computed in double; false when there is no length. */
static bool normalise(float *v, int width)
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

static int run_text(struct safety *s, struct clip_text *text, const struct clip_input *in,
                    float *to, struct error *err)
{
    struct pass p;
    pass_start(&p, &s->memory, DTYPE_F32, NULL);
    pass_output(&p, to, clip_text_forward(&p, text, in).pooled);
    return pass_finish(&p, err);
}

/* The text sees backwards only, so places after the last end of a batch need not be computed. */
static int encode_batch(struct safety *s, struct clip_text *text, const struct vocab *vocab,
                        int from, int count, struct error *err)
{
    int64_t places = text->config.positions;
    float *to = s->phrases + (size_t)from * (size_t)s->width;
    int32_t *id = alloc_try((size_t)(places * count), sizeof *id);
    int used = 0, rc = 0;
    if (!id) return error_set(err, ERR_NO_MEMORY, "no memory for %d phrases", count);
    for (int i = 0; i < count && !rc; i++)
        rc = frame(id + i * places, places, &used, vocab, s->rules->phrase[from + i].text, err);
    for (int i = 0; i < count; i++)
        memmove(id + i * used, id + i * places, (size_t)used * sizeof *id);
    if (!rc) {
        struct clip_input in = {
            .id = id, .n = count, .skip = 1, .final_norm = true, .end_id = vocab_end(vocab)};
        text->config.positions = text->position.k.dim[0] = used;
        rc = run_text(s, text, &in, to, err);
        weight_release(&text->position, s->device); /* a device's copy has this length only */
        text->config.positions = text->position.k.dim[0] = places;
    }
    free(id);
    for (int i = 0; i < count && !rc; i++)
        if (!normalise(to + (size_t)i * (size_t)s->width, s->width))
            rc = error_set(err, ERR_FORMAT, "%s: phrase %d of the table has no direction",
                           weight_store_path(s->store), from + i + 1);
    return rc;
}

static int encode_phrases(struct safety *s, const struct vocab *vocab, struct error *err)
{
    struct clip_text text = {0};
    s->phrases = alloc_try((size_t)s->rules->count * (size_t)s->width, sizeof *s->phrases);
    if (!s->phrases) return error_set(err, ERR_NO_MEMORY, "no memory for the phrases");
    int rc = open_text(s, &text, vocab, err);
    for (int i = 0; i < s->rules->count && !rc; i += BATCH) {
        int left = s->rules->count - i;
        rc = encode_batch(s, &text, vocab, i, left < BATCH ? left : BATCH, err);
    }
    clip_text_release(&text, s->device);
    pass_memory_trim(&s->memory);
    return rc;
}

/* Weights that are no numbers are found now and not by a stranger's job. */
static int try_out(struct safety *s, struct error *err)
{
    struct pixels grey;
    int rc = pixels_new(&grey, 64, 64, 3, err);
    if (rc) return rc;
    memset(grey.data, 128, (size_t)64 * 64 * 3);
    rc = safety_look(s, &grey, NULL, NULL, err);
    pixels_release(&grey);
    return rc == ERR_INTERNAL ? error_set(err, ERR_FORMAT, "%s holds weights that are no numbers",
                                          weight_store_path(s->store))
                              : rc;
}

int safety_open(struct safety **safety, struct device *device, const char *model_path,
                const char *rules_path, const char *vocab_path, struct error *err)
{
    struct safety *s = alloc_zero(1, sizeof *s);
    struct vocab *vocab = NULL;
    s->device = device;
    pass_memory_init(&s->memory, device, 0);
    int rc = safety_rules_open(&s->rules, rules_path, err);
    if (!rc)
        rc = vocab_path ? vocab_open_folder(&vocab, vocab_path, err)
                        : vocab_open_default(&vocab, err);
    if (!rc) rc = weight_store_open(&s->store, model_path, err);
    if (!rc) rc = open_vision(s, err);
    if (!rc) rc = encode_phrases(s, vocab, err);
    if (!rc) rc = try_out(s, err);
    vocab_close(vocab);
    if (rc)
        safety_close(s);
    else
        *safety = s;
    return rc;
}

void safety_close(struct safety *s)
{
    if (!s) return;
    pass_memory_release(&s->memory);
    clip_vision_release(&s->vision, s->device);
    safety_rules_close(s->rules);
    weight_store_close(s->store);
    free(s->phrases);
    free(s);
}

const struct safety_rules *safety_rules(const struct safety *s)
{
    return s->rules;
}

int safety_width(const struct safety *s)
{
    return s->width;
}

/* ---- pictures ---- */

static int encode(struct safety *s, const struct pixels *picture, float *vector, struct error *err)
{
    const struct clip_vision_config *c = &s->vision.config;
    int64_t patches = c->grid * c->grid, values = 3 * c->patch * c->patch;
    size_t bytes = (size_t)(patches * values) * sizeof(float);
    float *cut = alloc_try((size_t)(patches * values), sizeof *cut);
    if (!cut) return error_set(err, ERR_NO_MEMORY, "no memory for the safety check");
    int rc = clip_vision_patches(&s->vision, cut, picture, err);
    if (!rc) {
        struct pass p;
        pass_start(&p, &s->memory, DTYPE_F32, NULL);
        struct tensor x = pass_input(&p, cut, 3, TENSOR_DIM(1, patches, values));
        pass_output(&p, vector, clip_vision_forward(&p, &s->vision, x));
        rc = pass_finish(&p, err);
    }
    explicit_bzero(cut, bytes);
    free(cut);
    return rc;
}

int safety_look(struct safety *s, const struct pixels *p, float *vector, float *similarity,
                struct error *err)
{
    float *v = alloc_try((size_t)s->width, sizeof *v);
    if (!v) return error_set(err, ERR_NO_MEMORY, "no memory for the safety check");
    int rc = encode(s, p, v, err);
    if (!rc && vector) memcpy(vector, v, (size_t)s->width * sizeof *v);
    if (!rc && !normalise(v, s->width))
        rc = error_set(err, ERR_INTERNAL, "the safety check gave no finite numbers");
    for (int i = 0; i < s->rules->count && !rc && similarity; i++) {
        double sum = 0;
        for (int k = 0; k < s->width; k++)
            sum += (double)v[k] * s->phrases[(size_t)i * (size_t)s->width + (size_t)k];
        similarity[i] = (float)sum;
    }
    free(v);
    return rc;
}

int safety_check(struct safety *s, const struct pixels *p, const char *prompt,
                 enum safety_verdict *verdict, struct error *err)
{
    float *similarity = alloc_try((size_t)s->rules->count, sizeof *similarity);
    *verdict = SAFETY_FAILED;
    if (!similarity) return error_set(err, ERR_NO_MEMORY, "no memory for the safety check");
    int rc = safety_look(s, p, NULL, similarity, err);
    if (!rc)
        *verdict = safety_rules_judge(s->rules, similarity, safety_rules_suspect(s->rules, prompt));
    free(similarity);
    return rc;
}
