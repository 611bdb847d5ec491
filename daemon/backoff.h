/*
 * backoff.h - how long to wait after trouble.
 *
 * Place    between a failed pop, upload or submit and the next try.
 * Owner    each caller embeds one. Loop thread.
 * Failure  cannot fail. Source: full jitter between half and the whole of a doubling wait;
 *          reliability L7, N7.
 */
#ifndef DAEMON_BACKOFF_H
#define DAEMON_BACKOFF_H

#include <stdint.h>

struct backoff {
    int64_t least_ms, most_ms;
    int64_t wait_ms;       /* the next, before jitter; 0: nothing failed yet */
    int64_t failing_since; /* now_ms of the first failure in a row; 0: none */
    int failures;          /* in a row */
};

#define BACKOFF_INIT(least, most)                                                                  \
    {                                                                                              \
        .least_ms = (least), .most_ms = (most)                                                     \
    }

/* Another failure: how long to wait now. `at_least_ms` is the server's Retry-After, or 0. */
int64_t backoff_next_ms(struct backoff *b, int64_t at_least_ms);
void backoff_reset(struct backoff *b);

/* A uniform number below `bound`, for jitter; never for secrets. */
uint64_t backoff_random(uint64_t bound);

#endif
