#include "diffusion/layout/layout.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/str.h"
#include "diffusion/text/clip_text.h"
#include "diffusion/text/vocab.h"

#define F16_MOST 65504.0
#define CLIP_VOCABULARY 49408

/* Tensors of one file to be. */
struct listing {
    const struct model *model;
    const struct layout_options *o;
    enum dialect dialect;
    const char *prefix;
    bool vae;             /* folders keep a VAE's attention as matrices */
    const char *left_out; /* names that begin so are not written; NULL: none */
    bool no_projection;
    struct safetensors_entry *entry;
    size_t count;
    void **owned;
    size_t owned_count;
};

static void *keep(struct listing *l, void *memory)
{
    l->owned = alloc_grow(l->owned, l->owned_count + 1, sizeof *l->owned);
    return l->owned[l->owned_count++] = memory;
}

static void release(struct listing *l)
{
    for (size_t i = 0; i < l->owned_count; i++) free(l->owned[i]);
    free(l->owned);
    free(l->entry);
    memset(l, 0, sizeof *l);
}

static bool is_float(enum dtype d)
{
    return d == DTYPE_F32 || d == DTYPE_F16 || d == DTYPE_BF16 || d == DTYPE_F64 ||
           d == DTYPE_F8_E4M3 || d == DTYPE_F8_E5M2;
}

int layout_cast(struct safetensors_entry *e, void **made, enum dtype to, struct error *err)
{
    *made = NULL;
    if (!is_float(e->dtype) || e->dtype == to) return 0;
    int64_t n = (int64_t)(e->bytes / dtype_bytes(e->dtype));
    for (int64_t k = 0; to == DTYPE_F16 && k < n; k++) {
        double v = dtype_get(e->data, e->dtype, k);
        if (isfinite(v) && fabs(v) > F16_MOST)
            return error_set(err, ERR_INVALID,
                             "%s holds %g, more than fp16's %g: bf16 or fp32 can hold it", e->name,
                             v, F16_MOST);
    }
    *made = alloc_try((size_t)n + 1, dtype_bytes(to));
    if (!*made) return error_set(err, ERR_NO_MEMORY, "no memory to convert %s", e->name);
    dtype_convert(*made, to, e->data, e->dtype, n);
    e->data = *made;
    e->dtype = to;
    e->bytes = (size_t)n * dtype_bytes(to);
    return 0;
}

/* What the file had, also of a weight that adapters were merged into. */
static enum dtype wanted_dtype(const struct listing *l, const struct weight *w)
{
    if (!l->o->keep) return l->o->dtype;
    for (int i = 0; i < l->model->store_count && w->name; i++) {
        const struct safetensors_entry *e = weight_store_find(l->model->stores[i], w->name);
        if (!e || e->name != w->name) continue;
        if (e->dtype == DTYPE_F32 || e->dtype == DTYPE_F16 || e->dtype == DTYPE_BF16)
            return e->dtype;
    }
    return w->k.dtype;
}

static struct safetensors_entry *append(struct listing *l, const char *name)
{
    if (l->count % 1024 == 0) l->entry = alloc_grow(l->entry, l->count + 1024, sizeof *l->entry);
    struct safetensors_entry *e = &l->entry[l->count++];
    *e = (struct safetensors_entry){.name = keep(l, alloc_printf("%s%s", l->prefix, name))};
    return e;
}

static struct safetensors_entry *find_last(struct listing *l, const char *name)
{
    size_t skip = strlen(l->prefix);
    for (size_t i = l->count; i-- > 0;)
        if (str_equal(l->entry[i].name + skip, name)) return &l->entry[i];
    return NULL;
}

/* q, k and v come one after the other; the first makes room for all. */
static int add_stacked(struct listing *l, const struct safetensors_entry *part,
                       const struct weight_site *site, struct error *err)
{
    int64_t rows = site->stacked_of[l->dialect], from = site->stacked_from[l->dialect];
    struct safetensors_entry *e = from ? find_last(l, site->name[l->dialect]) : NULL;
    if (!e) {
        e = append(l, site->name[l->dialect]);
        e->dtype = part->dtype;
        e->rank = part->rank;
        memcpy(e->dim, part->dim, sizeof e->dim);
        e->dim[0] = rows;
        e->bytes = (size_t)rows * (part->bytes / (size_t)part->dim[0]);
        void *room = alloc_try(e->bytes + 1, 1);
        if (!room) return error_set(err, ERR_NO_MEMORY, "no memory for %s", e->name);
        e->data = keep(l, room);
    }
    size_t row = e->bytes / (size_t)rows;
    int64_t n = (int64_t)(part->bytes / dtype_bytes(part->dtype));
    dtype_convert((uint8_t *)(uintptr_t)e->data + (size_t)from * row, e->dtype, part->data,
                  part->dtype, n);
    return 0;
}

