/* cmd_bench.c - how fast this machine is: starts the engine program with the same arguments, or, with a
 * peer beside it, several times (bench_peer.c). */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/str.h"
#include "cli/bench_peer.h"
#include "cli/command.h"
#include "cli/local_engine.h"

/* kiln bench WORD ARGS becomes kiln-engine COMMAND ARGS */
static const struct {
    const char *word, *command;
} kinds[] = {{"engine", "bench"},
             {"train", "bench-train"},
             {"kernels", "bench-kernels"},
             {"make", "bench-make"}};

static bool has_peer(int argc, char **argv)
{
    for (int i = 2; i < argc; i++)
        if (str_equal(argv[i], "--peer") || str_starts(argv[i], "--peer=")) return true;
    return false;
}

static bool asks_help(int argc, char **argv)
{
    for (int i = 2; i < argc; i++)
        if (str_equal(argv[i], "--help")) return true;
    return false;
}

static int run(int argc, char **argv)
{
    size_t kind = 0;
    while (kind < COUNT_OF(kinds) && (argc < 2 || !str_equal(argv[1], kinds[kind].word))) kind++;
    if (kind == COUNT_OF(kinds))
        return command_usage(&command_bench, "say what to measure: engine, train or kernels");
    bool compares = kind < 2;
    if (compares && !asks_help(argc, argv) && has_peer(argc, argv))
        return bench_peer_run(argc - 1, argv + 1);
    struct error err = {0};
    char *path = local_engine_program(&err);
    if (!path) return command_fail(&command_bench, &err);
    char **child = alloc_zero((size_t)argc + 2, sizeof *child);
    child[0] = path;
    child[1] = (char *)(uintptr_t)kinds[kind].command;
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
        "usage: kiln bench engine [--model PATH|sd15|sdxl] [--precision P] [--device NAME]\n"
        "                         [--size PIXELS] [--rounds N] [--no-train] [--no-image] [--json]\n"
        "       kiln bench train [--model PATH|sd15|sdxl] [--precision P] [--device NAME]\n"
        "                        [--size PIXELS] [--rank R] [--rounds N] [--lean] [--json]\n"
        "       kiln bench engine|train --peer torch|sdcpp [--python PATH] [--isa avx2]\n"
        "                        [--peer-rounds N] [--threads N] [--model ..] [--precision ..] "
        "...\n"
        "       kiln bench kernels [--device NAME] [--only TEXT] [--seconds S] [--quick] [--json]\n"
        "       kiln bench make sd15|sdxl PATH [--precision P]\n"
        "\n"
        "`engine` loads a checkpoint and times its parts: text encoder, one guided UNet step, "
        "decoder,\n"
        "a whole picture of four steps and one step of training; seconds on the wall and of\n"
        "processor time, GFLOP/s and the share of what the processor's multipliers can do, "
        "measured\n"
        "in the same run, and the step kernel by kernel. `train` times steps of training a LoRA.\n"
        "Without --model both use random weights of full size, written to the cache folder once.\n"
        "\n"
        "`--peer torch` runs the same parts in torch with diffusers, `--peer sdcpp` in\n"
        "stable-diffusion.cpp, on the same weights, alternating with ours: medians, ratios, peak\n"
        "memory of both. They need the Python packages torch, diffusers, transformers and peft, "
        "or\n"
        "stable-diffusion-cpp-python; --python or KILN_PYTHON names the Python that has them, "
        "--isa\n"
        "avx2 limits both sides to AVX2, --peer-rounds sets how often both run (2).\n"
        "\n"
        "`kernels` times each kernel on the shapes of Stable Diffusion instead, with its share of\n"
        "the device's measured peak and its error against float64. `make` writes random weights "
        "of\n"
        "full size. `kiln bench engine --help` and so on explain the options.\n",
    .run = run,
};
