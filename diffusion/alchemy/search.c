#include "diffusion/alchemy/search.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

/* What is not to be chosen; large enough that no sum of logarithms reaches it. */
#define NEVER (-1.0e9f)

struct row {
    float score;
    bool finished;
    int length; /* of token, with prompt and end */
    int parent; /* row of the step before */
    int32_t token[SEARCH_LENGTH_MAX];
};

struct search {
    const struct search_options *o;
    int vocab, prompt_count;
    search_step step;
    void *context;
    float *logits;                          /* [beams, vocab] */
    bool *met;                              /* [vocab]: tokens of the row at hand */
    struct row *running, *kept, *candidate; /* beams, beams, 2 beams */
    int running_count, kept_count;
};

/* Each token that the row holds already becomes less likely, once. */
static void penalise(struct search *s, float *x, const struct row *r)
{
    float by = (float)s->o->repetition_penalty;
    memset(s->met, 0, (size_t)s->vocab * sizeof *s->met);
    for (int i = 0; i < r->length; i++) {
        int32_t t = r->token[i];
        if (t < 0 || t >= s->vocab || s->met[t]) continue;
        s->met[t] = true;
        x[t] = x[t] < 0 ? x[t] * by : x[t] / by;
    }
    if (r->length < s->o->min_length) x[s->o->end] = -INFINITY;
}

static void log_softmax(float *x, int count)
{
    float most = x[0];
    double sum = 0;
    for (int i = 1; i < count; i++) most = x[i] > most ? x[i] : most;
    for (int i = 0; i < count; i++) sum += exp((double)(x[i] - most));
    float shift = (float)log(sum);
    for (int i = 0; i < count; i++) x[i] = x[i] - most - shift;
}

static int call(struct search *s, const int32_t *token, const int *parent, int count,
                struct error *err)
{
    int rc = s->step(s->context, s->logits, token, parent, count, err);
    for (int64_t i = 0; !rc && i < (int64_t)count * s->vocab; i++)
        if (!isfinite(s->logits[i]))
            rc = error_set(err, ERR_FORMAT, "the network's next word is no number");
    return rc;
}

/* ---- greedy ---- */

static int run_greedy(struct search *s, struct error *err)
{
    struct row *r = &s->running[0];
    int rc = 0;
    while (!rc) {
        int best = 0;
        penalise(s, s->logits, r);
        for (int i = 1; i < s->vocab; i++)
            if (s->logits[i] > s->logits[best]) best = i;
        r->token[r->length++] = best;
        if (best == s->o->end || r->length >= s->o->max_length) break;
        rc = call(s, &r->token[r->length - 1], &(int){0}, 1, err);
    }
    s->kept[0] = *r;
    return rc;
}

/* ---- beams ---- */

/* A place in a list that stays sorted, best first and the earlier of equals first; -1: too low. */
static int place(const float *score, int count, int most, float value)
{
    if (count == most && value <= score[count - 1]) return -1;
    int at = count;
    while (at > 0 && value > score[at - 1]) at--;
    return at;
}

/* The best 2 x beams continuations of all rows, in order. */
static int take_candidates(struct search *s)
{
    int most = 2 * s->o->beams, count = 0;
    float score[2 * SEARCH_BEAMS_MAX];
    int64_t index[2 * SEARCH_BEAMS_MAX];
    for (int64_t i = 0; i < (int64_t)s->running_count * s->vocab; i++) {
        float value = s->logits[i] + s->running[i / s->vocab].score;
        int at = place(score, count, most, value);
        if (at < 0) continue;
        int moved = (count < most ? count : most - 1) - at;
        memmove(score + at + 1, score + at, (size_t)moved * sizeof *score);
        memmove(index + at + 1, index + at, (size_t)moved * sizeof *index);
        score[at] = value;
        index[at] = i;
        if (count < most) count++;
    }
    for (int i = 0; i < count; i++) {
        struct row *c = &s->candidate[i];
        *c = s->running[index[i] / s->vocab];
        c->parent = (int)(index[i] / s->vocab);
        c->score = score[i];
        c->token[c->length++] = (int32_t)(index[i] % s->vocab);
        c->finished = c->token[c->length - 1] == s->o->end || c->length >= s->o->max_length;
    }
    return count;
}

/* Of the candidates those that go on; they are sorted already. */
static void take_running(struct search *s, int candidates)
{
    s->running_count = 0;
    for (int i = 0; i < candidates && s->running_count < s->o->beams; i++)
        if (!s->candidate[i].finished) s->running[s->running_count++] = s->candidate[i];
}

