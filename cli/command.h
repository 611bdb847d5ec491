/*
 * command.h - one file a command, one table of commands.
 *
 * Place    cli/main.c finds the command by name and runs it; each cmd_*.c defines one row (or a few
 *          that share everything) and knows nothing of the others.
 * Owner    rows are const.
 * Failure  run returns the exit code: EXIT_DONE, EXIT_FAILED, EXIT_USAGE, or one of reliability V5.
 *          A sentence goes to standard error through command_fail; results go to standard output.
 */
#ifndef CLI_COMMAND_H
#define CLI_COMMAND_H

#include "base/error.h"

enum exit_code {
    EXIT_DONE = 0,
    EXIT_FAILED = 1,
    EXIT_USAGE = 2,
    EXIT_INTERNAL = 70,
    EXIT_LOCKED = 75,
    EXIT_KEY = 77,
    EXIT_CONFIG = 78
};

struct command {
    const char *name;
    const char *summary;               /* one line for `kiln --help` */
    const char *usage;                 /* whole text of `kiln NAME --help` */
    int (*run)(int argc, char **argv); /* argv[0] is the command's name */
};

extern const struct command command_generate;
extern const struct command command_status, command_jobs, command_ledger, command_workers,
    command_models, command_why, command_pause, command_resume, command_reload;
extern const struct command command_sharedkey;
extern const struct command command_horde, command_kudos, command_upscale, command_bench,
    command_convert;
extern const struct command command_caption, command_interrogate;
extern const struct command command_fix, command_strip;
extern const struct command command_train, command_dataset, command_lora, command_pocket;
extern const struct command command_trace, command_show, command_doctor, command_config;

/* "kiln generate: <sentence>" on standard error; ERR_INVALID gives EXIT_USAGE, all else EXIT_FAILED. */
int command_fail(const struct command *c, const struct error *err);
/* The same for a sentence of one's own about wrong usage; also says how to get help. */
int command_usage(const struct command *c, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
