/*
 * scan.h - a look over JSON bytes before a parser spends memory on them.
 *
 * Place    in front of every JSON document from outside (network, pipe, socket, file). jansson
 *          turns 20 MB of "{}" into 1.5 GB; this pass counts first and allocates nothing.
 * Owner    borrows the bytes. Any thread.
 * Failure  ERR_FORMAT with `what`, the limit and the position. The scan checks nesting, strings
 *          and NUL bytes; the rest of the grammar is the parser's. Source: reliability.md N5.
 */
#ifndef PROTO_SCAN_H
#define PROTO_SCAN_H

#include <stddef.h>

#include "base/error.h"

#define SCAN_STRUCTURAL_MAX 200000 /* of { } [ ] , : outside strings */
#define SCAN_DEPTH_MAX 32

int scan_json(const char *what, const char *text, size_t length, struct error *err);

#endif
