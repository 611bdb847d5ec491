#include "daemon/backoff.h"

#include <sys/random.h>

#include "base/now.h"

uint64_t backoff_random(uint64_t bound)
{
    uint64_t value = 0;
    if (getrandom(&value, sizeof value, GRND_NONBLOCK) != sizeof value)
        value = (uint64_t)(now_seconds() * 1e9);
    return bound ? value % bound : 0;
}

int64_t backoff_next_ms(struct backoff *b, int64_t at_least_ms)
{
    if (!b->failing_since) b->failing_since = now_ms();
    b->failures++;
    b->wait_ms = b->wait_ms ? b->wait_ms * 2 : b->least_ms;
    if (b->wait_ms > b->most_ms) b->wait_ms = b->most_ms;
    int64_t half = b->wait_ms / 2;
    int64_t wait = half + (int64_t)backoff_random((uint64_t)(b->wait_ms - half) + 1);
    if (wait < b->least_ms) wait = b->least_ms;
    return wait > at_least_ms ? wait : at_least_ms;
}

void backoff_reset(struct backoff *b)
{
    b->wait_ms = 0;
    b->failing_since = 0;
    b->failures = 0;
}
