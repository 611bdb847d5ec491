/*
 * gate.h - whether the machine may work now, and why not.
 *
 * Place    pop asks before each try; `kiln status` and `kiln why` show the reasons.
 * Owner    the worker embeds one. Loop thread.
 * Failure  cannot fail: what cannot be measured does not block.
 * Source   reliability V1: own pause, schedule, mains power, disk floor, other programs on the
 *          device, heat, a user at the keyboard. Ten seconds in, two minutes out for what is measured.
 */
#ifndef DAEMON_GATE_H
#define DAEMON_GATE_H

#include <stdbool.h>
#include <stdint.h>

#include "config/config.h"

enum gate_kind {
    GATE_PAUSED,
    GATE_SCHEDULE,
    GATE_BATTERY,
    GATE_DISK,
    GATE_FOREIGN_USE,
    GATE_TEMPERATURE,
    GATE_USER,
    GATE_COUNT
};

struct gate {
    bool paused;
    int64_t paused_until_ms; /* now_ms; 0 without end */
    char pause_reason[200];
    struct {
        bool shut, raw;
        int64_t since_ms; /* of raw's last change */
    } measured[GATE_COUNT];
};

struct gate_facts {
    int64_t disk_free_bytes; /* -1 unknown */
    bool disk_tight;
    double foreign_use;   /* 0..1, NAN unknown */
    double temperature_c; /* of the hottest card, NAN unknown */
    double user_idle_s;   /* since somebody typed, NAN unknown */
};

const char *gate_name(enum gate_kind k);
/* Looks at the world; true when something opened or shut. */
bool gate_look(struct gate *g, const struct config *c, const struct gate_facts *facts);
bool gate_is_shut(const struct gate *g, enum gate_kind k);
bool gate_is_open(const struct gate *g); /* none is shut */
/* Does somebody need the machine at once: what runs is put aside, not finished. */
bool gate_is_urgent(enum gate_kind k);
/* Seconds since the last key in a terminal of this machine; NAN when there is none to ask. */
double gate_user_idle_s(const char *devices_folder);
/* A sentence about a shut gate. */
void gate_tell(char *text, size_t room, const struct gate *g, enum gate_kind k,
               const struct config *c);

void gate_pause(struct gate *g, int64_t for_ms, const char *reason);
void gate_resume(struct gate *g);

#endif
