/* main.c - kiln: finds the command and runs it. */
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/now.h"
#include "base/str.h"
#include "cli/command.h"

/* in the order of `kiln --help` */
static const struct command *const commands[] = {
    &command_generate,    &command_train,   &command_dataset, &command_lora,    &command_pocket,
    &command_status,      &command_why,     &command_jobs,    &command_ledger,  &command_workers,
    &command_models,      &command_trace,   &command_show,    &command_pause,   &command_resume,
    &command_reload,      &command_config,  &command_doctor,  &command_horde,   &command_kudos,
    &command_sharedkey,   &command_upscale, &command_bench,   &command_convert, &command_caption,
    &command_interrogate, &command_fix,     &command_strip,
};

int command_fail(const struct command *c, const struct error *err)
{
    fprintf(stderr, "kiln %s: %s\n", c->name, err->text);
    return err->code == ERR_INVALID ? EXIT_USAGE : EXIT_FAILED;
}

int command_usage(const struct command *c, const char *format, ...)
{
    va_list args;
    fprintf(stderr, "kiln %s: ", c->name);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "\nTry `kiln %s --help`.\n", c->name);
    return EXIT_USAGE;
}

static void print_help(FILE *to)
{
    fputs("usage: kiln COMMAND [OPTIONS]\n\n"
          "Make pictures on your own machine, give its idle time to the AI Horde, and see what\n"
          "sustains an image.\n\n",
          to);
    for (size_t i = 0; i < COUNT_OF(commands); i++)
        fprintf(to, "  %-10s %s\n", commands[i]->name, commands[i]->summary);
    fputs("\n`kiln COMMAND --help` explains one. Results go to standard output, all else to\n"
          "standard error; exit status 0 done, 1 failed, 2 wrong usage.\n",
          to);
}

static const struct command *find(const char *name)
{
    for (size_t i = 0; i < COUNT_OF(commands); i++)
        if (str_equal(commands[i]->name, name)) return commands[i];
    return NULL;
}

static int unknown(const char *name)
{
    const char *names[COUNT_OF(commands) + 1] = {0};
    for (size_t i = 0; i < COUNT_OF(commands); i++) names[i] = commands[i]->name;
    const char *nearest = str_nearest(name, names);
    fprintf(stderr, "kiln: there is no command \"%s\"", name);
    if (nearest) fprintf(stderr, "; did you mean \"%s\"?", nearest);
    fputs("\nTry `kiln --help`.\n", stderr);
    return EXIT_USAGE;
}

int main(int argc, char **argv)
{
    log_start("kiln", LOG_WARN);
    now_start();
    signal(SIGPIPE, SIG_IGN);
    if (argc < 2) {
        print_help(stderr);
        return EXIT_USAGE;
    }
    if (str_equal(argv[1], "--help") || str_equal(argv[1], "-h") || str_equal(argv[1], "help")) {
        print_help(stdout);
        return EXIT_DONE;
    }
    if (str_equal(argv[1], "--version")) {
        puts("kiln " KILN_VERSION);
        return EXIT_DONE;
    }
    const struct command *c = find(argv[1]);
    if (!c) return unknown(argv[1]);
    for (int i = 2; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (str_equal(argv[i], "--help") || str_equal(argv[i], "-h")) {
            fputs(c->usage, stdout);
            return EXIT_DONE;
        }
    return c->run(argc - 1, argv + 1);
}
