#include "proto/frame.h"

#include <string.h>

static void put_length(uint8_t *at, size_t length)
{
    for (int i = 0; i < FRAME_HEAD_BYTES; i++) at[i] = (uint8_t)(length >> 8 * i);
}

static int check_length(size_t length, size_t max, int code, struct error *err)
{
    if (length == 0) return error_set(err, code, "a frame of 0 bytes");
    if (length > max)
        return error_set(err, code, "a frame of %zu bytes, the limit is %zu", length, max);
    return 0;
}

int frame_append(struct buf *out, const void *payload, size_t length, size_t max, struct error *err)
{
    uint8_t head[FRAME_HEAD_BYTES];
    size_t mark = out->length;
    int rc = check_length(length, max, ERR_INVALID, err);
    if (rc) return rc;
    put_length(head, length);
    rc = buf_append(out, head, sizeof head, err);
    if (!rc) rc = buf_append(out, payload, length, err);
    if (rc) buf_truncate(out, mark);
    return rc;
}

int frame_open(struct buf *out, size_t *mark, struct error *err)
{
    static const uint8_t head[FRAME_HEAD_BYTES];
    size_t before = out->length;
    int rc = buf_append(out, head, sizeof head, err);
    if (!rc) *mark = before;
    return rc;
}

int frame_close(struct buf *out, size_t mark, size_t max, struct error *err)
{
    size_t length = out->length - mark - FRAME_HEAD_BYTES;
    int rc = check_length(length, max, ERR_INVALID, err);
    if (rc)
        buf_truncate(out, mark);
    else
        put_length(out->data + mark, length);
    return rc;
}

int frame_next(const struct buf *in, size_t max, const uint8_t **payload, size_t *length,
               struct error *err)
{
    if (in->length < FRAME_HEAD_BYTES) return 0;
    size_t n = 0;
    for (int i = 0; i < FRAME_HEAD_BYTES; i++) n |= (size_t)in->data[i] << 8 * i;
    int rc = check_length(n, max, ERR_FORMAT, err);
    if (rc) return rc;
    if (in->length - FRAME_HEAD_BYTES < n) return 0;
    *payload = in->data + FRAME_HEAD_BYTES;
    *length = n;
    return 1;
}

void frame_drop(struct buf *in, size_t length)
{
    buf_consume(in, FRAME_HEAD_BYTES + length);
}