static int add_transposed(struct listing *l, const struct safetensors_entry *whole,
                          const struct weight_site *site, struct error *err)
{
    struct safetensors_entry *e = append(l, site->name[l->dialect]);
    int64_t rows = whole->dim[0], columns = whole->dim[1];
    size_t size = dtype_bytes(whole->dtype);
    uint8_t *to = alloc_try(whole->bytes + 1, 1);
    if (!to) return error_set(err, ERR_NO_MEMORY, "no memory for %s", e->name);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < columns; j++)
            memcpy(to + (size_t)(j * rows + i) * size,
                   (const uint8_t *)whole->data + (size_t)(i * columns + j) * size, size);
    const char *name = e->name;
    *e = *whole;
    e->name = name;
    e->data = keep(l, to);
    e->dim[0] = columns;
    e->dim[1] = rows;
    return 0;
}

static int add(struct weight_visitor *v, struct weight *w, const struct weight_site *site,
               struct error *err)
{
    struct listing *l = v->context;
    const char *name = site->name[l->dialect];
    void *made;
    if (!weight_present(w) || (l->left_out && str_starts(name, l->left_out)) ||
        (l->no_projection && str_starts(name, "text_projection")))
        return 0;
    struct safetensors_entry e = {.name = name, .dtype = w->k.dtype, .rank = site->rank};
    memcpy(e.dim, site->dim, sizeof site->dim);
    if (l->vae && l->dialect == DIALECT_HF && e.rank == 4 && strstr(name, ".attentions.0."))
        e.rank = 2;
    e.data = w->k.data;
    e.bytes = (size_t)weight_count(w) * dtype_bytes(e.dtype);
    int rc = layout_cast(&e, &made, wanted_dtype(l, w), err);
    if (rc) return rc;
    if (made) keep(l, made);
    if (site->stacked_of[l->dialect]) return add_stacked(l, &e, site, err);
    if (site->transposed[l->dialect]) return add_transposed(l, &e, site, err);
    struct safetensors_entry *to = append(l, name);
    e.name = to->name;
    *to = e;
    return 0;
}

static int write_listing(struct listing *l, const char *path, const struct safetensors_meta *meta,
                         size_t meta_count, struct error *err)
{
    return safetensors_write(path, l->entry, l->count, meta, meta_count, err);
}

/* ---- text ---- */

static bool is_sd2(const struct model *m)
{
    return m->info.family == FAMILY_SD2_512 || m->info.family == FAMILY_SD2_768;
}

int layout_text_layers(const struct model *m, int encoder)
{
    const struct clip_text_config *c = &m->encoders[encoder]->config;
    return c->layers - (is_sd2(m) && m->text_dialect[encoder] == DIALECT_LDM && c->layers > 1);
}

bool layout_text_projects(const struct model *m, int encoder)
{
    return m->unet.config.vector && encoder == m->text.encoders - 1 &&
           m->encoders[encoder]->config.projection;
}

/* The layer that single files of SD 2 have behind the last one that is read. */
static void repeat_last_layer(struct listing *l, int layers)
{
    char *from = alloc_printf("%stransformer.resblocks.%d.", l->prefix, layers - 1);
    size_t n = l->count;
    for (size_t i = 0; i < n; i++) {
        if (!str_starts(l->entry[i].name, from)) continue;
        char *name =
            alloc_printf("transformer.resblocks.%d.%s", layers, l->entry[i].name + strlen(from));
        struct safetensors_entry copy = l->entry[i];
        copy.name = append(l, name)->name;
        l->entry[l->count - 1] = copy;
        free(name);
    }
    free(from);
}

static int add_text(struct listing *l, struct model *m, int i, struct error *err)
{
    struct clip_text *t = m->encoders[i];
    struct weight_visitor v = {.visit = add, .context = l, .err = err};
    t->config.bare_names = false;
    clip_text_visit(&v, t);
    if (!v.failed && l->dialect == DIALECT_LDM && is_sd2(m) && t->config.last_dropped)
        repeat_last_layer(l, t->config.layers);
    return v.failed;
}

/* ---- one file ---- */

struct text_place {
    const char *prefix;
    enum dialect dialect;
};

