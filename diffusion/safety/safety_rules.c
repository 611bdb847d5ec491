#include "diffusion/safety/safety_rules.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/str.h"

enum { FILE_BYTES_MAX = 1 << 20, COLUMNS = 5, PROMPT_BYTES_MAX = 1 << 16 };

static const char *const role_names[] = {
#define X(name, text) text,
    SAFETY_ROLE_TABLE(X)
#undef X
};
static const char *const setting_names[] = {
#define X(name, text) text,
    SAFETY_SETTING_TABLE(X)
#undef X
};

const char *safety_verdict_name(enum safety_verdict v)
{
    static const char *const names[] = {"ok", "nsfw", "doubt", "csam", "failed"};
    return names[v];
}

/* ---- reading ---- */

struct reading {
    struct safety_rules *rules;
    const char *path;
    int line;
    bool set[SAFETY_SETTING_COUNT];
};

static int refuse(const struct reading *r, struct error *err, const char *what)
{
    return error_set(err, ERR_FORMAT, "%s, line %d: %s", r->path, r->line, what);
}

static int index_of(const char *word, const char *const *names, int count)
{
    for (int i = 0; i < count; i++)
        if (str_equal(word, names[i])) return i;
    return -1;
}

static int find_phrase(const struct safety_rules *rules, const char *text)
{
    for (int i = 0; i < rules->count; i++)
        if (rules->phrase[i].role != SAFETY_CONCEPT && str_equal(rules->phrase[i].text, text))
            return i;
    return -1;
}

static bool cosine(const char *text, double *value)
{
    return str_parse_f64(text, value) && *value >= -1 && *value <= 1;
}

static int read_phrase(struct reading *r, char **column, int columns, struct error *err)
{
    struct safety_rules *rules = r->rules;
    struct safety_phrase p = {.second = NAN};
    int role = index_of(column[0], role_names, SAFETY_ROLE_COUNT);
    if (role < 0) return refuse(r, err, "no role, setting, suspect or pair begins it");
    p.role = (enum safety_role)role;
    if (columns != COLUMNS || !*column[4]) return refuse(r, err, "a phrase has five columns");
    if (!cosine(column[1], &p.threshold)) return refuse(r, err, "the threshold is no cosine");
    if (!str_equal(column[2], "-") && !cosine(column[2], &p.second))
        return refuse(r, err, "the second threshold is neither a cosine nor -");
    if (p.role == SAFETY_YOUNG && !(p.second >= p.threshold))
        return refuse(r, err, "a danger threshold lies at or above the first one");
    for (const char *f = column[3]; *f; f++) {
        if (*f == 'p')
            p.photo = true;
        else if (*f == 'd')
            p.second_look_drawn = true;
        else if (*f != '-')
            return refuse(r, err, "flags are p, d or -");
    }
    if (rules->count == SAFETY_PHRASES_MAX) return refuse(r, err, "more than 1024 phrases");
    p.text = arena_string(&rules->memory, column[4]);
    rules->phrase[rules->count++] = p;
    return 0;
}

static int read_setting(struct reading *r, char **column, int columns, struct error *err)
{
    int s = columns == 3 ? index_of(column[1], setting_names, SAFETY_SETTING_COUNT) : -1;
    if (s < 0) return refuse(r, err, "no such setting");
    if (r->set[s]) return refuse(r, err, "this setting stands here twice");
    if (!str_parse_f64(column[2], &r->rules->setting[s]) || r->rules->setting[s] < 0)
        return refuse(r, err, "the setting is no number from 0");
    r->set[s] = true;
    return 0;
}

static int read_pair(struct reading *r, char **column, int columns, struct error *err)
{
    struct safety_rules *rules = r->rules;
    if (columns != 3) return refuse(r, err, "a pair has two phrases");
    int a = find_phrase(rules, column[1]), b = find_phrase(rules, column[2]);
    if (a < 0 || b < 0 || a == b) return refuse(r, err, "a pair names two phrases from above");
    if (rules->pairs == SAFETY_PHRASES_MAX) return refuse(r, err, "more than 1024 pairs");
    rules->pair[rules->pairs++] = (struct safety_pair){a, b};
    return 0;
}

static int read_line(struct reading *r, char *line, struct error *err)
{
    struct safety_rules *rules = r->rules;
    char *column[COLUMNS + 1];
    int columns = 0;
    if (!*line || *line == '#') return 0;
    for (char *at = line; at && columns <= COLUMNS;) {
        column[columns++] = at;
        at = strchr(at, '\t');
        if (at) *at++ = 0;
    }
    if (str_equal(column[0], "setting")) return read_setting(r, column, columns, err);
    if (str_equal(column[0], "pair")) return read_pair(r, column, columns, err);
    if (!str_equal(column[0], "suspect")) return read_phrase(r, column, columns, err);
    if (columns != 2 || !*column[1]) return refuse(r, err, "a suspect line has one text");
    if (rules->suspects == SAFETY_PHRASES_MAX) return refuse(r, err, "more than 1024 suspects");
    rules->suspect[rules->suspects++] = arena_string(&rules->memory, column[1]);
    return 0;
}

