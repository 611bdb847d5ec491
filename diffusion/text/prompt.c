#include "diffusion/text/prompt.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/str.h"
#include "proto/request.h"

/* Escaped brackets travel as these two bytes, which no valid UTF-8 text contains alone. */
enum { MARK_OPEN = 1, MARK_CLOSE = 2, MARK_SQUARE_OPEN = 3, MARK_SQUARE_CLOSE = 4 };
enum { DEPTH_MAX = 200 };

static const double UP = 1.1, SQUARE_DOWN = 1 / 1.1;

struct parser {
    struct prompt *p;
    enum prompt_rules rules;
    int capacity;
    struct error *err;
};

/* --- escapes --- */

static size_t mark_escapes(char *text, bool square)
{
    char *to = text;
    for (const char *at = text; *at; at++) {
        char next = at[0] == '\\' ? at[1] : 0;
        char mark = next == '('             ? MARK_OPEN
                    : next == ')'           ? MARK_CLOSE
                    : square && next == '[' ? MARK_SQUARE_OPEN
                    : square && next == ']' ? MARK_SQUARE_CLOSE
                                            : 0;
        if (mark) at++;
        /* the marks' own bytes are control characters; in a prompt they are spaces */
        *to++ = mark ? mark : *at >= MARK_OPEN && *at <= MARK_SQUARE_CLOSE ? ' ' : *at;
    }
    *to = 0;
    return (size_t)(to - text);
}

static void unmark(char *text)
{
    static const char brackets[] = {0, '(', ')', '[', ']'};
    for (; *text; text++)
        if (*text >= MARK_OPEN && *text <= MARK_SQUARE_CLOSE) *text = brackets[(int)*text];
}

/* --- spans --- */

static int add_span(struct parser *s, enum span_kind kind, const char *text, size_t length,
                    double weight)
{
    struct prompt *p = s->p;
    if (p->span_count == s->capacity) {
        int capacity = s->capacity ? 2 * s->capacity : 16;
        struct span *grown = arena_try(&p->arena, (size_t)capacity, sizeof *grown);
        if (!grown) return error_set(s->err, ERR_NO_MEMORY, "no memory for a prompt");
        if (p->span_count) memcpy(grown, p->spans, (size_t)p->span_count * sizeof *grown);
        p->spans = grown;
        s->capacity = capacity;
    }
    char *copy = arena_string_n(&p->arena, text, length);
    unmark(copy);
    p->spans[p->span_count++] = (struct span){kind, copy, (float)weight};
    return 0;
}

/* Words of one weight: plain runs, embeddings by name, chunk breaks. */
static int add_words(struct parser *s, const char *text, size_t length, double weight)
{
    static const char name_mark[] = "embedding:", break_word[] = "BREAK";
    size_t run = 0; /* start of the plain run */
    int rc = 0;
    for (size_t at = 0; !rc && at < length;) {
        while (at < length && isspace((unsigned char)text[at])) at++;
        size_t end = at;
        while (end < length && !isspace((unsigned char)text[end])) end++;
        bool name =
            end - at > sizeof name_mark - 1 && !strncmp(text + at, name_mark, sizeof name_mark - 1);
        bool cut = s->rules == PROMPT_LOCAL && end - at == sizeof break_word - 1 &&
                   !strncmp(text + at, break_word, end - at);
        if (name || cut) {
            if (at > run) rc = add_span(s, SPAN_TEXT, text + run, at - run, weight);
            size_t skip = name ? sizeof name_mark - 1 : end - at;
            if (!rc)
                rc = add_span(s, name ? SPAN_EMBEDDING : SPAN_BREAK, text + at + skip,
                              end - at - skip, weight);
            run = end;
        }
        at = end;
    }
    if (!rc && length > run) rc = add_span(s, SPAN_TEXT, text + run, length - run, weight);
    return rc;
}

/* Whole text must be a number as Python's float() takes it; infinities and NaN are words. */
static bool parse_weight(const char *text, size_t length, double *weight)
{
    char number[32], *end;
    while (length && isspace((unsigned char)*text)) text++, length--;
    while (length && isspace((unsigned char)text[length - 1])) length--;
    if (!length || length >= sizeof number) return false;
    memcpy(number, text, length);
    number[length] = 0;
    if (strspn(number, "0123456789+-.eE") != length) return false;
    double value = strtod(number, &end);
    if (*end || !isfinite(value) || fabs(value) > 1e6) return false;
    *weight = value;
    return true;
}

static int parse(struct parser *s, const char *text, size_t length, double weight, int depth);

