#include "daemon/job_state.h"

#include "base/alloc.h"
#include "base/str.h"

static const char *const state_names[] = {
#define X(name) #name,
    JOB_STATE_TABLE(X)
#undef X
};
static const char *const event_names[] = {
#define X(name) #name,
    JOB_EVENT_TABLE(X)
#undef X
};

/* Every pair is written down. NO is a refusal: the pair cannot happen to a correct program. An end
 * is an end: a late reply about a finished job is dropped before it comes here. One way leads back:
 * a form that was given back waits at the Horde under its old id, and may be given to us again. */
#define NO (-1)
/* clang-format off */
static const signed char table[JOB_STATE_COUNT][JOB_EVENT_COUNT] = {
    /*                 PREPARED  STARTED         RETURNED   PASSED       STORED        SENT            FAULT_SENT      PAID         FAULT_TAKEN  UNPAYABLE      EXPIRED        GIVEN_AGAIN */
    [JOB_POPPED]     = {JOB_READY, NO,             NO,        NO,          NO,           NO,             JOB_SUBMITTING, NO,          NO,          NO,            JOB_FORFEITED,  NO},
    [JOB_READY]      = {NO,        JOB_GENERATING, NO,        NO,          NO,           NO,             JOB_SUBMITTING, NO,          NO,          NO,            JOB_FORFEITED,  NO},
    [JOB_GENERATING] = {NO,        NO,             JOB_READY, JOB_CHECKED, NO,           NO,             JOB_SUBMITTING, NO,          NO,          NO,            JOB_FORFEITED,  NO},
    [JOB_CHECKED]    = {NO,        NO,             NO,        NO,          JOB_UPLOADED, NO,             JOB_SUBMITTING, NO,          NO,          NO,            JOB_FORFEITED,  NO},
    [JOB_UPLOADED]   = {NO,        NO,             NO,        NO,          NO,           JOB_SUBMITTING, JOB_SUBMITTING, NO,          NO,          NO,            JOB_FORFEITED,  NO},
    [JOB_SUBMITTING] = {NO,        NO,             NO,        NO,          NO,           JOB_SUBMITTING, JOB_SUBMITTING, JOB_SETTLED, JOB_FAULTED, JOB_FORFEITED, JOB_FORFEITED,  NO},
    [JOB_SETTLED]    = {NO,        NO,             NO,        NO,          NO,           NO,             NO,             NO,          NO,          NO,            NO,             NO},
    [JOB_FAULTED]    = {NO,        NO,             NO,        NO,          NO,           NO,             NO,             NO,          NO,          NO,            NO,             JOB_POPPED},
    [JOB_FORFEITED]  = {NO,        NO,             NO,        NO,          NO,           NO,             NO,             NO,          NO,          NO,            NO,             NO},
};
/* clang-format on */

const char *job_state_name(enum job_state s)
{
    return (unsigned)s < JOB_STATE_COUNT ? state_names[s] : "?";
}

const char *job_event_name(enum job_event e)
{
    return (unsigned)e < JOB_EVENT_COUNT ? event_names[e] : "?";
}

bool job_state_find(const char *name, enum job_state *s)
{
    for (unsigned i = 0; i < COUNT_OF(state_names); i++)
        if (str_equal_nocase(name, state_names[i])) return *s = (enum job_state)i, true;
    return false;
}

int job_state_next(enum job_state *next, enum job_state now, enum job_event event,
                   struct error *err)
{
    int to = (unsigned)now < JOB_STATE_COUNT && (unsigned)event < JOB_EVENT_COUNT
                 ? table[now][event]
                 : NO;
    if (to == NO)
        return error_set(err, ERR_INTERNAL, "a job that is %s cannot meet %s", job_state_name(now),
                         job_event_name(event));
    *next = (enum job_state)to;
    return 0;
}
