#include "daemon/page.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/str.h"

enum entry_kind { EVENT, INTENT, RESULT, FAULT, CHECKED, EARN, POST };

struct entry {
    enum entry_kind kind;
    char id[LEDGER_ID_BYTES];
    enum job_event event;
    enum ledger_effect effect;
    int status, factor_milli;
    int64_t reward_milli;
    char *text, *notes;
    char verdict[16];
    const void *bytes;
    size_t length;
    double seconds, joules;
    struct ledger_posting posting;
};

struct page {
    struct entry *entries;
    int count;
    char **spool; /* names to remove afterwards */
    int spool_count;
    clerk_done done;
    void *data;
};

struct page *page_new(void)
{
    return alloc_zero(1, sizeof(struct page));
}

static struct entry *add(struct page *p, enum entry_kind kind, const char *id)
{
    p->entries = alloc_grow(p->entries, (size_t)p->count + 1, sizeof *p->entries);
    struct entry *e = &p->entries[p->count++];
    memset(e, 0, sizeof *e);
    e->kind = kind;
    str_copy(e->id, sizeof e->id, id);
    return e;
}

void page_event(struct page *p, const char *id, enum job_event event, const char *note)
{
    struct entry *e = add(p, EVENT, id);
    e->event = event;
    e->text = alloc_string(note);
}

void page_intent(struct page *p, const char *id, enum ledger_effect effect)
{
    add(p, INTENT, id)->effect = effect;
}

void page_result(struct page *p, const char *id, enum ledger_effect effect, int status,
                 const char *text)
{
    struct entry *e = add(p, RESULT, id);
    e->effect = effect;
    e->status = status;
    e->text = alloc_string(text);
}

void page_fault(struct page *p, const char *id, const char *reason)
{
    add(p, FAULT, id)->text = alloc_string(reason);
}

void page_checked(struct page *p, const char *id, const void *bytes, size_t length,
                  const char *verdict, const char *notes, double seconds, double joules)
{
    struct entry *e = add(p, CHECKED, id);
    e->bytes = bytes;
    e->length = length;
    e->notes = alloc_string(notes);
    e->seconds = seconds;
    e->joules = joules;
    str_copy(e->verdict, sizeof e->verdict, verdict);
}

void page_earn(struct page *p, const char *id, int64_t reward_milli, int factor_milli)
{
    struct entry *e = add(p, EARN, id);
    e->reward_milli = reward_milli;
    e->factor_milli = factor_milli;
}

void page_post(struct page *p, const struct ledger_posting *posting)
{
    add(p, POST, posting->job)->posting = *posting;
}

void page_spool_remove(struct page *p, const char *name)
{
    if (!*name) return;
    p->spool = alloc_grow(p->spool, (size_t)p->spool_count + 1, sizeof *p->spool);
    p->spool[p->spool_count++] = alloc_string(name);
}

static int apply_entry(struct ledger *l, const struct entry *e, struct error *err)
{
    char name[80] = "";
    int rc = 0;
    switch (e->kind) {
    case EVENT: return ledger_event(l, e->id, e->event, e->text, err);
    case INTENT: return ledger_intent(l, e->id, e->effect, err);
    case RESULT: return ledger_result(l, e->id, e->effect, e->status, e->text, err);
    case FAULT: return ledger_fault(l, e->id, e->text, err);
    case CHECKED:
        if (e->bytes) rc = ledger_spool_write(l, e->id, e->bytes, e->length, name, err);
        if (rc) return rc;
        return ledger_checked(l, e->id, name, e->verdict, e->notes, e->seconds, e->joules, err);
    case EARN: return ledger_earn(l, e->id, e->reward_milli, e->factor_milli, err);
    case POST: return ledger_post(l, &e->posting, err);
    }
    return 0;
}

static int apply_page(struct ledger *l, void *data, struct error *err)
{
    struct page *p = data;
    int rc = 0;
    for (int i = 0; i < p->count && !rc; i++) rc = apply_entry(l, &p->entries[i], err);
    return rc;
}

static int remove_spool(struct ledger *l, void *data, struct error *err)
{
    struct page *p = data;
    for (int i = 0; i < p->spool_count; i++) ledger_spool_remove(l, p->spool[i]);
    return 0;
}

static void free_page(void *data, int rc, const struct error *err)
{
    struct page *p = data;
    for (int i = 0; i < p->count; i++) {
        free(p->entries[i].text);
        free(p->entries[i].notes);
    }
    for (int i = 0; i < p->spool_count; i++) free(p->spool[i]);
    free(p->entries);
    free(p->spool);
    free(p);
}

struct page_context {
    struct page *page;
    struct clerk *clerk;
};

static int apply_context(struct ledger *l, void *data, struct error *err)
{
    return apply_page(l, ((struct page_context *)data)->page, err);
}

static void after(void *data, int rc, const struct error *err)
{
    struct page_context *x = data;
    struct page *p = x->page;
    if (p->done) p->done(p->data, rc, err);
    /* the files go only when the rows that name them are gone for sure */
    if (!rc && p->spool_count)
        clerk_give_alone(x->clerk, remove_spool, free_page, p);
    else
        free_page(p, 0, NULL);
    free(x);
}

void page_give(struct page *p, struct clerk *c, clerk_done done, void *data)
{
    struct page_context *x = alloc_zero(1, sizeof *x);
    p->done = done;
    p->data = data;
    *x = (struct page_context){.page = p, .clerk = c};
    clerk_give(c, apply_context, after, x);
}
