/*
 * engine_process.h - one kiln-engine, started, listened to, and replaced when it fails.
 *
 * Place    between dispatch (jobs to engines) and proto/engine_msg.
 * Owner    engine_process_new / engine_process_stop; the worker has one for each device. Loop
 *          thread. Callbacks never come from inside a call.
 * Failure  reliability E1: an engine that ends or is silent for max(60 s, 10 x the median step) is
 *          killed and started again, 5 times in 10 minutes, then it stays down with a reason.
 *          Messages of an earlier launch are dropped.
 *
 * The engine gets no key, no network configuration and no ledger: an empty environment but PATH,
 * HOME, LANG, KILN_*, and its own end of two pipes.
 */
#ifndef DAEMON_ENGINE_PROCESS_H
#define DAEMON_ENGINE_PROCESS_H

#include <uv.h>

#include "daemon/alarm.h"
#include "proto/engine_msg.h"

#define ENGINE_RESTARTS_MAX 5
#define ENGINE_RESTARTS_WINDOW_MS (10 * 60 * 1000)
#define ENGINE_SILENCE_MS 60000

enum engine_state { ENGINE_STARTING, ENGINE_READY, ENGINE_DEAD, ENGINE_BROKEN, ENGINE_STOPPED };

struct engine_process;

struct engine_events {
    void (*ready)(void *data, struct engine_process *e);
    /* `m` is released afterwards; hello and heartbeat are kept by the process itself */
    void (*message)(void *data, struct engine_process *e, struct engine_msg *m);
    /* it ended: everything given to launch `launch_id` is lost */
    void (*gone)(void *data, struct engine_process *e, uint64_t launch_id, const char *why);
};

struct engine_options {
    const char *program, *device, *precision;
    const char *cache; /* folder of models */
};

struct engine_process *engine_process_new(uv_loop_t *loop, struct alarms *alarms,
                                          const struct engine_options *options,
                                          const struct engine_events *events, void *data);
/* Starts the program unless it runs or is broken. */
void engine_process_start(struct engine_process *e);
/* Shutdown message, then SIGTERM after `grace_ms`, then SIGKILL. No more `gone`. Frees itself, then
 * calls `freed`. */
void engine_process_stop(struct engine_process *e, int64_t grace_ms, void (*freed)(void *data),
                         void *data);
/* It is stuck: killed and started again, `gone` follows. */
void engine_process_replace(struct engine_process *e, const char *why);
/* No restart can help: down until a person looks; called from `message`, its end follows. */
void engine_process_break(struct engine_process *e, const char *why);
/* After a person changed something: a broken one may try again. */
void engine_process_mend(struct engine_process *e);

enum engine_state engine_process_state(const struct engine_process *e);
uint64_t engine_process_launch(const struct engine_process *e);
const char *engine_process_device(const struct engine_process *e);
const char *engine_process_trouble(const struct engine_process *e); /* why it is broken; "" */
int engine_process_pid(const struct engine_process *e);
int engine_process_restarts(const struct engine_process *e);
/* Valid while READY; hello.device_count 0 before the first. */
const struct engine_hello *engine_process_hello(const struct engine_process *e);
const struct engine_heartbeat *engine_process_heartbeat(const struct engine_process *e);

/* Encodes and writes. A message that cannot be written is lost with the engine: `gone` follows. */
int engine_process_send(struct engine_process *e, const struct engine_msg *m, struct error *err);
/* A step took that long: silence is judged by it. */
void engine_process_step(struct engine_process *e, double seconds);

#endif
