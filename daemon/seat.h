/*
 * seat.h - is somebody at the desktop of this machine?
 *
 * Place    beside gate.h's look at terminals, for user_idle_minutes. systemd-logind knows: graphical
 *          sessions of people (X11, Wayland) that are in front now, and for how long each says to be
 *          idle (IdleHint, IdleSinceHint).
 * Owner    the worker, while user_idle_minutes is set. Asks every SEAT_LOOK_SECONDS on a thread of its
 *          own, because a bus may keep one waiting; seat_idle_s from any thread.
 * Failure  without libsystemd (opened at run time), a bus or logind nothing is known: NAN.
 * Source   org.freedesktop.login1(5). The hint is the desktop's own: GNOME, KDE and swayidle's idlehint
 *          set it after their own delay. A desktop that never sets it counts as in use as long as
 *          somebody is logged in to it. What no hint tells: games with a pad, video without an
 *          inhibitor (idle), remote shells without a terminal.
 */
#ifndef DAEMON_SEAT_H
#define DAEMON_SEAT_H

#include "base/error.h"

#define SEAT_LOOK_SECONDS 5

struct seat;

int seat_start(struct seat **seat, struct error *err);
void seat_stop(struct seat *seat); /* NULL-safe; waits for a look that is under way */

/* Seconds since the least idle of them was active: 0 somebody is there; NAN: nobody is logged in to a
 * desktop, or it cannot be known. NULL-safe. */
double seat_idle_s(struct seat *seat);

#endif
