#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/str.h"
#include "practice.h"
#include "proto/horde_pop.h"

#define URL_SECONDS 1800
#define KEPT_BYTES (256u << 20)

/* ---- base64 ----------------------------------------------------------------------------- */

int store_decode_base64(const char *text, uint8_t **data, size_t *length)
{
    struct blob b;
    int rc = horde_source_decode(&b, text, 16u << 20, NULL);
    if (rc) return rc;
    *data = b.data;
    *length = b.length;
    return 0;
}

char *store_encode_base64(const void *data, size_t length)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const uint8_t *in = data;
    char *text = alloc_zero(length / 3 * 4 + 5, 1), *to = text;
    for (size_t i = 0; i < length; i += 3) {
        uint32_t v = (uint32_t)in[i] << 16 | (i + 1 < length ? in[i + 1] << 8 : 0) |
                     (i + 2 < length ? in[i + 2] : 0);
        *to++ = digits[v >> 18];
        *to++ = digits[v >> 12 & 63];
        *to++ = i + 1 < length ? digits[v >> 6 & 63] : '=';
        *to++ = i + 2 < length ? digits[v & 63] : '=';
    }
    return text;
}

/* ---- objects ---------------------------------------------------------------------------- */

static struct object *find(struct practice *p, const char *name)
{
    for (int i = p->object_count - 1; i >= 0; i--) /* what is wanted is mostly new */
        if (str_equal(p->objects[i]->name, name)) return p->objects[i];
    return NULL;
}

const struct object *store_find(struct practice *p, const char *name)
{
    const struct object *o = find(p, name);
    return o && o->data ? o : NULL;
}

/* The oldest pictures go when there are too many; their names stay known. */
static void make_room(struct practice *p)
{
    for (int i = 0; i < p->object_count && p->object_bytes > KEPT_BYTES; i++) {
        p->object_bytes -= p->objects[i]->length;
        free(p->objects[i]->data);
        p->objects[i]->data = NULL;
        p->objects[i]->length = 0;
    }
}

static void keep_file(struct practice *p, const char *name, const void *data, size_t length)
{
    struct buf b;
    struct error err;
    if (!p->options.store || !str_starts(name, "transient/")) return;
    char *path = alloc_printf("%s/%s.webp", p->options.store, name + strlen("transient/"));
    buf_init(&b, length);
    if (buf_append(&b, data, length, &err) || buf_write_file(&b, path, 0644, &err))
        fprintf(stderr, "kiln-practice-horde: %s\n", err.text);
    buf_release(&b);
    free(path);
}

void store_put(struct practice *p, const char *name, const void *data, size_t length)
{
    struct object *o = find(p, name);
    if (!o) {
        o = alloc_zero(1, sizeof *o);
        str_copy(o->name, sizeof o->name, name);
        p->objects = alloc_grow(p->objects, (size_t)p->object_count + 1, sizeof *p->objects);
        p->objects[p->object_count++] = o;
    }
    p->object_bytes += length - o->length;
    free(o->data);
    o->data = alloc_zero(length + 1, 1);
    memcpy(o->data, data, length);
    o->length = length;
    make_room(p);
    keep_file(p, name, data, length);
}

/* Presigned for show: nobody checks the signature, as with the recorded store. */
char *store_url(struct practice *p, const char *name)
{
    return alloc_printf("%s/practice-store/%s.webp?X-Amz-Expires=%d&X-Amz-Signature=practice-%lld",
                        p->base_url, name, URL_SECONDS, (long long)practice_ms(p));
}

/* ---- routes ----------------------------------------------------------------------------- */

static bool object_name(const struct call *c, char name[96])
{
    size_t n = strlen(c->args[0]);
    if (n < 6 || n > 90 || !str_ends(c->args[0], ".webp") || strstr(c->args[0], "..")) return false;
    str_copy(name, n - 4, c->args[0]);
    return true;
}

/* Width and height of a WebP, for the log: the tests compare them with the request. */
static void note_picture(struct call *c)
{
    const uint8_t *d = c->bytes;
    int width = 0, height = 0;
    if (c->length < 30 || memcmp(d, "RIFF", 4) || memcmp(d + 8, "WEBP", 4)) {
        str_copy(c->note, sizeof c->note, "no WebP");
        return;
    }
    if (!memcmp(d + 12, "VP8X", 4)) {
        width = 1 + (d[24] | d[25] << 8 | d[26] << 16);
        height = 1 + (d[27] | d[28] << 8 | d[29] << 16);
    } else if (!memcmp(d + 12, "VP8L", 4)) {
        width = 1 + (d[21] | (d[22] & 0x3f) << 8);
        height = 1 + (d[22] >> 6 | d[23] << 2 | (d[24] & 0x0f) << 10);
    } else {
        width = (d[26] | d[27] << 8) & 0x3fff;
        height = (d[28] | d[29] << 8) & 0x3fff;
    }
    snprintf(c->note, sizeof c->note, "WebP %dx%d", width, height);
}

void store_route_put(struct practice *p, struct call *c)
{
    char name[96];
    c->type = "text/plain";
    if (!object_name(c, name) || !str_starts(name, "transient/")) {
        c->status = 403;
        return;
    }
    note_picture(c);
    if (!(c->faulty && str_equal(c->fault.kind, "lost"))) store_put(p, name, c->bytes, c->length);
}

void store_route_get(struct practice *p, struct call *c)
{
    char name[96];
    const struct object *o = object_name(c, name) ? store_find(p, name) : NULL;
    c->type = "text/plain";
    if (!o) {
        c->status = 404;
        return;
    }
    c->type = "image/webp";
    c->data = alloc_zero(o->length + 1, 1);
    memcpy(c->data, o->data, o->length);
    c->data_length = o->length;
}
