/* cmd_status.c - what the worker is doing, and why not when it is not. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "cli/control_client.h"
#include "cli/table.h"

static void print_engine(const struct control_engine *e)
{
    printf("engine      %s (%s): %s", e->device, e->title, e->state);
    if (*e->model) printf(", model %s", e->model);
    if (*e->job)
        printf(", job %.8s %s %lld/%lld", e->job, e->phase, (long long)e->step,
               (long long)e->steps);
    if (e->restarts) printf(", restarted %lld times", (long long)e->restarts);
    putchar('\n');
}

static void print_reasons(const struct control_reason *list, int count)
{
    for (int i = 0; i < count; i++) {
        printf("%-11s %s", i ? "" : "idle", list[i].text);
        if (list[i].count) printf(" (%lld)", (long long)list[i].count);
        printf("%s\n", list[i].blocks ? "" : " [hint]");
    }
}

static void print_status(const struct control_reply *reply)
{
    const struct control_status *s = &reply->status;
    char a[24], b[24], c[24];
    printf("worker      %s on %s: %s\n", s->worker_name, s->horde_url, s->state);
    printf("running     %s (pid %lld, %s resident), as %s\n", format_seconds(a, s->uptime_seconds),
           (long long)s->pid, format_bytes(b, s->resident_bytes), s->bridge_agent);
    for (int i = 0; i < s->engine_count; i++) print_engine(&s->engines[i]);
    if (*s->server_version) printf("server      %s; %s\n", s->server_version, s->server_knows);
    printf("last pop    %s\n", format_when(a, s->last_pop_wall_ms));
    printf("jobs        %lld open, %lld settled, %lld faulted, %lld forfeited; last hour %lld, "
           "%lld faults\n",
           (long long)s->jobs_open, (long long)s->jobs_settled, (long long)s->jobs_faulted,
           (long long)s->jobs_forfeited, (long long)s->jobs_hour, (long long)s->faults_hour);
    printf("kudos       earned %s, today %s", format_kudos(a, s->earned_milli),
           format_kudos(b, s->today_milli));
    if (s->unexplained_milli) printf(", unexplained %s", format_kudos(c, s->unexplained_milli));
    if (!isnan(s->kudos_per_hour)) printf(", %.1f an hour", s->kudos_per_hour);
    putchar('\n');
    if (!isnan(s->joules_per_image)) printf("energy      %.0f J an image\n", s->joules_per_image);
    print_reasons(s->reasons, s->reason_count);
    for (int i = 0; i < s->notice_count; i++)
        printf("%-11s %s: %s\n", i ? "" : "notice", s->notices[i].origin, s->notices[i].text);
}

static int run_status(int argc, char **argv)
{
    struct ask_options o = {.request = {.kind = CONTROL_STATUS}};
    int code = ask_options_parse(&o, &command_status, "", argc, argv);
    return code ? code : ask_and_print(&command_status, &o, print_status);
}

const struct command command_status = {
    .name = "status",
    .summary = "what the worker is doing",
    .usage = "usage: kiln status [--json] [--socket PATH]\n\n"
             "Shows the running kilnd: its engine, jobs, kudos, and why it is idle when it is.\n",
    .run = run_status,
};

static void print_why(const struct control_reply *reply)
{
    const struct control_why *w = &reply->why;
    printf("%s: %s\n", w->state, w->text);
    for (int i = 0; i < w->reason_count; i++)
        printf("  %-24s %s%s\n", w->reasons[i].gate, w->reasons[i].text,
               w->reasons[i].blocks ? "" : " [hint]");
}

static int run_why(int argc, char **argv)
{
    struct ask_options o = {.request = {.kind = CONTROL_WHY}};
    int code = ask_options_parse(&o, &command_why, "", argc, argv);
    return code ? code : ask_and_print(&command_why, &o, print_why);
}

const struct command command_why = {
    .name = "why",
    .summary = "why the worker is idle",
    .usage =
        "usage: kiln why [--json] [--socket PATH]\n\n"
        "Explains idleness from the worker's own gates and from what the Horde says it skipped.\n",
    .run = run_why,
};
