/* cmd_bench.c - how fast this machine is: starts the engine program with the same arguments. */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/str.h"
#include "cli/command.h"
#include "cli/local_engine.h"

static int run(int argc, char **argv)
{
    bool kernels = argc > 1 && str_equal(argv[1], "kernels");
    if (!kernels && (argc < 2 || !str_equal(argv[1], "engine")))
        return command_usage(&command_bench, "say what to measure: engine or kernels");
    struct error err = {0};
    char *path = local_engine_program(&err);
    if (!path) return command_fail(&command_bench, &err);
    /* kiln bench engine ARGS becomes kiln-engine bench ARGS; kernels: bench-kernels */
    char **child = alloc_zero((size_t)argc + 2, sizeof *child);
    child[0] = path;
    child[1] = (char *)(uintptr_t)(kernels ? "bench-kernels" : "bench");
    for (int i = 2; i < argc; i++) child[i] = argv[i];
    fflush(stdout);
    execv(path, child);
    error_set_errno(&err, ERR_NOT_FOUND, errno, "starting %s", path);
    free(child);
    free(path);
    return command_fail(&command_bench, &err);
}

const struct command command_bench = {
    .name = "bench",
    .summary = "measure how fast this machine runs a model",
    .usage =
        "usage: kiln bench engine --model PATH [--precision P] [--device NAME]\n"
        "                         [--size PIXELS] [--rounds N] [--json]\n"
        "       kiln bench kernels [--device NAME] [--only TEXT] [--seconds S] [--quick] [--json]\n"
        "\n"
        "Loads a checkpoint and times its parts: text encoder, one guided UNet step, decoder;\n"
        "seconds on the wall and of processor time, GFLOP/s and the share of what the\n"
        "processor's multipliers can do, measured in the same run.\n"
        "\n"
        "`kernels` times each kernel on the shapes of Stable Diffusion instead, with its share of\n"
        "the device's measured peak and its error against float64.\n"
        "`kiln bench engine --help` and `kiln bench kernels --help` explain the options.\n",
    .run = run,
};
