#include "diffusion/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/now.h"
#include "base/str.h"
#include "diffusion/control/control_net.h"
#include "diffusion/file_kind.h"
#include "diffusion/layered/alpha_decoder.h"
#include "diffusion/lora/lora.h"
#include "diffusion/model_json.h"
#include "diffusion/text/clip_text.h"
#include "diffusion/vae/taesd.h"
#include "kernels/weight_pool.h"

/* ---- finding things ---- */

const char *model_find_prefix(const struct weight_store *store, const char *const *prefixes,
                              const char *name)
{
    for (; *prefixes; prefixes++)
        if (weight_store_find_in(store, *prefixes, name)) return *prefixes;
    return NULL;
}

static bool exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0;
}

char *model_component_file(const char *folder, const char *component, const char *name)
{
    static const char *const forms[] = {
        "%s/%s/%s.safetensors",         "%s/%s/%s.safetensors.index.json",
        "%s/%s/%s.fp16.safetensors",    "%s/%s/%s.safetensors.index.fp16.json",
        "%s/%s/%s.non_ema.safetensors", "%s/%s/%s.bin",
    };
    char path[1024];
    for (size_t i = 0; i < COUNT_OF(forms); i++) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        int n = snprintf(path, sizeof path, forms[i], folder, component, name);
#pragma GCC diagnostic pop
        if (n > 0 && (size_t)n < sizeof path && exists(path)) return alloc_string(path);
    }
    return NULL;
}

int model_add_store(struct model *m, struct weight_store **store, const char *path,
                    struct error *err)
{
    KILN_ASSERT(m->store_count < MODEL_STORES_MAX, "too many files");
    int rc = weight_store_open(store, path, err);
    if (!rc) m->stores[m->store_count++] = *store;
    return rc;
}

int model_load_weights(struct model *m, void *part, model_visit visit, struct weight_store *store,
                       const char *prefix, enum dialect dialect, const char *component,
                       struct error *err)
{
    struct weight_loading loading = {
        .store = store, .prefix = prefix, .component = component, .dialect = dialect};
    struct weight_visitor v = {.visit = weight_load, .context = &loading, .err = err};
    visit(&v, part);
    if (v.failed) return v.failed;
    int rc = weight_loading_check(&loading, err);
    if (!rc) m->info.weight_bytes += loading.bytes;
    return rc;
}

int model_pack_weights(struct model *m, void *part, model_visit visit,
                       const struct weight_store *store, enum dtype activation, struct error *err)
{
    if (m->device->fetches) return 0;
    struct weight_packing packing = {m->device, store, activation};
    struct weight_visitor v = {.visit = weight_pack, .context = &packing, .err = err};
    visit(&v, part);
    return v.failed;
}

int model_load_part(struct model *m, void *part, model_visit visit, struct weight_store *store,
                    const char *prefix, enum dialect dialect, const char *component,
                    enum dtype activation, struct error *err)
{
    int rc = model_load_weights(m, part, visit, store, prefix, dialect, component, err);
    return rc ? rc : model_pack_weights(m, part, visit, store, activation, err);
}

/* ---- the parts ---- */

static void visit_unet(struct weight_visitor *v, void *part)
{
    unet_visit(v, part);
}

static void visit_vae(struct weight_visitor *v, void *part)
{
    vae_visit(v, part);
}

/* Small models of our own say in their metadata what a config.json would say. */
static void unet_metadata(struct unet_config *c, const struct weight_store *s)
{
    const char *text = weight_store_meta(s, "kiln.norm_groups");
    int64_t value;
    if (text && str_parse_i64(text, &value)) c->groups = value;
    text = weight_store_meta(s, "kiln.heads");
    if (text && str_parse_i64(text, &value))
        for (int i = 0; i < c->levels; i++) c->heads[i] = value;
}