static struct text_place place_of(const struct model *m, int encoder)
{
    static const struct text_place clip = {"cond_stage_model.transformer.", DIALECT_HF},
                                   open_clip = {"cond_stage_model.model.", DIALECT_LDM},
                                   xl = {"conditioner.embedders.0.transformer.", DIALECT_HF},
                                   xl2 = {"conditioner.embedders.1.model.", DIALECT_LDM},
                                   refiner = {"conditioner.embedders.0.model.", DIALECT_LDM};
    switch (m->info.family) {
    case FAMILY_SD1: return clip;
    case FAMILY_SDXL: return encoder ? xl2 : xl;
    case FAMILY_SDXL_REFINER: return refiner;
    default: return open_clip;
    }
}

/* A single file says what its tensors say, and what Kiln's own small models add in metadata. */
static int check_sayable(const struct model *m, struct error *err)
{
    const struct unet_config *u = &m->unet.config;
    double scale = m->unet.config.vector ? 0.13025 : 0.18215;
    for (int i = 0; i < m->text.encoders; i++) {
        const struct clip_text_config *c = &m->encoders[i]->config;
        bool gelu = place_of(m, i).dialect == DIALECT_LDM || c->width == 1024 || c->width == 1280;
        if ((c->act == ACT_GELU) != gelu)
            return error_set(err, ERR_UNSUPPORTED,
                             "text encoder %d of %s has the other family's activation, which a "
                             "single file cannot say",
                             i + 1, m->info.path);
    }
    if (u->groups != m->vae.config.groups)
        return error_set(err, ERR_UNSUPPORTED,
                         "%s: norms of %lld groups in the UNet and %lld in the VAE, which a single "
                         "file cannot say",
                         m->info.path, (long long)u->groups, (long long)m->vae.config.groups);
    if (fabs(m->vae.config.scale - scale) > 1e-9)
        return error_set(err, ERR_UNSUPPORTED,
                         "%s: the VAE's scale is %g, %s's single files mean %g", m->info.path,
                         m->vae.config.scale, family_people(m->info.family), scale);
    return 0;
}

struct said {
    struct safetensors_meta item[64];
    char *owned[8];
    size_t count, owned_count;
};

static void say(struct said *s, const char *key, const char *value)
{
    if (s->count < COUNT_OF(s->item)) s->item[s->count++] = (struct safetensors_meta){key, value};
}

static void say_number(struct said *s, const char *key, int64_t value)
{
    say(s, key, s->owned[s->owned_count++] = alloc_printf("%lld", (long long)value));
}

static int say_all(struct said *s, const struct model *m, const struct layout_options *o,
                   struct error *err)
{
    const struct unet_config *u = &m->unet.config;
    for (size_t i = 0; i < o->meta_count; i++) {
        const char *key = o->meta[i].key;
        if (str_starts(key, "kiln.") || strstr(key, "hash") ||
            str_equal(key, "modelspec.prediction_type"))
            continue;
        say(s, key, o->meta[i].value);
    }
    if (m->info.v_prediction || is_sd2(m))
        say(s, "modelspec.prediction_type", m->info.v_prediction ? "v" : "epsilon");
    if (u->groups != 32) say_number(s, "kiln.norm_groups", u->groups);
    bool usual = true, even = true;
    for (int i = 0; i < u->levels; i++) {
        int64_t rule = u->conv_proj ? 8 : u->channels[i] >= 64 ? u->channels[i] / 64 : 1;
        usual &= u->heads[i] == rule;
        even &= u->heads[i] == u->heads[0];
    }
    if (!usual && !even)
        return error_set(err, ERR_UNSUPPORTED,
                         "%s: attention heads that are unusual and differ by level, which a single "
                         "file cannot say",
                         m->info.path);
    if (!usual) say_number(s, "kiln.heads", u->heads[0]);
    for (int i = 0; i < m->text.encoders; i++) {
        const struct clip_text_config *c = &m->encoders[i]->config;
        if (c->heads == clip_heads(c->width)) continue;
        say_number(s, "kiln.text_heads", c->heads);
        break;
    }
    return 0;
}

/* Names by which other programs know v-prediction where shapes do not tell. */
static void add_marks(struct listing *l, const struct model *m)
{
    static const float one = 1;
    const char *mark[] = {m->info.v_prediction && !is_sd2(m) ? "v_pred" : NULL,
                          m->zero_snr ? "ztsnr" : NULL};
    l->prefix = "";
    for (size_t i = 0; i < COUNT_OF(mark); i++) {
        if (!mark[i]) continue;
        struct safetensors_entry *e = append(l, mark[i]);
        e->dtype = DTYPE_F32;
        e->rank = 1;
        e->dim[0] = 1;
        e->data = &one;
        e->bytes = sizeof one;
    }
}

