#include "proto/engine_msg.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/str.h"
#include "proto/field.h"

#define X(name, text) text,
static const char *const kind_names[] = {ENGINE_KIND_TABLE(X) NULL};
static const char *const phase_names[] = {ENGINE_PHASE_TABLE(X) NULL};
static const char *const verdict_names[] = {ENGINE_VERDICT_TABLE(X) NULL};
static const char *const format_names[] = {ENGINE_FORMAT_TABLE(X) NULL};
static const char *const schedule_names[] = {SCHEDULE_TABLE(X) NULL};
#undef X
#define X(name, text, calls) text,
static const char *const sampler_names[] = {SAMPLER_TABLE(X) NULL};
#undef X
#define X(name, text, result) text,
static const char *const form_names[] = {ALCHEMY_TABLE(X) NULL};
#undef X
static const char *const source_names[] = {"none", "img2img", "inpainting", "outpainting", NULL};
static const char *const noise_names[] = {"cpu", "cuda", "horde", NULL};

const char *engine_kind_name(enum engine_kind k)
{
    return kind_names[k];
}

const char *engine_phase_name(enum engine_phase p)
{
    return phase_names[p];
}

const char *engine_verdict_name(enum engine_verdict v)
{
    return verdict_names[v];
}

const char *engine_format_name(enum engine_format f)
{
    return format_names[f];
}

/* ---- the bodies, one table each --------------------------------------------------------- */

static const struct field device_fields[] = {
    F_WORD(engine_device, name),        F_WORD(engine_device, title),
    F_WORD(engine_device, driver),      F_WHOLE(engine_device, memory_bytes),
    F_WHOLE(engine_device, free_bytes), F_END};

static const struct field hello_fields[] = {
    F_WORD(engine_hello, version),
    F_INT(engine_hello, protocol, 0, 1000000),
    F_WHOLE(engine_hello, pid),
    F_WORD(engine_hello, kernels),
    F_ARRAY(engine_hello, devices, device_count, device_fields),
    F_NAMES(engine_hello, capabilities, capability_count),
    F_NAMES(engine_hello, samplers, sampler_count),
    F_NAMES(engine_hello, forms, form_count),
    F_BOOL(engine_hello, safety),
    F_END,
};

static const struct field load_fields[] = {
    F_WORD(engine_load, model),     F_TEXT(engine_load, path),   F_TEXT(engine_load, vae_path),
    F_TEXT(engine_load, precision), F_TEXT(engine_load, sha256), F_END};

static const struct field loaded_fields[] = {
    F_WORD(engine_loaded, model),
    F_WORD(engine_loaded, family),
    F_WORD(engine_loaded, sha256),
    F_WHOLE(engine_loaded, bytes),
    F_WHOLE(engine_loaded, free_bytes),
    F_NUMBER(engine_loaded, seconds),
    F_BOOL(engine_loaded, inpainting),
    F_BOOL(engine_loaded, v_prediction),
    F_END,
};

static const struct field control_fields[] = {
    F_HEAP(request_control, type),   F_HEAP(request_control, path),
    F_BLOB(request_control, image),  F_F64(request_control, strength, -1e6, 1e6),
    F_BOOL(request_control, is_map), F_END};
static const struct field qr_fields[] = {F_HEAP(request_qr, text),
                                         F_HEAP(request_qr, prompt),
                                         F_ENUM(request_qr, drawer, request_qr_drawers),
                                         F_INT(request_qr, x_px, -1, 65536),
                                         F_INT(request_qr, y_px, -1, 65536),
                                         F_INT(request_qr, border_modules, 0, 1000),
                                         F_END};
static const struct field lora_fields[] = {F_HEAP(request_lora, path), F_HEAP(request_lora, name),
                                           F_F64(request_lora, model_strength, -100, 100),
                                           F_F64(request_lora, clip_strength, -100, 100), F_END};
static const struct field embedding_fields[] = {
    F_HEAP(request_embedding, path), F_HEAP(request_embedding, name),
    F_F64(request_embedding, strength, -100, 100), F_END};

