/*
 * horde_style.h - styles: a prompt around a prompt, with models and parameters, kept by the Horde.
 *
 * Place    `kiln horde styles`; `kiln generate --horde --style` sends but the name (horde_async.h).
 * Owner    what was read lives in its arena: *_release.
 * Failure  ERR_FORMAT.
 * Source   horde-api 16. `{p}` and `{np}` in a style's prompt are the server's to fill.
 */
#ifndef PROTO_HORDE_STYLE_H
#define PROTO_HORDE_STYLE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"

struct horde_style {
    const char *id, *name, *info, *prompt, *creator;
    const char **tags, **models;
    int tag_count, model_count;
    int64_t use_count;
    bool nsfw;
};

struct horde_styles {
    struct arena memory;
    struct horde_style *list;
    int count;
};

/* One object gives a list of one; an array the whole. */
int horde_styles_parse(struct horde_styles *s, const char *body, size_t length, struct error *err);
void horde_styles_release(struct horde_styles *s);

#endif
