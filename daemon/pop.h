/*
 * pop.h - asking the Horde for work: when, how often, and what its answer means.
 *
 * Place    first step of a job. One popper for images, one for forms; one request in flight each.
 * Owner    the worker embeds both. Loop thread.
 * Failure  what the Horde refuses is proto/horde_error's reaction; the reason stands in the popper
 *          for `kiln why`.
 * Source   reliability L2, N7; horde-api 6, 12, 21.
 *
 * At once when capacity frees, after an empty answer 1 s growing to 5 s (1 s on loopback), one
 * job ahead of the engines; never while a gate is shut.
 */
#ifndef DAEMON_POP_H
#define DAEMON_POP_H

#include "daemon/worker.h"
#include "proto/control_msg.h"

void pop_start(struct popper *p, struct worker *w, bool form);
void pop_stop(struct popper *p);
/* Something changed; asks when it may. */
void pop_look(struct popper *p);
/* The Horde said what only the operator can change: no more for five minutes at a time (N7). */
void pop_halt(struct popper *p, const char *why);
/* Forgets what only the operator could change, and changed. */
void pop_forgive(struct popper *p);

/* Why it does not ask: the first reason that blocks, into *reason (static or borrowed texts, `room`
 * for the sentence). False: nothing blocks. */
bool pop_blocked(const struct popper *p, struct control_reason *reason, char *text, size_t room);

#endif
