#include "diffusion/lora/lora_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/str.h"
#include "diffusion/layered/attention_sharing.h"
#include "diffusion/lora/lora_config.h"

struct suffix {
    const char *text;
    enum lora_tensor tensor;
    bool kron, row_magnitude;
};

/* Longer ones first where one ends another. */
static const struct suffix suffixes[] = {
    {".weight::lora::0", LORA_UP, false, false}, /* LayerDiffuse */
    {".weight::lora::1", LORA_DOWN, false, false},
    {".weight::diff::0", LORA_DIFF, false, false},
    {".bias::diff::0", LORA_DIFF_B, false, false},
    {"_lora.0.down.weight", LORA_DOWN, false, false},
    {"_lora.0.up.weight", LORA_UP, false, false},
    {".lora_linear_layer.down.weight", LORA_DOWN, false, false},
    {".lora_linear_layer.up.weight", LORA_UP, false, false},
    {".lora_magnitude_vector.default.weight", LORA_MAGNITUDE, false, true},
    {".lora_magnitude_vector.weight", LORA_MAGNITUDE, false, true},
    {".lora_magnitude_vector", LORA_MAGNITUDE, false, true},
    {".lora_A.default.weight", LORA_DOWN, false, false},
    {".lora_B.default.weight", LORA_UP, false, false},
    {".lora_down.weight", LORA_DOWN, false, false},
    {".lora_up.weight", LORA_UP, false, false},
    {".lora_mid.weight", LORA_MID, false, false},
    {".lora.down.weight", LORA_DOWN, false, false},
    {".lora.up.weight", LORA_UP, false, false},
    {"_lora.down.weight", LORA_DOWN, false, false},
    {"_lora.up.weight", LORA_UP, false, false},
    {".lora_A.weight", LORA_DOWN, false, false},
    {".lora_B.weight", LORA_UP, false, false},
    {".alpha", LORA_ALPHA, false, false},
    {".dora_scale", LORA_MAGNITUDE, false, false},
    {".diff_b", LORA_DIFF_B, false, false},
    {".b_norm", LORA_DIFF_B, false, false},
    {".diff", LORA_DIFF, false, false},
    {".w_norm", LORA_DIFF, false, false},
    {".hada_w1_a", LORA_W1_A, false, false},
    {".hada_w1_b", LORA_W1_B, false, false},
    {".hada_w2_a", LORA_W2_A, false, false},
    {".hada_w2_b", LORA_W2_B, false, false},
    {".hada_t1", LORA_T1, false, false},
    {".hada_t2", LORA_T2, false, false},
    {".lokr_w1", LORA_W1, true, false},
    {".lokr_w1_a", LORA_W1_A, true, false},
    {".lokr_w1_b", LORA_W1_B, true, false},
    {".lokr_w2", LORA_W2, true, false},
    {".lokr_w2_a", LORA_W2_A, true, false},
    {".lokr_w2_b", LORA_W2_B, true, false},
    {".lokr_t2", LORA_T2, true, false},
    {".a1.weight", LORA_A1, false, false},
    {".a2.weight", LORA_A2, false, false},
    {".b1.weight", LORA_B1, false, false},
    {".b2.weight", LORA_B2, false, false},
    {".bm.weight", LORA_BM, false, false},
    {".on_input", LORA_ON_INPUT, false, false},
    {".ia3_l", LORA_IA3, false, false},
    {".oft_blocks", LORA_BLOCKS, false, false},
    {".rescale", LORA_RESCALE, false, false},
    {".oft_R.default.weight", LORA_OFT_R, false, false},
    {".oft_R.weight", LORA_OFT_R, false, false},
    {".boft_R", LORA_BOFT_R, false, false},
    {".boft_R.default", LORA_BOFT_R, false, false},
    {".boft_s", LORA_BOFT_S, false, false},
    {".boft_s.default", LORA_BOFT_S, false, false},
    {".vera_lambda_b", LORA_VERA_OUT, false, false},
    {".vera_lambda_b.default", LORA_VERA_OUT, false, false},
    {".vera_lambda_d", LORA_VERA_RANK, false, false},
    {".vera_lambda_d.default", LORA_VERA_RANK, false, false},
    {".oft_r", LORA_FOREIGN, false, false},
};

