/*
 * make_checkpoint.c - a single-file checkpoint of full size with random weights.
 *
 * usage: kiln-make-checkpoint sd1|sdxl fp16|bf16|fp32 OUT.safetensors [SEED]
 *
 * The shapes and names are those of the published files (LDM layout); the numbers are drawn so that
 * activations stay finite. For memory and speed: the pictures mean nothing.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/str.h"
#include "diffusion/text/clip_text.h"
#include "diffusion/unet/unet.h"
#include "diffusion/vae/vae.h"
#include "tensor/safetensors.h"

struct making {
    const char *prefix;
    enum dialect dialect; /* CLIP-L keeps its HF names inside single files */
    enum dtype dtype;
    uint64_t state;
    struct safetensors_entry *entries;
    size_t count, room;
};

static double uniform(struct making *m)
{
    m->state ^= m->state << 13;
    m->state ^= m->state >> 7;
    m->state ^= m->state << 17;
    return (double)(m->state >> 11) * 0x1p-53 * 2 - 1;
}

/* Matrices: uniform with variance 1 / fan_in. Vectors: near 1 for a norm's factor, near 0 else. */
static void fill(struct making *m, struct safetensors_entry *e)
{
    int64_t count = 1, fan = 1;
    for (int i = 0; i < e->rank; i++) count *= e->dim[i];
    for (int i = 1; i < e->rank; i++) fan *= e->dim[i];
    bool factor = e->rank == 1 && str_ends(e->name, ".weight");
    double scale = e->rank > 1 ? sqrt(3.0 / (double)fan) : 0.05;
    e->bytes = (size_t)count * dtype_bytes(e->dtype);
    uint8_t *data = alloc_try_aligned(64, e->bytes);
    KILN_ASSERT(data, "%zu bytes", e->bytes);
    float row[1024];
    for (int64_t i = 0; i < count; i += 1024) {
        int64_t n = count - i < 1024 ? count - i : 1024;
        for (int64_t j = 0; j < n; j++) row[j] = (float)(factor + scale * uniform(m));
        dtype_convert(data + (size_t)i * dtype_bytes(e->dtype), e->dtype, row, DTYPE_F32, n);
    }
    e->data = data;
}

static int add(struct weight_visitor *v, struct weight *w, const struct weight_site *site,
               struct error *err)
{
    struct making *m = v->context;
    (void)w;
    (void)err;
    int64_t stacked = site->stacked_of[m->dialect];
    if (stacked && site->stacked_from[m->dialect]) return 0; /* written with its first part */
    if (m->count == m->room) {
        m->room = m->room ? 2 * m->room : 1024;
        m->entries = alloc_grow(m->entries, m->room, sizeof *m->entries);
    }
    struct safetensors_entry *e = &m->entries[m->count++];
    *e = (struct safetensors_entry){.dtype = m->dtype, .rank = site->rank};
    e->name = alloc_printf("%s%s", m->prefix, site->name[m->dialect]);
    for (int i = 0; i < site->rank; i++) e->dim[i] = site->dim[i];
    if (stacked) e->dim[0] = stacked;
    if (site->transposed[m->dialect]) {
        int64_t swap = e->dim[0];
        e->dim[0] = e->dim[1];
        e->dim[1] = swap;
    }
    fill(m, e);
    return 0;
}

static struct weight_visitor visitor(struct making *m, const char *prefix, enum dialect dialect,
                                     struct error *err)
{
    m->prefix = prefix;
    m->dialect = dialect;
    return (struct weight_visitor){.visit = add, .context = m, .err = err};
}

