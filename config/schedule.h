/*
 * schedule.h - the hours in which the owner lets the machine work.
 *
 * Place    config/check.c refuses what does not parse; daemon/gate.c asks every ten seconds.
 * Owner    the caller's struct. Local time of the machine.
 * Failure  ERR_INVALID with the text and the form wanted.
 *
 * "mon-fri 22:00-07:00", "sat,sun", "20:00-23:30". A span past midnight belongs to the day on which
 * it began.
 */
#ifndef CONFIG_SCHEDULE_H
#define CONFIG_SCHEDULE_H

#include <stdbool.h>

#include "base/error.h"

struct schedule_span {
    unsigned days;   /* bit 0 Sunday ... bit 6 Saturday */
    int from_minute; /* of the day */
    int to_minute;   /* at most from + 1440 */
};

int schedule_parse(struct schedule_span *s, const char *text, struct error *err);
/* weekday 0 is Sunday, as in struct tm. */
bool schedule_covers(const struct schedule_span *s, int weekday, int minute);

#endif
