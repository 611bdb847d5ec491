/*
 * control.h - kilnd's side of the control socket.
 *
 * Place    `kiln` asks, proto/control_msg carries it, this file answers from the worker and, for
 *          what stands in the books, from the clerk.
 * Owner    control_start / control_stop. Loop thread.
 * Failure  ERR_IO when the socket cannot be made. A client that sends nonsense or too much is cut
 *          off; at most 32 at a time. Nothing here can make kilnd fail.
 * Source   reliability V6: 0660 with a group, peer credentials logged, frames capped, no secrets.
 */
#ifndef DAEMON_CONTROL_H
#define DAEMON_CONTROL_H

#include "daemon/worker.h"
#include "proto/control_msg.h"

struct control;

int control_start(struct control **c, struct worker *w, struct error *err);
void control_stop(struct control *c); /* removes the socket */

/* control_docs.c: documents from the worker's own state, into `memory`. */
void control_fill_status(struct worker *w, const struct ledger_totals *t,
                         const struct ledger_account *account, struct control_reply *reply);
void control_fill_why(struct worker *w, struct control_reply *reply);
void control_fill_models(struct worker *w, struct control_reply *reply);

#endif
