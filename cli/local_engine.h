/*
 * local_engine.h - a kiln-engine of one's own, for work on this machine.
 *
 * Place    `kiln generate`, `kiln train`, `kiln bench`: the same process and messages that kilnd
 *          uses.
 * Owner    start/stop; one thread. The child ends when its pipe closes.
 * Failure  ERR_NOT_FOUND (no engine program), ERR_NETWORK (it ended), whatever it reports;
 *          ERR_CANCELED after Ctrl-C, which asks the engine to stop the job first.
 */
#ifndef CLI_LOCAL_ENGINE_H
#define CLI_LOCAL_ENGINE_H

#include <sys/types.h>

#include "proto/engine_msg.h"

struct local_engine {
    pid_t pid;
    int to_fd, from_fd;
    uint64_t launch_id;
    struct buf in;
};

/* $KILN_ENGINE, else the one that lies beside kiln; the caller frees. NULL and ERR_NOT_FOUND. */
char *local_engine_program(struct error *err);

/* device and precision may be NULL. Waits for the engine's hello. */
int local_engine_start(struct local_engine *e, const char *device, const char *precision,
                       struct error *err);
void local_engine_stop(struct local_engine *e);

int local_engine_send(struct local_engine *e, const struct engine_msg *m, struct error *err);
/* The next message but heartbeats; release it. An ENGINE_ERROR becomes this function's error. */
int local_engine_next(struct local_engine *e, struct engine_msg *m, const char *job_id,
                      struct error *err);

#endif
