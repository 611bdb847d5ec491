#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "tensor/safetensors.h"

#define HEADER_BYTES_MAX (16u << 20)

static int put_string(struct buf *b, const char *text, struct error *err)
{
    int rc = buf_append(b, "\"", 1, err);
    for (const unsigned char *s = (const unsigned char *)text; *s && !rc; s++) {
        if (*s == '"' || *s == '\\')
            rc = buf_printf(b, err, "\\%c", *s);
        else if (*s < 0x20)
            rc = buf_printf(b, err, "\\u%04x", *s);
        else
            rc = buf_append(b, s, 1, err);
    }
    return rc ? rc : buf_append(b, "\"", 1, err);
}

static int put_entry(struct buf *b, const struct safetensors_entry *e, size_t begin,
                     struct error *err)
{
    int rc = put_string(b, e->name, err);
    if (!rc) rc = buf_printf(b, err, ":{\"dtype\":\"%s\",\"shape\":[", dtype_name(e->dtype));
    for (int i = 0; i < e->rank && !rc; i++)
        rc = buf_printf(b, err, "%s%lld", i ? "," : "", (long long)e->dim[i]);
    if (!rc) rc = buf_printf(b, err, "],\"data_offsets\":[%zu,%zu]}", begin, begin + e->bytes);
    return rc;
}

static int make_header(struct buf *b, const struct safetensors_entry *entries, size_t count,
                       const struct safetensors_meta *meta, size_t meta_count, struct error *err)
{
    int rc = buf_append(b, "{", 1, err);
    if (meta_count && !rc) rc = buf_append_string(b, "\"__metadata__\":{", err);
    for (size_t i = 0; i < meta_count && !rc; i++) {
        if (i) rc = buf_append(b, ",", 1, err);
        if (!rc) rc = put_string(b, meta[i].key, err);
        if (!rc) rc = buf_append(b, ":", 1, err);
        if (!rc) rc = put_string(b, meta[i].value, err);
    }
    if (meta_count && !rc) rc = buf_append_string(b, count ? "}," : "}", err);
    size_t at = 0;
    for (size_t i = 0; i < count && !rc; i++) {
        if (i) rc = buf_append(b, ",", 1, err);
        if (!rc) rc = put_entry(b, &entries[i], at, err);
        at += entries[i].bytes;
    }
    if (!rc) rc = buf_append(b, "}", 1, err);
    while (!rc && b->length % 8) rc = buf_append(b, " ", 1, err);
    return rc;
}

static int write_parts(FILE *out, const struct buf *header, const struct safetensors_entry *entries,
                       size_t count)
{
    uint8_t length[8];
    for (int i = 0; i < 8; i++) length[i] = (uint8_t)((uint64_t)header->length >> 8 * i);
    if (fwrite(length, 1, 8, out) != 8) return -1;
    if (fwrite(header->data, 1, header->length, out) != header->length) return -1;
    for (size_t i = 0; i < count; i++)
        if (entries[i].bytes &&
            fwrite(entries[i].data, 1, entries[i].bytes, out) != entries[i].bytes)
            return -1;
    return fflush(out) || fsync(fileno(out)) ? -1 : 0;
}

int safetensors_write(const char *path, const struct safetensors_entry *entries, size_t count,
                      const struct safetensors_meta *meta, size_t meta_count, struct error *err)
{
    struct buf header;
    buf_init(&header, HEADER_BYTES_MAX);
    int rc = make_header(&header, entries, count, meta, meta_count, err);
    char *temporary = alloc_printf("%s.%ld.tmp", path, (long)getpid());
    FILE *out = NULL;
    if (!rc) {
        out = fopen(temporary, "wbx");
        if (!out) rc = error_set_errno(err, ERR_IO, errno, "creating %s", temporary);
    }
    if (!rc && write_parts(out, &header, entries, count))
        rc = error_set_errno(err, ERR_IO, errno, "writing %s", path);
    if (out) fclose(out);
    if (!rc && rename(temporary, path))
        rc = error_set_errno(err, ERR_IO, errno, "renaming to %s", path);
    if (rc && out) unlink(temporary);
    free(temporary);
    buf_release(&header);
    return rc;
}
