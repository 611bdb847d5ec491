/* The trained file and what it says about itself: kohya's ss_ keys, Stability's modelspec keys, ours. */
#include <math.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "diffusion/train/lora_run.h"

#define META_MAX 64
#define FILE_BYTES_MAX ((size_t)2 << 30)

struct meta {
    struct safetensors_meta item[META_MAX];
    char *owned[META_MAX];
    size_t count;
};

static void add(struct meta *m, const char *key, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void add(struct meta *m, const char *key, const char *format, ...)
{
    char text[2048];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    KILN_ASSERT(m->count < META_MAX, "too many metadata keys");
    m->owned[m->count] = alloc_string(text);
    m->item[m->count] = (struct safetensors_meta){key, m->owned[m->count]};
    m->count++;
}

static void release(struct meta *m)
{
    for (size_t i = 0; i < m->count; i++) free(m->owned[i]);
    m->count = 0;
}

static const char *const base_version[] = {[FAMILY_SD1] = "sd_v1",
                                           [FAMILY_SD2_512] = "sd_v2",
                                           [FAMILY_SD2_768] = "sd_v2",
                                           [FAMILY_SDXL] = "sdxl_base_v1-0"};
static const char *const architecture[] = {[FAMILY_SD1] = "stable-diffusion-v1/lora",
                                           [FAMILY_SD2_512] = "stable-diffusion-v2-512/lora",
                                           [FAMILY_SD2_768] = "stable-diffusion-v2-768-v/lora",
                                           [FAMILY_SDXL] = "stable-diffusion-xl-v1-base/lora"};

/* {"folder": {"oven": 3, "woman": 2}}: labels, or captions where there are none. */
static char *tag_frequency(const struct lora_run *r)
{
    struct label_count *counts;
    int count = dataset_labels(r->data, &counts);
    struct buf b;
    buf_init(&b, 1 << 16);
    buf_append_string(&b, "{\"pictures\": {", NULL);
    if (r->o->trigger && *r->o->trigger)
        buf_printf(&b, NULL, "\"%s\": %d%s", r->o->trigger, r->data->count, count ? ", " : "");
    for (int i = 0; i < count && b.length < 1500; i++) {
        buf_append_string(&b, i ? ", \"" : "\"", NULL);
        for (const char *p = counts[i].label; *p; p++) {
            if (*p == '"' || *p == '\\') buf_append(&b, "\\", 1, NULL);
            buf_append(&b, p, 1, NULL);
        }
        buf_printf(&b, NULL, "\": %d", counts[i].count);
    }
    buf_append_string(&b, "}}", NULL);
    free(counts);
    size_t length;
    return (char *)buf_take(&b, &length);
}

static void add_ss(struct meta *m, const struct lora_run *r, int64_t step)
{
    const struct lora_train_options *o = r->o;
    enum family family = r->model->info.family;
    bool sd2 = family == FAMILY_SD2_512 || family == FAMILY_SD2_768;
    int images = o->batch * o->accumulation;
    int64_t epochs = (step * images + r->cache.count - 1) / (r->cache.count ? r->cache.count : 1);
    const char *model = strrchr(r->model->info.path, '/');
    char *tags = tag_frequency(r);
    add(m, "ss_network_module", "networks.lora");
    add(m, "ss_network_dim", "%d", o->lora.rank);
    add(m, "ss_network_alpha", "%g", o->lora.alpha);
    add(m, "ss_network_args", "{}");
    add(m, "ss_v2", "%s", sd2 ? "True" : "False");
    add(m, "ss_base_model_version", "%s", base_version[family]);
    add(m, "ss_output_name", "%s", o->name);
    add(m, "ss_sd_model_name", "%s", model && model[1] ? model + 1 : r->model->info.path);
    if (*r->model->info.sha256) add(m, "ss_new_sd_model_hash", "%s", r->model->info.sha256);
    add(m, "ss_learning_rate", "%g", o->rate.peak);
    add(m, "ss_unet_lr", "%g", o->rate.peak);
    add(m, "ss_lr_scheduler", "%s", rate_shape_name(o->rate.shape));
    add(m, "ss_lr_warmup_steps", "%lld", (long long)o->rate.warmup);
    add(m, "ss_optimizer", "AdamW(weight_decay=%g)", o->weight_decay);
    add(m, "ss_num_train_images", "%d", r->data->count);
    add(m, "ss_num_reg_images", "%d", r->prior.count);
    add(m, "ss_num_epochs", "%lld", (long long)epochs);
    add(m, "ss_steps", "%lld", (long long)step);
    add(m, "ss_max_train_steps", "%lld", (long long)o->steps);
    add(m, "ss_batch_size_per_device", "%d", o->batch);
    add(m, "ss_gradient_accumulation_steps", "%d", o->accumulation);
    add(m, "ss_resolution", "(%d, %d)", r->resolution, r->resolution);
    add(m, "ss_enable_bucket", "%s", o->buckets ? "True" : "False");
    add(m, "ss_mixed_precision", "%s", dtype_name(r->model->dtype));
    add(m, "ss_min_snr_gamma", "%g", o->min_snr);
    add(m, "ss_noise_offset", "%g", o->noise_offset);
    add(m, "ss_caption_dropout_rate", "%g", o->caption_dropout);
    add(m, "ss_seed", "%llu", (unsigned long long)o->seed);
    add(m, "ss_tag_frequency", "%s", tags);
    free(tags);
}

static void add_modelspec(struct meta *m, const struct lora_run *r)
{
    const struct lora_train_options *o = r->o;
    add(m, "modelspec.sai_model_spec", "1.0.0");
    add(m, "modelspec.architecture", "%s", architecture[r->model->info.family]);
    add(m, "modelspec.implementation", "Kiln " KILN_VERSION);
    add(m, "modelspec.title", "%s", o->name);
    if (o->author) add(m, "modelspec.author", "%s", o->author);
    if (o->licence) add(m, "modelspec.license", "%s", o->licence);
    add(m, "modelspec.resolution", "%dx%d", r->resolution, r->resolution);
    if (o->trigger && *o->trigger) add(m, "modelspec.trigger_phrase", "%s", o->trigger);
    add(m, "modelspec.prediction_type", r->model->info.v_prediction ? "v" : "epsilon");
}

static void add_own(struct meta *m, const struct lora_run *r)
{
    add(m, "kiln.version", KILN_VERSION);
    add(m, "kiln.pictures", "%d", r->data->pictures);
    add(m, "kiln.samples", "%d", r->data->count);
    if (r->o->annotations_sha256) add(m, "kiln.annotations_sha256", "%s", r->o->annotations_sha256);
}

static void hex(char *to, const unsigned char *from, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) sprintf(to + 2 * i, "%02x", from[i]);
}

