/*
 * outage.h - when the Horde is silent, one try stands for all.
 *
 * Place    pop and submit tell it what they met and ask before they try.
 * Owner    the worker embeds one. Loop thread.
 * Failure  cannot fail. Source: reliability G10 (an hour's outage: at most 70 requests, back within
 *          a minute, nothing payable lost), N7.
 *
 * From the third failure in a row on, by whomever, the next try waits for a shared time that doubles
 * from half a second to a minute, and only one is out at a time. Any answer below 500 ends it.
 */
#ifndef DAEMON_OUTAGE_H
#define DAEMON_OUTAGE_H

#include <stdbool.h>
#include <stdint.h>

struct outage {
    int failures;     /* in a row */
    int64_t since_ms; /* of the first */
    int64_t wait_ms, until_ms;
    bool probing; /* a try is out */
};

/* No answer, or a 5xx. True when this began an outage. */
bool outage_silent(struct outage *o);
/* Any other answer. True when an outage is over: wake who waits. */
bool outage_answered(struct outage *o);
/* 0: go ahead (and the try is yours: it must end in one of the two above); else wait so long. */
int64_t outage_ask_ms(struct outage *o);
bool outage_is_on(const struct outage *o);

#endif
