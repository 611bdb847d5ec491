/*
 * alchemy_horde.h - one picture and one form, done by the Horde: what it costs, the request, the answer.
 *
 * Place    `kiln caption`, `interrogate`, `upscale`, `fix` and `strip` with --horde; for any other form too.
 * Owner    open/close; one thread. Only one at a time: Ctrl-C is caught while it is open.
 * Failure  as horde_client.h; ERR_CANCELED after Ctrl-C (the request is canceled at the Horde too);
 *          ERR_REFUSED when workers failed at it; ERR_BUSY when none came.
 * Source   horde-api 12.2. The Horde has no dry run for alchemy, so the quote is its rule. The picture goes
 *          out as WebP without any of the file's own notes, and is sent once for each form.
 */
#ifndef CLI_ALCHEMY_HORDE_H
#define CLI_ALCHEMY_HORDE_H

#include "cli/horde_client.h"
#include "cli/progress.h"
#include "image/pixels.h"
#include "proto/horde_interrogate.h"

struct alchemy_horde {
    struct horde_client client;
    struct progress *progress; /* borrowed */
    bool fast_only, trusted_only;
    int64_t spent_milli;
};

/* config_path and url as horde_client_open's */
int alchemy_horde_open(struct alchemy_horde *a, const char *config_path, const char *url,
                       struct progress *progress, struct error *err);
void alchemy_horde_close(struct alchemy_horde *a);

int64_t alchemy_horde_quote(const struct alchemy_horde *a, enum alchemy_form form, int width_px,
                            int height_px);

/* Sends, waits, and books with a running kilnd what it cost. *answer: the form's value as JSON text, text and
 * URLs without quotes (horde_form_result); free() it. request: the Horde's id, also when it fails later. */
int alchemy_horde_run(struct alchemy_horde *a, char **answer, char request[HORDE_ID_BYTES],
                      enum alchemy_form form, const struct pixels *picture, struct error *err);

#endif
