#include "daemon/outage.h"

#include "base/now.h"
#include "daemon/backoff.h"

#define BEGINS_AT 3
#define LEAST_MS 500
#define MOST_MS 60000

bool outage_is_on(const struct outage *o)
{
    return o->failures >= BEGINS_AT;
}

bool outage_silent(struct outage *o)
{
    o->probing = false;
    if (!o->failures++) o->since_ms = now_ms();
    if (!outage_is_on(o)) return false;
    o->wait_ms = o->wait_ms ? o->wait_ms * 2 : LEAST_MS;
    if (o->wait_ms > MOST_MS) o->wait_ms = MOST_MS;
    /* half of a short wait is jitter, a second of the longest */
    int64_t jitter = o->wait_ms == MOST_MS ? 1000 : o->wait_ms / 2;
    o->until_ms = now_ms() + o->wait_ms - (int64_t)backoff_random((uint64_t)jitter + 1);
    return o->failures == BEGINS_AT;
}

bool outage_answered(struct outage *o)
{
    bool was = outage_is_on(o);
    *o = (struct outage){0};
    return was;
}

int64_t outage_ask_ms(struct outage *o)
{
    if (!outage_is_on(o)) return 0;
    int64_t wait = o->until_ms - now_ms();
    if (wait > 0) return wait;
    if (o->probing) return 1000;
    o->probing = true;
    return 0;
}