/* "X.weight" is an adapter's beside "X.on_input" only. */
static const struct suffix *find_suffix(const struct weight_store *s, const char *name)
{
    static const struct suffix scale = {".weight", LORA_SCALE, false, false};
    for (size_t i = 0; i < COUNT_OF(suffixes); i++)
        if (str_ends(name, suffixes[i].text)) return &suffixes[i];
    if (!str_ends(name, scale.text)) return NULL;
    char *beside = alloc_printf("%.*s.on_input", (int)(strlen(name) - strlen(scale.text)), name);
    bool found = weight_store_find(s, beside) != NULL;
    free(beside);
    return found ? &scale : NULL;
}

struct prefix {
    const char *text;
    enum lora_part part;
};

static const struct prefix prefixes[] = {
    {"lora_unet_", LORA_UNET},        {"lycoris_unet_", LORA_UNET}, {"lora_te1_", LORA_TEXT},
    {"lora_te2_", LORA_TEXT_2},       {"lora_te_", LORA_TEXT},      {"unet.", LORA_UNET},
    {"text_encoder_2.", LORA_TEXT_2}, {"text_encoder.", LORA_TEXT}, {"lycoris_", LORA_UNET},
    {"diffusion_model.", LORA_UNET},
};

static const struct {
    const char *prefix, *family;
} foreign[] = {
    {"lora_unet_double_blocks", "FLUX"},
    {"lora_unet_single_blocks", "FLUX"},
    {"transformer.", "another family (a diffusion transformer)"},
    {"lora_transformer", "another family (a diffusion transformer)"},
    {"diffusion_model.", "another family (a diffusion transformer)"},
    {"lora_unet_joint_blocks", "SD 3"},
    {"lora_prior_", "Stable Cascade"},
};

/* old diffusers: ".processor.to_q_lora" and ".to_out_lora" stand for to_q and to_out.0 */
static void modernise(char *base)
{
    char *p = strstr(base, ".processor.");
    if (p) memmove(p, p + strlen(".processor"), strlen(p + strlen(".processor")) + 1);
    size_t n = strlen(base);
    if (str_ends(base, ".to_out") && n + 3 < WEIGHT_NAME_BYTES * 2) memcpy(base + n, ".0", 3);
}

/* The place of a key without its suffix: part and path with underscores. */
static void place(struct lora_module *m, const char *key, size_t length)
{
    char base[WEIGHT_NAME_BYTES * 2 + 4];
    snprintf(base, sizeof base, "%.*s", (int)length, key);
    const char *path = base;
    char shared[WEIGHT_NAME_BYTES * 2 + 4];
    const char *rest;
    int at;
    if (str_starts(path, "base_model.model.")) path += strlen("base_model.model.");
    m->part = LORA_UNET;
    modernise(base);
    if (attention_sharing_key(base, &at, &rest)) {
        attention_sharing_place(shared, sizeof shared, at);
        size_t used = strlen(shared);
        snprintf(shared + used, sizeof shared - used, ".%s", rest);
        path = shared;
    }
    if (str_starts(path, "text_model.")) m->part = LORA_TEXT;
    for (size_t i = 0; i < COUNT_OF(prefixes); i++)
        if (str_starts(path, prefixes[i].text)) {
            m->part = prefixes[i].part;
            path += strlen(prefixes[i].text);
            break;
        }
    m->base = alloc_string_n(key, length);
    m->name = alloc_string(path);
    for (char *c = m->name; *c; c++)
        if (*c == '.') *c = '_';
}

static int order(const void *a, const void *b)
{
    const struct lora_module *x = a, *y = b;
    if (x->part != y->part) return x->part < y->part ? -1 : 1;
    return strcmp(x->name, y->name);
}

