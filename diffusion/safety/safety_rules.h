/*
 * safety_rules.h - from similarities to a verdict, by a table that is data.
 *
 * Place    between a picture's similarities to phrases and safety.h's verdict. No model, no device.
 * Owner    safety_rules_open / safety_rules_close; read-only afterwards.
 * Failure  ERR_NOT_FOUND, ERR_IO, ERR_FORMAT with file, line and rule. A table that lacks a role or
 *          a setting is refused: half a table would let through what it does not know.
 * Source   what the public package horde_safety (Haidra-Org) combines; the table is made from it by
 *          config/make_safety_rules.py. docs/design/safety.md has the format and the rule.
 *
 * Lines of tabs, `#` comments:
 *     setting  NAME    NUMBER                     each name of SAFETY_SETTING_TABLE once
 *     suspect  TEXT                               in a negative prompt: doubt in the second look
 *     pair     PHRASE  PHRASE                     two words for one thing: they count once
 *     ROLE     THRESHOLD  SECOND  FLAGS  PHRASE   a role of SAFETY_ROLE_TABLE; `-`: none
 * SECOND is the danger threshold of `young`, the threshold on drawn pictures of `concept`.
 * Similarities are rounded to four digits before they are compared.
 * FLAGS (letters): p evidence of a photo, d counts in the second look at drawn pictures.
 */
#ifndef SAFETY_SAFETY_RULES_H
#define SAFETY_SAFETY_RULES_H

#include <stdbool.h>

#include "base/arena.h"
#include "base/error.h"

#define SAFETY_PHRASES_MAX 1024

#define SAFETY_ROLE_TABLE(X)                                                                       \
    X(DRAWN, "drawn")     /* the picture is a drawing */                                           \
    X(PERSON, "person")   /* shows somebody */                                                     \
    X(LEWD, "lewd")       /* shows what has to be looked at closer */                              \
    X(YOUNG, "young")     /* shows a minor */                                                      \
    X(CONCEPT, "concept") /* is NSFW, when there is anything to look at */

#define SAFETY_SETTING_TABLE(X)                                                                    \
    X(DRAWN_SURE, "drawn_sure")   /* a drawing below this may still be a photo */                  \
    X(PHOTO_ABOVE, "photo_above") /* evidence that it is one */                                    \
    X(DRAWN_SHARE, "drawn_share") /* second look: share of the way to danger, drawings */          \
    X(DRAWN_DOUBT, "drawn_doubt") /* the same with a suspect negative prompt */                    \
    X(OTHER_SHARE, "other_share") /* second look, everything else */                               \
    X(OTHER_DOUBT, "other_doubt")                                                                  \
    X(MATCHES, "matches") /* so many in the second look are enough */

enum safety_role {
#define X(name, text) SAFETY_##name,
    SAFETY_ROLE_TABLE(X)
#undef X
        SAFETY_ROLE_COUNT
};
enum safety_setting {
#define X(name, text) SAFETY_SET_##name,
    SAFETY_SETTING_TABLE(X)
#undef X
        SAFETY_SETTING_COUNT
};

/* DOUBT: a minor in a drawing whose only NSFW evidence is unreliable on drawings. Treated as NSFW
 * that is replaced whatever the request allows: it does not leave, and nobody is accused. */
enum safety_verdict {
    SAFETY_OK,
    SAFETY_NSFW,
    SAFETY_DOUBT,
    SAFETY_CSAM,
    SAFETY_FAILED,
    SAFETY_VERDICT_COUNT
};
const char *safety_verdict_name(enum safety_verdict v);

struct safety_phrase {
    enum safety_role role;
    double threshold, second; /* second NAN: none */
    bool photo, second_look_drawn;
    const char *text;
};

struct safety_rules {
    struct arena memory;
    struct safety_phrase *phrase;
    int count;
    double setting[SAFETY_SETTING_COUNT];
    const char **suspect;
    int suspects;
    struct safety_pair {
        int a, b; /* of phrase */
    } * pair;
    int pairs;
};

int safety_rules_open(struct safety_rules **rules, const char *path, struct error *err);
/* From memory; `name` is for messages. */
int safety_rules_parse(struct safety_rules **rules, const char *text, size_t length,
                       const char *name, struct error *err);
void safety_rules_close(struct safety_rules *rules);

/* Does the negative side of a Horde prompt (behind ###) hold a suspect word? */
bool safety_rules_suspect(const struct safety_rules *r, const char *prompt);

/* similarity [count], cosines in the order of the phrases. Not finite:
 * SAFETY_FAILED. */
enum safety_verdict safety_rules_judge(const struct safety_rules *r, const float *similarity,
                                       bool suspect);

#endif
