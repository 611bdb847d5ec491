/*
 * control_client.h - one question to the running kilnd, one document back.
 *
 * Place    every command that shows or steers the daemon.
 * Owner    the reply is the caller's: control_reply_release.
 * Failure  ERR_NOT_FOUND when no daemon listens (with the socket's path); ERR_REFUSED without
 *          permission; the daemon's own error document as its code and sentence.
 */
#ifndef CLI_CONTROL_CLIENT_H
#define CLI_CONTROL_CLIENT_H

#include "cli/command.h"
#include "proto/control_msg.h"

/* socket NULL: where folders.h says. */
int control_ask(struct control_reply *reply, const struct control_request *request,
                const char *socket, struct error *err);

/* What the asking commands share: --json, --socket PATH, --limit N, --state S, --since. */
struct ask_options {
    bool json;
    const char *socket;
    struct control_request request;
};
/* EXIT_DONE, or the exit code of wrong usage. Options of `extra` (letters of "lsnft") are allowed. */
int ask_options_parse(struct ask_options *o, const struct command *c, const char *extra, int argc,
                      char **argv);
/* Asks, prints JSON or calls `print`, releases; returns the exit code. */
int ask_and_print(const struct command *c, struct ask_options *o,
                  void (*print)(const struct control_reply *reply));

#endif
