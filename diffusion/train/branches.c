#include "diffusion/train/branches.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/str.h"
#include "diffusion/sample/noise_cpu.h"
#include "diffusion/text/clip_text.h"

static const char *const cover_names[LORA_COVER_COUNT] = {"attention", "blocks", "all"};

const char *lora_cover_name(enum lora_cover cover)
{
    return cover_names[cover];
}

bool lora_cover_find(const char *name, enum lora_cover *cover)
{
    for (int i = 0; i < LORA_COVER_COUNT; i++)
        if (str_equal(name, cover_names[i])) {
            *cover = (enum lora_cover)i;
            return true;
        }
    return false;
}

#define F16_MAX 65504.f

struct attach {
    struct branches *set;
    const struct lora_options *options;
    lora_start start;
    enum dialect dialect;     /* of kohya's words */
    const char *kohya, *peft; /* prefixes: "lora_unet_", "unet." */
    bool text;
};

static bool covered(const struct attach *a, const char *hf)
{
    if (a->options->cover == LORA_ALL) return true;
    if (a->text)
        return strstr(hf, "self_attn.") || (a->options->cover == LORA_BLOCKS && strstr(hf, "mlp."));
    if (!strstr(hf, "attentions.")) return false;
    return a->options->cover == LORA_BLOCKS || strstr(hf, ".to_");
}

/* Layer path from the weight's name: without ".weight"; dots to underscores when asked. */
static char *path_of(const char *prefix, const char *name, bool underscores)
{
    char *path = alloc_printf("%s%.*s", prefix, (int)(strlen(name) - strlen(".weight")), name);
    for (char *p = path; underscores && *p; p++)
        if (*p == '.') *p = '_';
    return path;
}

static void draw_down(float *down, int64_t count, int64_t fan_in, const char *name, uint64_t seed)
{
    uint64_t hash = 0xcbf29ce484222325u ^ seed * 0x9e3779b97f4a7c15u; /* FNV-1a */
    for (; *name; name++) hash = (hash ^ (uint8_t)*name) * 0x100000001b3u;
    struct noise_cpu g;
    noise_cpu_seed(&g, (hash ^ hash >> 32) & 0xffffffffu);
    noise_cpu_uniform(&g, down, (size_t)count);
    float limit = 1 / sqrtf((float)fan_in);
    for (int64_t i = 0; i < count; i++) down[i] = limit * (2 * down[i] - 1);
}

static int adopt_pair(struct attach *a, struct branch_target *t, const struct weight_site *site,
                      struct error *err)
{
    struct branches *set = a->set;
    int64_t rank = set->rank, kernel = 1;
    for (int i = 2; i < site->rank; i++) kernel *= site->dim[i];
    t->in = site->dim[1] * kernel;
    t->out = site->dim[0];
    struct weight *down = &t->adapter->down, *up = &t->adapter->up;
    down->k.rank = up->k.rank = site->rank;
    for (int i = 0; i < 4; i++) {
        down->k.dim[i] = i < site->rank ? site->dim[i] : 0;
        up->k.dim[i] = i < site->rank ? 1 : 0;
    }
    down->k.dim[0] = rank;
    up->k.dim[0] = t->out;
    up->k.dim[1] = rank;
    int64_t down_count = rank * t->in, up_count = rank * t->out;
    float *values = alloc_try((size_t)(down_count + up_count), sizeof *values);
    if (!values) return error_set(err, ERR_NO_MEMORY, "no memory for %s", t->kohya);
    if (a->start)
        a->start(values, down_count, t->in, t->kohya);
    else
        draw_down(values, down_count, t->in, t->kohya, a->options->seed);
    char *name = alloc_printf("%s.lora_down.weight", t->kohya);
    t->down = set->params->count;
    int rc = params_adopt(set->params, down, name, values, err);
    free(name);
    name = alloc_printf("%s.lora_up.weight", t->kohya);
    t->up = set->params->count;
    if (!rc) rc = params_adopt(set->params, up, name, values + down_count, err);
    free(name);
    free(values);
    return rc;
}

static int attach_one(struct weight_visitor *v, struct weight *w, const struct weight_site *site,
                      struct error *err)
{
    struct attach *a = v->context;
    const char *hf = site->name[DIALECT_HF];
    if (!site->layer || w != &site->layer->w || !covered(a, hf)) return 0;
    struct branches *set = a->set;
    struct branch_target t = {.kohya = path_of(a->kohya, site->name[a->dialect], true),
                              .peft = path_of(a->peft, hf, false),
                              .layer = site->layer,
                              .adapter = layer_attach(site->layer, set->alpha / set->rank)};
    t.adapter->owner = set;
    set->item = alloc_grow(set->item, (size_t)set->count + 1, sizeof *set->item);
    int rc = adopt_pair(a, &t, site, err);
    set->item[set->count++] = t;
    return rc;
}

static int begin(struct branches *set, struct params *params, const struct lora_options *o,
                 struct error *err)
{
    if (o->rank < 1 || o->rank > 1024)
        return error_set(err, ERR_INVALID, "rank %d is outside 1..1024", o->rank);
    if (!(o->alpha > 0 && o->alpha <= 4096))
        return error_set(err, ERR_INVALID, "alpha %g is outside 0..4096", o->alpha);
    *set = (struct branches){.params = params, .rank = o->rank, .alpha = o->alpha};
    return 0;
}

static int finish(struct branches *set, int failed, struct device *device, struct error *err)
{
    if (!failed && !set->count)
        failed = error_set(err, ERR_INVALID, "the model has no layer that this LoRA would train");
    if (failed) branches_release(set, device);
    return failed;
}

