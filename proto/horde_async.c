#include "proto/horde_async.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/str.h"
#include "proto/field.h"
#include "proto/horde_read.h"

/* ---- request ---------------------------------------------------------------------------- */

static int check(const struct horde_async *a, struct error *err)
{
    const struct image_request *q = a->request;
    double cents = q->cfg * 100;
    if (a->worker_count > 5)
        return error_set(err, ERR_INVALID, "%d workers named, the Horde takes at most 5",
                         a->worker_count);
    if (q->lora_count > HORDE_LORAS_MAX)
        return error_set(err, ERR_INVALID, "%d LoRAs, the Horde takes at most %d", q->lora_count,
                         HORDE_LORAS_MAX);
    if (q->embedding_count > HORDE_TIS_MAX)
        return error_set(err, ERR_INVALID, "%d embeddings, the Horde takes at most %d",
                         q->embedding_count, HORDE_TIS_MAX);
    if (fabs(cents - round(cents)) > 1e-6)
        return error_set(err, ERR_INVALID, "cfg %g: the Horde takes at most two decimals", q->cfg);
    size_t style = a->style ? strlen(a->style) : 3;
    if (style < 3 || style > 1024)
        return error_set(err, ERR_INVALID, "a style of %zu characters: 3 to 1024 are possible", style);
    if (q->prompt[0] == '\0') return error_set(err, ERR_INVALID, "the prompt is empty");
    for (int i = 0; i < q->lora_count; i++)
        if (!q->loras[i].name)
            return error_set(err, ERR_INVALID, "LoRA %d has no name the Horde could know", i + 1);
    return image_request_check(q, err);
}

static void write_adapters(struct writer *w, const struct image_request *q)
{
    if (q->lora_count) {
        writer_array(w, "loras");
        for (int i = 0; i < q->lora_count; i++) {
            writer_object(w, NULL);
            writer_text(w, "name", q->loras[i].name);
            writer_f64(w, "model", q->loras[i].model_strength);
            writer_f64(w, "clip", q->loras[i].clip_strength);
            writer_end_object(w);
        }
        writer_end_array(w);
    }
    if (q->embedding_count) {
        writer_array(w, "tis");
        for (int i = 0; i < q->embedding_count; i++) {
            writer_object(w, NULL);
            writer_text(w, "name", q->embeddings[i].name);
            writer_f64(w, "strength", q->embeddings[i].strength);
            writer_end_object(w);
        }
        writer_end_array(w);
    }
}

static void write_extra_text(struct writer *w, const char *reference, const char *text)
{
    writer_object(w, NULL);
    writer_text(w, "text", text);
    writer_text(w, "reference", reference);
    writer_end_object(w);
}

static void write_qr(struct writer *w, const struct image_request *q)
{
    const struct {
        const char *reference;
        int value, unsaid;
    } numbers[] = {{"x_offset", q->qr.x_px, -1},
                   {"y_offset", q->qr.y_px, -1},
                   {"qr_border", q->qr.border_modules, 1}};
    writer_text(w, "workflow", "qr_code");
    writer_array(w, "extra_texts");
    write_extra_text(w, "qr_code", q->qr.text);
    if (q->qr.prompt) write_extra_text(w, "function_layer_prompt", q->qr.prompt);
    if (q->qr.drawer) write_extra_text(w, "module_drawer", request_qr_drawers[q->qr.drawer]);
    for (size_t i = 0; i < COUNT_OF(numbers); i++) {
        char text[16];
        if (numbers[i].value == numbers[i].unsaid) continue;
        snprintf(text, sizeof text, "%d", numbers[i].value);
        write_extra_text(w, numbers[i].reference, text);
    }
    writer_end_array(w);
}

