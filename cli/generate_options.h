/*
 * generate_options.h - the command line of `kiln generate`, as a request and a few wishes.
 *
 * Place    cli/cmd_generate.c (own engine) and cli/cmd_generate_horde.c (others').
 * Owner    init/release around the caller's struct.
 * Failure  ERR_INVALID with the option, its value and the limit; files it reads: ERR_NOT_FOUND,
 *          ERR_IO.
 */
#ifndef CLI_GENERATE_OPTIONS_H
#define CLI_GENERATE_OPTIONS_H

#include <stdbool.h>

#include "proto/request.h"

#define GENERATE_PROMPT_CHARACTERS_MAX 7500

struct generate_options {
    struct image_request request;
    const char *output;    /* borrowed from argv */
    const char *vae;       /* or NULL */
    const char *device;    /* or NULL: cpu */
    const char *precision; /* auto fp32 bf16 fp16 */
    bool seed_given;
    const char *config;    /* --horde: bridgeData.yaml with the key; or NULL */
    const char *horde_url; /* or NULL */
    const char *style;     /* --horde: id or name; or NULL */
    const char *preview;   /* file, "-" for the terminal, or NULL */
    int preview_every;
    bool horde, mine, dry_run, json, quiet, no_provenance, show;
};

void generate_options_init(struct generate_options *o);
void generate_options_release(struct generate_options *o);
int generate_options_parse(struct generate_options *o, int argc, char **argv, struct error *err);

extern const char generate_usage[];

#endif