static int add_unet(struct making *m, bool xl, struct error *err)
{
    struct unet_config c = {.levels = xl ? 3 : 4,
                            .in_channels = 4,
                            .out_channels = 4,
                            .time = 1280,
                            .groups = 32,
                            .mid_present = true,
                            .mid_second = true};
    static const int sd1[] = {1, 1, 1, 0}, sdxl[] = {0, 2, 10, 0}, wide[] = {1, 2, 4, 4};
    for (int l = 0; l < c.levels; l++) {
        int depth = xl ? sdxl[l] : sd1[l];
        c.blocks[l] = 2;
        c.channels[l] = 320 * wide[l];
        c.heads[l] = xl ? c.channels[l] / 64 : 8;
        for (int i = 0; i < 2; i++) c.depth_down[l][i] = depth;
        for (int i = 0; i < 3; i++) c.depth_up[l][i] = depth;
    }
    c.depth_mid = xl ? 10 : 1;
    c.context = xl ? 2048 : 768;
    c.vector = xl ? 2816 : 0;
    c.conv_proj = !xl;
    struct unet *u = alloc_zero(1, sizeof *u);
    int rc = unet_init(u, &c, err);
    if (rc) return rc;
    struct weight_visitor v = visitor(m, "model.diffusion_model.", DIALECT_LDM, err);
    unet_visit(&v, u);
    return v.failed;
}

static int add_vae(struct making *m, bool xl, struct error *err)
{
    struct vae_config c = {.levels = 4,
                           .blocks = 2,
                           .channels = {128, 256, 512, 512},
                           .latent_channels = 4,
                           .groups = 32,
                           .encoder = true,
                           .decoder = true,
                           .quant = true,
                           .scale = xl ? 0.13025 : 0.18215};
    struct vae *a = alloc_zero(1, sizeof *a);
    int rc = vae_init(a, &c, err);
    if (rc) return rc;
    struct weight_visitor v = visitor(m, "first_stage_model.", DIALECT_LDM, err);
    vae_visit(&v, a);
    return v.failed;
}

static int add_text(struct making *m, const char *prefix, int layers, int64_t width,
                    int64_t projection, struct error *err)
{
    struct clip_text_config c = {.layers = layers,
                                 .width = width,
                                 .heads = width / 64,
                                 .mlp = width * 4,
                                 .vocab = 49408,
                                 .positions = 77,
                                 .projection = projection,
                                 .act = projection ? ACT_GELU : ACT_QUICK_GELU};
    struct clip_text *t = alloc_zero(1, sizeof *t);
    int rc = clip_text_init(t, &c, err);
    if (rc) return rc;
    struct weight_visitor v = visitor(m, prefix, projection ? DIALECT_LDM : DIALECT_HF, err);
    clip_text_visit(&v, t);
    return v.failed;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        enum dtype dtype;
    } dtypes[] = {{"fp16", DTYPE_F16}, {"bf16", DTYPE_BF16}, {"fp32", DTYPE_F32}};
    struct making m = {.state = 88172645463325252ull};
    struct error err = {0};
    bool known = false;
    if (argc < 4 || (!str_equal(argv[1], "sd1") && !str_equal(argv[1], "sdxl"))) {
        fputs("usage: kiln-make-checkpoint sd1|sdxl fp16|bf16|fp32 OUT.safetensors [SEED]\n",
              stderr);
        return 2;
    }
    for (size_t i = 0; i < COUNT_OF(dtypes); i++)
        if (str_equal(argv[2], dtypes[i].name)) {
            m.dtype = dtypes[i].dtype;
            known = true;
        }
    if (!known || (argc > 4 && (!str_parse_u64(argv[4], &m.state) || !m.state))) return 2;
    bool xl = str_equal(argv[1], "sdxl");
    int rc = add_unet(&m, xl, &err);
    if (!rc) rc = add_vae(&m, xl, &err);
    if (!rc && xl) {
        rc = add_text(&m, "conditioner.embedders.0.transformer.", 12, 768, 0, &err);
        if (!rc) rc = add_text(&m, "conditioner.embedders.1.model.", 32, 1280, 1280, &err);
    } else if (!rc) {
        rc = add_text(&m, "cond_stage_model.transformer.", 12, 768, 0, &err);
    }
    if (!rc) rc = safetensors_write(argv[3], m.entries, m.count, NULL, 0, &err);
    if (rc) {
        fprintf(stderr, "kiln-make-checkpoint: %s\n", err.text);
        return 1;
    }
    printf("%s: %zu tensors\n", argv[3], m.count);
    return 0;
}