/* Ranges here only keep numbers sane; image_request_check is the judge. */
static const struct field request_fields[] = {
    F_HEAP(image_request, model),
    F_HEAP(image_request, prompt),
    F_HEAP(image_request, negative),
    F_INT(image_request, width_px, 0, 65536),
    F_INT(image_request, height_px, 0, 65536),
    F_INT(image_request, steps, 0, 100000),
    F_F64(image_request, cfg, -1e6, 1e6),
    F_ENUM(image_request, sampler, sampler_names),
    F_ENUM(image_request, schedule, schedule_names),
    F_U64(image_request, seed),
    F_INT(image_request, count, 0, 1000),
    F_BOOL(image_request, expert_prompt),
    F_BOOL(image_request, strict),
    F_INT(image_request, clip_skip, 0, 1000),
    F_ENUM(image_request, noise, noise_names),
    F_NUMBER(image_request, eta),
    F_F64(image_request, guidance_rescale, -1e6, 1e6),
    F_U64(image_request, variation_seed),
    F_F64(image_request, variation_strength, -1e6, 1e6),
    F_BOOL(image_request, tiling),
    F_BOOL(image_request, transparent),
    F_BOOL(image_request, hires_fix),
    F_NUMBER(image_request, hires_denoise),
    F_ENUM(image_request, source_use, source_names),
    F_BLOB(image_request, source),
    F_BLOB(image_request, mask),
    F_F64(image_request, denoise, -1e6, 1e6),
    F_ARRAY(image_request, loras, lora_count, lora_fields),
    F_ARRAY(image_request, embeddings, embedding_count, embedding_fields),
    F_HEAP(image_request, control_type),
    F_HEAP(image_request, control_path),
    F_BLOB(image_request, control_image),
    F_F64(image_request, control_strength, -1e6, 1e6),
    F_BOOL(image_request, image_is_control),
    F_BOOL(image_request, return_control_map),
    F_ARRAY(image_request, more_controls, more_control_count, control_fields),
    F_OBJECT(image_request, qr, qr_fields),
    F_END,
};

static const struct field generate_fields[] = {
    F_OBJECT(engine_generate, request, request_fields),
    F_NAMES(engine_generate, post_processing, post_count),
    F_F64(engine_generate, facefixer_strength, 0, 1),
    F_ENUM(engine_generate, format, format_names),
    F_INT(engine_generate, quality, 0, 100),
    F_BOOL(engine_generate, check_safety),
    F_BOOL(engine_generate, censor_nsfw),
    F_INT(engine_generate, preview_every_steps, 0, 100000),
    F_F64(engine_generate, deadline_seconds, 0, 1e9),
    F_INT(engine_generate, together_max, 0, 1000),
    F_TEXT(engine_generate, parameters),
    F_TEXT(engine_generate, xmp),
    F_END,
};

static const struct field progress_fields[] = {
    F_ENUM(engine_progress, phase, phase_names),
    F_INT(engine_progress, step, 0, 1 << 30),
    F_INT(engine_progress, steps, 0, 1 << 30),
    F_NUMBER(engine_progress, seconds),
    F_NUMBER(engine_progress, loss),
    F_NUMBER(engine_progress, joules),
    F_BLOB(engine_progress, preview),
    F_END,
};

static const struct field image_fields[] = {
    F_BLOB(engine_image, bytes),
    F_ENUM(engine_image, verdict, verdict_names),
    F_BOOL(engine_image, censored),
    F_INT(engine_image, width_px, 0, 1 << 20),
    F_INT(engine_image, height_px, 0, 1 << 20),
    F_INT(engine_image, index, 0, 1000),
    F_END,
};

static const struct field result_fields[] = {
    F_ENUM(engine_result, format, format_names),
    F_ARRAY(engine_result, images, image_count, image_fields),
    F_NAMES(engine_result, notes, note_count),
    F_NUMBERS(engine_result, seconds),
    F_NUMBER(engine_result, joules),
    F_WORD(engine_result, energy_source),
    F_WHOLE(engine_result, peak_bytes),
    F_INT(engine_result, together, 0, 1000),
    F_WORD(engine_result, model_sha256),
    F_WORD(engine_result, kernels),
    F_WORD(engine_result, device),
    F_END,
};

