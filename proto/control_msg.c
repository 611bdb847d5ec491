#include "proto/control_msg.h"

#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "proto/field.h"
#include "proto/frame.h"

#define X(name, text) text,
static const char *const kind_names[] = {CONTROL_KIND_TABLE(X) NULL};
static const char *const doc_names[] = {CONTROL_DOC_TABLE(X) NULL};
#undef X

#define ROWS_MAX 10000

const char *control_kind_name(enum control_kind k)
{
    return kind_names[k];
}

/* ---- requests --------------------------------------------------------------------------- */

static const struct field request_fields[] = {
    {"request", FIELD_ENUM, offsetof(struct control_request, kind), .names = kind_names,
     .needed = true},
    F_BOOL(control_request, now),
    F_I64(control_request, for_seconds, 0, 1e9),
    F_I64(control_request, limit, 0, ROWS_MAX),
    F_I64(control_request, since_wall_ms, 0, 9e15),
    F_WHOLE(control_request, kudos_milli),
    F_TEXT(control_request, state),
    F_TEXT(control_request, job),
    F_TEXT(control_request, text),
    F_END,
};

static int close_frame(struct buf *out, size_t mark, int rc, struct error *err)
{
    if (!rc) rc = frame_close(out, mark, FRAME_CONTROL_MAX, err);
    if (rc && out->length > mark) buf_truncate(out, mark);
    return rc;
}

int control_request_encode(const struct control_request *r, struct buf *out, struct error *err)
{
    struct writer w;
    size_t mark;
    int rc = frame_open(out, &mark, err);
    if (rc) return rc;
    writer_open(&w, out, 0, err);
    writer_object(&w, NULL);
    field_write(&w, request_fields, r, NULL);
    writer_end_object(&w);
    return close_frame(out, mark, writer_close(&w), err);
}

int control_request_decode(struct control_request *to, const uint8_t *payload, size_t length,
                           struct error *err)
{
    struct reader r;
    struct control_request read = {0};
    arena_init(&read.memory, FRAME_CONTROL_MAX * 2);
    int rc = reader_open(&r, "a control request", (const char *)payload, length, err);
    if (!rc) {
        field_read(&r, request_fields, r.root, &read, &read.memory, NULL);
        rc = reader_close(&r);
    }
    if (rc)
        control_request_release(&read);
    else
        *to = read;
    return rc;
}

void control_request_release(struct control_request *r)
{
    arena_release(&r->memory);
    memset(r, 0, sizeof *r);
}

/* ---- documents -------------------------------------------------------------------------- */

static const struct field reason_fields[] = {
    F_WORD(control_reason, gate),           F_WORD(control_reason, text),
    F_BOOL(control_reason, blocks),         F_WHOLE(control_reason, count),
    F_WHOLE(control_reason, until_wall_ms), F_END};

static const struct field done_fields[] = {F_WORD(control_done, text), F_END};

static const struct field failure_fields[] = {F_WORD(control_failure, code),
                                              F_WORD(control_failure, text), F_END};

static const struct field engine_fields[] = {
    F_WORD(control_engine, device),      F_WORD(control_engine, title),
    F_WORD(control_engine, state),       F_WORD(control_engine, model),
    F_WORD(control_engine, job),         F_WORD(control_engine, phase),
    F_WHOLE(control_engine, pid),        F_WHOLE(control_engine, launch_id),
    F_WHOLE(control_engine, restarts),   F_WHOLE(control_engine, step),
    F_WHOLE(control_engine, steps),      F_WHOLE(control_engine, memory_bytes),
    F_WHOLE(control_engine, free_bytes), F_NUMBER(control_engine, temperature_c),
    F_NUMBER(control_engine, watts),     F_END,
};

static const struct field notice_fields[] = {
    F_WORD(control_notice, id), F_WORD(control_notice, origin), F_WORD(control_notice, text),
    F_WORD(control_notice, expiry), F_END};

