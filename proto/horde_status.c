#include "proto/horde_status.h"

#include <math.h>
#include <string.h>

#include "base/str.h"
#include "proto/field.h"

#define MODELS_MAX 20000
#define NEWS_MAX 1000

/* One object into one struct without memory of its own. */
static int parse_flat(const char *what, const struct field *fields, void *to, const char *body,
                      size_t length, struct error *err)
{
    struct reader r;
    struct arena memory;
    int rc = reader_open(&r, what, body, length, err);
    if (rc) return rc;
    arena_init(&memory, 1 << 20);
    if (!json_is_object(r.root)) reader_fail(&r, ERR_FORMAT, "not an object");
    field_read(&r, fields, r.root, to, &memory, NULL);
    arena_release(&memory);
    return reader_close(&r);
}

int horde_heartbeat_parse(struct horde_heartbeat *h, const char *body, size_t length,
                          struct error *err)
{
    static const struct field fields[] = {F_CHARS(horde_heartbeat, message),
                                          F_CHARS(horde_heartbeat, version), F_END};
    struct horde_heartbeat read = {.message = ""};
    int rc = parse_flat("the heartbeat", fields, &read, body, length, err);
    if (!rc && !read.version[0])
        rc = error_set(err, ERR_FORMAT, "the heartbeat: version is missing");
    if (!rc) *h = read;
    return rc;
}

int horde_modes_parse(struct horde_modes *m, const char *body, size_t length, struct error *err)
{
    static const struct field fields[] = {F_BOOL(horde_modes, maintenance_mode),
                                          F_BOOL(horde_modes, invite_only_mode),
                                          F_BOOL(horde_modes, raid_mode), F_END};
    struct horde_modes read = {0};
    int rc = parse_flat("the modes", fields, &read, body, length, err);
    if (!rc) *m = read;
    return rc;
}

int horde_performance_parse(struct horde_performance *p, const char *body, size_t length,
                            struct error *err)
{
    static const struct field fields[] = {
        F_I64(horde_performance, queued_requests, 0, 9e15),
        F_I64(horde_performance, worker_count, 0, 9e15),
        F_I64(horde_performance, thread_count, 0, 9e15),
        F_I64(horde_performance, interrogator_count, 0, 9e15),
        F_F64(horde_performance, queued_megapixelsteps, 0, 1e15),
        F_F64(horde_performance, past_minute_megapixelsteps, 0, 1e15),
        F_F64(horde_performance, queued_forms, 0, 1e15),
        F_END,
    };
    struct horde_performance read = {0};
    int rc = parse_flat("the performance report", fields, &read, body, length, err);
    if (!rc) *p = read;
    return rc;
}

/* ---- lists ------------------------------------------------------------------------------ */

/* An array of objects into a list of structs; a single object counts as a list of one. */
static void read_list(struct reader *r, const struct field *fields, size_t stride, size_t max,
                      struct arena *memory, void **list, int *count)
{
    bool many = json_is_array(r->root);
    size_t n = many ? json_array_size(r->root) : 1;
    if (n > max) {
        reader_fail(r, ERR_FORMAT, "%zu entries, the limit is %zu", n, max);
        return;
    }
    char *to = reader_memory(r, memory, n, stride);
    for (size_t i = 0; i < n && !r->rc; i++) {
        json_t *o = many ? json_array_get(r->root, i) : r->root;
        if (!json_is_object(o))
            reader_fail(r, ERR_FORMAT, "entry %zu is no object", i);
        else
            field_read(r, fields, o, to + i * stride, memory, NULL);
    }
    *list = to;
    *count = r->rc ? 0 : (int)n;
}

static const struct field model_fields[] = {
    {"name", .kind = FIELD_TEXT, .offset = offsetof(struct horde_model, name), .needed = true},
    F_I64(horde_model, count, 0, 9e15),
    F_F64(horde_model, performance, 0, 1e15),
    F_F64(horde_model, queued, 0, 1e18),
    F_F64(horde_model, jobs, 0, 1e15),
    {"eta", .kind = FIELD_F64, .offset = offsetof(struct horde_model, eta_seconds), .least = 0,
     .most = 1e15},
    F_END,
};

int horde_models_parse(struct horde_models *m, const char *body, size_t length, struct error *err)
{
    struct reader r;
    struct horde_models read = {0};
    arena_init(&read.memory, READER_MEMORY_MAX);
    int rc = reader_open(&r, "the model list", body, length, err);
    if (!rc) {
        read_list(&r, model_fields, sizeof *read.list, MODELS_MAX, &read.memory,
                  (void **)&read.list, &read.count);
        rc = reader_close(&r);
    }
    if (rc)
        horde_models_release(&read);
    else
        *m = read;
    return rc;
}

