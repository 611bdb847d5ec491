/*
 * dispatch.h - which engine gets which job.
 *
 * Place    between prepare (READY) and outcome (what the engine says); job.h has what others call.
 * Owner    the worker's jobs and engines. Loop thread.
 * Failure  a job that cannot be done in its time, or whose engines ended over it, is given back.
 */
#ifndef DAEMON_DISPATCH_H
#define DAEMON_DISPATCH_H

#include "daemon/job.h"

/* Pixel-steps of all its images. */
double dispatch_work(const struct job *job);
/* Back to READY: its engine is gone or asked to try once more. */
void dispatch_take_back(struct job *job, const char *why);
/* The job that an engine means by that id; NULL when it is of an earlier turn. */
struct job *dispatch_find(struct worker *w, const char *engine_id);

#endif
