#include "daemon/fault_point.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"

static const char *const names[] = {
#define X(name, text) text,
    FAULT_POINT_TABLE(X)
#undef X
};

const char *fault_point_name(enum fault_point p)
{
    return (unsigned)p < FAULT_POINT_COUNT ? names[p] : NULL;
}

#ifdef KILN_FAULT_POINTS
int fault_point_pass(enum fault_point p)
{
    static unsigned passed[FAULT_POINT_COUNT];
    const char *wanted = getenv("KILN_FAULT");
    passed[p]++;
    for (; wanted && *wanted; wanted = strchr(wanted, ',') ? strchr(wanted, ',') + 1 : NULL) {
        char name[32], action[16];
        unsigned nth;
        if (sscanf(wanted, "%31[^:]:%u=%15[a-z]", name, &nth, action) != 3) continue;
        if (strcmp(name, names[p]) != 0 || nth != passed[p]) continue;
        log_warn("fault_point", "name=%s nth=%u action=%s", name, nth, action);
        if (!strcmp(action, "kill")) kill(getpid(), SIGKILL);
        if (!strcmp(action, "delay")) usleep(1500000);
        if (!strcmp(action, "err")) return ERR_IO;
    }
    return 0;
}
#endif
