/*
 * recheck.h - files of the model store read again every 30 days: disks forget.
 *
 * Place    beside the offer: a file whose bytes changed is moved aside by store_verify and offered no more.
 * Owner    the worker. A thread of its own reads, one file at a time; the loop looks once a minute.
 * Failure  a store that cannot be read is tried again in an hour. At the end nobody waits for the thread.
 * Source   reliability E5.
 */
#ifndef DAEMON_RECHECK_H
#define DAEMON_RECHECK_H

#include "daemon/worker.h"

#define RECHECK_AGE_MS INT64_C(2592000000) /* 30 days */

void recheck_start(struct worker *w);

#endif