static bool is_float(enum dtype d)
{
    return d == DTYPE_F32 || d == DTYPE_F16 || d == DTYPE_BF16 || d == DTYPE_F64 ||
           d == DTYPE_F8_E4M3 || d == DTYPE_F8_E5M2;
}

static int merge_modules(struct lora_file *f, struct error *err)
{
    size_t kept = 0;
    int rc = 0;
    qsort(f->modules, f->count, sizeof *f->modules, order);
    for (size_t i = 0; i < f->count; i++) {
        struct lora_module *m = &f->modules[i];
        if (kept == 0 || order(&f->modules[kept - 1], m) != 0) {
            f->modules[kept++] = *m;
            continue;
        }
        struct lora_module *into = &f->modules[kept - 1];
        for (int k = 0; k < LORA_TENSOR_COUNT; k++) {
            if (!m->tensor[k]) continue;
            if (into->tensor[k] && k != LORA_FOREIGN)
                rc = error_set(err, ERR_FORMAT, "%s: %s is there twice, under two names",
                               weight_store_path(f->store), m->base);
            into->tensor[k] = m->tensor[k];
        }
        into->kron |= m->kron;
        into->row_magnitude |= m->row_magnitude;
        free(m->base);
        free(m->name);
    }
    f->count = kept;
    return rc;
}

/* Within its component: without what files put before it. */
static const char *module_path(const struct lora_module *m)
{
    static const char *const before[] = {"base_model.model.", "unet.", "text_encoder.",
                                         "text_encoder_2."};
    const char *path = m->base;
    for (size_t i = 0; i < COUNT_OF(before); i++)
        if (str_starts(path, before[i])) path += strlen(before[i]);
    return path;
}

static void read_alphas(struct lora_file *f, const struct lora_config *config)
{
    static const char *const components[] = {
        [LORA_UNET] = "unet", [LORA_TEXT] = "text_encoder", [LORA_TEXT_2] = "text_encoder_2"};
    for (size_t i = 0; i < f->count; i++) {
        struct lora_module *m = &f->modules[i];
        const struct safetensors_entry *a = m->tensor[LORA_ALPHA];
        if (a && a->bytes) m->alpha = dtype_get(a->data, a->dtype, 0);
        m->series_terms = lora_config_series_terms(config, components[m->part]);
        m->turn_bound = lora_config_turn_bound(config, components[m->part]);
        if (a || !config->known) continue;
        m->alpha = lora_config_alpha(config, components[m->part], module_path(m));
        m->said_rank = lora_config_rank(config, components[m->part], module_path(m));
        m->root_rank = lora_config_root_rank(config, components[m->part]);
    }
}

/* VeRA's projections stand once in a file, or once a component. */
static void share_projections(struct lora_file *f)
{
    static const char *const names[] = {"vera_A", "vera_B", "vera_A.default", "vera_B.default"};
    for (size_t i = 0; i < weight_store_count(f->store); i++) {
        const struct safetensors_entry *e = weight_store_at(f->store, i);
        for (size_t k = 0; k < COUNT_OF(names); k++) {
            size_t length = strlen(e->name), tail = strlen(names[k]);
            if (!str_ends(e->name, names[k]) ||
                (length > tail && e->name[length - tail - 1] != '.'))
                continue;
            struct lora_module owner;
            place(&owner, e->name, length);
            enum lora_tensor to = k % 2 ? LORA_VERA_B : LORA_VERA_A;
            for (size_t j = 0; j < f->count; j++) {
                struct lora_module *m = &f->modules[j];
                if (m->tensor[LORA_VERA_OUT] && (!m->tensor[to] || m->part == owner.part))
                    m->tensor[to] = e;
            }
            free(owner.base);
            free(owner.name);
        }
    }
}

static int read_config(struct lora_file *f, struct lora_config *config, struct error *err)
{
    const char *meta = weight_store_meta(f->store, "lora_adapter_metadata");
    if (meta) return lora_config_parse(config, meta, weight_store_path(f->store), err);
    const char *path = weight_store_path(f->store);
    if (!str_ends(path, "adapter_model.safetensors")) return 0;
    char *beside = alloc_printf("%.*sadapter_config.json",
                                (int)(strlen(path) - strlen("adapter_model.safetensors")), path);
    int rc = lora_config_read(config, beside, err);
    free(beside);
    return rc == ERR_NOT_FOUND ? 0 : rc;
}

