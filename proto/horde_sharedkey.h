/*
 * horde_sharedkey.h - keys that spend another account's kudos within limits: a workshop's.
 *
 * Place    `kiln sharedkey`; the ids of one's own stand in find_user (horde_worker.h).
 * Owner    what was read lives in its arena: *_release.
 * Failure  ERR_INVALID for what the Horde would refuse (named, with the limit); ERR_FORMAT.
 * Source   horde-api 16; AI-Horde 5.1.5, SharedKeyInput and SharedKeyDetails.
 *
 * The id is the key: whoever has it can spend.
 */
#ifndef PROTO_HORDE_SHAREDKEY_H
#define PROTO_HORDE_SHAREDKEY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/error.h"

#define SHAREDKEY_UNLIMITED (-1)
#define SHAREDKEY_KUDOS_MAX 50000000
#define SHAREDKEY_PIXELS_MAX 4194304
#define SHAREDKEY_STEPS_MAX 500
#define SHAREDKEY_DAYS_MAX 36500 /* the server's dates end with the year 9999 */

struct horde_sharedkey {
    struct arena memory;
    const char *id, *username, *name; /* name "": none */
    const char *expiry;               /* as the server wrote it (RFC 822); "": never */
    int64_t kudos;                    /* what is left; -1: no limit */
    int64_t utilized;
    int64_t max_image_pixels, max_image_steps, max_text_tokens; /* -1: no limit */
};

int horde_sharedkey_parse(struct horde_sharedkey *k, const char *body, size_t length,
                          struct error *err);
void horde_sharedkey_release(struct horde_sharedkey *k);

/* PUT sharedkeys and PATCH sharedkeys/{id}: what is set travels, all else is the server's. */
struct horde_sharedkey_change {
    bool set_kudos, set_days, set_pixels, set_steps;
    int64_t kudos, days, pixels, steps; /* -1: no limit */
    const char *name;                   /* NULL: unset; 3 to 255 characters */
};
/* create: a new key. 0 days end a key at once, but the server takes 0 in a new key as "never", so this is
 * refused; so is a change that changes nothing. */
int horde_sharedkey_change_format(const struct horde_sharedkey_change *c, bool create,
                                  struct buf *body, struct error *err);

/* 8-4-4-4-12 hexadecimal digits, which is what goes into a path */
bool horde_is_uuid(const char *text);

#endif
