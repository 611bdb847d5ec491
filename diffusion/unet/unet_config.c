/* What kind of UNet a file holds, read from its names and shapes. */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "diffusion/unet/unet.h"

struct probe {
    const struct weight_store *store;
    const char *prefix;
};

static const struct safetensors_entry *find(const struct probe *p, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static const struct safetensors_entry *find(const struct probe *p, const char *format, ...)
{
    char name[WEIGHT_NAME_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    return weight_store_find_in(p->store, p->prefix, name);
}

static int transformer_depth(const struct probe *p, const char *path)
{
    int n = 0;
    while (find(p, "%s.transformer_blocks.%d.norm1.weight", path, n)) n++;
    return n;
}

/* Paths of the residual block and of its transformer, level i, block j of the way down or up. */
struct block_paths {
    char res[64], transformer[64];
};

static struct block_paths paths_ldm(const char *side, int index)
{
    struct block_paths b;
    snprintf(b.res, sizeof b.res, "%s.%d.0.in_layers.0.weight", side, index);
    snprintf(b.transformer, sizeof b.transformer, "%s.%d.1", side, index);
    return b;
}

static struct block_paths paths_hf(const char *side, int level, int block)
{
    struct block_paths b;
    snprintf(b.res, sizeof b.res, "%s.%d.resnets.%d.norm1.weight", side, level, block);
    snprintf(b.transformer, sizeof b.transformer, "%s.%d.attentions.%d", side, level, block);
    return b;
}

static int64_t first_dim(const struct safetensors_entry *e)
{
    return e && e->rank > 0 ? e->dim[0] : 0;
}

static int64_t second_dim(const struct safetensors_entry *e)
{
    return e && e->rank > 1 ? e->dim[1] : 0;
}

static int too_many(const struct weight_store *store, const char *what, struct error *err)
{
    return error_set(err, ERR_UNSUPPORTED, "%s: the UNet has more %s than Kiln knows",
                     weight_store_path(store), what);
}

static int walk_ldm(struct unet_config *c, const struct probe *p, struct error *err)
{
    int level = 0;
    for (int index = 1;; index++) {
        struct block_paths b = paths_ldm("input_blocks", index);
        if (find(p, "%s", b.res)) {
            int j = c->blocks[level]++;
            if (j == UNET_BLOCKS_MAX) return too_many(p->store, "blocks a level", err);
            c->depth_down[level][j] = transformer_depth(p, b.transformer);
            c->channels[level] = first_dim(find(p, "input_blocks.%d.0.out_layers.3.weight", index));
        } else if (find(p, "input_blocks.%d.0.op.weight", index)) {
            if (++level == UNET_LEVELS_MAX) return too_many(p->store, "levels", err);
        } else {
            break;
        }
    }
    c->levels = level + 1;
    int index = 0;
    for (int i = level; i >= 0; i--)
        for (int j = 0; j <= c->blocks[i]; j++)
            c->depth_up[i][j] =
                transformer_depth(p, paths_ldm("output_blocks", index++).transformer);
    c->depth_mid = transformer_depth(p, "middle_block.1");
    c->mid_present = find(p, "middle_block.0.in_layers.0.weight") != NULL;
    c->mid_second = find(p, "middle_block.2.in_layers.0.weight") != NULL;
    return 0;
}

static int walk_hf(struct unet_config *c, const struct probe *p, struct error *err)
{
    int level = 0;
    for (;; level++) {
        if (!find(p, "%s", paths_hf("down_blocks", level, 0).res)) break;
        if (level == UNET_LEVELS_MAX) return too_many(p->store, "levels", err);
        for (int j = 0;; j++) {
            struct block_paths b = paths_hf("down_blocks", level, j);
            if (!find(p, "%s", b.res)) break;
            if (j == UNET_BLOCKS_MAX) return too_many(p->store, "blocks a level", err);
            c->depth_down[level][j] = transformer_depth(p, b.transformer);
            c->blocks[level] = j + 1;
        }
        c->channels[level] = first_dim(find(p, "down_blocks.%d.resnets.0.conv1.weight", level));
    }
    c->levels = level;
    for (int i = 0; i < level; i++)
        for (int j = 0; j <= c->blocks[i]; j++)
            c->depth_up[i][j] =
                transformer_depth(p, paths_hf("up_blocks", level - 1 - i, j).transformer);
    c->depth_mid = transformer_depth(p, "mid_block.attentions.0");
    c->mid_present = find(p, "mid_block.resnets.0.norm1.weight") != NULL;
    c->mid_second = find(p, "mid_block.resnets.1.norm1.weight") != NULL;
    return 0;
}

/* The first of the same tensor's two names that is there. */
static const struct safetensors_entry *either(const struct probe *p, const char *ldm,
                                              const char *hf)
{
    const struct safetensors_entry *e = find(p, "%s", ldm);
    return e ? e : find(p, "%s", hf);
}

static void read_attention(struct unet_config *c, const struct probe *p, enum dialect dialect)
{
    char path[64];
    int index = 1;
    for (int i = 0; i < c->levels; i++, index++)
        for (int j = 0; j < c->blocks[i]; j++, index++) {
            if (!c->depth_down[i][j]) continue;
            struct block_paths b = dialect == DIALECT_LDM ? paths_ldm("input_blocks", index)
                                                          : paths_hf("down_blocks", i, j);
            snprintf(path, sizeof path, "%s", b.transformer);
            c->context = second_dim(find(p, "%s.transformer_blocks.0.attn2.to_k.weight", path));
            const struct safetensors_entry *proj = find(p, "%s.proj_in.weight", path);
            c->conv_proj = proj && proj->rank == 4;
            return;
        }
}

int unet_detect(struct unet_config *config, const struct weight_store *store, const char *prefix,
                enum dialect *dialect, struct error *err)
{
    struct probe p = {store, prefix};
    struct unet_config c = {.groups = 32};
    enum dialect found = find(&p, "input_blocks.0.0.weight") ? DIALECT_LDM : DIALECT_HF;
    const struct safetensors_entry *in = either(&p, "input_blocks.0.0.weight", "conv_in.weight");
    if (!in || in->rank != 4)
        return error_set(err, ERR_FORMAT,
                         "%s holds no UNet (neither %sinput_blocks.0.0.weight nor "
                         "%sconv_in.weight)",
                         weight_store_path(store), prefix, prefix);
    c.in_channels = in->dim[1];
    c.out_channels = first_dim(either(&p, "out.2.weight", "conv_out.weight"));
    c.time = first_dim(either(&p, "time_embed.0.weight", "time_embedding.linear_1.weight"));
    c.guidance =
        second_dim(either(&p, "time_embed.cond_proj.weight", "time_embedding.cond_proj.weight"));
    c.vector = second_dim(either(&p, "label_emb.0.0.weight", "add_embedding.linear_1.weight"));

    int rc = found == DIALECT_LDM ? walk_ldm(&c, &p, err) : walk_hf(&c, &p, err);
    if (rc) return rc;
    if (c.levels < 1 || !c.mid_present || !c.time)
        return error_set(err, ERR_FORMAT, "%s: the UNet lacks its blocks or time embedding",
                         weight_store_path(store));
    read_attention(&c, &p, found);
    for (int i = 0; i < c.levels; i++)
        c.heads[i] = c.conv_proj ? 8 : c.channels[i] >= 64 ? c.channels[i] / 64 : 1;
    *config = c;
    *dialect = found;
    return 0;
}
