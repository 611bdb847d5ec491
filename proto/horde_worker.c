#include "proto/horde_worker.h"

#include <math.h>
#include <string.h>

#include "base/str.h"
#include "proto/field.h"

#define IDS_MAX 100000
#define WORKERS_MAX 20000

/* ---- users ------------------------------------------------------------------------------ */

static const struct field kudos_fields[] = {
    F_F64(horde_user, accumulated, -1e15, 1e15),
    F_F64(horde_user, gifted, -1e15, 1e15),
    F_F64(horde_user, donated, -1e15, 1e15),
    F_F64(horde_user, admin, -1e15, 1e15),
    F_F64(horde_user, received, -1e15, 1e15),
    F_F64(horde_user, recurring, -1e15, 1e15),
    F_F64(horde_user, awarded, -1e15, 1e15),
    F_F64(horde_user, styled, -1e15, 1e15),
    F_END,
};
static const struct field active_fields[] = {
    {"image", .kind = FIELD_TEXTS, .offset = offsetof(struct horde_user, active_images),
     .count_offset = offsetof(struct horde_user, active_image_count), .most = IDS_MAX},
    {"alchemy", .kind = FIELD_TEXTS, .offset = offsetof(struct horde_user, active_alchemy),
     .count_offset = offsetof(struct horde_user, active_alchemy_count), .most = IDS_MAX},
    F_END,
};
static const struct field user_fields[] = {
    {"username", .kind = FIELD_TEXT, .offset = offsetof(struct horde_user, username),
     .needed = true},
    F_I64(horde_user, id, 0, 9e15),
    {"kudos", .kind = FIELD_F64, .offset = offsetof(struct horde_user, kudos), .least = -1e15,
     .most = 1e15, .needed = true},
    F_NUMBER(horde_user, evaluating_kudos),
    F_INT(horde_user, concurrency, 0, 1e9),
    F_INT(horde_user, worker_count, 0, 1e9),
    F_BOOL(horde_user, trusted),
    F_BOOL(horde_user, flagged),
    F_BOOL(horde_user, moderator),
    F_BOOL(horde_user, deleted),
    {"kudos_details", .kind = FIELD_OBJECT, .fields = kudos_fields},
    F_TEXTS(horde_user, worker_ids, worker_id_count, IDS_MAX),
    F_TEXTS(horde_user, sharedkey_ids, sharedkey_id_count, IDS_MAX),
    {"active_generations", .kind = FIELD_OBJECT, .fields = active_fields},
    F_END,
};

int horde_user_parse(struct horde_user *u, const char *body, size_t length, struct error *err)
{
    struct reader r;
    struct horde_user read = {0};
    arena_init(&read.memory, READER_MEMORY_MAX);
    int rc = reader_open(&r, "the user record", body, length, err);
    if (!rc) {
        field_read(&r, user_fields, r.root, &read, &read.memory, NULL);
        rc = reader_close(&r);
    }
    if (rc)
        horde_user_release(&read);
    else
        *u = read;
    return rc;
}

void horde_user_release(struct horde_user *u)
{
    arena_release(&u->memory);
    memset(u, 0, sizeof *u);
}

/* ---- workers ---------------------------------------------------------------------------- */

static const struct field earned_fields[] = {
    {"generated", .kind = FIELD_F64, .offset = offsetof(struct horde_worker, kudos_generated),
     .least = -1e15, .most = 1e15},
    {"uptime", .kind = FIELD_F64, .offset = offsetof(struct horde_worker, kudos_uptime),
     .least = -1e15, .most = 1e15},
    F_END,
};
static const struct field team_fields[] = {
    {"name", .kind = FIELD_TEXT, .offset = offsetof(struct horde_worker, team)}, F_END};
