#include "diffusion/control/control_net.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/str.h"
#include "diffusion/file_kind.h"

#define HINT_LAYERS 8

struct control_net {
    struct unet encoder; /* way down and middle only */
    struct layer hint[HINT_LAYERS], zero[UNET_SKIPS_MAX], zero_middle;
    int64_t hint_channels[HINT_LAYERS + 1];
    int64_t zero_channels[UNET_SKIPS_MAX];
    int zeros;
    struct weight_store *store;
    struct device *device;
    void **merged; /* weights of a difference file after adding the model's */
    size_t merged_count;
};

static const char *const prefixes[] = {"control_model.", "", NULL};

/* ---- names ---- */

static void visit_own(struct weight_visitor *v, struct control_net *net)
{
    char ldm[64], hf[64];
    for (int i = 0; i < HINT_LAYERS; i++) {
        snprintf(ldm, sizeof ldm, "input_hint_block.%d", 2 * i);
        snprintf(hf, sizeof hf, "controlnet_cond_embedding.blocks.%d", i - 1);
        if (i == 0) snprintf(hf, sizeof hf, "controlnet_cond_embedding.conv_in");
        if (i == HINT_LAYERS - 1) snprintf(hf, sizeof hf, "controlnet_cond_embedding.conv_out");
        visit_conv(v, &net->hint[i], ldm, hf, net->hint_channels[i + 1], net->hint_channels[i], 3,
                   true);
    }
    for (int i = 0; i < net->zeros; i++) {
        int64_t c = net->zero_channels[i];
        snprintf(ldm, sizeof ldm, "zero_convs.%d.0", i);
        snprintf(hf, sizeof hf, "controlnet_down_blocks.%d", i);
        visit_conv(v, &net->zero[i], ldm, hf, c, c, 1, true);
    }
    const struct unet_config *c = &net->encoder.config;
    int64_t deep = c->channels[c->levels - 1];
    visit_conv(v, &net->zero_middle, "middle_block_out.0", "controlnet_mid_block", deep, deep, 1,
               true);
}

static void visit_net(struct weight_visitor *v, void *part)
{
    struct control_net *net = part;
    unet_visit_encoder(v, &net->encoder);
    visit_own(v, net);
}

/* ---- opening ---- */

static int detect_hint(struct control_net *net, const char *prefix, enum dialect dialect,
                       struct error *err)
{
    char name[128];
    net->hint_channels[0] = 3;
    for (int i = 0; i < HINT_LAYERS; i++) {
        if (dialect == DIALECT_LDM)
            snprintf(name, sizeof name, "input_hint_block.%d.weight", 2 * i);
        else if (i == 0 || i == HINT_LAYERS - 1)
            snprintf(name, sizeof name, "controlnet_cond_embedding.conv_%s.weight",
                     i ? "out" : "in");
        else
            snprintf(name, sizeof name, "controlnet_cond_embedding.blocks.%d.weight", i - 1);
        const struct safetensors_entry *e = weight_store_find_in(net->store, prefix, name);
        if (!e || e->rank != 4)
            return error_set(err, ERR_FORMAT, "%s is no ControlNet (%s%s is missing)",
                             weight_store_path(net->store), prefix, name);
        net->hint_channels[i + 1] = e->dim[0];
    }
    return 0;
}

static void count_zeros(struct control_net *net)
{
    const struct unet_config *c = &net->encoder.config;
    net->zero_channels[net->zeros++] = c->channels[0];
    for (int i = 0; i < c->levels; i++) {
        for (int j = 0; j < c->blocks[i]; j++) net->zero_channels[net->zeros++] = c->channels[i];
        if (i + 1 < c->levels) net->zero_channels[net->zeros++] = c->channels[i];
    }
}

static const char *family_of_context(int64_t width)
{
    switch (width) {
    case 768: return "SD 1.x";
    case 1024: return "SD 2.x";
    case 2048: return "SDXL";
    default: return "another model";
    }
}

