/*
 * cmd_generate_horde.h - the spending side of `kiln generate`.
 *
 * Place    called by cmd_generate.c for --horde: quote, send, wait, fetch, write.
 * Failure  as horde_client.h; ERR_CANCELED after Ctrl-C (the request is canceled at the Horde).
 */
#ifndef CLI_CMD_GENERATE_HORDE_H
#define CLI_CMD_GENERATE_HORDE_H

#include "cli/generate_options.h"

int generate_on_horde(struct generate_options *o, struct error *err);

/* OUT.png, OUT-2.png, OUT-3.png ...; the caller frees */
char *generate_path(const char *output, int index);

#endif
