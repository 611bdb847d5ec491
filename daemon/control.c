#include "daemon/control.h"

#include <errno.h>
#include <grp.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/now.h"
#include "base/str.h"
#include "daemon/job.h"
#include "daemon/pop.h"
#include "proto/frame.h"
#include "proto/horde_error.h"
#include "proto/horde_worker.h"

#define CLIENTS_MAX 32
#define ROWS_DEFAULT 100
#define ROWS_MAX 2000
#define PAUSE_SPARE_MS 20000 /* that a job needs after a pause, at least */

struct client {
    struct control *c;
    uv_pipe_t pipe;
    struct buf in;
    struct client *next, **back;
    int out;      /* questions at the clerk or the Horde: the next waits, so answers keep order */
    bool closing; /* freed when closed and nothing is out */
    bool closed;
};

struct control {
    struct worker *w;
    uv_pipe_t listener;
    struct client *clients;
    int count;
    char *path;
};

/* a question that needs the books or the Horde */
struct question {
    struct client *client;
    struct control_request request;
    struct ledger_totals totals;
    struct ledger_account account;
    struct ledger_job *jobs;
    struct ledger_posting *postings;
    int count;
    int64_t total, today_ms;
};

static void take_requests(struct client *client);

/* ---- clients ---- */

static void maybe_free(struct client *client)
{
    if (!client->closed || client->out) return;
    buf_release(&client->in);
    free(client);
}

static void on_client_closed(uv_handle_t *handle)
{
    struct client *client = handle->data;
    client->closed = true;
    maybe_free(client);
}

static void close_client(struct client *client)
{
    if (client->closing) return;
    client->closing = true;
    *client->back = client->next;
    if (client->next) client->next->back = client->back;
    client->c->count--;
    uv_close((uv_handle_t *)&client->pipe, on_client_closed);
}

struct letter {
    uv_write_t write;
    struct buf bytes;
};

static void on_written(uv_write_t *write, int status)
{
    struct letter *letter = (struct letter *)write;
    buf_release(&letter->bytes);
    free(letter);
}

static void answer(struct client *client, struct control_reply *reply)
{
    struct letter *letter = alloc_zero(1, sizeof *letter);
    struct error err = {0};
    buf_init(&letter->bytes, FRAME_CONTROL_MAX + FRAME_HEAD_BYTES);
    if (control_reply_encode(reply, &letter->bytes, &err)) {
        struct control_reply sorry = {.doc = CONTROL_DOC_ERROR};
        sorry.error.code = error_word(err.code);
        sorry.error.text = err.text;
        buf_clear(&letter->bytes);
        control_reply_encode(&sorry, &letter->bytes, NULL);
    }
    uv_buf_t b = uv_buf_init((char *)letter->bytes.data, (unsigned)letter->bytes.length);
    if (client->closing ||
        uv_write(&letter->write, (uv_stream_t *)&client->pipe, &b, 1, on_written)) {
        buf_release(&letter->bytes);
        free(letter);
    }
}

static void answer_error(struct client *client, int code, const char *text)
{
    struct control_reply r = {.doc = CONTROL_DOC_ERROR};
    r.error.code = error_word(code);
    r.error.text = text;
    answer(client, &r);
}

static void answer_done(struct client *client, const char *text)
{
    struct control_reply r = {.doc = CONTROL_DOC_DONE};
    r.done.text = text;
    answer(client, &r);
}

/* ---- questions to the books ---- */

static int apply_status(struct ledger *l, void *data, struct error *err)
{
    struct question *q = data;
    int rc = ledger_totals(l, q->today_ms, &q->totals, err);
    if (!rc && ledger_account(l, &q->account, NULL)) q->account = (struct ledger_account){0};
    return rc;
}

static int apply_jobs(struct ledger *l, void *data, struct error *err)
{
    struct question *q = data;
    enum job_state state = JOB_POPPED;
    bool any = !q->request.state || !*q->request.state;
    if (!any && !job_state_find(q->request.state, &state))
        return error_set(err, ERR_INVALID, "no state \"%.30s\" of a job", q->request.state);
    return ledger_jobs(l, any ? -1 : (int)state, q->request.job, (int)q->request.limit, &q->jobs,
                       &q->count, &q->total, err);
}