static int fit_model(const struct unet_config *c, const struct model *m, const char *path,
                     struct error *err)
{
    const struct unet_config *u = &m->unet.config;
    bool same = c->context == u->context && c->levels == u->levels && c->vector == u->vector;
    for (int i = 0; same && i < c->levels; i++)
        same = c->channels[i] == u->channels[i] && c->blocks[i] == u->blocks[i];
    return same ? 0
                : error_set(err, ERR_INVALID,
                            "%s was made for %s (text states %lld wide), the model is %s (%lld)",
                            path, family_of_context(c->context), (long long)c->context,
                            family_people(m->info.family), (long long)u->context);
}

/* ---- difference files ---- */

struct base_weight {
    const char *name;
    const struct weight *w;
};
struct base_list {
    struct base_weight *items;
    size_t count, room;
    enum dialect dialect;
    struct control_net *net;
};

static int note_base(struct weight_visitor *v, struct weight *w, const struct weight_site *site,
                     struct error *err)
{
    struct base_list *l = v->context;
    if (l->count == l->room) {
        l->room = l->room ? 2 * l->room : 512;
        l->items = alloc_grow(l->items, l->room, sizeof *l->items);
    }
    l->items[l->count++] = (struct base_weight){alloc_string(site->name[DIALECT_LDM]), w};
    return 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct base_weight *)a)->name, ((const struct base_weight *)b)->name);
}

static int add_base(struct weight_visitor *v, struct weight *w, const struct weight_site *site,
                    struct error *err)
{
    struct base_list *l = v->context;
    struct base_weight key = {.name = site->name[DIALECT_LDM]};
    struct base_weight *hit = bsearch(&key, l->items, l->count, sizeof key, by_name);
    if (!hit || weight_count(hit->w) != weight_count(w)) return 0;
    int64_t n = weight_count(w);
    uint8_t *sum = alloc_try_aligned(64, (size_t)(n + 1) * dtype_bytes(w->k.dtype));
    if (!sum) return error_set(err, ERR_NO_MEMORY, "no memory to add %s", key.name);
    for (int64_t i = 0; i < n; i++)
        dtype_set(sum, w->k.dtype, i,
                  dtype_get(w->k.data, w->k.dtype, i) +
                      dtype_get(hit->w->k.data, hit->w->k.dtype, i));
    struct control_net *net = l->net;
    net->merged = alloc_grow(net->merged, net->merged_count + 1, sizeof *net->merged);
    net->merged[net->merged_count++] = sum;
    w->k.data = sum;
    return 0;
}

static int add_model(struct control_net *net, struct model *m, struct error *err)
{
    struct base_list list = {.net = net};
    struct weight_visitor v = {.visit = note_base, .context = &list};
    unet_visit_encoder(&v, &m->unet);
    qsort(list.items, list.count, sizeof *list.items, by_name);
    v = (struct weight_visitor){.visit = add_base, .context = &list, .err = err};
    unet_visit_encoder(&v, &net->encoder);
    for (size_t i = 0; i < list.count; i++) free((char *)list.items[i].name);
    free(list.items);
    return v.failed;
}

static int load(struct control_net *net, struct model *m, const char *prefix, enum dialect dialect,
                struct error *err)
{
    struct weight_loading loading = {
        .store = net->store, .prefix = prefix, .component = "the ControlNet", .dialect = dialect};
    struct weight_visitor v = {.visit = weight_load, .context = &loading, .err = err};
    visit_net(&v, net);
    if (v.failed) return v.failed;
    int rc = weight_loading_check(&loading, err);
    if (!rc && weight_store_find(net->store, "difference")) rc = add_model(net, m, err);
    if (rc) return rc;
    struct weight_packing packing = {m->device, net->store, m->dtype};
    v = (struct weight_visitor){.visit = weight_pack, .context = &packing, .err = err};
    visit_net(&v, net);
    return v.failed;
}

