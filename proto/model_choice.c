#include "proto/model_choice.h"

#include <ctype.h>
#include <string.h>

#include "base/str.h"
#include "proto/terms.h"

#define COUNT_MAX 500

/* ---- the words ---- */

/* Small letters, one blank between words, without a last "models". */
static void tidy(char *to, size_t room, const char *text)
{
    size_t n = 0;
    for (const char *p = text; *p && n + 1 < room; p++) {
        bool blank = isspace((unsigned char)*p);
        if (blank && (!n || to[n - 1] == ' ')) continue;
        to[n++] = blank ? ' ' : (char)tolower((unsigned char)*p);
    }
    if (n && to[n - 1] == ' ') n--;
    to[n] = 0;
    if (str_ends(to, " models")) to[n - 7] = 0;
}

int model_choice_parse(struct model_choice *c, const char *text, struct error *err)
{
    char words[80];
    tidy(words, sizeof words, text);
    *c = (struct model_choice){CHOICE_NAME, 0, ""};
    bool top = str_starts(words, "top "), bottom = str_starts(words, "bottom ");
    if (top || bottom) {
        int64_t count;
        const char *number = words + (top ? 4 : 7);
        if (!isdigit((unsigned char)*number)) return 0; /* a model may be called "Top Gun" */
        if (!str_parse_i64(number, &count) || count < 1 || count > COUNT_MAX)
            return error_set(err, ERR_INVALID, "\"%.60s\": a number from 1 to %d belongs there",
                             text, COUNT_MAX);
        c->kind = top ? CHOICE_TOP : CHOICE_BOTTOM;
        c->count = (int)count;
    } else if (str_equal(words, "all") || str_starts(words, "all ")) {
        const char *of = words[3] ? words + 4 : "";
        if (strlen(of) >= sizeof c->of)
            return error_set(err, ERR_INVALID, "\"%.60s\" is no meta command", text);
        c->kind = CHOICE_ALL;
        str_copy(c->of, sizeof c->of, of);
    }
    return 0;
}

/* ---- the models ---- */

static bool readable(const struct reference_model *m, enum family *family)
{
    return m->parts == 1 && family_find(m->baseline, family);
}

static bool meant(const struct model_choice *c, const struct reference_model *m, enum family family)
{
    static const struct {
        const char *word;
        enum family family;
    } families[] = {
        {"sd15", FAMILY_SD1},     {"sd1.5", FAMILY_SD1},     {"sd1", FAMILY_SD1},
        {"sd21", FAMILY_SD2_768}, {"sd2.1", FAMILY_SD2_768}, {"sd2", FAMILY_SD2_768},
        {"sdxl", FAMILY_SDXL},
    };
    if (!*c->of) return true;
    if (str_equal(c->of, "sfw")) return !m->nsfw;
    if (str_equal(c->of, "nsfw")) return m->nsfw;
    if (str_equal(c->of, "inpainting")) return m->inpainting;
    for (size_t i = 0; i < sizeof families / sizeof *families; i++)
        if (str_equal(c->of, families[i].word))
            return family == families[i].family ||
                   (families[i].family == FAMILY_SD2_768 && family == FAMILY_SD2_512);
    return str_equal_nocase(c->of, m->style);
}

static const struct reference_model *find(const struct model_reference *list, const char *name)
{
    for (int i = 0; i < list->count; i++)
        if (str_equal(list->list[i].name, name)) return &list->list[i];
    return NULL;
}

/* The `c->count` with the most (or fewest) images of the month; equals stay in the list's order. */
static int ranked(const struct model_choice *c, const struct model_reference *list,
                  const struct horde_models *month, const char **name, int room)
{
    int found = 0, most = c->count < room ? c->count : room;
    double last = 0;
    int last_at = -1;
    while (month && found < most) { /* the next one by selection: the list is short */
        int best = -1;
        for (int i = 0; i < month->count; i++) {
            double jobs = month->list[i].jobs, way = c->kind == CHOICE_TOP ? 1 : -1;
            enum family family;
            const struct reference_model *m = find(list, month->list[i].name);
            if (!m || !readable(m, &family)) continue;
            bool after = last_at < 0 || way * jobs < way * last || (jobs == last && i > last_at);
            if (after && (best < 0 || way * jobs > way * month->list[best].jobs)) best = i;
        }
        if (best < 0) break;
        last = month->list[best].jobs;
        last_at = best;
        name[found++] = find(list, month->list[best].name)->name;
    }
    return found;
}

int model_choice_of(const struct model_choice *c, const struct model_reference *list,
                    const struct horde_models *month, const char **name, int room,
                    struct error *err)
{
    int found = 0;
    if (c->kind == CHOICE_TOP || c->kind == CHOICE_BOTTOM)
        return ranked(c, list, month, name, room);
    for (int i = 0; i < list->count && c->kind == CHOICE_ALL && found < room; i++) {
        enum family family;
        if (readable(&list->list[i], &family) && meant(c, &list->list[i], family))
            name[found++] = list->list[i].name;
    }
    if (!found && c->kind == CHOICE_ALL && list->count)
        return error_set(err, ERR_INVALID,
                         "\"ALL %s\" means no model: there are SD15, SD21, SDXL, SFW, NSFW, "
                         "INPAINTING and the styles of the Horde's list",
                         c->of);
    return found;
}
