#include "cli/progress.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/now.h"
#include "base/str.h"

#define BAR_CELLS 28

bool terminal_is_interactive(int fd)
{
    const char *ci = getenv("CI"), *term = getenv("TERM");
    if (ci && str_equal_nocase(ci, "true")) return false;
    return isatty(fd) && term && strcmp(term, "dumb") != 0;
}

void progress_start(struct progress *p, bool quiet)
{
    *p = (struct progress){
        .terminal = terminal_is_interactive(STDERR_FILENO),
        .quiet = quiet,
        .started = now_seconds(),
        .last_tenth = -1,
    };
}

static void draw_bar(struct progress *p, const char *phase, int step, int steps)
{
    double seconds = now_seconds() - p->started;
    char bar[BAR_CELLS * 3 + 1] = "";
    size_t used = 0;
    int full = steps > 0 ? step * BAR_CELLS / steps : 0;
    for (int i = 0; i < BAR_CELLS; i++) {
        const char *cell = i < full ? "\xe2\x96\x88" : "\xe2\x96\x91"; /* full block, light shade */
        memcpy(bar + used, cell, 3);
        used += 3;
    }
    bar[used] = 0;
    fprintf(stderr, "\r\033[K%-8s %s", phase, bar);
    if (steps > 0) fprintf(stderr, " %3d/%d", step, steps);
    fprintf(stderr, "  %.1f s", seconds);
    if (steps > 0 && step > 0 && step < steps)
        fprintf(stderr, ", %.0f s left", seconds / step * (steps - step));
    fflush(stderr);
    p->last_drawn = now_seconds();
}

void progress_show(struct progress *p, const char *phase, int step, int steps)
{
    if (p->quiet) return;
    bool changed = strcmp(p->phase, phase) != 0;
    if (changed) {
        str_copy(p->phase, sizeof p->phase, phase);
        p->started = now_seconds();
        p->last_tenth = -1;
    }
    if (p->terminal) {
        if (changed || step == steps || now_seconds() - p->last_drawn > 0.05)
            draw_bar(p, phase, step, steps);
        return;
    }
    int tenth = steps > 0 ? step * 10 / steps : 0;
    if (!changed && tenth == p->last_tenth) return;
    p->last_tenth = tenth;
    if (steps > 0)
        fprintf(stderr, "%s %d/%d\n", phase, step, steps);
    else
        fprintf(stderr, "%s\n", phase);
}

void progress_end(struct progress *p)
{
    if (!p->quiet && p->terminal && p->phase[0]) fputs("\r\033[K", stderr);
    p->phase[0] = 0;
}