static int check_whole(const struct reading *r, struct error *err)
{
    for (int s = 0; s < SAFETY_SETTING_COUNT; s++)
        if (!r->set[s])
            return error_set(err, ERR_FORMAT, "%s: the setting %s is missing", r->path,
                             setting_names[s]);
    for (int role = 0; role < SAFETY_ROLE_COUNT; role++) {
        bool found = false;
        for (int i = 0; i < r->rules->count && !found; i++)
            found = (int)r->rules->phrase[i].role == role;
        if (!found)
            return error_set(err, ERR_FORMAT, "%s: no phrase has the role %s", r->path,
                             role_names[role]);
    }
    return 0;
}

static int read_text(struct reading *r, char *text, size_t length, struct error *err)
{
    int rc = 0;
    if (memchr(text, 0, length) || !str_is_utf8(text, length))
        return error_set(err, ERR_FORMAT, "%s is no UTF-8 text", r->path);
    for (char *at = text; at && !rc;) {
        char *next = strchr(at, '\n');
        if (next) *next++ = 0;
        r->line++;
        rc = read_line(r, at, err);
        at = next;
    }
    return rc ? rc : check_whole(r, err);
}

int safety_rules_parse(struct safety_rules **rules, const char *text, size_t length,
                       const char *name, struct error *err)
{
    char *copy = alloc_try(length + 1, 1);
    if (!copy) return error_set(err, ERR_NO_MEMORY, "no memory for %s", name);
    if (length) memcpy(copy, text, length);
    struct safety_rules *made = alloc_zero(1, sizeof *made);
    arena_init(&made->memory, 0);
    made->phrase = alloc_zero(SAFETY_PHRASES_MAX, sizeof *made->phrase);
    made->suspect = alloc_zero(SAFETY_PHRASES_MAX, sizeof *made->suspect);
    made->pair = alloc_zero(SAFETY_PHRASES_MAX, sizeof *made->pair);
    struct reading reading = {.rules = made, .path = name};
    int rc = read_text(&reading, copy, length, err);
    free(copy);
    if (rc)
        safety_rules_close(made);
    else
        *rules = made;
    return rc;
}

int safety_rules_open(struct safety_rules **rules, const char *path, struct error *err)
{
    struct buf text;
    buf_init(&text, FILE_BYTES_MAX);
    int rc = buf_read_file(&text, path, err);
    if (!rc && !text.length) rc = error_set(err, ERR_FORMAT, "%s is empty", path);
    if (!rc) rc = safety_rules_parse(rules, (char *)text.data, text.length, path, err);
    buf_release(&text);
    return rc;
}

void safety_rules_close(struct safety_rules *rules)
{
    if (!rules) return;
    free(rules->phrase);
    free(rules->suspect);
    free(rules->pair);
    arena_release(&rules->memory);
    free(rules);
}

/* ---- the prompt ---- */

/* Small ASCII letters; punctuation and spaces become one space, letters spelt apart ("o l d e r")
 * stand together again. Bytes of other scripts stay. */
static void flatten(char *to, const char *from, size_t room)
{
    size_t n = 0;
    bool space = true;
    for (; *from && n + 2 < room; from++) {
        unsigned char c = (unsigned char)*from;
        bool word = isalnum(c) || c >= 0x80;
        if (word)
            to[n++] = (char)tolower(c);
        else if (!space)
            to[n++] = ' ';
        space = !word;
    }
    to[n] = 0;
}

/* The end of a run of three or more single letters that begins at `at`, or `at`. */
static const char *spelt(const char *at)
{
    int letters = 0;
    const char *end = at;
    for (const char *c = at; *c && *c != ' ' && (c[1] == ' ' || !c[1]); c += 2) {
        letters++;
        end = c + 1;
        if (!c[1]) break;
    }
    return letters >= 3 ? end : at;
}

static void join_spelt(char *text)
{
    char *to = text;
    for (const char *at = text; *at;) {
        const char *end = at == text || at[-1] == ' ' ? spelt(at) : at;
        if (end == at) {
            *to++ = *at++;
            continue;
        }
        for (; at < end; at++)
            if (*at != ' ') *to++ = *at;
    }
    *to = 0;
}

