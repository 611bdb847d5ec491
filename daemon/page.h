/*
 * page.h - what is to be written into the ledger in one move.
 *
 * Place    job, upload and submit fill one and give it to the clerk; all of it becomes durable
 *          together or nothing does.
 * Owner    page_new makes it, page_give passes it on; it is freed after `done`. Bytes of a spool
 *          entry are borrowed until then; everything else is copied. Loop thread.
 * Failure  `done` gets the code of the first entry that failed; ledger.h says which there are.
 */
#ifndef DAEMON_PAGE_H
#define DAEMON_PAGE_H

#include "daemon/clerk.h"

struct page;

struct page *page_new(void);
void page_event(struct page *p, const char *id, enum job_event event, const char *note);
void page_intent(struct page *p, const char *id, enum ledger_effect effect);
void page_result(struct page *p, const char *id, enum ledger_effect effect, int status,
                 const char *text);
void page_fault(struct page *p, const char *id, const char *reason);
/* The image into the spool, then the row. */
void page_checked(struct page *p, const char *id, const void *bytes, size_t length,
                  const char *verdict, const char *notes, double seconds, double joules);
void page_earn(struct page *p, const char *id, int64_t reward_milli, int factor_milli);
void page_post(struct page *p, const struct ledger_posting *posting);
/* After the commit, not in it. */
void page_spool_remove(struct page *p, const char *name);

/* `done` may be NULL. `data` is handed through. */
void page_give(struct page *p, struct clerk *c, clerk_done done, void *data);

#endif
