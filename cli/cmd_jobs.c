/* cmd_jobs.c - the jobs of this worker, newest first. */
#include <math.h>
#include <stdio.h>

#include "cli/control_client.h"
#include "cli/table.h"

static void print_jobs(const struct control_reply *reply)
{
    const struct control_jobs *j = &reply->jobs;
    struct table t;
    table_start(&t, "job|state|model|>size|>steps|sampler|popped|>seconds|>joules|>kudos|why");
    for (int i = 0; i < j->count; i++) {
        const struct control_job *job = &j->list[i];
        char id[16], size[24], steps[24], when[24], seconds[24] = "-", joules[24] = "-", kudos[24];
        snprintf(id, sizeof id, "%.8s", job->id);
        snprintf(size, sizeof size, "%lldx%lld", (long long)job->width, (long long)job->height);
        snprintf(steps, sizeof steps, "%lld", (long long)job->steps);
        if (!isnan(job->seconds)) snprintf(seconds, sizeof seconds, "%.1f", job->seconds);
        if (!isnan(job->joules)) snprintf(joules, sizeof joules, "%.0f", job->joules);
        table_row(&t, id, job->state, *job->form ? job->form : job->model, size, steps,
                  job->sampler, format_when(when, job->popped_wall_ms), seconds, joules,
                  format_kudos(kudos, job->reward_milli), job->error);
    }
    table_print(&t);
    if (j->total > j->count)
        printf("%d of %lld; --limit shows more\n", j->count, (long long)j->total);
}

static int run(int argc, char **argv)
{
    struct ask_options o = {.request = {.kind = CONTROL_JOBS}};
    int code = ask_options_parse(&o, &command_jobs, "ls", argc, argv);
    return code ? code : ask_and_print(&command_jobs, &o, print_jobs);
}

const struct command command_jobs = {
    .name = "jobs",
    .summary = "the worker's jobs, newest first",
    .usage =
        "usage: kiln jobs [--limit N] [--state STATE] [--json] [--socket PATH]\n\n"
        "States: POPPED READY GENERATING CHECKED UPLOADED SUBMITTING SETTLED FAULTED FORFEITED.\n",
    .run = run,
};
