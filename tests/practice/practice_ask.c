#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/str.h"
#include "practice.h"

#define ACTIVATION_MILLI 3000

/* ---- ids -------------------------------------------------------------------------------- */

uint64_t practice_random(struct practice *p) /* xorshift64* */
{
    p->random ^= p->random >> 12;
    p->random ^= p->random << 25;
    p->random ^= p->random >> 27;
    return p->random * 0x2545f4914f6cdd1dull;
}

/* A UUID whose last twelve digits are the index in its table. */
void practice_id(struct practice *p, char id[ID_BYTES], int index)
{
    uint64_t r = practice_random(p);
    snprintf(id, ID_BYTES, "%08x-%04x-4%03x-a%03x-%012x", (unsigned)(r >> 32),
             (unsigned)(r >> 16 & 0xffff), (unsigned)(r >> 4 & 0xfff), (unsigned)(r & 0xfff),
             (unsigned)index);
}

int practice_index(const char *id)
{
    if (!id || strlen(id) != ID_BYTES - 1) return -1;
    char *end;
    unsigned long index = strtoul(id + 24, &end, 16);
    return *end || index > 0x7fffffff ? -1 : (int)index;
}

static struct image_ask *ask_find(struct practice *p, struct call *c)
{
    int i = practice_index(c->args[0]);
    if (i >= 0 && i < p->ask_count && str_equal(p->asks[i]->id, c->args[0])) return p->asks[i];
    call_fail(c, 404, "RequestNotFound", "Request with ID '%s' not found.", c->args[0]);
    return NULL;
}

/* ---- reading a request ------------------------------------------------------------------ */

static int64_t whole(struct call *c, const json_t *o, const char *key, int64_t least, int64_t most,
                     int64_t otherwise)
{
    json_t *v = json_object_get(o, key);
    if (!v || json_is_null(v)) return otherwise;
    if (!json_is_integer(v))
        call_invalid(c, key, "this is not of type 'integer'");
    else if (json_integer_value(v) < least)
        call_invalid(c, key, "%lld is less than the minimum of %lld", json_integer_value(v),
                     (long long)least);
    else if (json_integer_value(v) > most)
        call_invalid(c, key, "%lld is greater than the maximum of %lld", json_integer_value(v),
                     (long long)most);
    else
        return json_integer_value(v);
    return otherwise;
}

static double real(struct call *c, const json_t *o, const char *key, double least, double most,
                   double otherwise)
{
    json_t *v = json_object_get(o, key);
    if (!v || json_is_null(v)) return otherwise;
    if (!json_is_number(v))
        call_invalid(c, key, "this is not of type 'number'");
    else if (json_number_value(v) < least || json_number_value(v) > most)
        call_invalid(c, key, "%g is not from %g to %g", json_number_value(v), least, most);
    else
        return json_number_value(v);
    return otherwise;
}

static bool flag(struct call *c, const json_t *o, const char *key, bool otherwise)
{
    json_t *v = json_object_get(o, key);
    if (!v || json_is_null(v)) return otherwise;
    if (!json_is_boolean(v)) call_invalid(c, key, "this is not of type 'boolean'");
    return json_is_true(v);
}

static void copy_if_there(json_t *to, const json_t *from, const char *key)
{
    json_t *v = json_object_get(from, key);
    if (v && !json_is_null(v)) json_object_set(to, key, v);
}

/* Words become a number, as the server does (not by the same rule). */
static uint64_t seed_of(struct practice *p, const json_t *params)
{
    const char *text = json_string_value(json_object_get(params, "seed"));
    uint64_t seed = 2166136261u;
    if (!text || !*text) return practice_random(p) & 0xffffffff;
    if (str_parse_u64(text, &seed)) return seed;
    for (; *text; text++) seed = (seed ^ (uint8_t)*text) * 16777619u & 0xffffffff;
    return seed;
}

static json_t *lora_list(const json_t *list)
{
    json_t *to = json_array(), *v;
    size_t i;
    json_array_foreach(list, i, v)
    {
        json_t *o = json_deep_copy(v);
        if (!json_object_get(o, "model")) json_object_set_new(o, "model", json_real(1));
        if (!json_object_get(o, "clip")) json_object_set_new(o, "clip", json_real(1));
        if (!json_object_get(o, "is_version")) json_object_set_new(o, "is_version", json_false());
        json_array_append_new(to, o);
    }
    return to;
}

