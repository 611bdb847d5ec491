/*
 * frame.h - messages with an end, on a pipe or socket that has none.
 *
 * Place    below engine_msg (pipe between kilnd or kiln and kiln-engine) and control_msg (Unix
 *          socket between kiln and kilnd). A frame is a little-endian u32 length and that many
 *          bytes.
 * Owner    the caller's buffers; a payload found by frame_next is borrowed from the buffer
 *          until frame_drop. One thread per buffer.
 * Failure  ERR_FORMAT for a length of 0 or above the cap: the stream is lost, close it.
 *
 *     on bytes:  buf_append(&in, bytes, n, &err);
 *                while ((rc = frame_next(&in, FRAME_CONTROL_MAX, &payload, &length, &err)) > 0) {
 *                    handle(payload, length);
 *                    frame_drop(&in, length);
 *                }
 */
#ifndef PROTO_FRAME_H
#define PROTO_FRAME_H

#include "base/buf.h"

#define FRAME_HEAD_BYTES 4
#define FRAME_ENGINE_MAX (64u << 20)
#define FRAME_CONTROL_MAX (1u << 20)

/* Appends one frame to `out`. ERR_INVALID above `max` or for an empty payload. */
int frame_append(struct buf *out, const void *payload, size_t length, size_t max,
                 struct error *err);

/* The same without a second copy: open, append the payload to `out`, close. On failure of either
 * `out` is as it was before frame_open. */
int frame_open(struct buf *out, size_t *mark, struct error *err);
int frame_close(struct buf *out, size_t mark, size_t max, struct error *err);

/* 1: a whole frame stands at the front of `in`; 0: more bytes are needed; negative: ERR_FORMAT. */
int frame_next(const struct buf *in, size_t max, const uint8_t **payload, size_t *length,
               struct error *err);
void frame_drop(struct buf *in, size_t length);

#endif
