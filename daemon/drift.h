/*
 * drift.h - what this server knows, by its own description: the public service moves.
 *
 * Place    asked at the start and every 30 minutes, a minute after a failure; pop, alchemy and submit send new
 *          words only when the server knows them, `kiln status` and `kiln why` tell what was learnt.
 * Owner    the worker embeds one. Loop thread.
 * Failure  closed: until the server has described itself, only what server 5.1.5 knows is sent.
 * Source   horde-api 18.6 (/api/swagger.json).
 */
#ifndef DAEMON_DRIFT_H
#define DAEMON_DRIFT_H

#include "daemon/alarm.h"
#include "proto/horde_pop.h"
#include "proto/horde_status.h"
#include "proto/horde_submit.h"

struct worker;

struct drift {
    struct alarm alarm;
    struct horde_swagger swagger; /* probed false: nothing known */
    int64_t asked_wall_ms;
    char trouble[160]; /* why there is no description, or none newer; "" */
    char text[600];    /* what it said, in a sentence */
};

void drift_start(struct worker *w);
void drift_release(struct drift *d);

/* The fields of a pop that older servers lack. */
void drift_pop(const struct drift *d, struct horde_pop *pop);
/* Would the server take it? True for what 5.1.5 has while nothing is known. */
bool drift_knows_form(const struct drift *d, const char *form);
bool drift_knows_note(const struct drift *d, enum metadata_type type, enum metadata_value value);

#endif