static const struct field alchemy_fields[] = {
    F_ENUM(engine_alchemy, form, form_names), F_TEXT(engine_alchemy, control_type),
    F_BLOB(engine_alchemy, source),           F_F64(engine_alchemy, strength, 0, 1),
    F_F64(engine_alchemy, fidelity, 0, 1),    F_BOOL(engine_alchemy, check_safety),
    F_BOOL(engine_alchemy, lossless),         F_END};

static const struct field word_fields[] = {F_WORD(alchemy_word, group), F_WORD(alchemy_word, text),
                                           F_NUMBER(alchemy_word, confidence), F_END};
static const struct field alchemy_result_fields[] = {
    F_ENUM(engine_alchemy_result, form, form_names),
    F_TEXT(engine_alchemy_result, text),
    F_BOOL(engine_alchemy_result, flag),
    F_NUMBER(engine_alchemy_result, number),
    F_LIST(engine_alchemy_result, words, word_count, word_fields, 10000),
    F_OBJECT(engine_alchemy_result, image, image_fields),
    F_NUMBER(engine_alchemy_result, seconds),
    F_NUMBER(engine_alchemy_result, joules),
    F_END,
};

static const struct field option_fields[] = {F_WORD(engine_option, name),
                                             F_WORD(engine_option, value), F_END};
static const struct field train_fields[] = {
    F_ARRAY(engine_train, options, option_count, option_fields), F_END};
static const struct field trained_fields[] = {F_WORD(engine_trained, path),
                                              F_NUMBER(engine_trained, seconds),
                                              F_NUMBER(engine_trained, final_loss),
                                              F_NUMBER(engine_trained, joules),
                                              F_INT(engine_trained, steps, 0, 1 << 30),
                                              F_END};

static const struct field failure_fields[] = {F_INT(engine_failure, code, -1000, 0),
                                              F_WORD(engine_failure, text),
                                              F_BOOL(engine_failure, fatal), F_END};

static const struct field heartbeat_fields[] = {
    F_BOOL(engine_heartbeat, busy),
    F_INT(engine_heartbeat, queued, 0, 1 << 20),
    F_WHOLE(engine_heartbeat, memory_bytes),
    F_WHOLE(engine_heartbeat, free_bytes),
    F_NUMBER(engine_heartbeat, temperature_c),
    F_NUMBER(engine_heartbeat, watts),
    F_NUMBER(engine_heartbeat, foreign_use),
    F_NUMBER(engine_heartbeat, idle_seconds),
    F_END,
};

static const struct field no_fields[] = {F_END};

static const struct {
    const struct field *fields;
    size_t offset;
} bodies[ENGINE_KIND_COUNT] = {
    [ENGINE_HELLO] = {hello_fields, offsetof(struct engine_msg, hello)},
    [ENGINE_LOAD] = {load_fields, offsetof(struct engine_msg, load)},
    [ENGINE_LOADED] = {loaded_fields, offsetof(struct engine_msg, loaded)},
    [ENGINE_UNLOAD] = {load_fields, offsetof(struct engine_msg, load)},
    [ENGINE_PREPARE] = {load_fields, offsetof(struct engine_msg, load)},
    [ENGINE_GENERATE] = {generate_fields, offsetof(struct engine_msg, generate)},
    [ENGINE_PROGRESS] = {progress_fields, offsetof(struct engine_msg, progress)},
    [ENGINE_RESULT] = {result_fields, offsetof(struct engine_msg, result)},
    [ENGINE_ALCHEMY] = {alchemy_fields, offsetof(struct engine_msg, alchemy)},
    [ENGINE_ALCHEMY_RESULT] = {alchemy_result_fields, offsetof(struct engine_msg, alchemy_result)},
    [ENGINE_TRAIN] = {train_fields, offsetof(struct engine_msg, train)},
    [ENGINE_TRAINED] = {trained_fields, offsetof(struct engine_msg, trained)},
    [ENGINE_ERROR] = {failure_fields, offsetof(struct engine_msg, error)},
    [ENGINE_CANCEL] = {no_fields, 0},
    [ENGINE_HEARTBEAT] = {heartbeat_fields, offsetof(struct engine_msg, heartbeat)},
    [ENGINE_SHUTDOWN] = {no_fields, 0},
};

