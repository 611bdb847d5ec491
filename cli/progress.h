/*
 * progress.h - long work that can be watched: a bar on a terminal, plain lines elsewhere.
 *
 * Place    commands that compute or wait. Writes to standard error only.
 * Owner    the caller's struct, one thread.
 * Failure  cannot fail. CI=true or no terminal: a line whenever the phase changes or another tenth
 *          is done, never a carriage return.
 */
#ifndef CLI_PROGRESS_H
#define CLI_PROGRESS_H

#include <stdbool.h>

struct progress {
    bool terminal;
    bool quiet;
    double started, last_drawn;
    char phase[48];
    int last_tenth;
};

void progress_start(struct progress *p, bool quiet);
/* step of steps within the phase; steps 0: unknown length */
void progress_show(struct progress *p, const char *phase, int step, int steps);
void progress_end(struct progress *p); /* clears the bar */

bool terminal_is_interactive(int fd); /* a terminal, and neither CI=true nor TERM=dumb */

#endif
