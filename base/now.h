/*
 * now.h - the one seam through which time enters the program.
 *
 * Place    deadlines, durations, and times shown to people.
 * Owner    none. Any thread. Tests turn the clock with now_turn_ms.
 * Failure  cannot fail.
 *
 * now_ms counts through suspend (CLOCK_BOOTTIME, reliability N8): use it for deadlines.
 * now_wall_ms is UTC milliseconds since 1970: only stored and shown, never compared with now_ms.
 */
#ifndef BASE_NOW_H
#define BASE_NOW_H

#include <stdint.h>

int64_t now_ms(void);
int64_t now_wall_ms(void);
double now_seconds(void); /* monotonic, fine-grained, for measuring */

/* Adds to both clocks from here on. For tests; KILN_CLOCK_TURN_MS in the environment does the
 * same at start when the program calls now_start. */
void now_turn_ms(int64_t by_ms);
void now_start(void);

/* "2026-11-24T06:00:00.000Z" into 25 bytes. */
void now_format_utc(char text[25], int64_t wall_ms);

#endif
