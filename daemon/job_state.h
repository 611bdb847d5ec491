/*
 * job_state.h - the life of one image or form, as a table.
 *
 * Place    daemon/ledger applies events; nothing else changes a state.
 * Owner    const data. Any thread.
 * Failure  job_state_next: ERR_INTERNAL for a pair the table refuses: the caller has a bug, the
 *          ledger stays as it was.
 * Source   reliability L1, L5, section 1.
 *
 *     POPPED      the Horde's reply is durable
 *     READY       payload understood, sources fetched: may be given to an engine
 *     GENERATING  with an engine
 *     CHECKED     verdict known, the bytes are in the spool
 *     UPLOADED    the object store took them (or takes none)
 *     SUBMITTING  result or fault on its way; the Horde may or may not have it
 *     SETTLED, FAULTED, FORFEITED   paid; given back; worth nothing any more
 */
#ifndef DAEMON_JOB_STATE_H
#define DAEMON_JOB_STATE_H

#include <stdbool.h>

#include "base/error.h"

#define JOB_STATE_TABLE(X)                                                                         \
    X(POPPED)                                                                                      \
    X(READY) X(GENERATING) X(CHECKED) X(UPLOADED) X(SUBMITTING) X(SETTLED) X(FAULTED) X(FORFEITED)

#define JOB_EVENT_TABLE(X)                                                                         \
    X(PREPARED)    /* can be computed */                                                           \
    X(STARTED)     /* goes to an engine */                                                         \
    X(RETURNED)    /* its engine died: to be computed again */                                     \
    X(PASSED)      /* verdict and spool file are there */                                          \
    X(STORED)      /* upload done */                                                               \
    X(SENT)        /* a submit leaves now */                                                       \
    X(FAULT_SENT)  /* a submit as faulted leaves now */                                            \
    X(PAID)        /* the Horde took the result, now or earlier */                                 \
    X(FAULT_TAKEN) /* the Horde took the fault */                                                  \
    X(UNPAYABLE)   /* the Horde aborted or forgot it */                                            \
    X(EXPIRED)     /* so late that no reply can matter */                                          \
    X(GIVEN_AGAIN) /* the Horde gives a form that was given back to the same worker again */

enum job_state {
#define X(name) JOB_##name,
    JOB_STATE_TABLE(X)
#undef X
        JOB_STATE_COUNT
};

enum job_event {
#define X(name) JOB_EVENT_##name,
    JOB_EVENT_TABLE(X)
#undef X
        JOB_EVENT_COUNT
};

const char *job_state_name(enum job_state s);
const char *job_event_name(enum job_event e);
bool job_state_find(const char *name, enum job_state *s);
static inline bool job_state_is_final(enum job_state s)
{
    return s >= JOB_SETTLED;
}

int job_state_next(enum job_state *next, enum job_state now, enum job_event event,
                   struct error *err);

#endif
