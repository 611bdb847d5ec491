/*
 * outcome.h - what an engine says about its jobs: progress, results with verdicts, errors.
 *
 * Place    engine_process hears it, dispatch gave the job, job_checked is the way on.
 * Owner    nothing of its own. Loop thread.
 * Failure  a result that cannot be trusted runs once more, then the job is given back; an image
 *          without a verdict never leaves (reliability E1-E3, S1-S3).
 */
#ifndef DAEMON_OUTCOME_H
#define DAEMON_OUTCOME_H

#include "daemon/job.h"

void outcome_message(struct worker *w, struct engine_process *e, struct engine_msg *m);

#endif
