#include "engine/together.h"

#include <string.h>

#include "base/str.h"

#define FADE 1.05 /* what a kept time grows by with each slower run */

static uint64_t mix(uint64_t key, const void *bytes, size_t length)
{
    const uint8_t *at = bytes;
    while (length--) key = (key ^ *at++) * 0x100000001b3; /* FNV-1a */
    return key;
}

uint64_t together_key(const struct engine_generate *g)
{
    const struct image_request *r = &g->request;
    int facts[] = {r->width_px,        r->height_px,
                   r->steps,           r->count,
                   (int)r->sampler,    r->hires_fix,
                   r->cfg != 1,        (int)r->source_use,
                   r->lora_count,      r->control_type != NULL,
                   r->qr.text != NULL, r->tiling,
                   r->transparent};
    uint64_t key =
        mix(0xcbf29ce484222325, r->model ? r->model : "", strlen(r->model ? r->model : ""));
    key = mix(key, facts, sizeof facts);
    return key ? key : 1;
}

static const struct together_kind *find(const struct together *t, uint64_t key)
{
    for (int i = 0; i < TOGETHER_KINDS; i++)
        if (t->kinds[i].key == key) return &t->kinds[i];
    return NULL;
}

/* its place, or that of the one not used for longest */
static struct together_kind *place(struct together *t, uint64_t key)
{
    struct together_kind *k = (struct together_kind *)(uintptr_t)find(t, key);
    if (!k) {
        k = &t->kinds[0];
        for (int i = 1; i < TOGETHER_KINDS; i++)
            if (t->kinds[i].used < k->used) k = &t->kinds[i];
        *k = (struct together_kind){.key = key};
    }
    k->used = ++t->uses;
    return k;
}

void together_learn(struct together *t, uint64_t key, int jobs, double image_seconds)
{
    struct together_kind *k = place(t, key);
    double *kept = jobs > 1 ? &k->shared_s : &k->alone_s;
    if (!(image_seconds > 0)) return;
    if (*kept > 0 && *kept * FADE < image_seconds) image_seconds = *kept * FADE;
    *kept = image_seconds;
}

double together_image_seconds(const struct together *t, uint64_t key, int jobs)
{
    const struct together_kind *k = find(t, key);
    return !k ? 0 : jobs > 1 && k->shared_s > 0 ? k->shared_s : k->alone_s;
}

bool together_wanted(struct together *t, uint64_t key)
{
    struct together_kind *k = place(t, key);
    if (k->alone_s <= 0) return false;
    bool better = k->shared_s <= 0 || k->shared_s < k->alone_s * TOGETHER_GAIN;
    bool other = ++k->skipped >= TOGETHER_TRY_EVERY; /* the way not gone lately */
    if (other) k->skipped = 0;
    return better != (other && k->shared_s > 0);
}

/* ---- out of the queue ---- */

struct look {
    struct together *t;
    uint64_t key;
    const struct models *models;
    const struct engine_msg *job;
    bool asked;
    double image_s, least_left_s; /* seconds of an image; until the first deadline of the members */
    int images, images_max;       /* of the members so far */
};

static double left_s(const struct engine_msg *m)
{
    double deadline = m->generate.deadline_seconds;
    return deadline > 0 ? deadline - channel_age(m) : 1e9;
}

/* A load before each job is usual; one that gives a name another file is not for skipping. */
static bool says_nothing_new(const struct look *l, const struct engine_msg *m)
{
    enum precision precision = PRECISION_AUTO;
    const struct engine_load *load = &m->load;
    if (m->kind != ENGINE_LOAD || !load->model || !load->path) return false;
    if (!str_equal(load->model, l->job->generate.request.model)) return true;
    if (load->precision) precision_find(load->precision, &precision);
    return models_is_named(l->models, load->model, load->path, load->vae_path, precision);
}

/* What is no equal job ends the row: what came first is not to wait for what came last. */
static enum channel_look look_at(void *context, const struct engine_msg *m)
{
    struct look *l = context;
    if (says_nothing_new(l, m)) return CHANNEL_SKIP;
    if (!engine_msg_equal_but_seed(l->job, m)) return CHANNEL_STOP;
    if (!l->asked && !together_wanted(l->t, l->key)) return CHANNEL_STOP;
    l->asked = true;
    int images = l->images + m->generate.request.count;
    double left = left_s(m) < l->least_left_s ? left_s(m) : l->least_left_s;
    if (images > l->images_max || l->image_s * images * TOGETHER_TTL_SPARE > left)
        return CHANNEL_STOP;
    l->images = images;
    l->least_left_s = left;
    return CHANNEL_TAKE;
}

int together_gather(struct together *t, struct channel *c, const struct models *models,
                    const struct engine_msg *job, struct engine_msg **taken, int most)
{
    const struct engine_generate *g = &job->generate;
    int images_max = g->together_max < REQUEST_COUNT_MAX ? g->together_max : REQUEST_COUNT_MAX;
    struct look l = {.t = t,
                     .key = together_key(g),
                     .models = models,
                     .job = job,
                     .least_left_s = left_s(job),
                     .images = g->request.count,
                     .images_max = images_max};
    l.image_s = together_image_seconds(t, l.key, 2);
    if (l.images >= images_max || l.image_s <= 0) return 0;
    return channel_gather(c, taken, most, look_at, &l);
}