/* ---- message ---------------------------------------------------------------------------- */

void engine_msg_init(struct engine_msg *m, enum engine_kind kind, uint64_t launch_id,
                     const char *job_id)
{
    memset(m, 0, sizeof *m);
    m->kind = kind;
    m->launch_id = launch_id;
    str_copy(m->job_id, sizeof m->job_id, job_id ? job_id : "");
    switch (kind) {
    case ENGINE_ALCHEMY:
        m->alchemy.strength = 1;
        m->alchemy.fidelity = 0.5;
        break;
    case ENGINE_GENERATE:
        image_request_init(&m->generate.request);
        m->generate.facefixer_strength = 1;
        m->generate.quality = 95;
        break;
    case ENGINE_HELLO: m->hello.protocol = ENGINE_PROTOCOL; break;
    case ENGINE_PROGRESS: m->progress.loss = m->progress.joules = NAN; break;
    case ENGINE_RESULT: m->result.joules = NAN; break;
    case ENGINE_TRAINED: m->trained.joules = NAN; break;
    case ENGINE_ALCHEMY_RESULT:
        m->alchemy_result.number = NAN;
        m->alchemy_result.joules = NAN;
        break;
    case ENGINE_HEARTBEAT:
        m->heartbeat.temperature_c = m->heartbeat.watts = m->heartbeat.foreign_use = NAN;
        break;
    default: break;
    }
}