static void write_params(struct writer *w, const struct horde_async *a)
{
    const struct image_request *q = a->request;
    char seed[24];
    snprintf(seed, sizeof seed, "%llu", (unsigned long long)q->seed);
    writer_object(w, "params");
    writer_i64(w, "width", q->width_px);
    writer_i64(w, "height", q->height_px);
    writer_i64(w, "n", q->count);
    if (a->style) {
        writer_end_object(w);
        return;
    }
    writer_i64(w, "steps", q->steps);
    writer_f64(w, "cfg_scale", round(q->cfg * 100) / 100);
    writer_text(w, "sampler_name", sampler_name(q->sampler));
    if (!a->karras_unset) writer_bool(w, "karras", q->schedule == SCHEDULE_KARRAS);
    if (q->schedule != SCHEDULE_KARRAS && q->schedule != SCHEDULE_NORMAL)
        writer_text(w, "scheduler", schedule_name(q->schedule));
    if (!a->random_seed) writer_text(w, "seed", seed);
    if (q->clip_skip) writer_i64(w, "clip_skip", q->clip_skip);
    if (q->tiling) writer_bool(w, "tiling", true);
    if (q->hires_fix) writer_bool(w, "hires_fix", true);
    if (q->hires_fix && !isnan(q->hires_denoise))
        writer_f64(w, "hires_fix_denoising_strength", q->hires_denoise);
    if (q->source_use != SOURCE_NONE) writer_f64(w, "denoising_strength", q->denoise);
    if (a->post_count) writer_texts(w, "post_processing", a->post_processing, a->post_count);
    if (q->transparent) writer_bool(w, "transparent", true);
    if (q->control_type && !q->qr.text) {
        writer_text(w, "control_type", q->control_type);
        writer_bool(w, "image_is_control", q->image_is_control);
        writer_bool(w, "return_control_map", q->return_control_map);
        if (q->control_strength != 1) writer_f64(w, "control_strength", q->control_strength);
    }
    if (q->qr.text) write_qr(w, q);
    write_adapters(w, q);
    writer_end_object(w);
}

static void write_prompt(struct writer *w, const struct image_request *q)
{
    if (!q->negative[0]) {
        writer_text(w, "prompt", q->prompt);
        return;
    }
    char *joined = alloc_printf("%s ### %s", q->prompt, q->negative);
    writer_text(w, "prompt", joined);
    free(joined);
}

int horde_async_format(const struct horde_async *a, struct buf *body, struct error *err)
{
    static const char *const uses[] = {"img2img", "img2img", "inpainting", "outpainting"};
    const struct image_request *q = a->request;
    struct writer w;
    int rc = check(a, err);
    if (rc) return rc;
    writer_open(&w, body, 0, err);
    writer_object(&w, NULL);
    write_prompt(&w, q);
    write_params(&w, a);
    if (!a->style) writer_texts(&w, "models", a->models, a->model_count);
    if (a->worker_count) writer_texts(&w, "workers", a->workers, a->worker_count);
    if (a->worker_blacklist) writer_bool(&w, "worker_blacklist", true);
    writer_bool(&w, "nsfw", a->nsfw);
    writer_bool(&w, "censor_nsfw", a->censor_nsfw);
    writer_bool(&w, "trusted_workers", a->trusted_workers);
    writer_bool(&w, "slow_workers", a->slow_workers);
    writer_bool(&w, "extra_slow_workers", a->extra_slow_workers);
    writer_bool(&w, "r2", a->r2);
    writer_bool(&w, "shared", a->shared);
    writer_bool(&w, "replacement_filter", a->replacement_filter);
    if (a->allow_downgrade) writer_bool(&w, "allow_downgrade", true);
    if (a->dry_run) writer_bool(&w, "dry_run", true);
    if (a->style) writer_text(&w, "style", a->style);
    const struct blob *source = q->control_type && !q->source.data ? &q->control_image : &q->source;
    if (source->data) {
        writer_base64(&w, "source_image", source->data, source->length);
        writer_text(&w, "source_processing", uses[q->source_use]);
        if (q->mask.data) writer_base64(&w, "source_mask", q->mask.data, q->mask.length);
    }
    writer_end_object(&w);
    return writer_close(&w);
}

/* ---- answers ---------------------------------------------------------------------------- */

static const struct field warning_fields[] = {F_WORD(horde_warning, code),
                                              F_WORD(horde_warning, message), F_END};
static const struct field accepted_fields[] = {
    F_F64(horde_accepted, kudos, 0, 1e12), F_TEXT(horde_accepted, message),
    F_LIST(horde_accepted, warnings, warning_count, warning_fields, 100), F_END};