static int apply_ledger(struct ledger *l, void *data, struct error *err)
{
    struct question *q = data;
    int rc = apply_status(l, data, err);
    if (!rc)
        rc = ledger_postings(l, q->request.since_wall_ms, (int)q->request.limit, &q->postings,
                             &q->count, &q->total, err);
    return rc;
}

static int apply_spent(struct ledger *l, void *data, struct error *err)
{
    struct question *q = data;
    struct ledger_posting p = {
        .kind = "spent", .milli = -llabs(q->request.kudos_milli), .certainty = POSTING_EXACT};
    str_copy(p.job, sizeof p.job, q->request.job ? q->request.job : "");
    str_clean(p.note, sizeof p.note, q->request.text ? q->request.text : "");
    return ledger_post(l, &p, err);
}

static void jobs_reply(struct question *q, struct control_reply *r)
{
    struct control_job *list = arena_zero(&r->memory, (size_t)q->count + 1, sizeof *list);
    int factor = capability_agent_factor_milli(q->client->c->w->config.bridge_agent);
    for (int i = 0; i < q->count; i++) {
        struct ledger_job *j = &q->jobs[i];
        list[i] = (struct control_job){.id = j->id,
                                       .kind = j->form ? "form" : "image",
                                       .state = job_state_name(j->state),
                                       .model = j->form ? "" : j->what,
                                       .form = j->form ? j->what : "",
                                       .sampler = j->sampler,
                                       .width = j->width_px,
                                       .height = j->height_px,
                                       .steps = j->steps,
                                       .batch_index = j->batch_index,
                                       .batch_count = j->batch_count,
                                       .popped_wall_ms = j->popped_wall_ms,
                                       .changed_wall_ms = j->changed_wall_ms,
                                       .ttl_seconds = j->ttl_s,
                                       .reward_milli = j->told_milli > 0 ? j->told_milli : 0,
                                       .seconds = j->seconds,
                                       .joules = j->joules,
                                       .certainty = "",
                                       .error = j->fault};
        if (j->state != JOB_SETTLED) continue;
        list[i].certainty = j->told_milli >= 0 ? "exact" : "pending";
        list[i].credited_milli =
            j->form ? list[i].reward_milli : (list[i].reward_milli * factor + 500) / 1000;
    }
    r->doc = CONTROL_DOC_JOBS;
    r->jobs = (struct control_jobs){.list = list, .count = q->count, .total = q->total};
}

static void ledger_reply_of(struct question *q, struct control_reply *r)
{
    struct control_posting *list = arena_zero(&r->memory, (size_t)q->count + 1, sizeof *list);
    struct control_sum *sums = arena_zero(&r->memory, COUNT_OF(q->totals.sums), sizeof *sums);
    for (int i = 0; i < q->count; i++) {
        struct ledger_posting *p = &q->postings[i];
        list[i] = (struct control_posting){.id = p->seq,
                                           .wall_ms = p->wall_ms,
                                           .kind = p->kind,
                                           .job = p->job,
                                           .kudos_milli = p->milli,
                                           .certainty = posting_certainty_name(p->certainty),
                                           .note = p->note};
    }
    for (int i = 0; i < q->totals.sum_count; i++)
        sums[i] = (struct control_sum){.kind = q->totals.sums[i].kind,
                                       .kudos_milli = q->totals.sums[i].milli,
                                       .count = q->totals.sums[i].count};
    r->doc = CONTROL_DOC_LEDGER;
    r->ledger = (struct control_ledger){.list = list,
                                        .count = q->count,
                                        .total = q->total,
                                        .sums = sums,
                                        .sum_count = q->totals.sum_count,
                                        .balance_milli = q->totals.balance_milli,
                                        .told_milli = q->totals.told_milli,
                                        .credited_milli = q->totals.credited_milli,
                                        .server_milli = q->account.server_milli,
                                        .explained_milli = q->account.explained_milli,
                                        .pending_milli = q->account.pending_milli,
                                        .unexplained_milli = q->account.unexplained_milli,
                                        .reconciled_wall_ms = q->account.wall_ms,
                                        .verdict = q->account.verdict};
}

static void free_question(struct question *q)
{
    struct client *client = q->client;
    control_request_release(&q->request);
    free(q->jobs);
    free(q->postings);
    free(q);
    client->out--;
    if (!client->closing) take_requests(client);
    maybe_free(client);
}

