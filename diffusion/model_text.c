/* The text side of a model: vocabulary and encoders, from a folder or a single file. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/str.h"
#include "diffusion/model.h"
#include "diffusion/model_json.h"
#include "diffusion/text/clip_text.h"
#include "diffusion/text/vocab.h"

static bool exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0;
}

/* A single file may bring its own vocabulary: NAME.tokenizer/ or tokenizer/ beside it. */
static int open_vocab_beside(struct vocab **v, const char *path, struct error *err)
{
    const char *slash = strrchr(path, '/'), *dot = strrchr(path, '.');
    int stem = dot && (!slash || dot > slash) ? (int)(dot - path) : (int)strlen(path);
    int folder = slash ? (int)(slash - path) + 1 : 0;
    char *own = alloc_printf("%.*s.tokenizer", stem, path);
    char *shared = alloc_printf("%.*stokenizer", folder, path);
    const char *chosen = exists(own) ? own : exists(shared) ? shared : NULL;
    int rc = chosen ? vocab_open_folder(v, chosen, err) : vocab_open_default(v, err);
    free(own);
    free(shared);
    return rc;
}

static int open_vocab_folder_of(struct vocab **v, const char *folder, struct error *err)
{
    static const char *const names[] = {"tokenizer", "tokenizer_2"};
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        char *path = alloc_printf("%s/%s", folder, names[i]);
        int rc = exists(path) ? vocab_open_folder(v, path, err) : ERR_NOT_FOUND;
        free(path);
        if (rc != ERR_NOT_FOUND) return rc;
    }
    return open_vocab_beside(v, folder, err);
}

static void visit_text(struct weight_visitor *v, void *part)
{
    clip_text_visit(v, part);
}

static int apply_json(struct clip_text_config *c, const char *path, struct error *err)
{
    struct text_json j = {0};
    if (!exists(path)) return 0;
    int rc = model_json_text(&j, path, err);
    if (rc) return rc;
    if (j.heads) c->heads = j.heads;
    if (j.activation_said) c->act = j.quick_gelu ? ACT_QUICK_GELU : ACT_GELU;
    return 0;
}

static int open_encoder(struct model *m, struct weight_store *s, const char *prefix,
                        const char *config_path, struct error *err)
{
    struct clip_text_config c;
    int n = m->text.encoders;
    int rc = clip_text_detect(&c, s, prefix, &m->text_dialect[n], err);
    if (rc) return rc;
    const char *heads = weight_store_meta(s, "kiln.text_heads");
    if (heads) str_parse_i64(heads, &c.heads);
    if (config_path && (rc = apply_json(&c, config_path, err))) return rc;
    if (c.vocab < vocab_count(m->vocab))
        return error_set(err, ERR_FORMAT,
                         "%s: the text encoder knows %lld words, the vocabulary has "
                         "%d",
                         weight_store_path(s), (long long)c.vocab, vocab_count(m->vocab));
    struct clip_text *t = alloc_zero(1, sizeof *t);
    rc = clip_text_init(t, &c, err);
    if (rc) {
        free(t);
        return error_wrap(err, rc, "%s", weight_store_path(s));
    }
    m->encoders[n] = m->text.encoder[n] = t;
    m->text.encoders++;
    return model_load_part(m, t, visit_text, s, prefix, m->text_dialect[n],
                           n ? "the second text encoder" : "the text encoder", m->dtype, err);
}

/* Where single files keep the encoders of each family. */
struct place {
    const char *const *prefixes;
    const char *component;
};

static const char *const clip_l[] = {"cond_stage_model.transformer.",
                                     "conditioner.embedders.0.transformer.", "cond_stage_model.",
                                     "text_encoder.", NULL};
static const char *const clip_h[] = {"cond_stage_model.model.", "conditioner.embedders.0.model.",
                                     "cond_stage_model.transformer.", NULL};
static const char *const big_g[] = {"conditioner.embedders.1.model.",
                                    "conditioner.embedders.0.model.", "text_encoder_2.", NULL};

static int places_of(enum family family, struct place place[2])
{
    switch (family) {
    case FAMILY_SD1: place[0] = (struct place){clip_l, "text_encoder"}; return 1;
    case FAMILY_SDXL:
        place[0] = (struct place){clip_l, "text_encoder"};
        place[1] = (struct place){big_g, "text_encoder_2"};
        return 2;
    case FAMILY_SDXL_REFINER: place[0] = (struct place){big_g, "text_encoder_2"}; return 1;
    default: place[0] = (struct place){clip_h, "text_encoder"}; return 1;
    }
}

static int open_from_file(struct model *m, const struct place *place, struct error *err)
{
    static const char *const probes[] = {"text_model.embeddings.token_embedding.weight",
                                         "embeddings.token_embedding.weight",
                                         "token_embedding.weight"};
    struct weight_store *s = m->stores[0];
    const char *prefix = NULL;
    for (size_t i = 0; i < COUNT_OF(probes) && !prefix; i++)
        prefix = model_find_prefix(s, place->prefixes, probes[i]);
    if (!prefix)
        return error_set(err, ERR_NOT_FOUND, "%s carries no text encoder (looked for %s...)",
                         m->info.path, place->prefixes[0]);
    return open_encoder(m, s, prefix, NULL, err);
}

static int open_from_folder(struct model *m, const char *folder, const struct place *place,
                            struct error *err)
{
    struct weight_store *s;
    char *file = model_component_file(folder, place->component, "model");
    if (!file) file = model_component_file(folder, place->component, "pytorch_model");
    if (!file)
        return error_set(err, ERR_NOT_FOUND, "%s/%s holds no model.safetensors (or .bin)", folder,
                         place->component);
    int rc = model_add_store(m, &s, file, err);
    free(file);
    char *config = alloc_printf("%s/%s/config.json", folder, place->component);
    if (!rc) rc = open_encoder(m, s, "", config, err);
    free(config);
    return rc;
}

/* What the pooled text leaves of the vector input is shared by six sizes (the refiner: five). */
static void find_size_width(struct model *m)
{
    int64_t vector = m->unet.config.vector;
    int64_t pooled = m->encoders[m->text.encoders - 1]->config.projection;
    int parts = m->info.family == FAMILY_SDXL_REFINER ? 5 : 6;
    if (vector > pooled) m->size_width = (vector - pooled) / parts;
}

int model_open_text(struct model *m, const char *folder, struct error *err)
{
    struct place place[2];
    int count = places_of(m->info.family, place);
    int rc = folder ? open_vocab_folder_of(&m->vocab, folder, err)
                    : open_vocab_beside(&m->vocab, m->info.path, err);
    if (rc) return rc;
    m->text.family = m->info.family;
    m->text.vocab = m->vocab;
    for (int i = 0; !rc && i < count; i++)
        rc = folder ? open_from_folder(m, folder, &place[i], err)
                    : open_from_file(m, &place[i], err);
    if (!rc && !m->size_width) find_size_width(m);
    return rc;
}

void model_close_text(struct model *m)
{
    for (int i = 0; i < 2; i++) {
        if (!m->encoders[i]) continue;
        clip_text_release(m->encoders[i], m->device);
        free(m->encoders[i]);
    }
    vocab_close(m->vocab);
}
