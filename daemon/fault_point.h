/*
 * fault_point.h - places where a test may kill the daemon, fail it or slow it down.
 *
 * Place    at every boundary of a job's life, before and after what is durable.
 * Owner    the process; read once from KILN_FAULT. Compiled in only with -Dfault_points=true.
 * Failure  fault_point returns 0, or ERR_IO when the test wants a failure.
 *
 *     KILN_FAULT=name:nth=kill|err|delay[,...]    the nth passing of that place
 */
#ifndef DAEMON_FAULT_POINT_H
#define DAEMON_FAULT_POINT_H

#include "base/error.h"

#define FAULT_POINT_TABLE(X)                                                                       \
    X(POP_SENT, "pop.sent")               /* the request left */                                   \
    X(POP_ARRIVED, "pop.arrived")         /* a job is known in memory only */                      \
    X(POP_STORED, "pop.stored")           /* POPPED is durable */                                  \
    X(JOB_READY, "job.ready")             /* READY is durable */                                   \
    X(JOB_STARTED, "job.started")         /* GENERATING is durable, the engine knows nothing */    \
    X(JOB_SENT, "job.sent")               /* the engine has it */                                  \
    X(RESULT_ARRIVED, "result.arrived")   /* pixels in memory only */                              \
    X(RESULT_STORED, "result.stored")     /* CHECKED is durable, the upload may begin */           \
    X(UPLOAD_DONE, "upload.done")         /* the store has it, the ledger does not know */         \
    X(UPLOAD_STORED, "upload.stored")     /* UPLOADED is durable */                                \
    X(SUBMIT_STORED, "submit.stored")     /* SUBMITTING is durable, nothing left yet */            \
    X(SUBMIT_ANSWERED, "submit.answered") /* paid, the ledger does not know */                     \
    X(SUBMIT_BOOKED, "submit.booked")     /* SETTLED is durable */                                 \
    X(FAULT_STORED, "fault.stored")       /* the fault's intent is durable */                      \
    X(FAULT_ANSWERED, "fault.answered")   /* the Horde has the fault, the ledger does not know */

enum fault_point {
#define X(name, text) FAULT_##name,
    FAULT_POINT_TABLE(X)
#undef X
        FAULT_POINT_COUNT
};

const char *fault_point_name(enum fault_point p);

#ifdef KILN_FAULT_POINTS
int fault_point_pass(enum fault_point p);
#define fault_point(p) fault_point_pass(p)
#else
static inline int fault_point(enum fault_point p)
{
    (void)p;
    return 0;
}
#endif

#endif
