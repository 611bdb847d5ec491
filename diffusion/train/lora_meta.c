/* The trained file and what it says about itself: kohya's ss_ keys, Stability's modelspec keys, ours. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "diffusion/train/lora_run.h"

#define TAGS_MAX 200
#define DIGESTS_MAX 64

struct meta {
    struct safetensors_meta *item;
    char **owned;
    size_t count;
};

static void add_owned(struct meta *m, const char *key, char *value)
{
    m->item = alloc_grow(m->item, m->count + 1, sizeof *m->item);
    m->owned = alloc_grow(m->owned, m->count + 1, sizeof *m->owned);
    m->owned[m->count] = value;
    m->item[m->count++] = (struct safetensors_meta){key, value};
}

static void add(struct meta *m, const char *key, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void add(struct meta *m, const char *key, const char *format, ...)
{
    char text[2048];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    add_owned(m, key, alloc_string(text));
}

static void release(struct meta *m)
{
    for (size_t i = 0; i < m->count; i++) free(m->owned[i]);
    free(m->owned);
    free(m->item);
    *m = (struct meta){0};
}

/* accelerate's words for the precision of activations */
static const char *mixed_precision(enum dtype dtype)
{
    return dtype == DTYPE_BF16 ? "bf16" : dtype == DTYPE_F16 ? "fp16" : "no";
}

static const char *truth(bool value)
{
    return value ? "True" : "False";
}

static const char *const architecture[] = {[FAMILY_SD1] = "stable-diffusion-v1/lora",
                                           [FAMILY_SD2_512] = "stable-diffusion-v2-512/lora",
                                           [FAMILY_SD2_768] = "stable-diffusion-v2-768-v/lora",
                                           [FAMILY_SDXL] = "stable-diffusion-xl-v1-base/lora"};

/* kohya's words: sd_v1, sd_v2, sd_v2_v (v-prediction), sdxl_base_v1-0. */
static const char *base_version(const struct model_info *info)
{
    bool sd2 = info->family == FAMILY_SD2_512 || info->family == FAMILY_SD2_768;
    if (info->family == FAMILY_SDXL) return "sdxl_base_v1-0";
    if (sd2) return info->v_prediction ? "sd_v2_v" : "sd_v2";
    return info->v_prediction ? "sd_v1_v" : "sd_v1";
}

/* ---- kohya's JSON values, with the blanks that Python's json.dumps writes ---- */

static void append_json_text(struct buf *b, const char *text)
{
    buf_append(b, "\"", 1, NULL);
    for (const char *p = text; *p; p++) {
        if (*p == '"' || *p == '\\') buf_append(b, "\\", 1, NULL);
        if ((unsigned char)*p >= ' ') buf_append(b, p, 1, NULL);
    }
    buf_append(b, "\"", 1, NULL);
}

static char *text_of(struct buf *b)
{
    size_t length;
    return (char *)buf_take(b, &length);
}

/* The pictures' folder: "10_kiln brick". */
static char *folder_name(const struct dataset *d)
{
    const char *path = d->count ? d->sample[0].path : "";
    const char *end = strrchr(path, '/');
    if (!end) return alloc_string("pictures");
    const char *start = end;
    while (start > path && start[-1] != '/') start--;
    return start == end ? alloc_string("pictures") : alloc_string_n(start, (size_t)(end - start));
}

struct tag {
    char *text;
    int count, first;
};

static int by_count(const void *a, const void *b)
{
    const struct tag *x = a, *y = b;
    return y->count != x->count ? y->count - x->count : x->first - y->first;
}

static void count_tag(struct tag **tags, int *count, const char *text, size_t length)
{
    for (int i = 0; i < *count; i++)
        if (!strncmp((*tags)[i].text, text, length) && !(*tags)[i].text[length]) {
            (*tags)[i].count++;
            return;
        }
    *tags = alloc_grow(*tags, (size_t)*count + 1, sizeof **tags);
    (*tags)[*count] = (struct tag){alloc_string_n(text, length), 1, *count};
    ++*count;
}

/* {"folder": {"oven": 3, "woman": 2}}: what stands between the commas of the captions. Other
 * programs offer the most frequent as trigger words. */