static int unet_folder(struct model *m, struct unet_config *c, const char *folder,
                       struct error *err)
{
    struct unet_json j = {0};
    char *path = alloc_printf("%s/unet/config.json", folder);
    int rc = model_json_unet(&j, path, err);
    free(path);
    if (rc) return rc;
    if (j.groups) c->groups = j.groups;
    if (j.size_width) m->size_width = j.size_width;
    for (int i = 0; i < c->levels && j.head_count; i++)
        c->heads[i] = j.heads[i < j.head_count ? i : j.head_count - 1];
    return 0;
}

/* All but what meets the latent, the prediction, the time and the text: those are small or done once. */
static int allow_eight_bits(struct weight_visitor *v, struct weight *w,
                            const struct weight_site *site, struct error *err)
{
    static const char *const not [] = {"time_embed.", "label_emb.",   "input_blocks.0.0.",
                                       "out.2.",      ".emb_layers.", ".attn2.to_k.",
                                       ".attn2.to_v."};
    bool allowed = site->rank >= 2;
    for (size_t i = 0; i < COUNT_OF(not ); i++)
        allowed = allowed && !strstr(site->name[DIALECT_LDM], not [i]);
    w->k.eight_bits = allowed;
    return 0;
}

static int open_unet(struct model *m, struct weight_store *s, const char *prefix,
                     const char *folder, struct error *err)
{
    struct unet_config c;
    int rc = unet_detect(&c, s, prefix, &m->unet_dialect, err);
    if (rc) return rc;
    unet_metadata(&c, s);
    if (folder && (rc = unet_folder(m, &c, folder, err))) return rc;
    rc = model_find_family(m, &c, folder, err);
    if (rc) return rc;
    rc = unet_init(&m->unet, &c, err);
    if (rc) return error_wrap(err, rc, "%s", m->info.path);
    m->unet_store = s;
    m->unet_prefix = prefix;
    rc = model_load_weights(m, &m->unet, visit_unet, s, prefix, m->unet_dialect, "the UNet", err);
    if (!rc && m->eight_bits) {
        struct weight_visitor v = {.visit = allow_eight_bits};
        unet_visit(&v, &m->unet);
    }
    if (!rc) rc = model_pack_weights(m, &m->unet, visit_unet, s, m->dtype, err);
    return rc ? rc : model_find_prediction(m, folder, err);
}

static bool is_sdxl(const struct model *m)
{
    return m->info.family == FAMILY_SDXL || m->info.family == FAMILY_SDXL_REFINER;
}

/* The stream of SDXL's VAE reaches some 10^5, and F16 ends at 65504: 32 times more room. */
#define SDXL_VAE_EXPONENT 5

static int open_vae(struct model *m, struct weight_store *s, const char *prefix, const char *config,
                    struct error *err)
{
    struct vae_config c;
    enum dialect dialect;
    int rc = vae_detect(&c, s, prefix, &dialect, err);
    if (rc) return rc;
    c.scale = is_sdxl(m) ? 0.13025 : 0.18215;
    const char *text = weight_store_meta(s, "kiln.norm_groups");
    int64_t groups;
    if (text && str_parse_i64(text, &groups)) c.groups = groups;
    if (config && exists(config)) {
        struct vae_json j = {0};
        rc = model_json_vae(&j, config, err);
        if (rc) return rc;
        if (j.groups) c.groups = j.groups;
        if (j.scale > 0) c.scale = j.scale;
    }
    if (!c.decoder || c.latent_channels != m->unet.config.out_channels)
        return error_set(
            err, ERR_FORMAT, "%s: a VAE with %lld latent channels%s, the UNet has %lld",
            weight_store_path(s), (long long)c.latent_channels, c.decoder ? "" : " and no decoder",
            (long long)m->unet.config.out_channels);
    m->vae_dtype = m->dtype;
    rc = vae_init(&m->vae, &c, err);
    if (rc) return error_wrap(err, rc, "%s", weight_store_path(s));
    m->vae_store = s;
    rc = model_load_weights(m, &m->vae, visit_vae, s, prefix, dialect, "the VAE", err);
    if (!rc && m->dtype == DTYPE_F16 && is_sdxl(m))
        rc = vae_rescale(&m->vae, SDXL_VAE_EXPONENT, err);
    return rc ? rc : model_pack_weights(m, &m->vae, visit_vae, s, m->vae_dtype, err);
}