static int open_net(struct control_net *net, struct model *m, const char *path, struct error *err)
{
    enum file_kind kind;
    int rc = file_kind_of(&kind, path, err);
    if (rc) return rc;
    char *file = kind == FILE_FOLDER ? model_component_file(path, ".", "diffusion_pytorch_model")
                                     : alloc_string(path);
    if (!file) return error_set(err, ERR_NOT_FOUND, "%s holds no ControlNet weights", path);
    rc = weight_store_open(&net->store, file, err);
    free(file);
    if (rc) return rc;
    const char *prefix = model_find_prefix(net->store, prefixes, "input_hint_block.0.weight");
    if (!prefix)
        prefix =
            model_find_prefix(net->store, prefixes, "controlnet_cond_embedding.conv_in.weight");
    if (!prefix) return error_set(err, ERR_FORMAT, "%s holds no ControlNet", path);

    struct unet_config c;
    enum dialect dialect;
    rc = unet_detect(&c, net->store, prefix, &dialect, err);
    if (!rc) rc = fit_model(&c, m, path, err);
    if (rc) return rc;
    c.out_channels = c.in_channels;
    c.groups = m->unet.config.groups;
    memcpy(c.heads, m->unet.config.heads, sizeof c.heads);
    memset(c.depth_up, 0, sizeof c.depth_up);
    rc = unet_init(&net->encoder, &c, err);
    if (!rc) rc = detect_hint(net, prefix, dialect, err);
    if (rc) return rc;
    count_zeros(net);
    return load(net, m, prefix, dialect, err);
}

int control_net_open(struct control_net **net, struct model *m, const char *path, struct error *err)
{
    struct control_net *made = alloc_zero(1, sizeof *made);
    made->device = m->device;
    int rc = open_net(made, m, path, err);
    if (rc) {
        control_net_close(made);
        return rc;
    }
    *net = made;
    return 0;
}

void control_net_close(struct control_net *net)
{
    if (!net) return;
    struct weight_visitor v = {.visit = weight_drop, .context = net->device};
    if (net->encoder.config.levels) visit_own(&v, net);
    /* the encoder's way up has no weights, so that releasing it is releasing what was loaded */
    unet_release(&net->encoder, net->device);
    for (size_t i = 0; i < net->merged_count; i++) free(net->merged[i]);
    free(net->merged);
    weight_store_close(net->store);
    free(net);
}

const char *control_net_path(const struct control_net *net)
{
    return weight_store_path(net->store);
}

/* ---- running ---- */

void control_net_set_circular(struct control_net *net, bool circular)
{
    net->encoder.circular = circular;
}

struct tensor control_net_hint(struct pass *p, struct control_net *net, struct tensor picture)
{
    struct tensor h = picture;
    for (int i = 0; i < HINT_LAYERS; i++) {
        struct conv_shape shape = conv_same(3);
        shape.circular = net->encoder.circular;
        if (i == 2 || i == 4 || i == 6) shape.stride = 2;
        struct fuse f = {.act = i + 1 < HINT_LAYERS ? ACT_SILU : ACT_NONE};
        h = layer_conv(p, &net->hint[i], h, shape, &f);
    }
    return h;
}

int control_net_context(struct unet_context *c, struct pass *p, struct control_net *net,
                        struct tensor text, struct tensor vector)
{
    return unet_context_init(c, p, &net->encoder, text, vector);
}

struct unet_time control_net_time(struct pass *p, const struct control_net *net, const double *time,
                                  int64_t n)
{
    return unet_time_input(p, &net->encoder, time, n);
}

void control_net_forward(struct pass *p, struct control_net *net, struct tensor x,
                         struct unet_time time, const struct unet_context *c, struct tensor hint,
                         double strength, struct unet_residuals *r)
{
    struct tensor skip[UNET_SKIPS_MAX];
    struct conv_shape three = conv_same(3);
    int count = 0;
    three.circular = net->encoder.circular;
    *r = (struct unet_residuals){0};
    struct unet_moment t = unet_time_embedding(p, &net->encoder, time, c);
    struct tensor h = layer_conv(p, &net->encoder.conv_in, x, three, &(struct fuse){.add = hint});
    h = unet_walk_down(p, &net->encoder, h, t, c, skip, &count);
    h = unet_walk_middle(p, &net->encoder, h, t, c);
    KILN_ASSERT(count == net->zeros, "%d skips, %d zero convolutions", count, net->zeros);
    for (int i = 0; i < count; i++)
        r->skip[i] =
            op_scale(p, layer_conv(p, &net->zero[i], skip[i], conv_same(1), NULL), strength);
    r->middle = op_scale(p, layer_conv(p, &net->zero_middle, h, conv_same(1), NULL), strength);
    r->count = count;
}
