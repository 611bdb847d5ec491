/* recover.c - what was open when the last kilnd ended (L5): CHECKED and later goes on with the same
 * bytes and id; earlier is computed again with the same seed when the time suffices, else given
 * back at once. Nothing new is popped before this is read. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/now.h"
#include "base/str.h"
#include "daemon/job.h"

struct found {
    struct ledger_job row;
    struct buf reply; /* of its pop */
};

struct recovery {
    struct worker *w;
    struct found *list;
    int count, swept;
};

static int add_row(void *ctx, const struct ledger_job *row)
{
    struct recovery *r = ctx;
    r->list = alloc_grow(r->list, (size_t)r->count + 1, sizeof *r->list);
    r->list[r->count].row = *row;
    buf_init(&r->list[r->count].reply, 64 << 20);
    r->count++;
    return 0;
}

static int apply_read(struct ledger *l, void *data, struct error *err)
{
    struct recovery *r = data;
    int rc = ledger_each_open(l, add_row, r, err);
    for (int i = 0; i < r->count && !rc; i++) {
        rc = ledger_reply(l, r->list[i].row.pop, &r->list[i].reply, err);
        if (rc == ERR_NOT_FOUND) rc = 0;
    }
    if (!rc) r->swept = ledger_spool_sweep(l);
    return rc;
}

/* The boot's own clock when it is the same boot, the wall clock otherwise. */
static int64_t age_ms(const struct worker *w, const struct ledger_job *row)
{
    int64_t age = *w->boot && str_equal(row->boot, w->boot) ? now_ms() - row->popped_boot_ms
                                                            : now_wall_ms() - row->popped_wall_ms;
    return age > 0 ? age : 0;
}

static struct job *job_of(struct worker *w, struct found *f)
{
    struct job *job = job_find(w, f->row.pop);
    if (job) return job;
    job = job_new(w, f->row.pop);
    job->form = f->row.form;
    job->recovered = true;
    job->popped_ms = now_ms() - age_ms(w, &f->row);
    job->popped_wall_ms = f->row.popped_wall_ms;
    struct error err = {0};
    if (!f->reply.length || job_read_reply(job, f->reply.data, f->reply.length, &err)) {
        log_error("recover.reply", "pop=%s text=\"%s\"", job->pop,
                  f->reply.length ? err.text : "not kept");
        job->count = 0; /* the rows alone: enough to give it back */
    }
    job->ttl_s = f->row.ttl_s;
    job->seed = f->row.seed;
    if (!job->what[0]) str_copy(job->what, sizeof job->what, f->row.what);
    for (int i = 0; i < job->count; i++) job->images[i].ended = true; /* until its row is met */
    return job;
}

static struct job_image *image_of(struct job *job, const struct ledger_job *row)
{
    for (int i = 0; i < job->count; i++)
        if (str_equal(job->images[i].id, row->id)) return &job->images[i];
    if (job->count == HORDE_BATCH_MAX) return NULL;
    struct job_image *image = &job->images[job->count++];
    image->job = job;
    image->index = row->batch_index;
    image->backoff = (struct backoff)BACKOFF_INIT(500, 30000);
    str_copy(image->id, sizeof image->id, row->id);
    return image;
}

static void take_row(struct worker *w, struct found *f)
{
    const struct ledger_job *row = &f->row;
    struct job *job = job_of(w, f);
    struct job_image *image = image_of(job, row);
    if (!image) return;
    image->ended = false;
    image->state = row->state;
    image->tries = row->tries;
    str_copy(image->spool, sizeof image->spool, row->spool);
    str_copy(image->notes, sizeof image->notes, row->notes);
    str_copy(image->verdict, sizeof image->verdict, row->verdict);
    log_info("job.recovered", "job=%s state=%s age_s=%lld", row->id, job_state_name(row->state),
             (long long)(age_ms(w, row) / 1000));
}

/* ---- going on ---- */

static void on_returned(void *data, int rc, const struct error *err)
{
    struct job *job = data;
    for (int i = 0; i < job->count; i++)
        if (!rc && !job->images[i].ended && job->images[i].state == JOB_GENERATING)
            job->images[i].state = JOB_READY;
    job_page_back(job);
    job_prepare(job);
}

/* Computed again from the start. READY and GENERATING need their sources again, too, so the way
 * leads through job_prepare; its PREPARED event is left out for what is READY already. */
static void again(struct job *job)
{
    struct page *p = page_new();
    for (int i = 0; i < job->count; i++) {
        struct job_image *image = &job->images[i];
        if (image->ended || image->state != JOB_GENERATING) continue;
        image->busy = true;
        page_result(p, image->id, EFFECT_ENGINE, 0, "kilnd ended");
        page_event(p, image->id, JOB_EVENT_RETURNED, "kilnd ended");
    }
    job->pages++;
    page_give(p, job->w->clerk, on_returned, job);
}

static void go_on_image(struct job_image *image, const char *fault)
{
    switch (image->state) {
    case JOB_CHECKED: upload_start(image); break;
    case JOB_UPLOADED: submit_start(image); break;
    case JOB_SUBMITTING:
        str_copy(image->fault, sizeof image->fault, fault);
        submit_start(image);
        break;
    default: break;
    }
}

static bool answer_is_lost(const struct job *job, const struct job_image *image)
{
    return job->form && image->state >= JOB_CHECKED && image->notes[0] != '{';
}

static void go_on(struct job *job, const struct recovery *r)
{
    bool early = false;
    for (int i = 0; i < job->count; i++) {
        struct job_image *image = &job->images[i];
        if (image->ended) continue;
        if (image->state < JOB_CHECKED) {
            early = true;
            continue;
        }
        const char *fault = "";
        for (int k = 0; k < r->count; k++)
            if (str_equal(r->list[k].row.id, image->id)) fault = r->list[k].row.fault;
        if (!*fault && answer_is_lost(job, image))
            job_fault_image(image, "its answer was not kept");
        else
            go_on_image(image, fault);
    }
    if (!early) return;
    bool known = job->form ? job->has_forms : job->has_horde;
    if (!known || job_deadline_ms(job) <= now_ms())
        job_fault(job,
                  known ? "its time ran out while kilnd was down" : "its request was not kept");
    else
        again(job); /* dispatch weighs the time left against 1.2 x the estimate */
}

static void on_read(void *data, int rc, const struct error *err)
{
    struct recovery *r = data;
    struct worker *w = r->w;
    if (rc) log_error("recover.failed", "text=\"%s\"", err->text);
    for (int i = 0; i < r->count && !rc; i++) take_row(w, &r->list[i]);
    w->recovering = false;
    for (struct job *j = w->jobs, *next; j; j = next) {
        next = j->next;
        go_on(j, r);
    }
    if (r->count || r->swept) log_info("recovered", "jobs=%d orphans=%d", r->count, r->swept);
    for (int i = 0; i < r->count; i++) buf_release(&r->list[i].reply);
    free(r->list);
    free(r);
    worker_look(w);
}

void recover_start(struct worker *w)
{
    struct recovery *r = alloc_zero(1, sizeof *r);
    r->w = w;
    w->recovering = true;
    clerk_give_alone(w->clerk, apply_read, on_read, r);
}
