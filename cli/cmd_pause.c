/* cmd_pause.c - pause, resume, reload: what steers the running worker. */
#include <stdio.h>

#include "cli/control_client.h"

static void print_done(const struct control_reply *reply)
{
    puts(reply->done.text);
}

static int steer(const struct command *c, enum control_kind kind, const char *extra, int argc,
                 char **argv)
{
    struct ask_options o = {.request = {.kind = kind}};
    int code = ask_options_parse(&o, c, extra, argc, argv);
    return code ? code : ask_and_print(c, &o, print_done);
}

static int run_pause(int argc, char **argv)
{
    return steer(&command_pause, CONTROL_PAUSE, "nf", argc, argv);
}

static int run_resume(int argc, char **argv)
{
    return steer(&command_resume, CONTROL_RESUME, "", argc, argv);
}

static int run_reload(int argc, char **argv)
{
    return steer(&command_reload, CONTROL_RELOAD, "", argc, argv);
}

const struct command command_pause = {
    .name = "pause",
    .summary = "stop taking jobs for a while",
    .usage = "usage: kiln pause [--now] [--for 2h] [--json] [--socket PATH]\n\n"
             "The job that runs is finished. With --now it stops at the next step and the models "
             "leave memory; it is\n"
             "computed again afterwards when --for leaves it the time, else it is given back to "
             "the Horde.\n",
    .run = run_pause,
};
const struct command command_resume = {
    .name = "resume",
    .summary = "take jobs again",
    .usage = "usage: kiln resume [--json] [--socket PATH]\n",
    .run = run_resume,
};
const struct command command_reload = {
    .name = "reload",
    .summary = "read the configuration again, all of it or nothing",
    .usage = "usage: kiln reload [--json] [--socket PATH]\n",
    .run = run_reload,
};