int horde_accepted_parse(struct horde_accepted *a, const char *body, size_t length,
                         struct error *err)
{
    struct reader r;
    struct horde_accepted read = {.id = ""};
    arena_init(&read.memory, READER_MEMORY_MAX);
    int rc = reader_open(&r, "the answer to the request", body, length, err);
    if (!rc) {
        json_t *id = json_object_get(r.root, "id");
        if (id && !json_is_null(id)) horde_read_id(&r, id, read.id);
        if (!r.rc && !read.id[0] && !json_object_get(r.root, "kudos"))
            reader_fail(&r, ERR_FORMAT, "neither id nor kudos");
        field_read(&r, accepted_fields, r.root, &read, &read.memory, NULL);
        rc = reader_close(&r);
    }
    if (rc)
        horde_accepted_release(&read);
    else
        *a = read;
    return rc;
}

void horde_accepted_release(struct horde_accepted *a)
{
    arena_release(&a->memory);
    memset(a, 0, sizeof *a);
}

static const struct field check_fields[] = {
    F_INT(horde_check, finished, 0, 1e6),
    F_INT(horde_check, processing, 0, 1e6),
    F_INT(horde_check, restarted, 0, 1e6),
    F_INT(horde_check, waiting, 0, 1e6),
    {"done", .kind = FIELD_BOOL, .offset = offsetof(struct horde_check, done), .needed = true},
    F_BOOL(horde_check, faulted),
    F_BOOL(horde_check, is_possible),
    {"wait_time", .kind = FIELD_I64, .offset = offsetof(struct horde_check, wait_seconds),
     .least = 0, .most = 9e15},
    F_I64(horde_check, queue_position, -1, 9e15),
    F_F64(horde_check, kudos, -1e12, 1e12),
    F_END,
};

int horde_check_parse(struct horde_check *c, const char *body, size_t length, struct error *err)
{
    struct reader r;
    struct horde_check read = {0};
    int rc = reader_open(&r, "the state of the request", body, length, err);
    if (rc) return rc;
    field_read(&r, check_fields, r.root, &read, NULL, NULL);
    rc = reader_close(&r);
    if (!rc) *c = read;
    return rc;
}

static const struct field note_fields[] = {F_WORD(horde_note, type), F_WORD(horde_note, value),
                                           F_WORD(horde_note, ref), F_END};
static const struct field generation_fields[] = {
    F_WORD(horde_generation, id),
    F_WORD(horde_generation, seed),
    F_WORD(horde_generation, model),
    F_WORD(horde_generation, worker_id),
    F_WORD(horde_generation, worker_name),
    F_WORD(horde_generation, state),
    F_BOOL(horde_generation, censored),
    {"gen_metadata", .kind = FIELD_LIST, .offset = offsetof(struct horde_generation, notes),
     .count_offset = offsetof(struct horde_generation, note_count),
     .stride = sizeof(struct horde_note), .most = 1000, .fields = note_fields},
    F_END,
};

int horde_result_parse(struct horde_result *result, const char *body, size_t length,
                       struct error *err)
{
    struct reader r;
    struct horde_result read = {0};
    arena_init(&read.memory, READER_MEMORY_MAX);
    int rc = reader_open(&r, "the result of the request", body, length, err);
    if (!rc) {
        field_read(&r, check_fields, r.root, &read.check, NULL, NULL);
        read.shared = reader_bool(&r, r.root, "shared", false);
        json_t *list = reader_array(&r, r.root, "generations", 1000);
        size_t n = json_array_size(list);
        read.generations = reader_memory(&r, &read.memory, n, sizeof *read.generations);
        for (size_t i = 0; i < n && !r.rc; i++, read.generation_count++) {
            struct horde_generation *g = &read.generations[i];
            field_read(&r, generation_fields, json_array_get(list, i), g, &read.memory, NULL);
            g->image = reader_text(&r, json_array_get(list, i), "img", 64u << 20, &read.memory);
        }
        rc = reader_close(&r);
    }
    if (rc)
        horde_result_release(&read);
    else
        *result = read;
    return rc;
}

void horde_result_release(struct horde_result *r)
{
    arena_release(&r->memory);
    memset(r, 0, sizeof *r);
}