static const struct field status_fields[] = {
    F_WORD(control_status, version),
    F_WORD(control_status, state),
    F_WORD(control_status, horde_url),
    F_WORD(control_status, worker_name),
    F_WORD(control_status, alchemist_name),
    F_WORD(control_status, bridge_agent),
    F_WORD(control_status, user),
    F_WORD(control_status, server_version),
    F_WORD(control_status, server_knows),
    F_WHOLE(control_status, pid),
    F_WHOLE(control_status, uptime_seconds),
    F_WHOLE(control_status, started_wall_ms),
    F_WHOLE(control_status, last_pop_wall_ms),
    F_WHOLE(control_status, last_job_wall_ms),
    F_WHOLE(control_status, paused_until_wall_ms),
    F_WHOLE(control_status, jobs_open),
    F_WHOLE(control_status, jobs_settled),
    F_WHOLE(control_status, jobs_faulted),
    F_WHOLE(control_status, jobs_forfeited),
    F_WHOLE(control_status, jobs_hour),
    F_WHOLE(control_status, faults_hour),
    F_WHOLE(control_status, balance_milli),
    F_WHOLE(control_status, earned_milli),
    F_WHOLE(control_status, today_milli),
    F_WHOLE(control_status, unexplained_milli),
    F_WHOLE(control_status, pending_milli),
    F_NUMBER(control_status, kudos_per_hour),
    F_NUMBER(control_status, joules_per_image),
    F_NUMBER(control_status, device_busy),
    F_WHOLE(control_status, resident_bytes),
    F_LIST(control_status, engines, engine_count, engine_fields, 64),
    F_LIST(control_status, reasons, reason_count, reason_fields, 100),
    F_LIST(control_status, notices, notice_count, notice_fields, 100),
    F_END,
};

static const struct field job_fields[] = {
    F_WORD(control_job, id),
    F_WORD(control_job, kind),
    F_WORD(control_job, state),
    F_WORD(control_job, model),
    F_WORD(control_job, form),
    F_WORD(control_job, sampler),
    F_WHOLE(control_job, width),
    F_WHOLE(control_job, height),
    F_WHOLE(control_job, steps),
    F_WHOLE(control_job, batch_index),
    F_WHOLE(control_job, batch_count),
    F_WHOLE(control_job, popped_wall_ms),
    F_WHOLE(control_job, changed_wall_ms),
    F_WHOLE(control_job, ttl_seconds),
    F_WHOLE(control_job, reward_milli),
    F_WHOLE(control_job, credited_milli),
    F_WORD(control_job, certainty),
    F_NUMBER(control_job, seconds),
    F_NUMBER(control_job, joules),
    F_WORD(control_job, error),
    F_END,
};
static const struct field jobs_fields[] = {
    {"jobs", FIELD_LIST, offsetof(struct control_jobs, list), offsetof(struct control_jobs, count),
     sizeof(struct control_job), .most = ROWS_MAX, .fields = job_fields},
    F_WHOLE(control_jobs, total),
    F_END,
};

static const struct field posting_fields[] = {
    F_WHOLE(control_posting, id),          F_WHOLE(control_posting, wall_ms),
    F_WORD(control_posting, kind),         F_WORD(control_posting, job),
    F_WHOLE(control_posting, kudos_milli), F_WORD(control_posting, certainty),
    F_WORD(control_posting, note),         F_END,
};
static const struct field sum_fields[] = {F_WORD(control_sum, kind),
                                          F_WHOLE(control_sum, kudos_milli),
                                          F_WHOLE(control_sum, count), F_END};
static const struct field ledger_fields[] = {
    {"postings", FIELD_LIST, offsetof(struct control_ledger, list),
     offsetof(struct control_ledger, count), sizeof(struct control_posting), .most = ROWS_MAX,
     .fields = posting_fields},
    F_WHOLE(control_ledger, total),
    F_LIST(control_ledger, sums, sum_count, sum_fields, 100),
    F_WHOLE(control_ledger, balance_milli),
    F_WHOLE(control_ledger, told_milli),
    F_WHOLE(control_ledger, credited_milli),
    F_WHOLE(control_ledger, server_milli),
    F_WHOLE(control_ledger, explained_milli),
    F_WHOLE(control_ledger, pending_milli),
    F_WHOLE(control_ledger, unexplained_milli),
    F_WHOLE(control_ledger, reconciled_wall_ms),
    F_WORD(control_ledger, verdict),
    F_END,
};

static const struct field worker_fields[] = {
    F_WORD(control_worker, id),           F_WORD(control_worker, name),
    F_WORD(control_worker, type),         F_WORD(control_worker, team),
    F_WORD(control_worker, info),         F_BOOL(control_worker, online),
    F_BOOL(control_worker, maintenance),  F_BOOL(control_worker, trusted),
    F_BOOL(control_worker, ours),         F_WHOLE(control_worker, fulfilled),
    F_WHOLE(control_worker, uncompleted), F_WHOLE(control_worker, uptime_seconds),
    F_WHOLE(control_worker, models),      F_NUMBER(control_worker, kudos),
    F_NUMBER(control_worker, speed_mps),  F_END,
};
static const struct field workers_fields[] = {
    {"workers", FIELD_LIST, offsetof(struct control_workers, list),
     offsetof(struct control_workers, count), sizeof(struct control_worker), .most = ROWS_MAX,
     .fields = worker_fields},
    F_WORD(control_workers, user),
    F_WHOLE(control_workers, balance_milli),
    F_END,
};

