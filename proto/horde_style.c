#include "proto/horde_style.h"

#include <string.h>

#include "proto/field.h"

#define STYLES_MAX 1000 /* the server sends 25 a page */

static const struct field style_fields[] = {
    {"id", .kind = FIELD_TEXT, .offset = offsetof(struct horde_style, id), .needed = true},
    {"name", .kind = FIELD_TEXT, .offset = offsetof(struct horde_style, name), .needed = true},
    F_WORD(horde_style, info),
    F_WORD(horde_style, prompt),
    F_WORD(horde_style, creator),
    F_TEXTS(horde_style, tags, tag_count, 1000),
    F_TEXTS(horde_style, models, model_count, 1000),
    F_I64(horde_style, use_count, 0, 9e15),
    F_BOOL(horde_style, nsfw),
    F_END,
};

static void read_style(struct reader *r, const json_t *o, struct horde_style *to,
                       struct arena *memory)
{
    *to = (struct horde_style){.info = "", .prompt = "", .creator = ""};
    if (!json_is_object(o))
        reader_fail(r, ERR_FORMAT, "a style is no object");
    else
        field_read(r, style_fields, o, to, memory, NULL);
}

int horde_styles_parse(struct horde_styles *s, const char *body, size_t length, struct error *err)
{
    struct reader r;
    struct horde_styles read = {0};
    arena_init(&read.memory, READER_MEMORY_MAX);
    int rc = reader_open(&r, "the styles", body, length, err);
    if (!rc) {
        bool many = json_is_array(r.root);
        size_t n = many ? json_array_size(r.root) : 1;
        if (n > STYLES_MAX)
            reader_fail(&r, ERR_FORMAT, "%zu styles, the limit is %d", n, STYLES_MAX);
        read.list = reader_memory(&r, &read.memory, n, sizeof *read.list);
        for (size_t i = 0; i < n && !r.rc; i++, read.count++)
            read_style(&r, many ? json_array_get(r.root, i) : r.root, &read.list[i], &read.memory);
        rc = reader_close(&r);
    }
    if (rc)
        horde_styles_release(&read);
    else
        *s = read;
    return rc;
}

void horde_styles_release(struct horde_styles *s)
{
    arena_release(&s->memory);
    memset(s, 0, sizeof *s);
}
