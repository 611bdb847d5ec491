/*
 * demand.h - what the Horde's queue asks for, and what each model earns here.
 *
 * Place    beside pop: with dynamic_models it chooses what is offered; `kiln models` shows it.
 * Owner    the worker's alarm and models. Loop thread.
 * Failure  none: without an answer the last figures stay, and everything is offered.
 * Source   horde-api 17 (status/models), issue of the scheduler: demand and measured kudos a
 *          second.
 */
#ifndef DAEMON_DEMAND_H
#define DAEMON_DEMAND_H

#include "daemon/worker.h"

void demand_start(struct worker *w);
/* An image of this model was paid. */
void demand_learn(struct worker *w, const char *model, int64_t reward_milli, double seconds);
/* Is it worth offering now? Always true without dynamic_models. */
bool demand_wants(const struct worker *w, const struct worker_model *m);

#endif
