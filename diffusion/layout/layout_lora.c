/* Adapter files in the other dialect's names: kohya's with underscores, diffusers' PEFT with dots. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "base/alloc.h"
#include "base/str.h"
#include "diffusion/layout/layout.h"
#include "diffusion/lora/lora_file.h"

/* ---- writing ---- */

struct writing {
    struct safetensors_entry *entry;
    size_t count;
    float *alpha; /* one a module */
    char **owned;
    size_t owned_count;
    json_t *said;
};

static char *keep(struct writing *w, char *text)
{
    w->owned = alloc_grow(w->owned, w->owned_count + 1, sizeof *w->owned);
    return w->owned[w->owned_count++] = text;
}

static void append(struct writing *w, const struct safetensors_entry *e, const char *place,
                   const char *suffix)
{
    w->entry = alloc_grow(w->entry, w->count + 1, sizeof *w->entry);
    w->entry[w->count] = *e;
    w->entry[w->count++].name = keep(w, alloc_printf("%s%s", place, suffix));
}

static double alpha_of(const struct lora_module *m, int64_t rank)
{
    double alpha = m->alpha != 0 ? m->alpha : (double)rank;
    return m->root_rank ? alpha * sqrt((double)rank) : alpha;
}

/* Rows that the factors share; 0: nothing is factored. */
static int64_t rank_of(const struct lora_module *m)
{
    static const enum lora_tensor lower[] = {LORA_DOWN, LORA_W2_B, LORA_W1_B};
    for (size_t i = 0; i < COUNT_OF(lower); i++)
        if (m->tensor[lower[i]]) return m->tensor[lower[i]]->dim[0];
    return 0;
}

static const char *form_of(const struct lora_module *m)
{
    const struct safetensors_entry *const *t = m->tensor;
    if (t[LORA_FOREIGN] || t[LORA_OFT_R]) return "OFT of PEFT";
    if (t[LORA_BOFT_R] || t[LORA_BOFT_S]) return "BOFT of PEFT";
    if (t[LORA_VERA_OUT] || t[LORA_VERA_RANK] || t[LORA_VERA_A] || t[LORA_VERA_B])
        return "VeRA of PEFT";
    if (t[LORA_IA3]) return "(IA)^3 of PEFT";
    if (t[LORA_SCALE]) return "(IA)^3";
    if (t[LORA_BLOCKS]) return t[LORA_BLOCKS]->rank == 4 ? "BOFT" : "OFT";
    if (t[LORA_A1] || t[LORA_A2] || t[LORA_B1] || t[LORA_B2]) return "GLoRA";
    if (m->kron) return "LoKr";
    if (t[LORA_W1_A] || t[LORA_W2_A]) return "LoHa";
    if (t[LORA_DIFF] || t[LORA_DIFF_B]) return "a full difference";
    if (!t[LORA_DOWN] || !t[LORA_UP]) return "half of a pair";
    return t[LORA_MID] ? "LoCon with a core" : t[LORA_MAGNITUDE] ? "DoRA" : "LoRA";
}

static const struct {
    enum lora_tensor tensor;
    const char *suffix, *kron;
} kohya_suffixes[] = {
    {LORA_DOWN, ".lora_down.weight", NULL},
    {LORA_UP, ".lora_up.weight", NULL},
    {LORA_MID, ".lora_mid.weight", NULL},
    {LORA_DIFF, ".diff", NULL},
    {LORA_DIFF_B, ".diff_b", NULL},
    {LORA_W1, ".lokr_w1", NULL},
    {LORA_W1_A, ".hada_w1_a", ".lokr_w1_a"},
    {LORA_W1_B, ".hada_w1_b", ".lokr_w1_b"},
    {LORA_W2, ".lokr_w2", NULL},
    {LORA_W2_A, ".hada_w2_a", ".lokr_w2_a"},
    {LORA_W2_B, ".hada_w2_b", ".lokr_w2_b"},
    {LORA_T1, ".hada_t1", NULL},
    {LORA_T2, ".hada_t2", ".lokr_t2"},
    {LORA_A1, ".a1.weight", NULL},
    {LORA_A2, ".a2.weight", NULL},
    {LORA_B1, ".b1.weight", NULL},
    {LORA_B2, ".b2.weight", NULL},
    {LORA_BM, ".bm.weight", NULL},
    {LORA_SCALE, ".weight", NULL},
    {LORA_ON_INPUT, ".on_input", NULL},
    {LORA_BLOCKS, ".oft_blocks", NULL},
    {LORA_RESCALE, ".rescale", NULL},
};

/* Whether all that the module has is told under these names. (IA)^3 of PEFT is not: it scales biases, too. */
static bool kohya_knows(const struct lora_module *m)
{
    for (int k = 0; k < LORA_TENSOR_COUNT; k++) {
        bool named = !m->tensor[k] || k == LORA_ALPHA || k == LORA_MAGNITUDE;
        for (size_t i = 0; !named && i < COUNT_OF(kohya_suffixes); i++)
            named = (int)kohya_suffixes[i].tensor == k;
        if (!named) return false;
    }
    return true;
}