static const struct field model_fields[] = {
    F_WORD(control_model, name),
    F_WORD(control_model, family),
    F_WORD(control_model, path),
    F_WORD(control_model, state),
    F_WORD(control_model, sha256),
    F_WHOLE(control_model, bytes),
    F_WHOLE(control_model, jobs),
    F_BOOL(control_model, offered),
    F_NUMBER(control_model, queued_mps),
    F_NUMBER(control_model, eta_seconds),
    F_NUMBER(control_model, kudos_per_second),
    F_WORD(control_model, note),
    F_END,
};
static const struct field models_fields[] = {
    {"models", FIELD_LIST, offsetof(struct control_models, list),
     offsetof(struct control_models, count), sizeof(struct control_model), .most = ROWS_MAX,
     .fields = model_fields},
    F_END,
};

static const struct field why_fields[] = {
    F_WORD(control_why, state), F_WORD(control_why, text),
    F_LIST(control_why, reasons, reason_count, reason_fields, 100), F_END};

static const struct {
    const struct field *fields;
    size_t offset;
} docs[CONTROL_DOC_COUNT] = {
    [CONTROL_DOC_DONE] = {done_fields, offsetof(struct control_reply, done)},
    [CONTROL_DOC_ERROR] = {failure_fields, offsetof(struct control_reply, error)},
    [CONTROL_DOC_STATUS] = {status_fields, offsetof(struct control_reply, status)},
    [CONTROL_DOC_JOBS] = {jobs_fields, offsetof(struct control_reply, jobs)},
    [CONTROL_DOC_LEDGER] = {ledger_fields, offsetof(struct control_reply, ledger)},
    [CONTROL_DOC_WORKERS] = {workers_fields, offsetof(struct control_reply, workers)},
    [CONTROL_DOC_MODELS] = {models_fields, offsetof(struct control_reply, models)},
    [CONTROL_DOC_WHY] = {why_fields, offsetof(struct control_reply, why)},
};

static int write_reply(const struct control_reply *r, struct buf *out, int indent,
                       struct error *err)
{
    struct writer w;
    writer_open(&w, out, indent, err);
    writer_object(&w, NULL);
    writer_text(&w, "document", doc_names[r->doc]);
    field_write(&w, docs[r->doc].fields, (const char *)r + docs[r->doc].offset, NULL);
    writer_end_object(&w);
    return writer_close(&w);
}

int control_reply_encode(const struct control_reply *r, struct buf *out, struct error *err)
{
    size_t mark;
    int rc = frame_open(out, &mark, err);
    if (rc) return rc;
    return close_frame(out, mark, write_reply(r, out, 0, err), err);
}

int control_reply_print(const struct control_reply *r, struct buf *out, struct error *err)
{
    int rc = write_reply(r, out, 2, err);
    return rc ? rc : buf_append_string(out, "\n", err);
}

int control_reply_decode(struct control_reply *reply, const uint8_t *payload, size_t length,
                         struct error *err)
{
    static const struct field head[] = {{"document", FIELD_ENUM,
                                         offsetof(struct control_reply, doc), .names = doc_names,
                                         .needed = true},
                                        F_END};
    struct reader r;
    struct control_reply read;
    memset(&read, 0, sizeof read);
    arena_init(&read.memory, FRAME_CONTROL_MAX * 8);
    int rc = reader_open(&r, "the daemon's answer", (const char *)payload, length, err);
    if (!rc) {
        field_read(&r, head, r.root, &read, &read.memory, NULL);
        if (!r.rc)
            field_read(&r, docs[read.doc].fields, r.root, (char *)&read + docs[read.doc].offset,
                       &read.memory, NULL);
        rc = reader_close(&r);
    }
    if (rc)
        control_reply_release(&read);
    else
        *reply = read;
    return rc;
}

void control_reply_release(struct control_reply *r)
{
    arena_release(&r->memory);
    memset(r, 0, sizeof *r);
}
