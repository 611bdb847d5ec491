#include "diffusion/alchemy/interrogator.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/now.h"
#include "diffusion/alchemy/word_list.h"

/* in the Horde's order; its clients know these names */
static const char *const groups[] = {"tags",    "sites",     "artists",   "flavors",
                                     "mediums", "movements", "techniques"};
enum { GROUPS = COUNT_OF(groups) };

struct interrogator {
    struct clip_pair *pair;
    struct vocab *vocab;
    struct word_list list[GROUPS]; /* count 0: not there */
    bool ready;
};

static char *list_path(const char *folder, int group)
{
    return alloc_printf("%s/%s.txt", folder, groups[group]);
}

bool interrogator_present(const char *folder)
{
    bool any = false;
    for (int g = 0; g < GROUPS && !any; g++) {
        char *path = list_path(folder, g);
        any = access(path, R_OK) == 0;
        free(path);
    }
    return any;
}

static int open_lists(struct interrogator *in, const char *folder, struct error *err)
{
    int found = 0, rc = 0;
    for (int g = 0; g < GROUPS && !rc; g++) {
        char *path = list_path(folder, g);
        if (access(path, F_OK) == 0) {
            rc = word_list_open(&in->list[g], path, err);
            found++;
        }
        free(path);
    }
    if (!rc && !found)
        rc = error_set(err, ERR_NOT_FOUND, "there is no list of words in %s", folder);
    return rc;
}

int interrogator_open(struct interrogator **i, struct clip_pair *pair, const char *folder,
                      const char *vocab_path, struct error *err)
{
    struct interrogator *in = alloc_zero(1, sizeof *in);
    in->pair = pair;
    int rc = open_lists(in, folder, err);
    if (!rc)
        rc = vocab_path ? vocab_open_folder(&in->vocab, vocab_path, err)
                        : vocab_open_default(&in->vocab, err);
    if (rc)
        interrogator_close(in);
    else
        *i = in;
    return rc;
}

void interrogator_close(struct interrogator *in)
{
    if (!in) return;
    for (int g = 0; g < GROUPS; g++) word_list_close(&in->list[g]);
    vocab_close(in->vocab);
    free(in);
}

/* ---- phrases ---- */

struct reading {
    const struct pipeline_hooks *hooks;
    int done, all;
    double started;
};

static int tell(struct reading *r, int more, struct error *err)
{
    const struct pipeline_hooks *h = r->hooks;
    r->done += more;
    if (h && h->canceled && h->canceled(h->context))
        return error_set(err, ERR_CANCELED, "stopped on request");
    struct pipeline_progress now = {PHASE_TEXT, r->done, r->all, now_seconds() - r->started};
    if (h && h->progress) h->progress(h->context, &now);
    return 0;
}

static int read_list(struct interrogator *in, struct word_list *l, struct reading *r,
                     struct error *unkept, struct error *err)
{
    int width = clip_pair_width(in->pair), rc = 0;
    float *vectors = alloc_try((size_t)l->count * (size_t)width, sizeof *vectors);
    if (!vectors)
        return error_set(err, ERR_NO_MEMORY, "no memory for the %d phrases of %s", l->count,
                         l->path);
    for (int i = 0; i < l->count && !rc; i += CLIP_PAIR_BATCH) {
        int count = l->count - i < CLIP_PAIR_BATCH ? l->count - i : CLIP_PAIR_BATCH, without = -1;
        rc = clip_pair_read(in->pair, vectors + (size_t)i * (size_t)width, l->phrase + i, count,
                            &without, err);
        if (rc && without >= 0)
            rc = error_set(err, rc, "%s: phrase %d has no direction in %s", l->path,
                           i + without + 1, clip_pair_path(in->pair));
        if (!rc) rc = tell(r, count, err);
    }
    if (rc)
        free(vectors);
    else
        word_list_keep(l, vectors, clip_pair_mark(in->pair), width, unkept);
    return rc;
}

int interrogator_prepare(struct interrogator *in, const struct pipeline_hooks *hooks,
                         struct error *unkept, struct error *err)
{
    struct reading r = {.hooks = hooks, .started = now_seconds()};
    uint64_t mark = clip_pair_mark(in->pair);
    int rc = 0;
    if (unkept) *unkept = (struct error){0};
    if (in->ready) return 0;
    for (int g = 0; g < GROUPS; g++)
        if (in->list[g].count && !word_list_recall(&in->list[g], mark, clip_pair_width(in->pair)))
            r.all += in->list[g].count;
    if (r.all) rc = clip_pair_begin_reading(in->pair, in->vocab, err);
    for (int g = 0; g < GROUPS && !rc && r.all; g++)
        if (in->list[g].count && !in->list[g].vectors)
            rc = read_list(in, &in->list[g], &r, unkept, err);
    clip_pair_end_reading(in->pair);
    in->ready = !rc;
    return rc;
}

/* ---- pictures ---- */

/* The best `top` of a list into words; returns how many. score [list.count] is overwritten. */
static int rank(const struct word_list *l, const char *group, struct alchemy_word *words, int top,
                const float *picture, double *score)
{
    double most = -HUGE_VAL, sum = 0;
    for (int i = 0; i < l->count; i++) {
        const float *v = l->vectors + (size_t)i * (size_t)l->width;
        double cosine = 0;
        for (int k = 0; k < l->width; k++) cosine += (double)v[k] * picture[k];
        score[i] = 100 * cosine;
        if (score[i] > most) most = score[i];
    }
    for (int i = 0; i < l->count; i++) sum += score[i] = exp(score[i] - most);
    int count = 0;
    for (; count < top && count < l->count; count++) {
        int best = 0;
        for (int i = 1; i < l->count; i++)
            if (score[i] > score[best]) best = i;
        words[count] = (struct alchemy_word){group, l->phrase[best], 100 * score[best] / sum};
        score[best] = -1;
    }
    return count;
}

static int look(struct interrogator *in, float *vector, const struct pixels *picture,
                struct error *err)
{
    int width = clip_pair_width(in->pair);
    int rc = clip_pair_look(in->pair, vector, picture, err);
    if (!rc && !clip_pair_normalise(vector, width))
        rc = error_set(err, ERR_INTERNAL, "the picture has no direction");
    return rc;
}

int interrogator_run(struct interrogator *in, struct alchemy_word **words, int *count,
                     const struct pixels *picture, int top, const struct pipeline_hooks *hooks,
                     struct error *err)
{
    int longest = 0;
    if (top < 1 || top > 100)
        return error_set(err, ERR_INVALID, "%d words of a list: 1 to 100 are possible", top);
    int rc = interrogator_prepare(in, hooks, NULL, err);
    if (rc) return rc;
    for (int g = 0; g < GROUPS; g++)
        if (in->list[g].count > longest) longest = in->list[g].count;
    float *vector = alloc_try((size_t)clip_pair_width(in->pair), sizeof *vector);
    double *score = alloc_try((size_t)longest, sizeof *score);
    struct alchemy_word *found = alloc_try((size_t)(GROUPS * top), sizeof *found);
    if (!vector || !score || !found)
        rc = error_set(err, ERR_NO_MEMORY, "no memory to rank %d words", longest);
    if (!rc) rc = look(in, vector, picture, err);
    if (!rc) {
        *count = 0;
        for (int g = 0; g < GROUPS; g++)
            *count += rank(&in->list[g], groups[g], found + *count, top, vector, score);
        *words = found;
        found = NULL;
    }
    free(vector);
    free(score);
    free(found);
    return rc;
}
