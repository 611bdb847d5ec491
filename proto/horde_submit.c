#include "proto/horde_submit.h"

#include <math.h>
#include <string.h>

#include "base/str.h"
#include "proto/reader.h"
#include "proto/writer.h"

static const char *const type_names[] = {
#define X(name, text) text,
    METADATA_TYPE_TABLE(X)
#undef X
};
static const char *const value_names[] = {
#define X(name, text) text,
    METADATA_VALUE_TABLE(X)
#undef X
};
static const char *const state_names[] = {"ok", "censored", "faulted", "csam"};

const char *metadata_type_name(enum metadata_type t)
{
    return type_names[t];
}

const char *metadata_value_name(enum metadata_value v)
{
    return value_names[v];
}

static void write_metadata(struct writer *w, const struct horde_metadata *m)
{
    char ref[256];
    writer_object(w, NULL);
    writer_text(w, "type", type_names[m->type]);
    writer_text(w, "value", value_names[m->value]);
    if (m->ref) {
        str_copy(ref, sizeof ref, m->ref);
        writer_text(w, "ref", ref);
    }
    writer_end_object(w);
}

int horde_submit_format(const struct horde_submit *s, struct buf *body, struct error *err)
{
    struct writer w;
    const char *generation = s->generation;
    if (!generation) generation = s->state == SUBMIT_FAULTED ? "faulted" : HORDE_GENERATION_R2;
    if (s->metadata_count > HORDE_METADATA_MAX)
        return error_set(err, ERR_INVALID, "submitting %s: %d metadata entries, the limit is %d",
                         s->id, s->metadata_count, HORDE_METADATA_MAX);
    if (s->seed > INT64_MAX)
        return error_set(err, ERR_INVALID, "submitting %s: seed %llu is above 2^63-1", s->id,
                         (unsigned long long)s->seed);
    writer_open(&w, body, 0, err);
    writer_object(&w, NULL);
    writer_text(&w, "id", s->id);
    writer_text(&w, "generation", generation);
    writer_text(&w, "state", state_names[s->state]);
    writer_i64(&w, "seed", (int64_t)s->seed);
    writer_bool(&w, "censored", s->state == SUBMIT_CENSORED || s->state == SUBMIT_CSAM);
    writer_array(&w, "gen_metadata");
    for (int i = 0; i < s->metadata_count; i++) write_metadata(&w, &s->metadata[i]);
    writer_end_array(&w);
    writer_end_object(&w);
    return writer_close(&w);
}

int horde_submit_parse(int64_t *reward_milli, const char *body, size_t length, struct error *err)
{
    struct reader r;
    int rc = reader_open(&r, "the submit reply", body, length, err);
    double reward = rc ? 0 : reader_f64(&r, r.root, "reward", 0, 1e9, NAN);
    if (!r.rc && isnan(reward)) reader_fail(&r, ERR_FORMAT, "reward is missing");
    rc = reader_close(&r);
    if (!rc) *reward_milli = llround(reward * 1000);
    return rc;
}