static char *tag_frequency(const struct dataset *d)
{
    struct tag *tags = NULL;
    int count = 0;
    for (int i = 0; i < d->count; i++) {
        for (const char *at = d->sample[i].caption; at && *at;) {
            while (*at == ' ' || *at == ',') at++;
            size_t length = strcspn(at, ","), next = length;
            while (length && at[length - 1] == ' ') length--;
            if (length) count_tag(&tags, &count, at, length);
            at += next;
        }
    }
    if (count) qsort(tags, (size_t)count, sizeof *tags, by_count);
    struct buf b;
    char *folder = folder_name(d);
    buf_init(&b, 1 << 20);
    buf_append_string(&b, "{", NULL);
    append_json_text(&b, folder);
    buf_append_string(&b, ": {", NULL);
    for (int i = 0; i < count; i++) {
        if (i < TAGS_MAX) {
            if (i) buf_append_string(&b, ", ", NULL);
            append_json_text(&b, tags[i].text);
            buf_printf(&b, NULL, ": %d", tags[i].count);
        }
        free(tags[i].text);
    }
    buf_append_string(&b, "}}", NULL);
    free(tags);
    free(folder);
    return text_of(&b);
}

static char *dataset_dirs(const struct dataset *d)
{
    struct buf b;
    char *folder = folder_name(d);
    buf_init(&b, 1 << 16);
    buf_append_string(&b, "{", NULL);
    append_json_text(&b, folder);
    buf_printf(&b, NULL, ": {\"n_repeats\": %d, \"img_count\": %d}}",
               d->count ? d->sample[0].repeats : 1, d->pictures);
    free(folder);
    return text_of(&b);
}

/* {"buckets": {"0": {"resolution": [512, 512], "count": 12}}, "mean_img_ar_error": 0.0} */
static char *bucket_info(const struct lora_run *r)
{
    const struct cache *c = &r->cache;
    int factor = vae_factor(&r->model->vae), shown = 0;
    struct buf b;
    buf_init(&b, 1 << 16);
    buf_append_string(&b, "{\"buckets\": {", NULL);
    for (int i = 0; i < c->count; i++) {
        int same = 0;
        bool seen = false;
        for (int j = 0; j < c->count; j++) {
            if (c->example[j].w != c->example[i].w || c->example[j].h != c->example[i].h) continue;
            if (j < i) seen = true;
            same++;
        }
        if (seen) continue;
        buf_printf(&b, NULL, "%s\"%d\": {\"resolution\": [%d, %d], \"count\": %d}",
                   shown ? ", " : "", shown, c->example[i].w * factor, c->example[i].h * factor,
                   same);
        shown++;
    }
    buf_append_string(&b, "}}", NULL);
    return text_of(&b);
}

/* ---- the keys ---- */

