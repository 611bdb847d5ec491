#include "base/now.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static _Atomic int64_t turned_ms;

static int64_t read_ms(clockid_t which)
{
    struct timespec ts;
    clock_gettime(which, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

int64_t now_ms(void)
{
    return read_ms(CLOCK_BOOTTIME) + turned_ms;
}

int64_t now_wall_ms(void)
{
    return read_ms(CLOCK_REALTIME) + turned_ms;
}

double now_seconds(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + 1e-9 * (double)ts.tv_nsec;
}

void now_turn_ms(int64_t by_ms)
{
    turned_ms += by_ms;
}

void now_start(void)
{
    const char *turn = getenv("KILN_CLOCK_TURN_MS");
    if (turn) now_turn_ms(strtoll(turn, NULL, 10));
}

void now_format_utc(char text[25], int64_t wall_ms)
{
    time_t seconds = (time_t)(wall_ms / 1000);
    int ms = (int)(wall_ms % 1000);
    struct tm tm;
    gmtime_r(&seconds, &tm);
    char whole[64];
    strftime(whole, sizeof whole, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(text, 25, "%.19s.%03dZ", whole, ms < 0 ? 0 : ms);
}
