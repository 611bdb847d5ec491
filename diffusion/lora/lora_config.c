#include "diffusion/lora/lora_config.h"

#include <jansson.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/str.h"

#define CONFIG_BYTES_MAX (1u << 20)
#define PATTERN_BYTES_MAX 256
#define SERIES_TERMS 5
#define SERIES_TERMS_MAX 64

struct lora_rule {
    const char *component; /* "": for all */
    bool alpha;
    const char *key;
    double value;
    regex_t *expression; /* NULL: the key is plain text */
};

static const char *const components[] = {"", "unet", "text_encoder", "text_encoder_2"};

/* Fields stand bare (PEFT) or behind the component's name (diffusers). */
static const json_t *field(const struct lora_config *c, const char *component, const char *name)
{
    char full[64];
    snprintf(full, sizeof full, "%s.%s", component, name);
    const json_t *v = json_object_get(c->json, full);
    return v ? v : json_object_get(c->json, name);
}

/* Python's expression as POSIX has it: groups that count nothing, \d. Repeats in braces are not taken: a
 * file could ask for more memory by them than there is. */
static regex_t *compile(const char *key)
{
    char posix[2 * PATTERN_BYTES_MAX + 64];
    if (!strpbrk(key, "*+?[](|)^$\\")) return NULL;
    if (strlen(key) > PATTERN_BYTES_MAX || strchr(key, '{')) return NULL;
    size_t n = (size_t)snprintf(posix, sizeof posix, "^(.*\\.)?(");
    for (const char *p = key; *p; p++) {
        if (p[0] == '(' && p[1] == '?' && p[2] == ':') {
            posix[n++] = '(';
            p += 2;
        } else if (p[0] == '\\' && p[1] == 'd') {
            n += (size_t)snprintf(posix + n, sizeof posix - n, "[0-9]");
            p++;
        } else if (p[0] == '\\' && p[1] >= '0' && p[1] <= '9') {
            return NULL; /* a reference back */
        } else {
            posix[n++] = *p;
        }
    }
    snprintf(posix + n, sizeof posix - n, ")$");
    regex_t *made = alloc_zero(1, sizeof *made);
    if (regcomp(made, posix, REG_EXTENDED | REG_NOSUB) == 0) return made;
    free(made);
    return NULL;
}

static void add_rules(struct lora_config *c, const char *component, bool alpha)
{
    char name[64];
    snprintf(name, sizeof name, "%s%s%s", component, *component ? "." : "",
             alpha ? "alpha_pattern" : "rank_pattern");
    const char *key;
    json_t *value;
    json_object_foreach(json_object_get(c->json, name), key, value)
    {
        if (!json_is_number(value)) continue;
        c->rules = alloc_grow(c->rules, c->rule_count + 1, sizeof *c->rules);
        c->rules[c->rule_count++] =
            (struct lora_rule){component, alpha, key, json_number_value(value), compile(key)};
    }
}

static void take(struct lora_config *c, json_t *root)
{
    *c = (struct lora_config){.known = true, .json = root};
    for (size_t i = 0; i < COUNT_OF(components); i++) {
        add_rules(c, components[i], false);
        add_rules(c, components[i], true);
    }
}

int lora_config_parse(struct lora_config *c, const char *text, const char *path, struct error *err)
{
    json_error_t e;
    json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, &e);
    if (!json_is_object(root)) {
        json_decref(root);
        return error_set(err, ERR_FORMAT, "%s: its words about the adapter are no JSON object",
                         path);
    }
    take(c, root);
    return 0;
}

int lora_config_read(struct lora_config *c, const char *path, struct error *err)
{
    struct buf b;
    buf_init(&b, CONFIG_BYTES_MAX);
    int rc = buf_read_file(&b, path, err);
    if (rc) return rc;
    json_error_t e;
    json_t *root = json_loadb((const char *)b.data, b.length, JSON_REJECT_DUPLICATES, &e);
    buf_release(&b);
    if (!root) return error_set(err, ERR_FORMAT, "%s, line %d: %s", path, e.line, e.text);
    if (!json_is_object(root)) {
        json_decref(root);
        return error_set(err, ERR_FORMAT, "%s is not a JSON object", path);
    }
    take(c, root);
    return 0;
}

void lora_config_release(struct lora_config *c)
{
    for (size_t i = 0; i < c->rule_count; i++) {
        if (c->rules[i].expression) regfree(c->rules[i].expression);
        free(c->rules[i].expression);
    }
    free(c->rules);
    json_decref(c->json);
    *c = (struct lora_config){0};
}

static bool matches(const struct lora_rule *r, const char *path)
{
    if (r->expression) return regexec(r->expression, path, 0, NULL, 0) == 0;
    size_t whole = strlen(path), end = strlen(r->key);
    return str_ends(path, r->key) && (whole == end || path[whole - end - 1] == '.');
}

/* NULL: no pattern is about it */
static const struct lora_rule *find(const struct lora_config *c, const char *component, bool alpha,
                                    const char *path)
{
    for (size_t i = 0; i < c->rule_count; i++) {
        const struct lora_rule *r = &c->rules[i];
        bool ours = !*r->component || str_equal(r->component, component);
        if (ours && r->alpha == alpha && matches(r, path)) return r;
    }
    return NULL;
}

static double number(const struct lora_config *c, const char *component, const char *name)
{
    const json_t *v = field(c, component, name);
    return json_is_number(v) ? json_number_value(v) : 0;
}

double lora_config_alpha(const struct lora_config *c, const char *component, const char *path)
{
    const struct lora_rule *r = find(c, component, true, path);
    if (r) return r->value;
    double alpha = number(c, component, "lora_alpha");
    return alpha != 0 ? alpha : number(c, component, "alpha"); /* LoHa and LoKr */
}

int64_t lora_config_rank(const struct lora_config *c, const char *component, const char *path)
{
    const struct lora_rule *r = find(c, component, false, path);
    double rank = r ? r->value : number(c, component, "r");
    return rank >= 1 && rank <= 1e6 ? (int64_t)rank : 0;
}

bool lora_config_root_rank(const struct lora_config *c, const char *component)
{
    return json_is_true(field(c, component, "use_rslora"));
}

int lora_config_series_terms(const struct lora_config *c, const char *component)
{
    if (!c->known) return SERIES_TERMS;
    if (!json_is_true(field(c, component, "use_cayley_neumann"))) return 0;
    double said = number(c, component, "num_cayley_neumann_terms");
    return said >= 1 && said <= SERIES_TERMS_MAX ? (int)said : SERIES_TERMS;
}

double lora_config_turn_bound(const struct lora_config *c, const char *component)
{
    return json_is_true(field(c, component, "coft")) ? number(c, component, "eps") : 0;
}