/* A small model's vocabulary goes beside its file, where it is looked for. */
static int write_vocabulary_beside(const struct model *m, const char *path, struct error *err)
{
    if (vocab_count(m->vocab) == CLIP_VOCABULARY) return 0;
    const char *dot = strrchr(path, '.');
    char *folder =
        alloc_printf("%.*s.tokenizer", (int)(dot ? dot - path : (int)strlen(path)), path);
    int rc = mkdir(folder, 0777) && errno != EEXIST
                 ? error_set_errno(err, ERR_IO, errno, "making %s", folder)
                 : layout_write_tokenizer(m, folder, "<|endoftext|>", err);
    free(folder);
    return rc;
}

int layout_write_single(struct model *m, const char *path, const struct layout_options *o,
                        struct error *err)
{
    struct listing l = {.model = m, .o = o, .dialect = DIALECT_LDM};
    struct weight_visitor v = {.visit = add, .context = &l, .err = err};
    struct said said = {0};
    int rc = check_sayable(m, err);
    if (!rc) rc = say_all(&said, m, o, err);
    if (!rc) {
        l.prefix = "model.diffusion_model.";
        unet_visit(&v, &m->unet);
        l.prefix = "first_stage_model.";
        vae_visit(&v, &m->vae);
        rc = v.failed;
    }
    for (int i = 0; !rc && i < m->text.encoders; i++) {
        struct text_place place = place_of(m, i);
        l.prefix = place.prefix;
        l.dialect = place.dialect;
        rc = add_text(&l, m, i, err);
    }
    if (!rc) add_marks(&l, m);
    if (!rc) rc = write_vocabulary_beside(m, path, err);
    if (!rc) rc = write_listing(&l, path, said.item, said.count, err);
    for (size_t i = 0; i < said.owned_count; i++) free(said.owned[i]);
    release(&l);
    return rc;
}

/* ---- a folder ---- */

int layout_make_folder(const char *path, struct error *err)
{
    if (mkdir(path, 0777) == 0) return 0;
    if (errno == EEXIST)
        return error_set(err, ERR_INVALID, "%s exists already: name a new folder", path);
    return error_set_errno(err, ERR_IO, errno, "making %s", path);
}

static int write_component(struct listing *l, const char *folder, const char *component,
                           const char *file, struct error *err)
{
    static const struct safetensors_meta torch = {"format", "pt"};
    char *path = alloc_printf("%s/%s/%s.safetensors", folder, component, file);
    int rc = write_listing(l, path, &torch, 1, err);
    free(path);
    release(l);
    return rc;
}

static int write_text_component(struct model *m, int i, const char *folder,
                                const struct layout_options *o, struct error *err)
{
    struct listing l = {.model = m, .o = o, .dialect = DIALECT_HF, .prefix = ""};
    bool second = i || m->info.family == FAMILY_SDXL_REFINER;
    char *last = alloc_printf("text_model.encoder.layers.%d.", layout_text_layers(m, i));
    l.left_out = layout_text_layers(m, i) < m->encoders[i]->config.layers ? last : NULL;
    l.no_projection = !layout_text_projects(m, i);
    int rc = add_text(&l, m, i, err);
    if (rc)
        release(&l);
    else
        rc = write_component(&l, folder, second ? "text_encoder_2" : "text_encoder", "model", err);
    free(last);
    return rc;
}

static void visit_unet(struct weight_visitor *v, void *part)
{
    unet_visit(v, part);
}

static void visit_vae(struct weight_visitor *v, void *part)
{
    vae_visit(v, part);
}

static int write_network(struct model *m, void *part, model_visit visit, const char *folder,
                         const char *component, const struct layout_options *o, struct error *err)
{
    struct listing l = {.model = m, .o = o, .dialect = DIALECT_HF, .prefix = ""};
    struct weight_visitor v = {.visit = add, .context = &l, .err = err};
    l.vae = visit == visit_vae;
    visit(&v, part);
    if (!v.failed) return write_component(&l, folder, component, "diffusion_pytorch_model", err);
    release(&l);
    return v.failed;
}

int layout_write_folder(struct model *m, const char *folder, const struct layout_options *o,
                        struct error *err)
{
    m->vae.config.old_names = false;
    int rc = layout_write_configs(m, folder, err);
    if (!rc) rc = write_network(m, &m->unet, visit_unet, folder, "unet", o, err);
    if (!rc) rc = write_network(m, &m->vae, visit_vae, folder, "vae", o, err);
    for (int i = 0; !rc && i < m->text.encoders; i++)
        rc = write_text_component(m, i, folder, o, err);
    return rc ? rc : layout_write_index(m, folder, err);
}