int lora_file_open(struct lora_file *f, const char *path, struct error *err)
{
    struct lora_file made = {0};
    struct lora_config config = {0};
    int rc = weight_store_open(&made.store, path, err);
    if (rc) return rc;
    size_t n = weight_store_count(made.store);
    made.modules = alloc_zero(n + 1, sizeof *made.modules);
    for (size_t i = 0; i < n; i++) {
        const struct safetensors_entry *e = weight_store_at(made.store, i);
        const struct suffix *s = find_suffix(made.store, e->name);
        for (size_t k = 0; k < COUNT_OF(foreign) && !made.made_for; k++)
            if (str_starts(e->name, foreign[k].prefix) && !strstr(e->name, "::"))
                made.made_for = foreign[k].family;
        if (!s || strlen(e->name) >= WEIGHT_NAME_BYTES * 2 ||
            (s->tensor != LORA_ALPHA && s->tensor != LORA_ON_INPUT && !is_float(e->dtype)))
            continue;
        struct lora_module *m = &made.modules[made.count++];
        place(m, e->name, strlen(e->name) - strlen(s->text));
        m->tensor[s->tensor] = e;
        m->kron = s->kron;
        m->row_magnitude = s->row_magnitude;
    }
    if (made.count == 0 && !made.made_for)
        rc = error_set(err, ERR_FORMAT,
                       "%s holds no adapter (none of its %zu tensors has a LoRA's "
                       "name)",
                       path, n);
    if (!rc) rc = merge_modules(&made, err);
    if (!rc) rc = read_config(&made, &config, err);
    if (!rc) read_alphas(&made, &config);
    if (!rc) share_projections(&made);
    lora_config_release(&config);
    if (rc) {
        lora_file_close(&made);
        return rc;
    }
    *f = made;
    return 0;
}

void lora_file_close(struct lora_file *f)
{
    for (size_t i = 0; i < f->count; i++) {
        free(f->modules[i].base);
        free(f->modules[i].name);
    }
    free(f->modules);
    weight_store_close(f->store);
    memset(f, 0, sizeof *f);
}

static const char *by_width(const struct lora_file *f)
{
    for (size_t i = 0; i < f->count; i++) {
        const struct lora_module *m = &f->modules[i];
        const struct safetensors_entry *e = m->tensor[LORA_DOWN];
        if (!e || e->rank < 2 || m->part != LORA_UNET || !str_ends(m->name, "attn2_to_k")) continue;
        switch (e->dim[1]) {
        case 768: return "SD 1.x";
        case 1024: return "SD 2.x";
        case 2048: return "SDXL";
        case 1280: return "SDXL refiner";
        default: return NULL;
        }
    }
    return NULL;
}

const char *lora_file_family(const struct lora_file *f)
{
    static const struct {
        const char *start, *family;
    } named[] = {{"sd_v1", "SD 1.x"},
                 {"sd_v2", "SD 2.x"},
                 {"sdxl", "SDXL"},
                 {"stable-diffusion-v1", "SD 1.x"},
                 {"stable-diffusion-v2", "SD 2.x"},
                 {"stable-diffusion-xl", "SDXL"},
                 {"flux", "FLUX"}};
    if (f->made_for) return f->made_for;
    const char *shown = by_width(f);
    if (shown) return shown;
    const char *keys[] = {"ss_base_model_version", "modelspec.architecture"};
    for (size_t k = 0; k < COUNT_OF(keys); k++) {
        const char *said = weight_store_meta(f->store, keys[k]);
        for (size_t i = 0; said && i < COUNT_OF(named); i++)
            if (str_starts(said, named[i].start)) return named[i].family;
    }
    for (size_t i = 0; i < f->count; i++)
        if (f->modules[i].part == LORA_TEXT_2) return "SDXL";
    return NULL;
}