/* sshs_model_hash: sha256 of the data part; sshs_legacy_hash: 64 KiB at 1 MiB of the file as written
 * with the ss_ keys alone (kohya-ss/sd-scripts, precalculate_safetensors_hashes). */
static int add_hashes(struct meta *m, const char *path, struct error *err)
{
    struct buf file;
    buf_init(&file, FILE_BYTES_MAX);
    int rc = buf_read_file(&file, path, err);
    if (rc) return rc;
    uint64_t header = 0;
    memcpy(&header, file.data, 8);
    size_t start = 8 + (size_t)header;
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned length;
    char text[2 * EVP_MAX_MD_SIZE + 1] = "";
    if (start > file.length)
        rc = error_set(err, ERR_INTERNAL, "%s has no data part", path);
    else if (!EVP_Digest(file.data + start, file.length - start, digest, &length, EVP_sha256(),
                         NULL))
        rc = error_set(err, ERR_INTERNAL, "sha256 failed");
    if (!rc) {
        hex(text, digest, 32);
        add(m, "sshs_model_hash", "%s", text);
        size_t from = 0x100000, bytes = 0x10000;
        if (from > file.length) from = file.length;
        if (bytes > file.length - from) bytes = file.length - from;
        EVP_Digest(file.data + from, bytes, digest, &length, EVP_sha256(), NULL);
        hex(text, digest, 4);
        add(m, "sshs_legacy_hash", "%s", text);
    }
    buf_release(&file);
    return rc;
}

int lora_run_save(struct lora_run *r, const char *path, int64_t step, struct error *err)
{
    struct meta m = {0};
    char *first = alloc_printf("%s.part", path);
    add_ss(&m, r, step);
    int rc = branches_save(&r->branches, first, r->o->format, m.item, m.count, err);
    if (!rc) rc = add_hashes(&m, first, err);
    unlink(first);
    add_modelspec(&m, r);
    add_own(&m, r);
    if (!rc) rc = branches_save(&r->branches, path, r->o->format, m.item, m.count, err);
    release(&m);
    free(first);
    return rc;
}