static void make_payload(struct image_ask *a, const json_t *body, const json_t *params,
                         struct call *c)
{
    static const char *const optional[] = {"post_processing",
                                           "tis",
                                           "control_type",
                                           "control_strength",
                                           "facefixer_strength",
                                           "hires_fix_denoising_strength",
                                           "clip_skip",
                                           "workflow",
                                           "extra_texts",
                                           "scheduler",
                                           "special",
                                           "sampler_eta",
                                           "flow_shift"};
    json_t *o = a->payload = json_object();
    const char *sampler = json_string_value(json_object_get(params, "sampler_name"));
    enum sampler known;
    if (sampler && !sampler_find(sampler, &known))
        call_invalid(c, "params.sampler_name", "'%s' is not one of the samplers", sampler);
    json_object_set(o, "prompt", json_object_get(body, "prompt"));
    json_object_set_new(o, "ddim_steps", json_integer(a->steps));
    json_object_set_new(o, "image_is_control",
                        json_boolean(flag(c, params, "image_is_control", false)));
    json_object_set_new(o, "return_control_map",
                        json_boolean(flag(c, params, "return_control_map", false)));
    json_object_set_new(o, "sampler_name", json_string(sampler ? sampler : "k_euler_a"));
    json_object_set_new(o, "cfg_scale", json_real(real(c, params, "cfg_scale", 0, 100, 5)));
    json_object_set_new(o, "height", json_integer(a->height));
    json_object_set_new(o, "width", json_integer(a->width));
    json_object_set_new(o, "karras", json_boolean(flag(c, params, "karras", true)));
    json_object_set_new(o, "tiling", json_boolean(flag(c, params, "tiling", false)));
    json_object_set_new(o, "hires_fix", json_boolean(flag(c, params, "hires_fix", false)));
    json_object_set_new(o, "transparent", json_boolean(flag(c, params, "transparent", false)));
    for (size_t i = 0; i < sizeof optional / sizeof optional[0]; i++)
        copy_if_there(o, params, optional[i]);
    if (json_is_array(json_object_get(params, "loras")))
        json_object_set_new(o, "loras", lora_list(json_object_get(params, "loras")));
    double denoise = real(c, params, "denoising_strength", 0.01, 1, -1);
    if (denoise > 0 || a->has_source)
        json_object_set_new(o, "denoising_strength", json_real(denoise > 0 ? denoise : 1));
    if (a->censor && !a->nsfw) json_object_set_new(o, "use_nsfw_censor", json_true());
}

static bool keep_picture(struct practice *p, struct call *c, const char *id, const char *suffix,
                         const json_t *text)
{
    uint8_t *data;
    size_t length;
    char name[96];
    const char *source = json_string_value(text);
    if (!source) return false;
    if (str_starts(source, "http") || store_decode_base64(source, &data, &length)) {
        call_fail(c, 400, "ImageValidationFailed", "Image validation failed.");
        return false;
    }
    snprintf(name, sizeof name, "source/%s_%s", id, suffix);
    store_put(p, name, data, length);
    free(data);
    return true;
}

static void read_sizes(struct image_ask *a, const json_t *params, struct call *c)
{
    enum sampler sampler = SAMPLER_K_EULER_A;
    a->width = (int)whole(c, params, "width", 64, 3072, 512);
    a->height = (int)whole(c, params, "height", 64, 3072, 512);
    a->steps = (int)whole(c, params, "steps", 1, 500, 30);
    a->n = (int)whole(c, params, "n", 1, 20, 1);
    a->seed_variation = (uint64_t)whole(c, params, "seed_variation", 1, 1000, 1000);
    if (a->width % 64) call_invalid(c, "params.width", "%d is not a multiple of 64", a->width);
    if (a->height % 64) call_invalid(c, "params.height", "%d is not a multiple of 64", a->height);
    const char *name = json_string_value(json_object_get(params, "sampler_name"));
    if (name) sampler_find(name, &sampler);
    a->work_steps = sampler_work_steps(sampler, a->steps);
    a->upscale = 1;
    json_t *v;
    size_t i;
    json_array_foreach(json_object_get(params, "post_processing"), i, v)
    {
        const char *post = json_string_value(v);
        if (!post) continue;
        if (strstr(post, "x4plus") || strstr(post, "NMKD") || strstr(post, "4x")) a->upscale = 4;
        if (strstr(post, "x2plus") || strstr(post, "2x")) a->upscale = 2;
    }
}

static void set_ttl(struct practice *p, struct image_ask *a)
{
    double ttl = 30 + 2.0 * a->work_steps * a->width * a->height / 262144;
    if (json_object_get(a->payload, "control_type")) ttl *= 2;
    if (ttl < 150) ttl = 150;
    a->ttl_ms = (int64_t)(ttl * 1000 * p->options.ttl_scale);
}

