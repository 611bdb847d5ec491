/*
 * writer.h - JSON text straight into a buffer.
 *
 * Place    inside proto/: request bodies, engine and control messages.
 * Owner    borrows the buffer. One thread.
 * Failure  sticky; writer_close tells and takes everything back.
 *
 * Members with a NULL key are entries of an array. Text that is not UTF-8 goes out with '?' in the
 * bad places, so that the document is always valid.
 */
#ifndef PROTO_WRITER_H
#define PROTO_WRITER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"

struct writer {
    struct buf *out;
    struct error *err;
    size_t mark;
    int rc;
    int depth;
    int indent;     /* 0: compact */
    bool first[40]; /* by depth: no member written yet */
};

void writer_open(struct writer *w, struct buf *out, int indent, struct error *err);
int writer_close(struct writer *w);

void writer_object(struct writer *w, const char *key);
void writer_end_object(struct writer *w);
void writer_array(struct writer *w, const char *key);
void writer_end_array(struct writer *w);
void writer_text(struct writer *w, const char *key, const char *value); /* NULL: null */
void writer_text_n(struct writer *w, const char *key, const char *value, size_t length);
void writer_i64(struct writer *w, const char *key, int64_t value);
void writer_f64(struct writer *w, const char *key, double value); /* NAN, infinite: null */
void writer_bool(struct writer *w, const char *key, bool value);
void writer_texts(struct writer *w, const char *key, const char *const *values, int count);
/* base64 as a text */
void writer_base64(struct writer *w, const char *key, const void *bytes, size_t length);

#endif