int branches_attach_unet(struct branches *set, struct params *params, struct unet *unet,
                         enum dialect kohya_dialect, const struct lora_options *options,
                         lora_start start, struct error *err)
{
    int rc = begin(set, params, options, err);
    if (rc) return rc;
    struct attach a = {set, options, start, kohya_dialect, "lora_unet_", "unet.", false};
    struct weight_visitor v = {.visit = attach_one, .context = &a, .err = err};
    unet_visit(&v, unet);
    return finish(set, v.failed, params->device, err);
}

int branches_attach(struct branches *set, struct params *params, struct model *model,
                    const struct lora_options *options, lora_start start, struct error *err)
{
    bool sdxl = model->info.family == FAMILY_SDXL;
    int rc = branches_attach_unet(set, params, &model->unet, sdxl ? DIALECT_LDM : DIALECT_HF,
                                  options, start, err);
    if (rc || !options->text) return rc;
    for (int i = 0; i < model->text.encoders; i++) {
        static const char *const kohya[] = {"lora_te1_", "lora_te2_"};
        static const char *const peft[] = {"text_encoder.", "text_encoder_2."};
        struct attach a = {set,     options, start, DIALECT_HF, sdxl ? kohya[i] : "lora_te_",
                           peft[i], true};
        struct weight_visitor v = {.visit = attach_one, .context = &a, .err = err};
        clip_text_visit(&v, model->text.encoder[i]);
        rc = finish(set, v.failed, params->device, err);
        if (rc) return rc;
    }
    return 0;
}

void branches_release(struct branches *set, struct device *device)
{
    for (int i = 0; i < set->count; i++) {
        layer_detach(set->item[i].layer, device, set);
        free(set->item[i].kohya);
        free(set->item[i].peft);
    }
    /* the layers' branches are gone, and with them the weights that the params point to */
    for (int i = 0; set->params && i < set->params->count; i++) set->params->item[i].w = NULL;
    free(set->item);
    *set = (struct branches){0};
}

void branches_strength(struct branches *set, double strength)
{
    for (int i = 0; i < set->count; i++)
        set->item[i].adapter->scale = strength * set->alpha / set->rank;
}

/* ---- the file ---- */

int branches_check(const struct branches *set, struct error *err)
{
    for (int i = 0; i < 2 * set->count; i++) {
        const struct branch_target *t = &set->item[i / 2];
        int index = i % 2 ? t->up : t->down;
        int64_t count = set->params->item[index].count;
        float *values = alloc_try((size_t)count, sizeof *values);
        if (!values) return error_set(err, ERR_NO_MEMORY, "no memory to check %s", t->kohya);
        int rc = params_read(set->params, index, false, values, err);
        for (int64_t j = 0; j < count && !rc; j++)
            if (!(fabsf(values[j]) <= F16_MAX))
                rc =
                    error_set(err, ERR_INVALID, "a weight of %s is %g, which no LoRA file can hold",
                              t->kohya, (double)values[j]);
        free(values);
        if (rc) return rc;
    }
    return 0;
}

static int half_of(const struct params *params, int index, uint16_t **half, struct error *err)
{
    int64_t count = params->item[index].count;
    float *values = alloc_try((size_t)count, sizeof *values);
    *half = alloc_try((size_t)count, sizeof **half);
    int rc = values && *half ? 0 : error_set(err, ERR_NO_MEMORY, "no memory to save the LoRA");
    if (!rc) rc = params_read(params, index, false, values, err);
    if (!rc) dtype_convert(*half, DTYPE_F16, values, DTYPE_F32, count);
    free(values);
    return rc;
}

static int add_matrix(struct safetensors_entry *e, char **name, const struct params *params,
                      int index, const struct weight *w, struct error *err)
{
    uint16_t *half = NULL;
    int rc = half_of(params, index, &half, err);
    *e = (struct safetensors_entry){.name = *name,
                                    .dtype = DTYPE_F16,
                                    .rank = w->k.rank,
                                    .data = half,
                                    .bytes = (size_t)params->item[index].count * sizeof *half};
    for (int i = 0; i < w->k.rank; i++) e->dim[i] = w->k.dim[i];
    return rc;
}

int branches_save(const struct branches *set, const char *path, enum lora_format format,
                  const struct safetensors_meta *meta, size_t meta_count, struct error *err)
{
    size_t room = (size_t)set->count * 3, count = 0;
    struct safetensors_entry *entries = alloc_zero(room, sizeof *entries);
    char **names = alloc_zero(room, sizeof *names);
    uint16_t alpha = f32_to_f16((float)set->alpha);
    int rc = 0;
    for (int i = 0; i < set->count && !rc; i++) {
        const struct branch_target *t = &set->item[i];
        bool kohya = format == LORA_KOHYA;
        if (kohya) {
            names[count] = alloc_printf("%s.alpha", t->kohya);
            entries[count] = (struct safetensors_entry){
                .name = names[count], .dtype = DTYPE_F16, .data = &alpha, .bytes = sizeof alpha};
            count++;
        }
        names[count] = alloc_printf(kohya ? "%s.lora_down.weight" : "%s.lora_A.weight",
                                    kohya ? t->kohya : t->peft);
        rc = add_matrix(&entries[count], &names[count], set->params, t->down, &t->adapter->down,
                        err);
        count++;
        if (rc) break;
        names[count] = alloc_printf(kohya ? "%s.lora_up.weight" : "%s.lora_B.weight",
                                    kohya ? t->kohya : t->peft);
        rc = add_matrix(&entries[count], &names[count], set->params, t->up, &t->adapter->up, err);
        count++;
    }
    if (!rc) rc = safetensors_write(path, entries, count, meta, meta_count, err);
    for (size_t i = 0; i < count; i++) {
        if (entries[i].data != &alpha) free((void *)entries[i].data);
        free(names[i]);
    }
    free(names);
    free(entries);
    return rc;
}