static void on_books(void *data, int rc, const struct error *err)
{
    struct question *q = data;
    struct control_reply r = {0};
    arena_init(&r.memory, 8 << 20);
    if (rc) {
        answer_error(q->client, rc, err->text);
    } else if (q->request.kind == CONTROL_SPENT) {
        answer_done(q->client, "booked");
    } else {
        if (q->request.kind == CONTROL_STATUS)
            control_fill_status(q->client->c->w, &q->totals, &q->account, &r);
        if (q->request.kind == CONTROL_JOBS) jobs_reply(q, &r);
        if (q->request.kind == CONTROL_LEDGER) ledger_reply_of(q, &r);
        answer(q->client, &r);
    }
    arena_release(&r.memory);
    free_question(q);
}

/* ---- questions to the Horde ---- */

static void on_workers(void *data, const struct http_reply *reply)
{
    struct question *q = data;
    struct worker *w = q->client->c->w;
    struct control_reply r = {.doc = CONTROL_DOC_WORKERS};
    struct horde_workers list;
    struct error err = {0};
    if (reply->status != 200) {
        answer_error(q->client, ERR_NETWORK,
                     reply->status ? "the Horde did not list workers" : reply->err.text);
    } else if (horde_workers_parse(&list, (const char *)reply->body, reply->length, &err)) {
        answer_error(q->client, err.code, err.text);
    } else {
        arena_init(&r.memory, 8 << 20);
        struct control_worker *out = arena_zero(&r.memory, (size_t)list.count + 1, sizeof *out);
        for (int i = 0; i < list.count; i++) {
            struct horde_worker *from = &list.list[i];
            out[i] =
                (struct control_worker){.id = from->id,
                                        .name = from->name,
                                        .type = from->type,
                                        .team = from->team,
                                        .info = from->info,
                                        .online = from->online,
                                        .maintenance = from->maintenance_mode,
                                        .trusted = from->trusted,
                                        .fulfilled = from->requests_fulfilled,
                                        .uncompleted = from->uncompleted_jobs,
                                        .uptime_seconds = from->uptime_seconds,
                                        .models = from->model_count,
                                        .kudos = from->kudos_rewards,
                                        .speed_mps = NAN,
                                        .ours = str_equal(from->name, w->config.worker_name) ||
                                                str_equal(from->name, w->config.alchemist_name)};
        }
        r.workers = (struct control_workers){
            .list = out, .count = list.count, .user = w->user, .balance_milli = w->balance_milli};
        answer(q->client, &r);
        arena_release(&r.memory);
        horde_workers_release(&list);
    }
    free_question(q);
}

static void on_changed(void *data, const struct http_reply *reply)
{
    struct question *q = data;
    if (reply->status == 200)
        answer_done(q->client, q->request.now ? "in maintenance" : "out of maintenance");
    else
        answer_error(q->client, ERR_REFUSED, reply->status ? "the Horde refused" : reply->err.text);
    free_question(q);
}

/* the id is needed, and the name is known */
static void on_found(void *data, const struct http_reply *reply)
{
    struct question *q = data;
    struct horde_workers list;
    struct error err = {0};
    struct buf body;
    if (reply->status != 200 ||
        horde_workers_parse(&list, (const char *)reply->body, reply->length, &err)) {
        answer_error(q->client, ERR_NOT_FOUND, "the Horde does not know this worker yet");
        free_question(q);
        return;
    }
    struct horde_worker_change change = {
        .set_maintenance = true, .maintenance = q->request.now, .maintenance_msg = q->request.text};
    buf_init(&body, 65536);
    horde_worker_change_format(&change, &body, NULL);
    char *path = alloc_printf("workers/%s", list.count ? list.list[0].id : "");
    struct http_request r = {.use = HTTP_API,
                             .method = "PUT",
                             .path = path,
                             .body = body.data,
                             .body_length = body.length,
                             .done = on_changed,
                             .data = q};
    http_send(q->client->c->w->http, &r);
    free(path);
    buf_release(&body);
    horde_workers_release(&list);
}

static char *escaped(const char *name)
{
    char *to = alloc_zero(strlen(name) * 3 + 1, 1), *at = to;
    for (; *name; name++)
        at += strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.", *name)
                  ? sprintf(at, "%c", *name)
                  : sprintf(at, "%%%02X", (unsigned char)*name);
    return to;
}