static void ask_free(struct image_ask *a)
{
    json_decref(a->payload);
    json_decref(a->models);
    json_decref(a->workers);
    free(a);
}

/* What the request needs of a worker, in the words of the capability table: the payload is read the way
 * a worker would read it. */
static void read_gate(struct image_ask *a)
{
    struct error err = {0};
    json_t *payload = json_copy(a->payload);
    json_object_set_new(payload, "seed", json_string("1"));
    json_object_set_new(payload, "n_iter", json_integer(1));
    json_t *pop = json_pack("{s:s,s:o,s:s,s:i,s:s,s:s?}", "id", "gate", "payload", payload, "model",
                            a->model_asked, "ttl", 150, "source_processing", a->source_processing,
                            "source_image", a->has_source ? "https://gate" : NULL);
    char *text = json_dumps(pop, JSON_COMPACT);
    if (horde_pop_parse(&a->gate, text, strlen(text), &err)) memset(&a->gate, 0, sizeof a->gate);
    free(text);
    json_decref(pop);
}

void ask_charge(struct practice *p, struct image_ask *a, int64_t milli)
{
    people_charge(p, a->user, a->id, milli);
    sharedkey_consume(a->sharedkey, milli);
}

struct image_ask *ask_new(struct practice *p, struct user *u, const json_t *body, struct call *c)
{
    struct image_ask *a = alloc_zero(1, sizeof *a);
    const json_t *params = json_object_get(body, "params");
    const char *prompt = json_string_value(json_object_get(body, "prompt"));
    const char *use = json_string_value(json_object_get(body, "source_processing"));
    if (!json_is_string(json_object_get(body, "prompt")))
        call_invalid(c, "prompt", "'prompt' is a required property");
    else if (!*prompt)
        call_fail(c, 400, "MissingPrompt", "You cannot specify an empty prompt.");
    read_sizes(a, params, c);
    practice_id(p, a->id, p->ask_count);
    a->user = u;
    a->has_source = json_is_string(json_object_get(body, "source_image"));
    a->has_mask = json_is_string(json_object_get(body, "source_mask"));
    str_copy(a->source_processing, sizeof a->source_processing, use ? use : "img2img");
    a->nsfw = flag(c, body, "nsfw", true);
    a->censor = flag(c, body, "censor_nsfw", true);
    a->r2 = flag(c, body, "r2", true);
    a->slow_workers = flag(c, body, "slow_workers", true);
    a->trusted_workers = flag(c, body, "trusted_workers", false);
    a->extra_slow = flag(c, body, "extra_slow_workers", false);
    a->models = json_deep_copy(json_object_get(body, "models"));
    if (!json_is_array(a->models)) {
        json_decref(a->models);
        a->models = json_pack("[s]", "stable_diffusion");
    }
    const char *first = json_string_value(json_array_get(a->models, 0));
    str_copy(a->model_asked, sizeof a->model_asked, first ? first : "stable_diffusion");
    a->workers = json_incref(json_object_get(body, "workers"));
    make_payload(a, body, params, c);
    a->seed = seed_of(p, params);
    a->waiting = a->n;
    a->born_ms = practice_ms(p);
    bool painting = str_equal(a->source_processing, "inpainting") ||
                    str_equal(a->source_processing, "outpainting");
    if (a->has_mask && !a->has_source)
        call_fail(c, 400, "SourceMaskUnnecessary", "A mask needs a source image.");
    if (painting && !a->has_source)
        call_fail(c, 400, "InpaintingMissingMask", "Inpainting needs a source image.");
    if (json_object_get(params, "control_type") && !a->has_source)
        call_fail(c, 400, "ControlNetSourceMissing", "ControlNet needs a source image.");
    if (!c->reply && a->has_source)
        keep_picture(p, c, a->id, "src", json_object_get(body, "source_image"));
    if (!c->reply && a->has_mask)
        keep_picture(p, c, a->id, "msk", json_object_get(body, "source_mask"));
    if (c->reply) {
        ask_free(a);
        return NULL;
    }
    a->price_milli = price_request_milli(a);
    set_ttl(p, a);
    a->sharedkey = c->sharedkey;
    if (!sharedkey_allows(c, a, a->price_milli * a->n + ACTIVATION_MILLI)) {
        ask_free(a);
        return NULL;
    }
    if (json_is_true(json_object_get(body, "dry_run"))) {
        c->reply =
            json_pack("{s:f}", "kudos", (double)(a->price_milli * a->n + ACTIVATION_MILLI) / 1000);
        ask_free(a);
        return NULL;
    }
    read_gate(a);
    p->asks = alloc_grow(p->asks, (size_t)p->ask_count + 1, sizeof *p->asks);
    p->asks[p->ask_count++] = a;
    a->jobs = alloc_zero((size_t)a->n * 4, sizeof *a->jobs);
    u->requests += a->n;
    a->spent_milli += ACTIVATION_MILLI;
    ask_charge(p, a, ACTIVATION_MILLI);
    log_state(p, "request", a->id, "waiting", NULL);
    return a;
}

