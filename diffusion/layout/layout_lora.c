/* Adapter files in the other dialect's names: kohya's with underscores, diffusers' PEFT with dots. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "base/alloc.h"
#include "base/str.h"
#include "diffusion/layout/layout.h"
#include "diffusion/lora/lora_file.h"

/* Steps of a path that hold underscores themselves. */
static const char *const words[] = {
    "down_blocks",   "up_blocks",       "mid_block",      "transformer_blocks",
    "time_emb_proj", "conv_shortcut",   "time_embedding", "add_embedding",
    "proj_in",       "proj_out",        "to_q",           "to_k",
    "to_v",          "to_out",          "conv_in",        "conv_out",
    "text_model",    "self_attn",       "q_proj",         "k_proj",
    "v_proj",        "out_proj",        "linear_1",       "linear_2",
    "cond_proj",     "text_projection",
};

/* "down_blocks_0_attentions_1_proj_in" -> "down_blocks.0.attentions.1.proj_in". In place: lengths agree. */
static void dot(char *path)
{
    for (char *p = path; *p;) {
        size_t step = strcspn(p, "_");
        for (size_t i = 0; i < COUNT_OF(words); i++) {
            size_t n = strlen(words[i]);
            if (strncmp(p, words[i], n) == 0 && (!p[n] || p[n] == '_')) step = n;
        }
        p += step;
        if (*p) *p++ = '.';
    }
}

/* ---- the original code's names of the UNet, two residual blocks a level as all families have ---- */

static const char *residual(const char *name)
{
    static const char *const pair[][2] = {{"in_layers_2", "conv1"},
                                          {"emb_layers_1", "time_emb_proj"},
                                          {"out_layers_3", "conv2"},
                                          {"skip_connection", "conv_shortcut"}};
    for (size_t i = 0; i < COUNT_OF(pair); i++)
        if (str_equal(name, pair[i][0])) return pair[i][1];
    return NULL;
}

static char *block(const char *side, const char *resampler, int n, int k, const char *rest)
{
    int level = n / 3, j = n % 3;
    const char *res = residual(rest);
    if (k == 0 && res) return alloc_printf("%s.%d.resnets.%d.%s", side, level, j, res);
    if (str_equal(rest, "op") || str_equal(rest, "conv"))
        return alloc_printf("%s.%d.%s.0.conv", side, level, resampler);
    char *inner = alloc_string(rest), *path = NULL;
    dot(inner);
    if (k == 1) path = alloc_printf("%s.%d.attentions.%d.%s", side, level, j, inner);
    free(inner);
    return path;
}

static char *dotted_unet(const char *name)
{
    static const char *const fixed[][2] = {
        {"input_blocks_0_0", "conv_in"},
        {"out_2", "conv_out"},
        {"time_embed_0", "time_embedding.linear_1"},
        {"time_embed_2", "time_embedding.linear_2"},
        {"label_emb_0_0", "add_embedding.linear_1"},
        {"label_emb_0_2", "add_embedding.linear_2"},
    };
    int n, k, end = 0;
    for (size_t i = 0; i < COUNT_OF(fixed); i++)
        if (str_equal(name, fixed[i][0])) return alloc_string(fixed[i][1]);
    if (sscanf(name, "input_blocks_%d_%d_%n", &n, &k, &end) == 2 && end && n > 0)
        return block("down_blocks", "downsamplers", n - 1, k, name + end);
    if (sscanf(name, "output_blocks_%d_%d_%n", &n, &k, &end) == 2 && end && n >= 0)
        return block("up_blocks", "upsamplers", n, k, name + end);
    if (sscanf(name, "middle_block_%d_%n", &k, &end) == 1 && end) {
        const char *res = residual(name + end);
        if (res) return alloc_printf("mid_block.resnets.%d.%s", k / 2, res);
        char *inner = alloc_string(name + end);
        dot(inner);
        char *path = alloc_printf("mid_block.attentions.0.%s", inner);
        free(inner);
        return path;
    }
    char *path = alloc_string(name);
    dot(path);
    return path;
}

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

static void add_kohya(struct writing *w, const struct lora_module *m, const char *prefix,
                      float *alpha)
{
    const struct safetensors_entry *down = m->tensor[LORA_DOWN];
    char *place = keep(w, alloc_printf("%s%s", prefix, m->name));
    *alpha = (float)alpha_of(m, down->dim[0]);
    struct safetensors_entry number = {.dtype = DTYPE_F32, .data = alpha, .bytes = sizeof *alpha};
    append(w, &number, place, ".alpha");
    append(w, down, place, ".lora_down.weight");
    append(w, m->tensor[LORA_UP], place, ".lora_up.weight");
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

static int add_peft(struct writing *w, const struct lora_module *m, const char *file,
                    struct error *err)
{
    static const char *const parts[] = {"unet", "text_encoder", "text_encoder_2"};
    const struct safetensors_entry *down = m->tensor[LORA_DOWN];
    char *path = m->part == LORA_UNET ? dotted_unet(m->name) : alloc_string(m->name);
    if (!path)
        return error_set(err, ERR_FORMAT, "%s: %s is no place of a Stable Diffusion UNet", file,
                         m->base);
    if (m->part != LORA_UNET) dot(path);
    keep(w, path);
    char *place = keep(w, alloc_printf("%s.%s", parts[m->part], path));
    append(w, down, place, ".lora_A.weight");
    append(w, m->tensor[LORA_UP], place, ".lora_B.weight");
    say_scale(w, parts[m->part], path, down->dim[0], alpha_of(m, down->dim[0]));
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
        int tensors = 0;
        for (int k = 0; k < LORA_TENSOR_COUNT; k++) tensors += m->tensor[k] && k != LORA_ALPHA;
        if (tensors != 2 || !m->tensor[LORA_DOWN] || !m->tensor[LORA_UP])
            rc = error_set(err, ERR_UNSUPPORTED,
                           "%s: %s is no plain pair of matrices, which alone have names in both "
                           "dialects",
                           from, m->base);
        else if (peft)
            rc = add_peft(&w, m, from, err);
        else
            add_kohya(&w, m, (pair ? two : one)[m->part], &w.alpha[i]);
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
