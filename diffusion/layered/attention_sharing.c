#include "diffusion/layered/attention_sharing.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/str.h"

static const char prefix[] = "hookers.layers.";

/* Blocks of the UNet in the order of the file; each has two places, attn1 and attn2. */
static const char *const blocks[SHARING_PLACES / 2] = {
    "input_blocks_1",  "input_blocks_2",   "input_blocks_4",   "input_blocks_5",
    "input_blocks_7",  "input_blocks_8",   "output_blocks_3",  "output_blocks_4",
    "output_blocks_5", "output_blocks_6",  "output_blocks_7",  "output_blocks_8",
    "output_blocks_9", "output_blocks_10", "output_blocks_11", "middle_block",
};

bool attention_sharing_key(const char *key, int *place, const char **rest)
{
    char *end;
    if (!str_starts(key, prefix)) return false;
    long n = strtol(key + strlen(prefix), &end, 10);
    if (n < 0 || n >= SHARING_PLACES || *end != '.') return false;
    *place = (int)n;
    *rest = end + 1;
    return true;
}

void attention_sharing_place(char *name, size_t room, int place)
{
    snprintf(name, room, "%s_1_transformer_blocks_0_attn%d", blocks[place / 2], place % 2 + 1);
}

/* ---- the attentions of a UNet in that order ---- */

struct places {
    struct unet_attention *at[SHARING_PLACES];
    int64_t width[SHARING_PLACES];
    int count;
};

static void take(struct places *s, struct unet_transformer *t)
{
    for (int i = 0; i < t->depth; i++) {
        struct unet_attention *both[] = {&t->blocks[i].self, &t->blocks[i].cross};
        for (int k = 0; k < 2; k++, s->count++)
            if (s->count < SHARING_PLACES) {
                s->at[s->count] = both[k];
                s->width[s->count] = t->width;
            }
    }
}

static void find_places(struct places *s, struct unet *m)
{
    *s = (struct places){.count = 0};
    for (int i = 0; i < m->config.levels; i++)
        for (int j = 0; j < m->config.blocks[i]; j++) take(s, &m->level[i].down[j].transformer);
    for (int i = m->config.levels - 1; i >= 0; i--)
        for (int j = 0; j <= m->config.blocks[i]; j++) take(s, &m->level[i].up[j].transformer);
    take(s, &m->mid.transformer);
}

/* ---- weights ---- */

static int copy(struct weight *w, const struct weight_store *store, int place, const char *name,
                int rank, int64_t width, struct error *err)
{
    char key[96];
    snprintf(key, sizeof key, "%s%d.%s", prefix, place, name);
    const struct safetensors_entry *e = weight_store_find(store, key);
    if (!e) return error_set(err, ERR_FORMAT, "%s: %s is missing", weight_store_path(store), key);
    if (e->rank != rank || e->dim[0] != width || (rank == 2 && e->dim[1] != width))
        return error_set(err, ERR_FORMAT, "%s: %s is %lld wide, the model's layer %lld",
                         weight_store_path(store), key, (long long)e->dim[0], (long long)width);
    if (weight_copy(w, e, rank)) return 0;
    return error_set(err, ERR_NO_MEMORY, "no memory for %s", weight_store_path(store));
}

static int attach(struct unet_attention *a, const struct weight_store *store, int place,
                  int64_t width, struct error *err)
{
    struct unet_share *s = a->share = alloc_zero(1, sizeof *s);
    struct {
        struct weight *w;
        const char *name;
        int rank;
    } parts[] = {
        {&s->norm.w, "temporal_n.weight", 1},  {&s->norm.b, "temporal_n.bias", 1},
        {&s->in.w, "temporal_i.weight", 2},    {&s->in.b, "temporal_i.bias", 1},
        {&s->value.w, "temporal_v.weight", 2}, {&s->value.b, "temporal_v.bias", 1},
        {&s->out.w, "temporal_o.weight", 2},   {&s->out.b, "temporal_o.bias", 1},
    };
    int rc = 0;
    for (size_t i = 0; i < COUNT_OF(parts) && !rc; i++)
        rc = copy(parts[i].w, store, place, parts[i].name, parts[i].rank, width, err);
    return rc;
}

int attention_sharing_attach(struct unet *m, const struct weight_store *store, struct error *err)
{
    struct places s;
    find_places(&s, m);
    if (s.count != SHARING_PLACES)
        return error_set(err, ERR_FORMAT, "%s is for %d attentions of SD 1.x, the model has %d",
                         weight_store_path(store), SHARING_PLACES, s.count);
    int rc = 0;
    for (int i = 0; i < SHARING_PLACES && !rc; i++) rc = attach(s.at[i], store, i, s.width[i], err);
    return rc;
}

void attention_sharing_detach(struct unet *m, struct device *d)
{
    struct places s;
    find_places(&s, m);
    for (int i = 0; i < SHARING_PLACES && i < s.count; i++) {
        struct unet_share *share = s.at[i]->share;
        if (!share) continue;
        struct weight *all[] = {&share->norm.w,  &share->norm.b,  &share->in.w,  &share->in.b,
                                &share->value.w, &share->value.b, &share->out.w, &share->out.b};
        for (size_t k = 0; k < COUNT_OF(all); k++) {
            void *data = (void *)(uintptr_t)all[k]->k.data;
            weight_release(all[k], d);
            free(data);
        }
        free(share);
        s.at[i]->share = NULL;
    }
}
