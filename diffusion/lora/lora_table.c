#include "diffusion/lora/lora_table.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/str.h"
#include "diffusion/text/clip_text.h"

#define TEXT_LEVEL "text_model_"

struct building {
    struct lora_table *table;
    enum lora_part part;
    size_t last; /* the first target of the weight visited last */
};

static int order(const void *a, const void *b)
{
    const struct lora_target *x = a, *y = b;
    if (x->part != y->part) return x->part < y->part ? -1 : 1;
    return strcmp(x->name, y->name);
}

/* "a.b.weight" -> "a_b" */
static char *underscored(const char *path)
{
    const char *dot = strrchr(path, '.');
    char *name = alloc_string_n(path, dot ? (size_t)(dot - path) : strlen(path));
    for (char *c = name; *c; c++)
        if (*c == '.') *c = '_';
    return name;
}

static void add(struct lora_table *t, struct lora_target target)
{
    if (t->count == t->room) {
        t->room = t->room ? 2 * t->room : 1024;
        t->targets = alloc_grow(t->targets, t->room, sizeof *t->targets);
    }
    t->targets[t->count++] = target;
}

static int visit(struct weight_visitor *v, struct weight *w, const struct weight_site *site,
                 struct error *err)
{
    struct building *b = v->context;
    if (!str_ends(site->name[DIALECT_HF], ".weight")) {
        /* a bias follows its weight */
        for (size_t i = b->last; str_ends(site->name[DIALECT_HF], ".bias") && i < b->table->count;
             i++)
            b->table->targets[i].b = w;
        return 0;
    }
    b->last = b->table->count;
    struct lora_target target = {.part = b->part, .w = w, .layer = site->layer};
    target.name = underscored(site->name[DIALECT_HF]);
    add(b->table, target);
    if (b->part != LORA_UNET) {
        /* adapters name text encoders by HF paths only, with the level "text_model" or without it */
        bool level = str_starts(target.name, TEXT_LEVEL);
        target.name = level ? alloc_string(target.name + strlen(TEXT_LEVEL))
                            : alloc_printf(TEXT_LEVEL "%s", target.name);
        add(b->table, target);
    } else if (strcmp(site->name[DIALECT_HF], site->name[DIALECT_LDM]) != 0) {
        target.name = underscored(site->name[DIALECT_LDM]);
        add(b->table, target);
    }
    return 0;
}

struct lora_table *lora_table_new(struct model *m)
{
    struct lora_table *t = alloc_zero(1, sizeof *t);
    struct building b = {t, LORA_UNET};
    struct weight_visitor v = {.visit = visit, .context = &b};
    unet_visit(&v, &m->unet);
    for (int i = 0; i < m->text.encoders; i++) {
        b.part = i ? LORA_TEXT_2 : LORA_TEXT;
        v = (struct weight_visitor){.visit = visit, .context = &b};
        clip_text_visit(&v, m->text.encoder[i]);
    }
    qsort(t->targets, t->count, sizeof *t->targets, order);
    return t;
}

void lora_table_free(struct lora_table *t)
{
    if (!t) return;
    for (size_t i = 0; i < t->count; i++) free(t->targets[i].name);
    free(t->targets);
    free(t);
}

const struct lora_target *lora_table_find(const struct lora_table *t, enum lora_part part,
                                          const char *name)
{
    struct lora_target key = {.part = part, .name = (char *)name};
    return t->count ? bsearch(&key, t->targets, t->count, sizeof key, order) : NULL;
}