static const struct field worker_fields[] = {
    {"id", .kind = FIELD_TEXT, .offset = offsetof(struct horde_worker, id), .needed = true},
    {"name", .kind = FIELD_TEXT, .offset = offsetof(struct horde_worker, name), .needed = true},
    F_WORD(horde_worker, type),
    F_WORD(horde_worker, bridge_agent),
    F_WORD(horde_worker, info),
    F_WORD(horde_worker, performance),
    {"team", .kind = FIELD_OBJECT, .fields = team_fields},
    F_BOOL(horde_worker, online),
    F_BOOL(horde_worker, maintenance_mode),
    F_BOOL(horde_worker, trusted),
    F_BOOL(horde_worker, flagged),
    F_BOOL(horde_worker, nsfw),
    F_BOOL(horde_worker, paused),
    F_I64(horde_worker, requests_fulfilled, 0, 9e15),
    F_I64(horde_worker, uncompleted_jobs, 0, 9e15),
    {"uptime", .kind = FIELD_I64, .offset = offsetof(struct horde_worker, uptime_seconds),
     .least = 0, .most = 9e15},
    F_I64(horde_worker, threads, 0, 1e9),
    F_I64(horde_worker, max_pixels, 0, 9e15),
    F_F64(horde_worker, kudos_rewards, -1e15, 1e15),
    {"kudos_details", .kind = FIELD_OBJECT, .fields = earned_fields},
    F_F64(horde_worker, megapixelsteps_generated, 0, 1e15),
    F_BOOL(horde_worker, img2img),
    F_BOOL(horde_worker, painting),
    {"post-processing", .kind = FIELD_BOOL,
     .offset = offsetof(struct horde_worker, post_processing)},
    F_BOOL(horde_worker, lora),
    F_BOOL(horde_worker, controlnet),
    F_BOOL(horde_worker, sdxl_controlnet),
    {"models", .kind = FIELD_TEXTS, .offset = offsetof(struct horde_worker, models),
     .count_offset = offsetof(struct horde_worker, model_count), .most = 10000},
    {"forms", .kind = FIELD_TEXTS, .offset = offsetof(struct horde_worker, forms),
     .count_offset = offsetof(struct horde_worker, form_count), .most = 1000},
    F_END,
};

static void read_worker(struct reader *r, const json_t *o, struct horde_worker *to,
                        struct arena *memory)
{
    if (!json_is_object(o))
        reader_fail(r, ERR_FORMAT, "a worker is no object");
    else
        field_read(r, worker_fields, o, to, memory, NULL);
    if (!to->team) to->team = "";
}

int horde_workers_parse(struct horde_workers *w, const char *body, size_t length, struct error *err)
{
    struct reader r;
    struct horde_workers read = {0};
    arena_init(&read.memory, READER_MEMORY_MAX);
    int rc = reader_open(&r, "the worker record", body, length, err);
    if (!rc) {
        bool many = json_is_array(r.root);
        size_t n = many ? json_array_size(r.root) : 1;
        if (n > WORKERS_MAX)
            reader_fail(&r, ERR_FORMAT, "%zu workers, the limit is %d", n, WORKERS_MAX);
        read.list = reader_memory(&r, &read.memory, n, sizeof *read.list);
        for (size_t i = 0; i < n && !r.rc; i++, read.count++)
            read_worker(&r, many ? json_array_get(r.root, i) : r.root, &read.list[i], &read.memory);
        rc = reader_close(&r);
    }
    if (rc)
        horde_workers_release(&read);
    else
        *w = read;
    return rc;
}

void horde_workers_release(struct horde_workers *w)
{
    arena_release(&w->memory);
    memset(w, 0, sizeof *w);
}

int horde_worker_change_format(const struct horde_worker_change *c, struct buf *body,
                               struct error *err)
{
    struct writer w;
    if (!c->set_maintenance && !c->info && !c->name && !c->team)
        return error_set(err, ERR_INVALID, "nothing to change about the worker");
    writer_open(&w, body, 0, err);
    writer_object(&w, NULL);
    if (c->set_maintenance) writer_bool(&w, "maintenance", c->maintenance);
    if (c->maintenance_msg) writer_text(&w, "maintenance_msg", c->maintenance_msg);
    if (c->info) writer_text(&w, "info", c->info);
    if (c->name) writer_text(&w, "name", c->name);
    if (c->team) writer_text(&w, "team", c->team);
    writer_end_object(&w);
    return writer_close(&w);
}

/* ---- transfer --------------------------------------------------------------------------- */

int horde_transfer_format(const char *username, int64_t amount, struct buf *body, struct error *err)
{
    struct writer w;
    if (amount < 1)
        return error_set(err, ERR_INVALID, "a transfer of %lld kudos: at least 1 can be sent",
                         (long long)amount);
    writer_open(&w, body, 0, err);
    writer_object(&w, NULL);
    writer_text(&w, "username", username);
    writer_i64(&w, "amount", amount);
    writer_end_object(&w);
    return writer_close(&w);
}

int horde_transfer_parse(double *transferred, const char *body, size_t length, struct error *err)
{
    struct reader r;
    int rc = reader_open(&r, "the transfer reply", body, length, err);
    if (rc) return rc;
    double value = reader_f64(&r, r.root, "transferred", 0, 1e15, NAN);
    if (!r.rc && isnan(value)) reader_fail(&r, ERR_FORMAT, "transferred is missing");
    rc = reader_close(&r);
    if (!rc) *transferred = value;
    return rc;
}