static const char *const vae_prefixes[] = {"first_stage_model.", "vae.", "", NULL};

/* A VAE of its own: a file, or a folder with config.json. */
static int open_external_vae(struct model *m, const char *path, struct error *err)
{
    enum file_kind kind;
    int rc = file_kind_of(&kind, path, err);
    if (rc) return rc;
    char *file = kind == FILE_FOLDER ? model_component_file(path, ".", "diffusion_pytorch_model")
                                     : alloc_string(path);
    if (!file) return error_set(err, ERR_NOT_FOUND, "%s holds no VAE weights", path);
    char *config = kind == FILE_FOLDER ? alloc_printf("%s/config.json", path) : NULL;
    struct weight_store *s;
    rc = model_add_store(m, &s, file, err);
    if (!rc && taesd_known(s)) {
        rc = taesd_open(&m->taesd, m->device, s, err);
    } else if (!rc) {
        const char *prefix = model_find_prefix(s, vae_prefixes, "decoder.conv_in.weight");
        rc = open_vae(m, s, prefix ? prefix : "", config, err);
    }
    free(file);
    free(config);
    return rc;
}

static int open_file(struct model *m, const char *path, const char *vae_path, struct error *err)
{
    static const char *const unet_prefixes[] = {"model.diffusion_model.", "", "unet.", NULL};
    struct weight_store *s;
    int rc = model_add_store(m, &s, path, err);
    if (rc) return rc;
    const char *prefix = model_find_prefix(s, unet_prefixes, "input_blocks.0.0.weight");
    if (!prefix) prefix = model_find_prefix(s, unet_prefixes, "conv_in.weight");
    if (!prefix)
        return error_set(err, ERR_FORMAT,
                         "%s holds no UNet: it is no Stable Diffusion checkpoint "
                         "(a LoRA, a VAE, or another family?)",
                         path);
    rc = open_unet(m, s, prefix, NULL, err);
    if (rc) return rc;
    rc = model_open_text(m, NULL, err);
    if (rc) return rc;
    if (vae_path && (rc = open_external_vae(m, vae_path, err))) return rc;
    if (vae_path && !m->taesd) return 0;
    prefix = model_find_prefix(s, vae_prefixes, "decoder.conv_in.weight");
    if (!prefix)
        return error_set(err, ERR_NOT_FOUND, "%s carries no VAE; name one beside the model", path);
    return open_vae(m, s, prefix, NULL, err);
}

static int open_component(struct model *m, struct weight_store **s, const char *folder,
                          const char *component, const char *name, struct error *err)
{
    char *file = model_component_file(folder, component, name);
    if (!file)
        return error_set(err, ERR_NOT_FOUND, "%s/%s holds no %s.safetensors (or .bin)", folder,
                         component, name);
    int rc = model_add_store(m, s, file, err);
    free(file);
    return rc;
}

static int open_folder(struct model *m, const char *folder, const char *vae_path, struct error *err)
{
    struct weight_store *s;
    int rc = open_component(m, &s, folder, "unet", "diffusion_pytorch_model", err);
    if (rc) return rc;
    rc = open_unet(m, s, "", folder, err);
    if (rc) return rc;
    rc = model_open_text(m, folder, err);
    if (rc) return rc;
    if (vae_path && (rc = open_external_vae(m, vae_path, err))) return rc;
    if (vae_path && !m->taesd) return 0;
    rc = open_component(m, &s, folder, "vae", "diffusion_pytorch_model", err);
    if (rc) return rc;
    char *config = alloc_printf("%s/vae/config.json", folder);
    rc = open_vae(m, s, "", config, err);
    free(config);
    return rc;
}