/* ---- one request ---- */

static int64_t midnight_ms(void)
{
    return now_wall_ms() / 86400000 * 86400000;
}

static void ask_books(struct client *client, struct control_request *request, clerk_apply apply,
                      bool alone)
{
    struct question *q = alloc_zero(1, sizeof *q);
    q->client = client;
    q->request = *request;
    request->memory = (struct arena){0}; /* moved */
    q->today_ms = midnight_ms();
    if (q->request.limit <= 0) q->request.limit = ROWS_DEFAULT;
    if (q->request.limit > ROWS_MAX) q->request.limit = ROWS_MAX;
    client->out++;
    if (alone)
        clerk_give_alone(client->c->w->clerk, apply, on_books, q);
    else
        clerk_give(client->c->w->clerk, apply, on_books, q);
}

static void ask_horde(struct client *client, struct control_request *request, const char *path,
                      void (*done)(void *, const struct http_reply *))
{
    struct question *q = alloc_zero(1, sizeof *q);
    q->client = client;
    q->request = *request;
    request->memory = (struct arena){0};
    client->out++;
    struct http_request r = {.use = HTTP_API,
                             .method = "GET",
                             .path = path,
                             .total_ms = 15000,
                             .limit_bytes = 16 << 20,
                             .done = done,
                             .data = q};
    http_send(client->c->w->http, &r);
}

/* The machine is wanted now. A job that can still be done after the pause waits for it, the others go back. */
static void pause_now(struct worker *w, int64_t for_ms)
{
    dispatch_park(w, "paused by you");
    for (struct job *j = w->jobs, *next; j; j = next) {
        next = j->next;
        bool later = for_ms > 0 && now_ms() + for_ms + PAUSE_SPARE_MS < job_deadline_ms(j);
        if (job_is_open_for_engine(j) && !later) job_fault(j, "the owner wants the machine now");
    }
}

static void serve(struct client *client, struct control_request *request)
{
    struct worker *w = client->c->w;
    struct control_reply r = {0};
    struct error err = {0};
    arena_init(&r.memory, 8 << 20);
    switch (request->kind) {
    case CONTROL_STATUS: ask_books(client, request, apply_status, true); break;
    case CONTROL_JOBS: ask_books(client, request, apply_jobs, true); break;
    case CONTROL_LEDGER: ask_books(client, request, apply_ledger, true); break;
    case CONTROL_SPENT: ask_books(client, request, apply_spent, false); break;
    case CONTROL_WORKERS: ask_horde(client, request, "workers?type=image", on_workers); break;
    case CONTROL_MODELS:
        control_fill_models(w, &r);
        answer(client, &r);
        break;
    case CONTROL_WHY:
        control_fill_why(w, &r);
        answer(client, &r);
        break;
    case CONTROL_PAUSE:
        gate_pause(&w->gate, request->for_seconds * 1000, request->text);
        if (request->now) pause_now(w, request->for_seconds * 1000);
        log_info("control.pause", "for_s=%lld now=%d", (long long)request->for_seconds,
                 request->now);
        answer_done(client,
                    request->now
                        ? "paused; jobs in flight wait or were given back, models have left memory"
                        : "paused; jobs in flight are finished");
        worker_look(w);
        break;
    case CONTROL_RESUME:
        gate_resume(&w->gate);
        if (gate_is_open(&w->gate)) dispatch_unpark(w);
        pop_forgive(&w->images);
        pop_forgive(&w->forms);
        for (int i = 0; i < w->engine_count; i++) engine_process_mend(w->engines[i]);
        answer_done(client, "resumed");
        worker_look(w);
        break;
    case CONTROL_RELOAD:
        if (worker_reload(w, &err))
            answer_error(client, err.code, err.text);
        else
            answer_done(client, "configuration read again");
        break;
    case CONTROL_MAINTENANCE: {
        char *name = escaped(w->config.worker_name);
        char *path = alloc_printf("workers/name/%s", name);
        ask_horde(client, request, path, on_found);
        free(path);
        free(name);
        break;
    }
    case CONTROL_KIND_COUNT: break;
    }
    arena_release(&r.memory);
}

