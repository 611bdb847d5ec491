/*
 * lora_table.h - every place of a model that an adapter file can name.
 *
 * Place    made from the model's visitors; lora_file.c and lora.c look names up, nobody parses
 *          them.
 * Owner    lora_table_new / lora_table_free.
 * Failure  cannot fail.
 * Source   kohya-ss/sd-scripts: names are paths (HF or LDM) with dots made underscores.
 */
#ifndef DIFFUSION_LORA_LORA_TABLE_H
#define DIFFUSION_LORA_LORA_TABLE_H

#include "diffusion/model.h"

enum lora_part { LORA_UNET, LORA_TEXT, LORA_TEXT_2 };

struct lora_target {
    enum lora_part part;
    char *name;           /* path with underscores */
    struct weight *w, *b; /* b NULL or absent: no bias */
    struct layer *layer;  /* NULL: a norm or an embedding, which only takes differences */
};

struct lora_table {
    struct lora_target *targets; /* sorted by part and name */
    size_t count, room;
};

struct lora_table *lora_table_new(struct model *m);
void lora_table_free(struct lora_table *t);
const struct lora_target *lora_table_find(const struct lora_table *t, enum lora_part part,
                                          const char *name);

#endif