static uint32_t get_u32(const uint8_t *at)
{
    return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static int put_u32(struct buf *out, size_t value, struct error *err)
{
    uint8_t bytes[4];
    for (int i = 0; i < 4; i++) bytes[i] = (uint8_t)(value >> 8 * i);
    return buf_append(out, bytes, sizeof bytes, err);
}

static int write_header(const struct engine_msg *m, struct buf *out, struct field_blobs *blobs,
                        struct error *err)
{
    struct writer w;
    char launch[24];
    snprintf(launch, sizeof launch, "%llu", (unsigned long long)m->launch_id);
    writer_open(&w, out, 0, err);
    writer_object(&w, NULL);
    writer_text(&w, "kind", kind_names[m->kind]);
    writer_text(&w, "launch", launch);
    writer_text(&w, "job", m->job_id);
    writer_object(&w, "body");
    field_write(&w, bodies[m->kind].fields, (const char *)m + bodies[m->kind].offset, blobs);
    writer_end_object(&w);
    writer_end_object(&w);
    return writer_close(&w);
}

static int encode(const struct engine_msg *m, struct buf *out, struct error *err)
{
    const struct blob *list[ENGINE_BLOBS_MAX];
    struct field_blobs blobs = {.list = list, .max = ENGINE_BLOBS_MAX};
    size_t mark = out->length;
    int rc = put_u32(out, 0, err);
    if (!rc) rc = write_header(m, out, &blobs, err);
    if (rc) return rc;
    size_t header = out->length - mark - 4;
    for (int i = 0; i < 4; i++) out->data[mark + (size_t)i] = (uint8_t)(header >> 8 * i);
    rc = put_u32(out, (size_t)blobs.count, err);
    for (int i = 0; i < blobs.count && !rc; i++) rc = put_u32(out, list[i]->length, err);
    for (int i = 0; i < blobs.count && !rc; i++)
        rc = buf_append(out, list[i]->data, list[i]->length, err);
    return rc;
}

int engine_msg_encode(const struct engine_msg *m, struct buf *out, struct error *err)
{
    size_t mark;
    int rc = frame_open(out, &mark, err);
    if (rc) return rc;
    rc = encode(m, out, err);
    if (!rc) rc = frame_close(out, mark, FRAME_ENGINE_MAX, err);
    if (rc && out->length > mark) buf_truncate(out, mark);
    return rc ? error_wrap(err, rc, "a %s message", kind_names[m->kind]) : 0;
}

struct envelope {
    const char *header;
    size_t header_length;
    const uint8_t *bytes[ENGINE_BLOBS_MAX];
    uint32_t lengths[ENGINE_BLOBS_MAX];
    int count;
};

static int open_envelope(struct envelope *e, const uint8_t *payload, size_t length,
                         struct error *err)
{
    if (length < 8) return error_set(err, ERR_FORMAT, "an engine message of %zu bytes", length);
    size_t header = get_u32(payload), at = 4;
    if (header > length - 8)
        return error_set(err, ERR_FORMAT, "an engine message: header of %zu bytes in %zu", header,
                         length);
    e->header = (const char *)payload + at;
    e->header_length = header;
    at += header;
    size_t count = get_u32(payload + at);
    at += 4;
    if (count > ENGINE_BLOBS_MAX || count * 4 > length - at)
        return error_set(err, ERR_FORMAT, "an engine message: %zu blobs, the limit is %d", count,
                         ENGINE_BLOBS_MAX);
    size_t data = at + count * 4;
    for (size_t i = 0; i < count; i++) {
        e->lengths[i] = get_u32(payload + at + i * 4);
        if (e->lengths[i] > length - data)
            return error_set(err, ERR_FORMAT,
                             "an engine message: blob %zu has %u bytes, %zu are left", i,
                             e->lengths[i], length - data);
        e->bytes[i] = payload + data;
        data += e->lengths[i];
    }
    if (data != length)
        return error_set(err, ERR_FORMAT, "an engine message: %zu bytes too many", length - data);
    e->count = (int)count;
    return 0;
}

static int find_kind(struct reader *r, const json_t *o)
{
    char word[32];
    reader_chars(r, o, "kind", word, sizeof word);
    for (int i = 0; i < ENGINE_KIND_COUNT && !r->rc; i++)
        if (str_equal(kind_names[i], word)) return i;
    char shown[32];
    str_clean(shown, sizeof shown, word);
    reader_fail(r, ERR_FORMAT, "kind \"%s\" is not known", shown);
    return -1;
}

int engine_msg_decode(struct engine_msg *m, const uint8_t *payload, size_t length,
                      struct error *err)
{
    struct envelope e;
    struct reader r;
    struct engine_msg read;
    int rc = open_envelope(&e, payload, length, err);
    if (rc) return rc;
    rc = reader_open(&r, "an engine message", e.header, e.header_length, err);
    if (rc) return rc;
    int kind = find_kind(&r, r.root);
    if (kind >= 0) {
        char launch[24];
        struct field_blobs blobs = {.count = e.count, .bytes = e.bytes, .lengths = e.lengths};
        engine_msg_init(&read, (enum engine_kind)kind, 0, NULL);
        arena_init(&read.memory, READER_MEMORY_MAX);
        reader_chars(&r, r.root, "launch", launch, sizeof launch);
        if (!r.rc && !str_parse_u64(launch, &read.launch_id))
            reader_fail(&r, ERR_FORMAT, "launch is no whole number");
        reader_chars(&r, r.root, "job", read.job_id, sizeof read.job_id);
        json_t *body = reader_object(&r, r.root, "body");
        if (body)
            field_read(&r, bodies[kind].fields, body, (char *)&read + bodies[kind].offset,
                       &read.memory, &blobs);
        else
            reader_fail(&r, ERR_FORMAT, "body is missing");
    }
    rc = reader_close(&r);
    if (rc && kind >= 0) engine_msg_release(&read);
    if (!rc) *m = read;
    return rc;
}

void engine_msg_release(struct engine_msg *m)
{
    switch (m->kind) {
    case ENGINE_GENERATE: image_request_release(&m->generate.request); break;
    case ENGINE_PROGRESS: free(m->progress.preview.data); break;
    case ENGINE_RESULT:
        for (int i = 0; i < m->result.image_count; i++) free(m->result.images[i].bytes.data);
        break;
    case ENGINE_ALCHEMY: free(m->alchemy.source.data); break;
    case ENGINE_ALCHEMY_RESULT: free(m->alchemy_result.image.bytes.data); break;
    default: break;
    }
    arena_release(&m->memory);
    memset(m, 0, sizeof *m);
}
