/* cmd_workers.c - this account's workers as the Horde sees them. */
#include <math.h>
#include <stdio.h>

#include "cli/control_client.h"
#include "cli/table.h"

static void print_workers(const struct control_reply *reply)
{
    const struct control_workers *w = &reply->workers;
    struct table t;
    table_start(&t, "worker|type|state|>jobs|>lost|>kudos|>MPS/s|up");
    for (int i = 0; i < w->count; i++) {
        const struct control_worker *x = &w->list[i];
        char jobs[24], lost[24], kudos[24], speed[24], up[24];
        snprintf(jobs, sizeof jobs, "%lld", (long long)x->fulfilled);
        snprintf(lost, sizeof lost, "%lld", (long long)x->uncompleted);
        snprintf(kudos, sizeof kudos, "%.0f", x->kudos);
        snprintf(speed, sizeof speed, "%.1f", x->speed_mps);
        table_row(&t, x->name, x->type,
                  x->maintenance ? "maintenance"
                  : x->online    ? "online"
                                 : "offline",
                  jobs, lost, kudos, speed, format_seconds(up, x->uptime_seconds));
    }
    table_print(&t);
    char balance[24];
    if (*w->user) printf("%s has %s kudos\n", w->user, format_kudos(balance, w->balance_milli));
}

static int run_workers(int argc, char **argv)
{
    struct ask_options o = {.request = {.kind = CONTROL_WORKERS}};
    int code = ask_options_parse(&o, &command_workers, "", argc, argv);
    return code ? code : ask_and_print(&command_workers, &o, print_workers);
}

const struct command command_workers = {
    .name = "workers",
    .summary = "this account's workers as the Horde sees them",
    .usage = "usage: kiln workers [--json] [--socket PATH]\n",
    .run = run_workers,
};
