/*
 * account.h - who the owner is at the Horde, and whether its figure agrees with the books.
 *
 * Place    beside the path of a job: trust decides the speed governor, the balance is reconciled.
 * Owner    the worker's alarms. Loop thread.
 * Failure  none: without an answer the last figure stays.
 */
#ifndef DAEMON_ACCOUNT_H
#define DAEMON_ACCOUNT_H

#include "daemon/worker.h"

void account_start(struct worker *w);

#endif
