/*
 * clerk.h - the thread that keeps the ledger, so that the loop never waits for the disk.
 *
 * Place    between everything that happens to a job and ledger.h. Tasks are done in the order they
 *          were given; those that wait together share one commit (L3: 40 jobs a second on a disk
 *          with 246 commits a second).
 * Owner    clerk_start / clerk_stop from the loop's thread. A task's `apply` runs on the clerk's
 *          thread inside the transaction and may run again: it reads `data` and changes only what
 *          it returns there. `done` runs on the loop, after the commit, exactly once, never from
 *          inside clerk_give. Then `data` is the task's own business again.
 * Failure  an apply that fails is undone alone; its `done` gets the code. A commit that fails fails
 *          every task of its group. A full disk releases the ballast and the group is tried again.
 */
#ifndef DAEMON_CLERK_H
#define DAEMON_CLERK_H

#include <uv.h>

#include "daemon/ledger.h"

struct clerk;

typedef int (*clerk_apply)(struct ledger *l, void *data, struct error *err);
typedef void (*clerk_done)(void *data, int rc, const struct error *err);

/* Takes the ledger over; clerk_stop closes it. */
int clerk_start(struct clerk **c, uv_loop_t *loop, struct ledger *ledger, struct error *err);
/* Finishes what was given, closes the ledger, frees. Calls the outstanding `done`s. */
void clerk_stop(struct clerk *c);

/* `done` may be NULL. */
void clerk_give(struct clerk *c, clerk_apply apply, clerk_done done, void *data);
/* The same outside a transaction and alone: backups, reading long lists. */
void clerk_give_alone(struct clerk *c, clerk_apply apply, clerk_done done, void *data);

/* For the watchdog and the disk gate. Any thread. */
int64_t
clerk_quiet_ms(const struct clerk *c); /* since the thread last answered; 0 while it waits */
bool clerk_disk_tight(const struct clerk *c);
int64_t clerk_disk_free_bytes(const struct clerk *c);
int clerk_waiting(const struct clerk *c); /* tasks given and not yet done */

#endif
