#include "config/schedule.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

static int day_of(const char *text)
{
    static const char *const days[] = {"sun", "mon", "tue", "wed", "thu", "fri", "sat"};
    for (int i = 0; i < 7; i++)
        if (!strncasecmp(text, days[i], 3)) return i;
    return -1;
}

/* "mon-fri,sun": each piece three letters, or two of them with a dash */
static bool parse_days(const char **at, unsigned *days)
{
    *days = 0;
    for (;;) {
        int first = day_of(*at);
        if (first < 0) return false;
        *at += 3;
        int last = first;
        if (**at == '-') {
            last = day_of(*at + 1);
            if (last < 0) return false;
            *at += 4;
        }
        for (int d = first;; d = (d + 1) % 7) {
            *days |= 1u << d;
            if (d == last) break;
        }
        if (**at != ',') return true;
        ++*at;
    }
}

int schedule_parse(struct schedule_span *s, const char *text, struct error *err)
{
    const char *at = text;
    struct schedule_span span = {.days = 127, .from_minute = 0, .to_minute = 1440};
    bool good = true;
    if (day_of(at) >= 0) good = parse_days(&at, &span.days);
    while (good && *at == ' ') at++;
    if (good && *at) {
        int h1, m1, h2, m2, used = 0;
        good = sscanf(at, "%2d:%2d-%2d:%2d%n", &h1, &m1, &h2, &m2, &used) == 4 && !at[used] &&
               h1 >= 0 && h1 < 24 && h2 >= 0 && h2 <= 24 && m1 >= 0 && m1 < 60 && m2 >= 0 &&
               m2 < 60 && h2 * 60 + m2 <= 1440;
        if (good) {
            span.from_minute = h1 * 60 + m1;
            span.to_minute = h2 * 60 + m2;
            if (span.to_minute <= span.from_minute) span.to_minute += 1440;
        }
    }
    if (!good || !*text)
        return error_set(err, ERR_INVALID,
                         "schedule: \"%.60s\" is not of the form \"mon-fri 22:00-07:00\"", text);
    *s = span;
    return 0;
}

bool schedule_covers(const struct schedule_span *s, int weekday, int minute)
{
    if (s->days & (1u << weekday) && minute >= s->from_minute && minute < s->to_minute) return true;
    int yesterday = (weekday + 6) % 7;
    return s->days & (1u << yesterday) && minute + 1440 < s->to_minute;
}