bool safety_rules_suspect(const struct safety_rules *r, const char *prompt)
{
    const char *negative = prompt ? strstr(prompt, "###") : NULL;
    if (!negative) return false;
    char *plain = alloc_try(PROMPT_BYTES_MAX, 1);
    if (!plain) return true; /* doubt is the strict side */
    plain[0] = ' ';
    flatten(plain + 1, negative + 3, PROMPT_BYTES_MAX - 1);
    join_spelt(plain + 1);
    bool found = false;
    for (int i = 0; i < r->suspects && !found; i++) found = strstr(plain, r->suspect[i]) != NULL;
    free(plain);
    return found;
}

/* ---- the judgement ---- */

struct view {
    const struct safety_rules *r;
    double similarity[SAFETY_PHRASES_MAX]; /* four digits, as the thresholds were tuned */
    bool drawn, suspect;
};

/* Similar to a drawing; weak evidence gives way to strong evidence of a photo. */
static bool is_drawn(const struct view *v)
{
    const struct safety_rules *r = v->r;
    bool drawn = false, sure = false, photo = false;
    for (int i = 0; i < r->count; i++) {
        const struct safety_phrase *p = &r->phrase[i];
        double s = v->similarity[i];
        if (p->role == SAFETY_DRAWN && s > p->threshold) {
            drawn = true;
            sure = sure || s >= r->setting[SAFETY_SET_DRAWN_SURE];
        }
        photo = photo || (p->photo && s > r->setting[SAFETY_SET_PHOTO_ABOVE]);
    }
    return drawn && (sure || !photo);
}

/* Anything to look at: any phrase but the concepts. */
static bool has_subject(const struct view *v)
{
    for (int i = 0; i < v->r->count; i++)
        if (v->r->phrase[i].role != SAFETY_CONCEPT && v->similarity[i] > v->r->phrase[i].threshold)
            return true;
    return false;
}

/* On drawings only concepts with a threshold of their own are reliable. */
static void find_nsfw(const struct view *v, bool *reliable, bool *any)
{
    *reliable = *any = false;
    for (int i = 0; i < v->r->count; i++) {
        const struct safety_phrase *p = &v->r->phrase[i];
        if (p->role != SAFETY_CONCEPT) continue;
        bool own = !isnan(p->second);
        if (!(v->similarity[i] > (v->drawn && own ? p->second : p->threshold))) continue;
        *any = true;
        if (!v->drawn || own) *reliable = true;
    }
}

static double second_look(const struct view *v, const struct safety_phrase *p)
{
    const double *set = v->r->setting;
    double share = v->drawn ? set[v->suspect ? SAFETY_SET_DRAWN_DOUBT : SAFETY_SET_DRAWN_SHARE]
                            : set[v->suspect ? SAFETY_SET_OTHER_DOUBT : SAFETY_SET_OTHER_SHARE];
    return p->threshold + (isnan(p->second) ? 0 : (p->second - p->threshold) * share);
}

/* One phrase above its danger threshold, or several above the threshold of the second look. */
static bool is_young(const struct view *v)
{
    const struct safety_rules *r = v->r;
    bool found[SAFETY_PHRASES_MAX] = {false};
    for (int i = 0; i < r->count; i++) {
        const struct safety_phrase *p = &r->phrase[i];
        if (p->role == SAFETY_YOUNG && v->similarity[i] > p->second) return true;
        bool counts = v->drawn ? p->second_look_drawn : p->role == SAFETY_YOUNG;
        found[i] = counts && v->similarity[i] > second_look(v, p);
    }
    for (int i = 0; i < r->pairs; i++) {
        const struct safety_pair *pair = &r->pair[i];
        if (!found[pair->a] || !found[pair->b]) continue;
        found[v->similarity[pair->a] > v->similarity[pair->b] ? pair->b : pair->a] = false;
    }
    int count = 0;
    for (int i = 0; i < r->count; i++) count += found[i];
    return count >= r->setting[SAFETY_SET_MATCHES];
}

enum safety_verdict safety_rules_judge(const struct safety_rules *r, const float *similarity,
                                       bool suspect)
{
    struct view v = {.r = r, .suspect = suspect};
    bool reliable, any;
    for (int i = 0; i < r->count; i++) {
        if (!isfinite(similarity[i])) return SAFETY_FAILED;
        v.similarity[i] = nearbyint((double)similarity[i] * 1e4) / 1e4;
    }
    v.drawn = is_drawn(&v);
    find_nsfw(&v, &reliable, &any);
    if (!any || !has_subject(&v)) return SAFETY_OK;
    if (!is_young(&v)) return SAFETY_NSFW;
    return reliable ? SAFETY_CSAM : SAFETY_DOUBT;
}