static void add_ss(struct meta *m, const struct lora_run *r, int64_t step)
{
    const struct lora_train_options *o = r->o;
    const struct model_info *info = &r->model->info;
    bool sd2 = info->family == FAMILY_SD2_512 || info->family == FAMILY_SD2_768;
    int images = o->batch * o->accumulation, examples = r->cache.count ? r->cache.count : 1;
    int64_t epochs = (o->steps * images + examples - 1) / examples;
    int64_t epoch = (step * images + examples - 1) / examples;
    const char *model = strrchr(info->path, '/');
    add(m, "ss_network_module", "networks.lora");
    add(m, "ss_network_dim", "%d", o->lora.rank);
    add(m, "ss_network_alpha", "%g", o->lora.alpha);
    if (o->lora.cover == LORA_ALL)
        add(m, "ss_network_args", "{\"conv_dim\": \"%d\", \"conv_alpha\": \"%g\"}", o->lora.rank,
            o->lora.alpha);
    else
        add(m, "ss_network_args", "{}");
    add(m, "ss_v2", "%s", truth(sd2));
    add(m, "ss_base_model_version", "%s", base_version(info));
    add(m, "ss_output_name", "%s", o->name);
    add(m, "ss_sd_model_name", "%s", model && model[1] ? model + 1 : info->path);
    if (o->base_hash && *o->base_hash) add(m, "ss_sd_model_hash", "%s", o->base_hash);
    if (*info->sha256) add(m, "ss_new_sd_model_hash", "%s", info->sha256);
    add(m, "ss_learning_rate", "%g", o->rate.peak);
    add(m, "ss_unet_lr", "%g", o->rate.peak);
    if (o->lora.text)
        add(m, "ss_text_encoder_lr", "%g", o->rate.peak);
    else
        add(m, "ss_text_encoder_lr", "None");
    add(m, "ss_lr_scheduler", "%s", rate_shape_name(o->rate.shape));
    add(m, "ss_lr_warmup_steps", "%lld", (long long)o->rate.warmup);
    add(m, "ss_optimizer", "%s(weight_decay=%g)", optimizer_kohya(o->optimizer), o->weight_decay);
    add(m, "ss_max_grad_norm", "%g", o->clip);
    add(m, "ss_num_train_images", "%d", r->cache.count);
    add(m, "ss_num_reg_images", "%d", r->prior.count);
    add(m, "ss_prior_loss_weight", "%g", o->prior_weight);
    add(m, "ss_num_epochs", "%lld", (long long)epochs);
    add(m, "ss_epoch", "%lld", (long long)epoch);
    add(m, "ss_steps", "%lld", (long long)step);
    add(m, "ss_max_train_steps", "%lld", (long long)o->steps);
    add(m, "ss_batch_size_per_device", "%d", o->batch);
    add(m, "ss_total_batch_size", "%d", images);
    add(m, "ss_gradient_accumulation_steps", "%d", o->accumulation);
    add(m, "ss_gradient_checkpointing", "%s", truth(o->lean));
    add(m, "ss_resolution", "(%d, %d)", r->resolution, r->resolution);
    add(m, "ss_enable_bucket", "%s", truth(o->buckets));
    add(m, "ss_flip_aug", "%s", truth(o->flip));
    add(m, "ss_random_crop", "%s", truth(o->cuts > 1));
    add(m, "ss_cache_latents", "True");
    add(m, "ss_clip_skip", "None");
    add(m, "ss_max_token_length", "%s", o->lora.text ? "75" : "None");
    add(m, "ss_mixed_precision", "%s", mixed_precision(r->model->dtype));
    if (o->min_snr > 0)
        add(m, "ss_min_snr_gamma", "%g", o->min_snr);
    else
        add(m, "ss_min_snr_gamma", "None");
    if (o->noise_offset > 0)
        add(m, "ss_noise_offset", "%g", o->noise_offset);
    else
        add(m, "ss_noise_offset", "None");
    if (o->pyramid) {
        add(m, "ss_multires_noise_iterations", "%d", o->pyramid);
        add(m, "ss_multires_noise_discount", "%g", o->pyramid_discount);
    }
    add(m, "ss_caption_dropout_rate", "%g", o->caption_dropout);
    add(m, "ss_seed", "%llu", (unsigned long long)o->seed);
    add_owned(m, "ss_dataset_dirs", dataset_dirs(r->data));
    add_owned(m, "ss_bucket_info", bucket_info(r));
    add_owned(m, "ss_tag_frequency", tag_frequency(r->data));
}

static void add_modelspec(struct meta *m, const struct lora_run *r, const char *data_hash)
{
    const struct lora_train_options *o = r->o;
    bool trigger = o->trigger && *o->trigger;
    add(m, "modelspec.sai_model_spec", "1.0.0");
    add(m, "modelspec.architecture", "%s", architecture[r->model->info.family]);
    add(m, "modelspec.implementation", "Kiln " KILN_VERSION);
    add(m, "modelspec.title", "%s", o->name);
    if (o->author) add(m, "modelspec.author", "%s", o->author);
    if (o->description) add(m, "modelspec.description", "%s", o->description);
    if (o->licence) add(m, "modelspec.license", "%s", o->licence);
    add(m, "modelspec.resolution", "%dx%d", r->resolution, r->resolution);
    if (trigger) {
        add(m, "modelspec.trigger_phrase", "%s", o->trigger);
        add(m, "modelspec.usage_hint", "begin the prompt with \"%s\"; strength 0.5 to 1",
            o->trigger);
    }
    add(m, "modelspec.prediction_type", r->model->info.v_prediction ? "v" : "epsilon");
    add(m, "modelspec.timestep_range", "%d,%d", o->t_min, o->t_max + 1);
    add(m, "modelspec.hash_sha256", "0x%s", data_hash);
}