static void take_requests(struct client *client)
{
    const uint8_t *payload;
    size_t length;
    struct error err = {0};
    int found = 0;
    while (!client->closing && !client->out &&
           (found = frame_next(&client->in, FRAME_CONTROL_MAX, &payload, &length, &err)) > 0) {
        struct control_request request;
        int rc = control_request_decode(&request, payload, length, &err);
        frame_drop(&client->in, length);
        if (rc) {
            answer_error(client, rc, err.text);
            continue;
        }
        serve(client, &request);
        control_request_release(&request);
    }
    if (found < 0) close_client(client);
}

/* ---- the socket ---- */

static void on_room(uv_handle_t *handle, size_t wanted, uv_buf_t *room)
{
    struct client *client = handle->data;
    uint8_t *at = buf_reserve(&client->in, 16384, NULL);
    *room = uv_buf_init((char *)at, at ? 16384 : 0);
}

static void on_read(uv_stream_t *stream, ssize_t got, const uv_buf_t *room)
{
    struct client *client = stream->data;
    if (got < 0) {
        close_client(client);
        return;
    }
    buf_commit(&client->in, (size_t)got);
    take_requests(client);
}

static void on_client(uv_stream_t *listener, int status)
{
    struct control *c = listener->data;
    if (status < 0) return;
    struct client *client = alloc_zero(1, sizeof *client);
    client->c = c;
    buf_init(&client->in, FRAME_CONTROL_MAX + FRAME_HEAD_BYTES + 16384);
    uv_pipe_init(c->w->loop, &client->pipe, 0);
    client->pipe.data = client;
    client->next = c->clients;
    client->back = &c->clients;
    if (client->next) client->next->back = &client->next;
    c->clients = client;
    c->count++;
    if (uv_accept(listener, (uv_stream_t *)&client->pipe) || c->count > CLIENTS_MAX) {
        close_client(client);
        return;
    }
    uv_os_fd_t fd;
    struct ucred who = {0};
    socklen_t size = sizeof who;
    if (!uv_fileno((uv_handle_t *)&client->pipe, &fd))
        getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &size);
    log_debug("control.client", "pid=%d uid=%u gid=%u", who.pid, who.uid, who.gid);
    uv_read_start((uv_stream_t *)&client->pipe, on_room, on_read);
}

static int hand_to_group(struct control *c, struct error *err)
{
    const char *name = c->w->config.control_group;
    if (chmod(c->path, 0660)) return error_set_errno(err, ERR_IO, errno, "chmod %s", c->path);
    if (!*name) return 0;
    struct group *g = getgrnam(name);
    if (!g) return error_set(err, ERR_INVALID, "control_group: there is no group \"%.60s\"", name);
    if (chown(c->path, (uid_t)-1, g->gr_gid))
        return error_set_errno(err, ERR_IO, errno, "giving %s to the group %s", c->path, name);
    return 0;
}

static void on_listener_closed(uv_handle_t *handle)
{
    struct control *c = handle->data;
    free(c->path);
    free(c);
}

int control_start(struct control **control, struct worker *w, struct error *err)
{
    struct control *c = alloc_zero(1, sizeof *c);
    c->w = w;
    c->path = alloc_string(w->folders.socket);
    uv_pipe_init(w->loop, &c->listener, 0);
    c->listener.data = c;
    unlink(c->path); /* the ledger's lock says that no other kilnd has it */
    mode_t old = umask(0117);
    int bad = uv_pipe_bind(&c->listener, c->path);
    umask(old);
    int rc = 0;
    if (strlen(c->path) > 100)
        rc = error_set(err, ERR_INVALID, "%s is too long for a socket's name (100 bytes)", c->path);
    else if (bad)
        rc = error_set(err, ERR_IO, "making the control socket %s: %s", c->path, uv_strerror(bad));
    if (!rc) rc = hand_to_group(c, err);
    if (!rc && (bad = uv_listen((uv_stream_t *)&c->listener, 16, on_client)))
        rc = error_set(err, ERR_IO, "listening on %s: %s", c->path, uv_strerror(bad));
    if (rc) {
        uv_close((uv_handle_t *)&c->listener, on_listener_closed);
        return rc;
    }
    *control = c;
    return 0;
}

void control_stop(struct control *c)
{
    if (!c) return;
    while (c->clients) close_client(c->clients);
    unlink(c->path);
    uv_close((uv_handle_t *)&c->listener, on_listener_closed);
}
