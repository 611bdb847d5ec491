/*
 * json_write.h - results as JSON on their way out, written member by member.
 *
 * Place    `--json` of commands, logs of test tools. (Wire formats are proto's, with a parser.)
 * Owner    the caller's struct and buffer.
 * Failure  sticky in the buffer's limit: json_write_end returns ERR_NO_MEMORY.
 */
#ifndef BASE_JSON_WRITE_H
#define BASE_JSON_WRITE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"

struct json_write {
    struct buf *out;
    int depth;
    bool first; /* of the open object or array */
    int failed;
};

/* name NULL inside arrays and for the outermost value; a NULL text is null, a NAN number too. */
void json_write_start(struct json_write *w, struct buf *out);
void json_write_object(struct json_write *w, const char *name);
void json_write_array(struct json_write *w, const char *name);
void json_write_close(struct json_write *w, char bracket); /* '}' or ']' */
void json_write_text(struct json_write *w, const char *name, const char *text);
void json_write_int(struct json_write *w, const char *name, int64_t value);
void json_write_uint(struct json_write *w, const char *name, uint64_t value);
void json_write_number(struct json_write *w, const char *name, double value);
void json_write_bool(struct json_write *w, const char *name, bool value);
int json_write_end(struct json_write *w, struct error *err); /* a line end */

#endif
