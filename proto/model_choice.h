/*
 * model_choice.h - meta commands of models_to_load: words that mean models of the Horde's list.
 *
 * Place    config gives the words; the daemon's offer asks which models they mean.
 * Owner    model_choice is a value; names of a result are borrowed from the list. Any thread.
 * Failure  ERR_INVALID with the sentence for a command that is none.
 * Source   the reference worker's bridgeData_template.yaml and load resolver: TOP n and BOTTOM n by
 *          images of the last month (stats/img/models, horde-api 17 and 20.4), ALL with families,
 *          styles, SFW, NSFW and inpainting. Case does not count, a last word MODELS neither.
 *
 *     TOP 5 | BOTTOM 5 | ALL | ALL SD15 | ALL SD21 | ALL SDXL | ALL SFW | ALL NSFW | ALL INPAINTING
 *     ALL ANIME | ALL REALISTIC | ... (the list's styles)
 *
 * Only models that Kiln reads are meant: the families SD1, SD2 and SDXL, in one file.
 */
#ifndef PROTO_MODEL_CHOICE_H
#define PROTO_MODEL_CHOICE_H

#include "proto/horde_status.h"
#include "proto/model_reference.h"

enum model_choice_kind { CHOICE_NAME, CHOICE_TOP, CHOICE_BOTTOM, CHOICE_ALL };

struct model_choice {
    enum model_choice_kind kind; /* CHOICE_NAME: not a command, the text is a model's name */
    int count;                   /* TOP, BOTTOM: 1 to 500 */
    char of[40];                 /* ALL: small letters, "" means every model */
};

int model_choice_parse(struct model_choice *c, const char *text, struct error *err);

/* Which models of `list` are meant: names, in the order of worth, into `name`; at most `room`. `month`
 * may be NULL: TOP and BOTTOM then mean nothing. ERR_INVALID when ALL names a style that the list lacks.
 * Returns the count. */
int model_choice_of(const struct model_choice *c, const struct model_reference *list,
                    const struct horde_models *month, const char **name, int room,
                    struct error *err);

#endif