/* PEFT scales LoKr's factors even where none has a rank; LyCORIS does not: the scale goes into the first. */
static void scale_first(struct writing *w, const struct lora_module *m, const char *place)
{
    struct safetensors_entry e = *m->tensor[LORA_W1];
    int64_t n = (int64_t)(e.bytes / dtype_bytes(e.dtype));
    float *scaled = alloc_zero((size_t)n + 1, sizeof *scaled);
    double scale = alpha_of(m, m->said_rank) / (double)m->said_rank;
    for (int64_t i = 0; i < n; i++) scaled[i] = (float)(dtype_get(e.data, e.dtype, i) * scale);
    e.dtype = DTYPE_F32;
    e.data = keep(w, (char *)scaled);
    e.bytes = (size_t)n * sizeof *scaled;
    append(w, &e, place, ".lokr_w1");
}

/* One number a row as kohya has it: a column of the weight's rank. PEFT's convolutions have it as [1,out,1,1]. */
static void append_magnitude(struct writing *w, const struct lora_module *m, const char *place)
{
    struct safetensors_entry e = *m->tensor[LORA_MAGNITUDE];
    const struct safetensors_entry *up = m->tensor[LORA_UP];
    if (m->row_magnitude && up) {
        e.rank = up->rank;
        for (int i = 0; i < e.rank; i++) e.dim[i] = i ? 1 : up->dim[0];
    }
    append(w, &e, place, ".dora_scale");
}

static int add_kohya(struct writing *w, const struct lora_module *m, const char *prefix,
                     float *alpha, const char *file, struct error *err)
{
    if (!kohya_knows(m))
        return error_set(err, ERR_UNSUPPORTED,
                         "%s: %s is %s, which has no names in kohya's and LyCORIS' files", file,
                         m->base, form_of(m));
    char *place = keep(w, alloc_printf("%s%s", prefix, m->name));
    int64_t rank = rank_of(m);
    bool fold = m->kron && !rank && m->said_rank && m->tensor[LORA_W1];
    if (m->tensor[LORA_ALPHA]) {
        append(w, m->tensor[LORA_ALPHA], place, ".alpha");
    } else if (rank) {
        *alpha = (float)alpha_of(m, rank);
        struct safetensors_entry number = {
            .dtype = DTYPE_F32, .data = alpha, .bytes = sizeof *alpha};
        append(w, &number, place, ".alpha");
    }
    for (size_t i = 0; i < COUNT_OF(kohya_suffixes); i++) {
        const struct safetensors_entry *e = m->tensor[kohya_suffixes[i].tensor];
        bool other = m->kron && kohya_suffixes[i].kron;
        if (e && fold && kohya_suffixes[i].tensor == LORA_W1)
            scale_first(w, m, place);
        else if (e)
            append(w, e, place, other ? kohya_suffixes[i].kron : kohya_suffixes[i].suffix);
    }
    if (m->tensor[LORA_MAGNITUDE]) append_magnitude(w, m, place);
    return 0;
}

static json_t *member(struct writing *w, const char *part, const char *name)
{
    char *key = alloc_printf("%s.%s", part, name);
    json_t *value = json_object_get(w->said, key);
    free(key);
    return value;
}

static void say(struct writing *w, const char *part, const char *name, json_t *value)
{
    char *key = alloc_printf("%s.%s", part, name);
    json_object_set_new(w->said, key, value);
    free(key);
}

static void say_target(json_t *targets, const char *module)
{
    for (size_t i = 0; i < json_array_size(targets); i++)
        if (str_equal(json_string_value(json_array_get(targets, i)), module)) return;
    json_array_append_new(targets, json_string(module));
}

/* diffusers takes alpha for rank unless the metadata says otherwise, part by part. transformers has moved
 * what stands above a text encoder's layers (`text_model.`) between its versions: they are named
 * by their last word, and by what stands below. */
static void say_scale(struct writing *w, const char *part, const char *path, int64_t rank,
                      double alpha)
{
    bool text = !str_equal(part, "unet");
    const char *last = strrchr(path, '.');
    if (!member(w, part, "r")) {
        say(w, part, "r", json_integer(rank));
        say(w, part, "lora_alpha", json_real(alpha));
        say(w, part, "rank_pattern", json_object());
        say(w, part, "alpha_pattern", json_object());
        say(w, part, "target_modules", json_array());
    }
    say_target(member(w, part, "target_modules"), text && last ? last + 1 : path);
    if (text && str_starts(path, "text_model.")) path += strlen("text_model.");
    if (json_integer_value(member(w, part, "r")) != rank)
        json_object_set_new(member(w, part, "rank_pattern"), path, json_integer(rank));
    if (json_real_value(member(w, part, "lora_alpha")) != alpha)
        json_object_set_new(member(w, part, "alpha_pattern"), path, json_real(alpha));
}