/* A closed group, brackets included: (words), (words:1.3), or [words]. */
static int parse_group(struct parser *s, const char *text, size_t length, double weight, int depth)
{
    const char *inside = text + 1;
    size_t inner = length - 2;
    if (text[0] == '[') return parse(s, inside, inner, weight * SQUARE_DOWN, depth + 1);
    double set = weight * UP;
    for (size_t colon = inner; colon-- > 1;) {
        if (inside[colon] != ':') continue;
        if (parse_weight(inside + colon + 1, inner - colon - 1, &set)) inner = colon;
        break; /* only the last colon counts */
    }
    return parse(s, inside, inner, set, depth + 1);
}

/* The reference's state machine, odd brackets included: a bracket that closes nothing swallows the
 * next opening one, and a group that never ends is plain text. Square groups follow the same
 * rule where they are known. */
static int parse(struct parser *s, const char *text, size_t length, double weight, int depth)
{
    bool square = s->rules == PROMPT_LOCAL;
    size_t item = 0; /* start of what is not given out yet */
    int level = 0, rc = 0;
    char kind = 0;
    for (size_t at = 0; !rc && at < length; at++) {
        bool opens = text[at] == '(' || (square && text[at] == '[');
        bool closes = text[at] == ')' || (square && text[at] == ']');
        if (opens) {
            if (level == 0) {
                if (at > item) rc = add_words(s, text + item, at - item, weight);
                item = at;
                kind = text[at];
            }
            level++;
        } else if (closes) {
            level--;
            if (level == 0) {
                bool pair = text[item] == kind && kind == (text[at] == ')' ? '(' : '[');
                if (pair && depth < DEPTH_MAX)
                    rc = parse_group(s, text + item, at + 1 - item, weight, depth);
                else
                    rc = add_words(s, text + item, at + 1 - item, weight);
                item = at + 1;
            }
        }
    }
    if (rc || length == item) return rc;
    /* "((a)" is an item that begins and ends like a group, and counts as one */
    bool group = length - item >= 2 && text[item] == '(' && text[length - 1] == ')';
    if (group && depth < DEPTH_MAX)
        return parse_group(s, text + item, length - item, weight, depth);
    return add_words(s, text + item, length - item, weight);
}

/* --- <lora:NAME:0.8> and <lora:NAME:0.8:0.6>, taken out of the text --- */

static bool parse_lora(struct prompt *p, const char *inside, size_t length)
{
    char *tag = arena_string_n(&p->arena, inside, length);
    char *strength = strchr(tag, ':'), *clip = NULL;
    if (strength) *strength++ = 0;
    if (strength && (clip = strchr(strength, ':'))) *clip++ = 0;
    double model = 1, text = 1;
    if (!*tag || (strength && !parse_weight(strength, strlen(strength), &model))) return false;
    text = model;
    if (clip && !parse_weight(clip, strlen(clip), &text)) return false;
    struct prompt_lora *grown =
        arena_try(&p->arena, (size_t)p->lora_count + 1, sizeof *grown); /* few: no doubling */
    if (!grown) return false;
    if (p->lora_count) memcpy(grown, p->loras, (size_t)p->lora_count * sizeof *grown);
    p->loras = grown;
    p->loras[p->lora_count++] = (struct prompt_lora){tag, model, text};
    return true;
}

static void take_loras(struct prompt *p, char *text)
{
    static const char open[] = "<lora:";
    for (char *at = text; (at = strstr(at, open));) {
        char *inside = at + sizeof open - 1, *end = strchr(inside, '>');
        if (end && p->lora_count < REQUEST_LORAS_MAX &&
            parse_lora(p, inside, (size_t)(end - inside)))
            memmove(at, end + 1, strlen(end + 1) + 1);
        else
            at = inside;
    }
}

int prompt_parse(struct prompt *p, const char *text, enum prompt_rules rules, struct error *err)
{
    size_t length = strlen(text);
    if (length > REQUEST_PROMPT_BYTES_MAX)
        return error_set(err, ERR_INVALID, "a prompt of %zu bytes; the limit is %d", length,
                         REQUEST_PROMPT_BYTES_MAX);
    struct prompt parsed = {.plain_names = rules == PROMPT_LOCAL};
    arena_init(&parsed.arena, 0);
    char *copy = arena_string(&parsed.arena, text);
    if (rules == PROMPT_LOCAL) take_loras(&parsed, copy);
    length = mark_escapes(copy, rules == PROMPT_LOCAL);
    struct parser s = {.p = &parsed, .rules = rules, .err = err};
    int rc = parse(&s, copy, length, 1, 0);
    if (rc)
        prompt_release(&parsed);
    else
        *p = parsed;
    return rc;
}

void prompt_release(struct prompt *p)
{
    arena_release(&p->arena);
    *p = (struct prompt){0};
}

void prompt_split(const char *text, char **positive, char **negative)
{
    const char *mark = strstr(text, "###");
    *positive = mark ? alloc_string_n(text, (size_t)(mark - text)) : alloc_string(text);
    *negative = alloc_string(mark ? mark + 3 : "");
}