/* Only what is among the best `beams` may become a result; the rest are there to go on with. */
static void keep_finished(struct search *s, int candidates)
{
    for (int i = 0; i < candidates && i < s->o->beams; i++) {
        struct row *c = &s->candidate[i];
        float score[SEARCH_BEAMS_MAX];
        if (!c->finished) continue;
        c->score /= (float)pow(c->length - s->prompt_count, s->o->length_penalty);
        for (int k = 0; k < s->kept_count; k++) score[k] = s->kept[k].score;
        int at = place(score, s->kept_count, s->o->beams, c->score);
        if (at < 0) continue;
        int moved = (s->kept_count < s->o->beams ? s->kept_count : s->o->beams - 1) - at;
        memmove(s->kept + at + 1, s->kept + at, (size_t)moved * sizeof *s->kept);
        s->kept[at] = *c;
        if (s->kept_count < s->o->beams) s->kept_count++;
    }
}

/* Can the best row that goes on still beat the worst result? Judged at its present length. */
static bool may_improve(const struct search *s)
{
    if (!s->running_count) return false;
    if (s->kept_count < s->o->beams) return true;
    int length = s->running[0].length - s->prompt_count;
    float best = s->running[0].score / (float)pow(length, s->o->length_penalty);
    return best > s->kept[s->kept_count - 1].score;
}

static int run_beams(struct search *s, struct error *err)
{
    for (int rc;;) {
        for (int i = 0; i < s->running_count; i++) {
            float *x = s->logits + (size_t)i * (size_t)s->vocab;
            log_softmax(x, s->vocab);
            penalise(s, x, &s->running[i]);
        }
        int candidates = take_candidates(s);
        take_running(s, candidates);
        keep_finished(s, candidates);
        if (!may_improve(s)) return 0;
        int32_t token[SEARCH_BEAMS_MAX];
        int parent[SEARCH_BEAMS_MAX];
        for (int i = 0; i < s->running_count; i++) {
            token[i] = s->running[i].token[s->running[i].length - 1];
            parent[i] = s->running[i].parent;
        }
        rc = call(s, token, parent, s->running_count, err);
        if (rc) return rc;
    }
}

/* ---- both ---- */

static int check(const struct search_options *o, int vocab, int prompt_count, struct error *err)
{
    if (o->beams < 1 || o->beams > SEARCH_BEAMS_MAX)
        return error_set(err, ERR_INVALID, "%d beams: 1 to %d are possible", o->beams,
                         SEARCH_BEAMS_MAX);
    if (vocab < 2 * o->beams + 1 || o->end < 0 || o->end >= vocab)
        return error_set(err, ERR_INVALID, "a vocabulary of %d words is too small for %d beams",
                         vocab, o->beams);
    if (prompt_count < 1 || o->max_length <= prompt_count || o->max_length > SEARCH_LENGTH_MAX)
        return error_set(err, ERR_INVALID,
                         "a text of at most %d tokens after a prompt of %d (limit %d)",
                         o->max_length, prompt_count, SEARCH_LENGTH_MAX);
    if (!(o->repetition_penalty > 0) || !(o->length_penalty >= 0))
        return error_set(err, ERR_INVALID, "penalties must be positive");
    return 0;
}

int search_run(int32_t *token, int *count, const struct search_options *o, int vocab,
               const int32_t *prompt, int prompt_count, search_step step, void *context,
               struct error *err)
{
    struct search s = {.o = o,
                       .vocab = vocab,
                       .prompt_count = prompt_count,
                       .step = step,
                       .context = context,
                       .running_count = 1};
    int rc = check(o, vocab, prompt_count, err);
    if (rc) return rc;
    size_t beams = (size_t)o->beams;
    s.logits = alloc_try(beams * (size_t)vocab, sizeof *s.logits);
    s.met = alloc_try((size_t)vocab, sizeof *s.met);
    struct row *rows = alloc_try(4 * beams, sizeof *rows);
    if (!s.logits || !s.met || !rows)
        rc = error_set(err, ERR_NO_MEMORY, "no memory for %d beams of %d words", o->beams, vocab);
    s.running = rows;
    s.kept = rows + beams;
    s.candidate = rows + 2 * beams;
    for (int i = 0; !rc && i < prompt_count; i++) {
        s.running[0].token[s.running[0].length++] = prompt[i];
        rc = call(&s, &prompt[i], &(int){0}, 1, err);
    }
    if (!rc) rc = o->beams == 1 ? run_greedy(&s, err) : run_beams(&s, err);
    if (!rc) {
        *count = s.kept[0].length;
        memcpy(token, s.kept[0].token, (size_t)*count * sizeof *token);
    }
    free(s.logits);
    free(s.met);
    free(rows);
    return rc;
}