/* Pairs, and DoRA's lengths by row, in the shape that PEFT gives them. */
static int peft_knows(const struct lora_module *m, struct safetensors_entry *length,
                      const char *file, struct error *err)
{
    const struct safetensors_entry *up = m->tensor[LORA_UP], *e = m->tensor[LORA_MAGNITUDE];
    int tensors = 0;
    for (int k = 0; k < LORA_TENSOR_COUNT; k++) tensors += m->tensor[k] && k != LORA_ALPHA;
    if (tensors != 2 + (e != NULL) || !m->tensor[LORA_DOWN] || !up)
        return error_set(err, ERR_UNSUPPORTED,
                         "%s: %s is %s; in PEFT's names diffusers reads LoRA and DoRA only", file,
                         m->base, form_of(m));
    if (!e) return 0;
    int64_t count = (int64_t)(e->bytes / dtype_bytes(e->dtype));
    bool by_row = m->row_magnitude || (e->dim[0] == up->dim[0] && count == e->dim[0]);
    if (!by_row || count != up->dim[0])
        return error_set(err, ERR_UNSUPPORTED,
                         "%s: %s is DoRA by input column, which PEFT does not have", file, m->base);
    *length = *e;
    bool conv = up->rank == 4;
    length->rank = conv ? 4 : 1;
    for (int i = 0; i < length->rank; i++) length->dim[i] = i == (conv ? 1 : 0) ? count : 1;
    return 0;
}

static int add_peft(struct writing *w, const struct lora_module *m, const char *file,
                    struct error *err)
{
    static const char *const parts[] = {"unet", "text_encoder", "text_encoder_2"};
    const struct safetensors_entry *down = m->tensor[LORA_DOWN], *up = m->tensor[LORA_UP];
    struct safetensors_entry length = {0};
    int rc = peft_knows(m, &length, file, err);
    if (rc) return rc;
    char *path = m->part == LORA_UNET ? layout_dotted_unet(m->name) : alloc_string(m->name);
    if (!path)
        return error_set(err, ERR_FORMAT, "%s: %s is no place of a Stable Diffusion UNet", file,
                         m->base);
    if (m->part != LORA_UNET) layout_dot(path);
    keep(w, path);
    char *place = keep(w, alloc_printf("%s.%s", parts[m->part], path));
    append(w, down, place, ".lora_A.weight");
    append(w, up, place, ".lora_B.weight");
    if (length.data) append(w, &length, place, ".lora_magnitude_vector");
    say_scale(w, parts[m->part], path, down->dim[0], alpha_of(m, down->dim[0]));
    if (length.data) say(w, parts[m->part], "use_dora", json_true());
    return 0;
}

static int write_file(struct writing *w, const struct lora_file *f, bool peft, const char *path,
                      struct error *err)
{
    struct safetensors_meta meta[2] = {{"format", "pt"}};
    size_t count = peft;
    const char *version = weight_store_meta(f->store, "ss_base_model_version");
    char *text = peft ? json_dumps(w->said, JSON_SORT_KEYS) : NULL;
    if (text) meta[count++] = (struct safetensors_meta){"lora_adapter_metadata", text};
    if (!peft && version)
        meta[count++] = (struct safetensors_meta){"ss_base_model_version", version};
    int rc = safetensors_write(path, w->entry, w->count, meta, count, err);
    free(text);
    return rc;
}

int layout_rename_lora(const char *from, const char *to, bool peft, struct error *err)
{
    static const char *const one[] = {"lora_unet_", "lora_te_", "lora_te2_"}, *const two[] = {
                                                                                  "lora_unet_",
                                                                                  "lora_te1_",
                                                                                  "lora_te2_"};
    struct lora_file f;
    struct writing w = {0};
    int rc = lora_file_open(&f, from, err);
    if (rc) return rc;
    const char *family = lora_file_family(&f);
    bool pair = family && str_starts(family, "SDXL");
    w.alpha = alloc_zero(f.count + 1, sizeof *w.alpha);
    w.said = json_object();
    for (size_t i = 0; !rc && i < f.count; i++) {
        const struct lora_module *m = &f.modules[i];
        if (peft)
            rc = add_peft(&w, m, from, err);
        else
            rc = add_kohya(&w, m, (pair ? two : one)[m->part], &w.alpha[i], from, err);
    }
    if (!rc) rc = write_file(&w, &f, peft, to, err);
    for (size_t i = 0; i < w.owned_count; i++) free(w.owned[i]);
    free(w.owned);
    free(w.entry);
    free(w.alpha);
    json_decref(w.said);
    lora_file_close(&f);
    return rc;
}
