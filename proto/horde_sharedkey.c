#include "proto/horde_sharedkey.h"

#include <ctype.h>
#include <string.h>

#include "base/str.h"
#include "proto/field.h"

static const struct field sharedkey_fields[] = {
    {"id", .kind = FIELD_TEXT, .offset = offsetof(struct horde_sharedkey, id), .needed = true},
    F_WORD(horde_sharedkey, username),
    F_WORD(horde_sharedkey, name),
    F_WORD(horde_sharedkey, expiry),
    F_I64(horde_sharedkey, kudos, -1, 9e15),
    F_I64(horde_sharedkey, utilized, 0, 9e15),
    F_I64(horde_sharedkey, max_image_pixels, -1, 9e15),
    F_I64(horde_sharedkey, max_image_steps, -1, 9e15),
    F_I64(horde_sharedkey, max_text_tokens, -1, 9e15),
    F_END,
};

int horde_sharedkey_parse(struct horde_sharedkey *k, const char *body, size_t length,
                          struct error *err)
{
    struct reader r;
    struct horde_sharedkey read = {.username = "",
                                   .name = "",
                                   .expiry = "",
                                   .kudos = SHAREDKEY_UNLIMITED,
                                   .max_image_pixels = SHAREDKEY_UNLIMITED,
                                   .max_image_steps = SHAREDKEY_UNLIMITED,
                                   .max_text_tokens = SHAREDKEY_UNLIMITED};
    arena_init(&read.memory, READER_MEMORY_MAX);
    int rc = reader_open(&r, "the shared key", body, length, err);
    if (!rc) {
        field_read(&r, sharedkey_fields, r.root, &read, &read.memory, NULL);
        if (!r.rc && !horde_is_uuid(read.id)) reader_fail(&r, ERR_FORMAT, "its id is no UUID");
        rc = reader_close(&r);
    }
    if (rc)
        horde_sharedkey_release(&read);
    else
        *k = read;
    return rc;
}

void horde_sharedkey_release(struct horde_sharedkey *k)
{
    arena_release(&k->memory);
    memset(k, 0, sizeof *k);
}

static int check_limit(const char *what, bool set, int64_t value, int64_t most, struct error *err)
{
    if (!set || (value >= -1 && value <= most)) return 0;
    return error_set(err, ERR_INVALID, "%lld %s: from 0 to %lld is possible, or no limit",
                     (long long)value, what, (long long)most);
}

static int check(const struct horde_sharedkey_change *c, bool create, struct error *err)
{
    size_t characters = 0;
    for (const char *p = c->name; p && *p; p++) characters += (*p & 0xc0) != 0x80;
    if (c->name && (characters < 3 || characters > 255))
        return error_set(err, ERR_INVALID, "a name of %zu characters: 3 to 255 are possible",
                         characters);
    if (create && c->set_days && c->days == 0)
        return error_set(
            err, ERR_INVALID,
            "0 days: a new key lasts at least 1 day (the server would take 0 as for ever)");
    int rc = check_limit("kudos", c->set_kudos, c->kudos, SHAREDKEY_KUDOS_MAX, err);
    if (!rc) rc = check_limit("days", c->set_days, c->days, SHAREDKEY_DAYS_MAX, err);
    if (!rc) rc = check_limit("pixels", c->set_pixels, c->pixels, SHAREDKEY_PIXELS_MAX, err);
    if (!rc) rc = check_limit("steps", c->set_steps, c->steps, SHAREDKEY_STEPS_MAX, err);
    bool any = c->name || c->set_kudos || c->set_days || c->set_pixels || c->set_steps;
    if (!rc && !create && !any)
        rc = error_set(err, ERR_INVALID, "nothing to change about the shared key");
    return rc;
}

int horde_sharedkey_change_format(const struct horde_sharedkey_change *c, bool create,
                                  struct buf *body, struct error *err)
{
    struct writer w;
    int rc = check(c, create, err);
    if (rc) return rc;
    writer_open(&w, body, 0, err);
    writer_object(&w, NULL);
    if (c->name) writer_text(&w, "name", c->name);
    if (c->set_kudos) writer_i64(&w, "kudos", c->kudos);
    if (c->set_days) writer_i64(&w, "expiry", c->days);
    if (c->set_pixels) writer_i64(&w, "max_image_pixels", c->pixels);
    if (c->set_steps) writer_i64(&w, "max_image_steps", c->steps);
    writer_end_object(&w);
    return writer_close(&w);
}

bool horde_is_uuid(const char *text)
{
    for (int i = 0; i < 36; i++) {
        bool dash = i == 8 || i == 13 || i == 18 || i == 23;
        if (dash ? text[i] != '-' : !isxdigit((unsigned char)text[i])) return false;
    }
    return text[36] == '\0';
}