static int choose_dtype(struct model *m, enum precision precision, struct error *err)
{
    static const enum dtype of[] = {
        [PRECISION_FP32] = DTYPE_F32, [PRECISION_BF16] = DTYPE_BF16, [PRECISION_FP16] = DTYPE_F16};
    if ((unsigned)precision > PRECISION_INT8)
        return error_set(err, ERR_INVALID, "precision %d is none", (int)precision);
    m->eight_bits = precision == PRECISION_INT8;
    if (m->eight_bits && !m->device->eight_bits)
        return error_set(err, ERR_UNSUPPORTED,
                         "precision int8: only the CPU multiplies in 8 bits, device %s does not",
                         m->device->name);
    bool own = precision == PRECISION_AUTO || m->eight_bits;
    m->dtype = own ? m->device->default_dtype : of[precision];
    return 0;
}

static void report_ignored(const struct model *m)
{
    size_t count = 0;
    const char *example = "";
    for (int i = 0; i < m->store_count; i++)
        count += weight_store_ignored(m->stores[i], count ? NULL : &example);
    char shown[96];
    str_clean(shown, sizeof shown, example);
    if (count) log_debug("model.ignored", "tensors=%zu example=\"%s\"", count, shown);
}

int model_open(struct model **model, struct device *device, const char *path, const char *vae_path,
               enum precision precision, struct error *err)
{
    double start = now_seconds();
    enum file_kind kind;
    int rc = file_kind_of(&kind, path, err);
    if (rc) return rc;
    struct model *m = alloc_zero(1, sizeof *m);
    m->device = device;
    str_copy(m->info.path, sizeof m->info.path, path);
    m->memory = pass_memory_get(device, PASS_STEPS);
    m->context = pass_memory_get(device, PASS_CONTEXT);
    rc = choose_dtype(m, precision, err);
    if (!rc)
        rc = kind == FILE_FOLDER ? open_folder(m, path, vae_path, err)
                                 : open_file(m, path, vae_path, err);
    if (!rc) rc = model_reserve(m, err);
    if (rc) {
        model_close(m);
        return rc;
    }
    noise_levels_init(&m->levels, m->zero_snr);
    report_ignored(m);
    m->info.load_seconds = now_seconds() - start;
    *model = m;
    return 0;
}

static int rest_one(struct weight_visitor *v, struct weight *w, const struct weight_site *site,
                    struct error *err)
{
    struct model *m = v->context;
    weight_release(w, m->device);
    size_t bytes = weight_present(w) ? (size_t)weight_count(w) * dtype_bytes(w->k.dtype) : 0;
    for (int i = 0; i < m->store_count && bytes; i++)
        weight_store_forget_pages(m->stores[i], w->k.data, bytes);
    return 0;
}

void model_rest(struct model *m)
{
    struct weight_visitor v = {.visit = rest_one, .context = m};
    for (int i = 0; i < m->text.encoders; i++) clip_text_visit(&v, m->text.encoder[i]);
    vae_visit(&v, &m->vae);
    pass_memory_trim(m->memory);
    pass_memory_trim(m->context);
}

void model_close(struct model *m)
{
    if (!m) return;
    record_cache_release(&m->steps);
    for (int i = 0; i < REQUEST_CONTROLS_MAX; i++) {
        control_net_close(m->controls[i]);
        free(m->control_paths[i]);
    }
    if (m->loras) lora_set_release(m->loras);
    free(m->loras);
    pass_memory_put(m->memory);
    pass_memory_put(m->context);
    weight_pool_end(m->pool);
    unet_release(&m->unet, m->device);
    taesd_close(m->taesd);
    alpha_decoder_close(m->alpha);
    vae_release(&m->vae, m->device);
    model_close_text(m);
    weight_pool_free(m->pool);
    for (int i = 0; i < m->store_count; i++) weight_store_close(m->stores[i]);
    free(m);
}

const struct model_info *model_info(const struct model *m)
{
    return &m->info;
}
