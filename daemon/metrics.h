/*
 * metrics.h - what kilnd does, as numbers for Prometheus, on a port of this machine.
 *
 * Place    metrics_port of bridgeData.yaml; 0, the default, is off. http://127.0.0.1:PORT/metrics.
 * Owner    the worker: metrics_start / metrics_stop. Loop thread; metrics_write reads the worker only.
 * Failure  a port that is taken is a line in the log, not the end of kilnd. A client that is slow, large or one too
 *          many is closed.
 * Source   reliability V7, G13: proto/http_head.h judges each request; at most 16 connections, 5 s each. Names:
 *          prometheus.io/docs/practices/naming (base units, _total for counters), text format 0.0.4.
 *
 * Fewer than 200 series. No job ids, no prompts, no keys, no names of people; models by their number only.
 */
#ifndef DAEMON_METRICS_H
#define DAEMON_METRICS_H

#include "base/buf.h"
#include "daemon/worker.h"

#define METRICS_CONNECTIONS_MAX 16
#define METRICS_SECONDS_MAX 5

struct metrics;

void metrics_start(struct metrics **m, struct worker *w, int port);
void metrics_stop(struct metrics *m);

int metrics_write(const struct worker *w, struct buf *out, struct error *err);

#endif
