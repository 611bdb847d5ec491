/*
 * lora.h - adapters of a request on a model: every dialect of the field, several at once.
 *
 * Place    between request.loras and the layers of UNet and text encoders; called by pipeline.c
 *          before the prompt is encoded.
 * Owner    lora_set_init / lora_set_release around the caller's struct, one for a model. One
 *          thread.
 * Failure  lora_set_use reports each file that cannot be used through `failed` and goes on with the
 *          others (the Horde's rule); it returns non-zero only for ERR_NO_MEMORY and ERR_DEVICE.
 * Source   kohya-ss/sd-scripts, KohakuBlueleaf/LyCORIS, huggingface/peft.
 *
 * LayerDiffuse's changes of a UNet come as such files, too: full differences or pairs of SDXL, shared
 * attention of SD 1.x (layered/attention_sharing.h).
 *
 * Plain low-rank pairs stay beside the weight (struct adapter); LoHa, LoKr, DoRA, GLoRA, (IA)^3, OFT,
 * BOFT, VeRA and full differences are merged into a copy of the weight, which lora_set_clear undoes.
 * Files work one after the other, as in ComfyUI: where a later one depends on the weight that it meets,
 * the pairs before it are merged, too.
 */
#ifndef DIFFUSION_LORA_LORA_H
#define DIFFUSION_LORA_LORA_H

#include "diffusion/model.h"

#define LORA_SET_MAX (REQUEST_LORAS_MAX + 1) /* the request's, and what makes things transparent */

struct lora_patch; /* a weight whose data was replaced */

struct lora_set {
    struct model *model;
    bool merge_all;           /* low-rank pairs go into the weights, too: for writing them */
    bool in_turn;             /* the same, for a file that depends on those before it */
    struct lora_table *table; /* names of all targets, made on first use */
    struct lora_patch *patches;
    char *signature; /* files and strengths that are applied now; NULL: none */
    size_t adapters;
    int modules, unknown; /* of the last use: applied; names that the model lacks */
};

void lora_set_init(struct lora_set *s, struct model *model);
void lora_set_release(struct lora_set *s);
void lora_set_clear(struct lora_set *s);

/* code: parse_failed or baseline_mismatch; sentence names the file and both sides. */
typedef void (*lora_failed)(void *context, const char *name, const char *code,
                            const char *sentence);
/* Makes exactly these adapters be applied; nothing is done when they are already. */
int lora_set_use(struct lora_set *s, const struct request_lora *loras, int count,
                 lora_failed failed, void *context, struct error *err);

#endif