static void add_own(struct meta *m, const struct lora_run *r)
{
    const struct lora_train_options *o = r->o;
    struct buf digests;
    add(m, "kiln.version", KILN_VERSION);
    add(m, "kiln.pictures", "%d", r->data->pictures);
    add(m, "kiln.samples", "%d", r->data->count);
    buf_init(&digests, 1 << 16);
    for (int i = 0; i < r->digest_count && i < DIGESTS_MAX; i++)
        buf_printf(&digests, NULL, "%s%s", i ? " " : "", r->digest[i]);
    add_owned(m, "kiln.pictures_sha256", text_of(&digests));
    if (*r->annotations_sha256) add(m, "kiln.annotations_sha256", "%s", r->annotations_sha256);
    add(m, "kiln.targets", "%s%s", lora_cover_name(o->lora.cover),
        o->lora.text ? " and text encoders" : "");
    if (o->mask >= 0) add(m, "kiln.loss_outside_regions", "%g", o->mask);
}

/* A text encoder's layers are named by their last word: transformers has moved what lies above it
 * (`text_model.`) between its versions. */
static const char *target_module(const char *name, bool text)
{
    const char *last = text ? strrchr(name, '.') : NULL;
    return last ? last + 1 : name;
}

static bool named_before(const struct branches *set, int index, size_t prefix, const char *module)
{
    for (int i = 0; i < index; i++) {
        const char *name = set->item[i].peft;
        if (!strncmp(name, set->item[index].peft, prefix + 1) &&
            !strcmp(target_module(name + prefix + 1, true), module))
            return true;
    }
    return false;
}

/* diffusers takes alpha for rank unless this says otherwise; one entry for each component. */
static void add_peft(struct meta *m, const struct lora_run *r)
{
    static const char *const parts[] = {"unet", "text_encoder", "text_encoder_2"};
    int count = 1 + (r->o->lora.text ? r->model->text.encoders : 0);
    struct buf b;
    buf_init(&b, 1 << 20);
    buf_append_string(&b, "{", NULL);
    for (int part = 0; part < count; part++) {
        size_t length = strlen(parts[part]);
        bool first = true;
        buf_printf(&b, NULL, "%s\"%s.r\": %d, \"%s.lora_alpha\": %g, \"%s.target_modules\": [",
                   part ? ", " : "", parts[part], r->o->lora.rank, parts[part], r->o->lora.alpha,
                   parts[part]);
        for (int i = 0; i < r->branches.count; i++) {
            const char *name = r->branches.item[i].peft;
            if (strncmp(name, parts[part], length) || name[length] != '.') continue;
            const char *module = target_module(name + length + 1, part > 0);
            if (part && named_before(&r->branches, i, length, module)) continue;
            if (!first) buf_append_string(&b, ", ", NULL);
            append_json_text(&b, module);
            first = false;
        }
        buf_append_string(&b, "]", NULL);
    }
    buf_append_string(&b, "}", NULL);
    add_owned(m, "lora_adapter_metadata", text_of(&b));
}

/* kohya's two hashes are those of the file as written with the ss_ keys alone
 * (kohya-ss/sd-scripts, precalculate_safetensors_hashes). */
int lora_run_save(struct lora_run *r, const char *path, int64_t step, struct error *err)
{
    struct meta m = {0};
    struct lora_file_hash hash = {0};
    char *first = alloc_printf("%s.part", path);
    add_ss(&m, r, step);
    int rc = branches_save(&r->branches, first, r->o->format, m.item, m.count, err);
    if (!rc) rc = lora_file_hashes(&hash, first, err);
    unlink(first);
    add(&m, "sshs_model_hash", "%s", hash.data);
    add(&m, "sshs_legacy_hash", "%s", hash.legacy);
    add_modelspec(&m, r, hash.data);
    add_own(&m, r);
    if (r->o->format == LORA_PEFT) add(&m, "format", "pt");
    if (r->o->format == LORA_PEFT && r->o->lora.alpha != r->o->lora.rank) add_peft(&m, r);
    if (!rc) rc = branches_save(&r->branches, path, r->o->format, m.item, m.count, err);
    release(&m);
    free(first);
    return rc;
}