int horde_model_stats_parse(struct horde_models *m, const char *body, size_t length,
                            struct error *err)
{
    struct reader r;
    struct horde_models read = {0};
    arena_init(&read.memory, READER_MEMORY_MAX);
    int rc = reader_open(&r, "the model statistics", body, length, err);
    if (!rc) {
        json_t *month = reader_object(&r, r.root, "month"), *v;
        const char *name;
        read.list = reader_memory(&r, &read.memory, json_object_size(month), sizeof *read.list);
        json_object_foreach(month, name, v)
        {
            if (r.rc) break;
            if (!json_is_number(v)) {
                reader_fail(&r, ERR_FORMAT, "month has an entry that is no number");
                break;
            }
            read.list[read.count].name = arena_string(&read.memory, name);
            read.list[read.count++].jobs = json_number_value(v);
        }
        rc = reader_close(&r);
    }
    if (rc)
        horde_models_release(&read);
    else
        *m = read;
    return rc;
}

void horde_models_release(struct horde_models *m)
{
    arena_release(&m->memory);
    memset(m, 0, sizeof *m);
}

static const struct field news_fields[] = {
    F_WORD(horde_news_item, date_published), F_WORD(horde_news_item, title),
    F_WORD(horde_news_item, newspiece), F_WORD(horde_news_item, importance), F_END};

int horde_news_parse(struct horde_news *n, const char *body, size_t length, struct error *err)
{
    struct reader r;
    struct horde_news read = {0};
    arena_init(&read.memory, READER_MEMORY_MAX);
    int rc = reader_open(&r, "the news", body, length, err);
    if (!rc) {
        read_list(&r, news_fields, sizeof *read.list, NEWS_MAX, &read.memory, (void **)&read.list,
                  &read.count);
        rc = reader_close(&r);
    }
    if (rc)
        horde_news_release(&read);
    else
        *n = read;
    return rc;
}

void horde_news_release(struct horde_news *n)
{
    arena_release(&n->memory);
    memset(n, 0, sizeof *n);
}

/* ---- swagger ---------------------------------------------------------------------------- */

/* A property of a definition, also when the definition is composed of others by allOf. */
static const json_t *find_property(const json_t *definitions, const char *definition,
                                   const char *property, int depth)
{
    const json_t *d = json_object_get(definitions, definition);
    const json_t *found = json_object_get(json_object_get(d, "properties"), property);
    const json_t *parts = json_object_get(d, "allOf");
    for (size_t i = 0; !found && i < json_array_size(parts); i++) {
        const json_t *part = json_array_get(parts, i);
        const char *ref = json_string_value(json_object_get(part, "$ref"));
        found = json_object_get(json_object_get(part, "properties"), property);
        if (!found && ref && str_starts(ref, "#/definitions/") && depth < 8)
            found = find_property(definitions, ref + strlen("#/definitions/"), property, depth + 1);
    }
    return found;
}

static void read_enum(struct reader *r, const json_t *definitions, const char *definition,
                      const char *property, struct arena *memory, const char ***list, int *count)
{
    const json_t *p = find_property(definitions, definition, property, 0);
    if (!json_object_get(p, "enum")) p = json_object_get(p, "items"); /* of an array */
    if (!json_is_object(p)) return;
    *list = reader_texts(r, p, "enum", 2000, 1024, memory, count);
}

int horde_swagger_parse(struct horde_swagger *s, const char *body, size_t length, struct error *err)
{
    struct reader r;
    struct horde_swagger read = {.probed = true};
    arena_init(&read.memory, READER_MEMORY_MAX);
    int rc = reader_open(&r, "the server's swagger", body, length, err);
    if (!rc) {
        json_t *d = reader_object(&r, r.root, "definitions");
        static const char payload[] = "ModelGenerationInputStable";
        static const char root[] = "ModelPayloadRootStable";
        if (!r.rc && !d) reader_fail(&r, ERR_FORMAT, "definitions is missing");
        read.pop_extended_controlnet =
            find_property(d, "PopInputStable", "allow_extended_controlnet", 0);
        read.pop_sampler_contract =
            find_property(d, "PopInputStable", "sampler_execution_contract_version", 0);
        read_enum(&r, d, "ModelInterrogationFormStable", "name", &read.memory, &read.forms,
                  &read.form_count);
        read_enum(&r, d, "GenerationMetadataStable", "type", &read.memory, &read.metadata_types,
                  &read.metadata_type_count);
        read_enum(&r, d, "GenerationMetadataStable", "value", &read.memory, &read.metadata_values,
                  &read.metadata_value_count);
        const char *params = json_object_get(d, payload) ? payload : root;
        read_enum(&r, d, params, "sampler_name", &read.memory, &read.samplers, &read.sampler_count);
        read_enum(&r, d, params, "scheduler", &read.memory, &read.schedulers,
                  &read.scheduler_count);
        read_enum(&r, d, params, "control_type", &read.memory, &read.control_types,
                  &read.control_type_count);
        read_enum(&r, d, params, "post_processing", &read.memory, &read.post_processors,
                  &read.post_processor_count);
        rc = reader_close(&r);
    }
    if (rc)
        horde_swagger_release(&read);
    else
        *s = read;
    return rc;
}

void horde_swagger_release(struct horde_swagger *s)
{
    arena_release(&s->memory);
    memset(s, 0, sizeof *s);
}