/* ---- routes ----------------------------------------------------------------------------- */

void ask_async(struct practice *p, struct call *c)
{
    json_t *body = style_apply(p, c); /* first, as there: its shared key may be who pays */
    if (p->maintenance_mode) call_fail(c, 400, "MaintenanceMode", "The horde is in maintenance.");
    bool known = !c->reply && sharedkey_authenticate(p, c);
    struct image_ask *a = known ? ask_new(p, c->user, body, c) : NULL;
    json_decref(body);
    if (!a) return;
    c->status = 202;
    c->reply = json_pack("{s:s,s:f}", "id", a->id, "kudos",
                         (double)(a->price_milli * a->n + ACTIVATION_MILLI) / 1000);
}

bool ask_over(const struct image_ask *a)
{
    return a->faulted || (a->waiting == 0 && a->processing == 0);
}

void ask_settle(struct practice *p, struct image_ask *a)
{
    if (a->done || !ask_over(a)) return;
    a->done = true;
    if (a->own) p->own_open--;
    log_state(p, "request", a->id,
              a->faulted    ? "faulted"
              : a->canceled ? "canceled"
                            : "done",
              NULL);
    while (p->first_open < p->ask_count && p->asks[p->first_open]->done) p->first_open++;
}

static int queue_position(struct practice *p, const struct image_ask *a)
{
    int position = 1;
    if (!a->waiting) return 0;
    for (int i = p->first_open; i < p->ask_count && p->asks[i] != a; i++)
        position += p->asks[i]->waiting > 0 && !p->asks[i]->faulted;
    return position;
}

static json_t *check_json(struct practice *p, const struct image_ask *a)
{
    return json_pack("{s:i,s:i,s:i,s:i,s:b,s:b,s:i,s:i,s:f,s:b}", "finished", a->finished,
                     "processing", a->processing, "restarted", a->restarted, "waiting", a->waiting,
                     "done", ask_over(a) && !a->faulted, "faulted", a->faulted, "wait_time",
                     a->waiting ? 5 : 0, "queue_position", queue_position(p, a), "kudos",
                     (double)a->spent_milli / 1000, "is_possible", 1);
}

static json_t *picture_json(struct practice *p, const struct image_job *j)
{
    char name[96];
    snprintf(name, sizeof name, "transient/%s", j->id);
    if (j->generation) return json_string(j->generation);
    if (j->ask->r2) {
        char *url = store_url(p, name);
        json_t *v = json_string(url);
        free(url);
        return v;
    }
    const struct object *o = store_find(p, name);
    char *text = o ? store_encode_base64(o->data, o->length) : alloc_string("");
    json_t *v = json_string(text);
    free(text);
    return v;
}

static json_t *status_json(struct practice *p, const struct image_ask *a)
{
    json_t *o = check_json(p, a), *list = json_array();
    for (int i = 0; i < a->job_count; i++) {
        const struct image_job *j = a->jobs[i];
        char seed[24];
        if (j->state != JOB_DONE || j->fake) continue;
        snprintf(seed, sizeof seed, "%llu", (unsigned long long)j->seed);
        json_array_append_new(
            list, json_pack("{s:o,s:s,s:s,s:b,s:O,s:s,s:s,s:s,s:s}", "img", picture_json(p, j),
                            "seed", seed, "id", j->id, "censored", j->censored, "gen_metadata",
                            j->metadata, "worker_id", j->worker->id, "worker_name", j->worker->name,
                            "model", a->model_asked, "state", "ok"));
    }
    json_object_set_new(o, "generations", list);
    json_object_set_new(o, "shared", json_false());
    return o;
}

void ask_check(struct practice *p, struct call *c)
{
    struct image_ask *a = ask_find(p, c);
    if (a) c->reply = check_json(p, a);
}

void ask_status(struct practice *p, struct call *c)
{
    struct image_ask *a = ask_find(p, c);
    if (a) c->reply = status_json(p, a);
}

void ask_cancel(struct practice *p, struct call *c)
{
    struct image_ask *a = ask_find(p, c);
    if (!a) return;
    c->reply = status_json(p, a);
    a->canceled = true;
    a->waiting = 0; /* what a worker has runs on */
    ask_settle(p, a);
}
