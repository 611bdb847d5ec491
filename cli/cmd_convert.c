/* cmd_convert.c - weights written anew; the engine's program does it, which knows the files. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/alloc.h"
#include "cli/command.h"
#include "cli/local_engine.h"

static int run(int argc, char **argv)
{
    struct error err = {0};
    char *path = local_engine_program(&err);
    if (!path) return command_fail(&command_convert, &err);
    char **child = alloc_zero((size_t)argc + 2, sizeof *child);
    child[0] = path;
    child[1] = (char *)(uintptr_t) "convert";
    for (int i = 1; i < argc; i++) child[i + 1] = argv[i];
    fflush(stdout);
    execv(path, child);
    error_set_errno(&err, ERR_NOT_FOUND, errno, "starting %s", path);
    free(child);
    free(path);
    return command_fail(&command_convert, &err);
}

const struct command command_convert = {
    .name = "convert",
    .summary = "write weights anew: safetensors, precision, one file or a folder, LoRAs merged",
    .usage =
        "usage: kiln convert IN OUT.safetensors [--precision keep|fp32|fp16|bf16] [--prune]\n"
        "       kiln convert MODEL OUT [--to single|folder] [--lora FILE[:STRENGTH]]...\n"
        "       kiln convert LORA OUT.safetensors --to kohya|peft\n"
        "\n"
        "IN is a safetensors file, its .index.json (shards become one file), or a torch pickle\n"
        "(.ckpt, .pt, .pth, .bin), which is read as data and never run. Names stay as they "
        "are.\n"
        "--prune leaves out averaged copies (model_ema) and what only training reads.\n"
        "MODEL is a checkpoint of the SD 1, SD 2 or SDXL family: --to writes it as one file or as\n"
        "a new folder that diffusers reads (a folder becomes a file without it); --lora merges\n"
        "adapters into it. --to kohya or peft writes an adapter under the other's names: all forms "
        "but\n"
        "PEFT's (IA)^3 and OFT under kohya's, LoRA and DoRA by row under PEFT's.\n",
    .run = run,
};
