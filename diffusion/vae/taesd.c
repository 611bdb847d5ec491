#include "diffusion/vae/taesd.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"

#define STAGES 4 /* of blocks, each but the last followed by an enlargement */
#define BLOCKS 3 /* a stage; the last stage has one */

struct taesd_block {
    struct layer conv[3];
};

struct taesd {
    struct device *device;
    int64_t latent, width;
    struct layer in, out, up[STAGES - 1];
    struct taesd_block block[STAGES][BLOCKS];
};

static const char *const prefixes[] = {"", "decoder.", "taesd_decoder.", "decoder.layers.", NULL};

/* The first convolution stands behind the clamp: number 1, number 0 in diffusers. */
static const struct safetensors_entry *find_first(const struct weight_store *s, const char **prefix,
                                                  enum dialect *dialect)
{
    for (int i = 0; prefixes[i]; i++) {
        *prefix = prefixes[i];
        *dialect = prefixes[i + 1] ? DIALECT_LDM : DIALECT_HF;
        const struct safetensors_entry *e =
            weight_store_find_in(s, prefixes[i], *dialect == DIALECT_LDM ? "1.weight" : "0.weight");
        if (e && e->rank == 4 && e->dim[2] == 3) return e;
    }
    return NULL;
}

bool taesd_known(const struct weight_store *store)
{
    const char *prefix;
    enum dialect dialect;
    return find_first(store, &prefix, &dialect) != NULL;
}

static void visit_at(struct weight_visitor *v, struct layer *m, int index, const char *part,
                     int64_t out, int64_t in, bool bias)
{
    char ldm[32], hf[32];
    snprintf(ldm, sizeof ldm, "%d%s", index, part);
    snprintf(hf, sizeof hf, "%d%s", index - 1, part);
    visit_conv(v, m, ldm, hf, out, in, 3, bias);
}

static int blocks_of(int stage)
{
    return stage + 1 < STAGES ? BLOCKS : 1;
}

static void taesd_visit(struct weight_visitor *v, struct taesd *t)
{
    static const char *const parts[3] = {".conv.0", ".conv.2", ".conv.4"};
    int index = 1; /* 0 is the clamp, 2 the first activation */
    visit_at(v, &t->in, index, "", t->width, t->latent, true);
    index = 3;
    for (int s = 0; s < STAGES; s++) {
        for (int b = 0; b < blocks_of(s); b++, index++)
            for (int k = 0; k < 3; k++)
                visit_at(v, &t->block[s][b].conv[k], index, parts[k], t->width, t->width, true);
        if (s + 1 == STAGES) break;
        index++; /* the enlargement */
        visit_at(v, &t->up[s], index++, "", t->width, t->width, false);
    }
    visit_at(v, &t->out, index, "", 3, t->width, true);
}

int taesd_open(struct taesd **tiny, struct device *device, struct weight_store *store,
               struct error *err)
{
    const char *prefix;
    enum dialect dialect;
    const struct safetensors_entry *first = find_first(store, &prefix, &dialect);
    if (!first)
        return error_set(err, ERR_FORMAT, "%s holds no tiny decoder", weight_store_path(store));
    struct taesd *t = alloc_zero(1, sizeof *t);
    t->device = device;
    t->width = first->dim[0];
    t->latent = first->dim[1];
    struct weight_loading l = {
        .store = store, .prefix = prefix, .dialect = dialect, .component = "the tiny decoder"};
    struct weight_visitor v = {.visit = weight_load, .context = &l, .err = err};
    taesd_visit(&v, t);
    int rc = v.failed ? v.failed : weight_loading_check(&l, err);
    if (rc) {
        taesd_close(t);
        return rc;
    }
    *tiny = t;
    return 0;
}

void taesd_close(struct taesd *t)
{
    if (!t) return;
    struct weight_visitor v = {.visit = weight_drop, .context = t->device};
    taesd_visit(&v, t);
    free(t);
}

void taesd_move(struct taesd *t, struct device *to)
{
    if (t) t->device = to;
}

static struct tensor block(struct pass *p, struct taesd_block *b, struct tensor x)
{
    struct fuse relu = {.act = ACT_RELU}, sum = {.add = x};
    struct tensor h = layer_conv(p, &b->conv[0], x, conv_same(3), &relu);
    h = layer_conv(p, &b->conv[1], h, conv_same(3), &relu);
    h = layer_conv(p, &b->conv[2], h, conv_same(3), &sum);
    return op_activation(p, h, ACT_RELU);
}

struct tensor taesd_decode(struct pass *p, struct taesd *t, struct tensor z)
{
    struct conv_shape twice = conv_same(3);
    twice.upsample = 2;
    struct tensor h = op_scale(p, op_activation(p, op_scale(p, z, 1.0 / 3), ACT_TANH), 3);
    h = layer_conv(p, &t->in, h, conv_same(3), &(struct fuse){.act = ACT_RELU});
    for (int s = 0; s < STAGES; s++) {
        for (int b = 0; b < blocks_of(s); b++) h = block(p, &t->block[s][b], h);
        if (s + 1 < STAGES) h = layer_conv(p, &t->up[s], h, twice, NULL);
    }
    h = op_scale(p, layer_conv(p, &t->out, h, conv_same(3), NULL), 2);
    float minus_one = -1;
    return op_mix(p, 1, h, 1, pass_input(p, &minus_one, 1, TENSOR_DIM(1)));
}

int taesd_decode_picture(struct taesd *t, struct pass_memory *memory, enum dtype dtype,
                         const float *latent, int64_t h, int64_t w, float *picture,
                         struct error *err)
{
    struct pass p;
    pass_start(&p, memory, dtype, NULL);
    struct tensor z = pass_input(&p, latent, 4, TENSOR_DIM(1, t->latent, h, w));
    pass_output(&p, picture, taesd_decode(&p, t, op_to_channels_last(&p, z)));
    return pass_finish(&p, err);
}
