#include "diffusion/safety/safety.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

struct safety {
    struct clip_pair *pair;
    struct safety_rules *rules;
    int width;
    float *phrases; /* [rules.count, width], of length 1 */
};

/* ---- opening ---- */

static int read_phrases(struct safety *s, struct error *err)
{
    const struct safety_rules *r = s->rules;
    int rc = 0;
    for (int i = 0; i < r->count && !rc; i += CLIP_PAIR_BATCH) {
        const char *text[CLIP_PAIR_BATCH];
        int count = 0, without = -1;
        while (count < CLIP_PAIR_BATCH && i + count < r->count) {
            text[count] = r->phrase[i + count].text;
            count++;
        }
        float *to = s->phrases + (size_t)i * (size_t)s->width;
        rc = clip_pair_read(s->pair, to, text, count, &without, err);
        if (rc && without >= 0)
            rc = error_set(err, rc, "%s: phrase %d of the table has no direction",
                           clip_pair_path(s->pair), i + without + 1);
    }
    return rc;
}

static int encode_phrases(struct safety *s, const struct vocab *vocab, struct error *err)
{
    s->width = clip_pair_width(s->pair);
    s->phrases = alloc_try((size_t)s->rules->count * (size_t)s->width, sizeof *s->phrases);
    if (!s->phrases) return error_set(err, ERR_NO_MEMORY, "no memory for the phrases");
    int rc = clip_pair_begin_reading(s->pair, vocab, err);
    if (!rc) rc = read_phrases(s, err);
    clip_pair_end_reading(s->pair);
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
                                          clip_pair_path(s->pair))
                              : rc;
}

int safety_open(struct safety **safety, struct device *device, const char *model_path,
                const char *rules_path, const char *vocab_path, struct error *err)
{
    struct safety *s = alloc_zero(1, sizeof *s);
    struct vocab *vocab = NULL;
    int rc = safety_rules_open(&s->rules, rules_path, err);
    if (!rc)
        rc = vocab_path ? vocab_open_folder(&vocab, vocab_path, err)
                        : vocab_open_default(&vocab, err);
    if (!rc) rc = clip_pair_open(&s->pair, device, model_path, err);
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
    clip_pair_close(s->pair);
    safety_rules_close(s->rules);
    free(s->phrases);
    free(s);
}

const struct safety_rules *safety_rules(const struct safety *s)
{
    return s->rules;
}

struct clip_pair *safety_pair(struct safety *s)
{
    return s->pair;
}

int safety_width(const struct safety *s)
{
    return s->width;
}

/* ---- pictures ---- */

int safety_look(struct safety *s, const struct pixels *p, float *vector, float *similarity,
                struct error *err)
{
    float *v = alloc_try((size_t)s->width, sizeof *v);
    if (!v) return error_set(err, ERR_NO_MEMORY, "no memory for the safety check");
    int rc = clip_pair_look(s->pair, v, p, err);
    if (!rc && vector) memcpy(vector, v, (size_t)s->width * sizeof *v);
    if (!rc && !clip_pair_normalise(v, s->width))
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
