/*
 * blip.h - BLIP's captioner: a vision transformer, and a BERT that writes while it looks.
 *
 * Place    caption.c: patches of a picture in, the next word's logits out, row by row.
 * Owner    as clip_text.h: detect, init, weights by blip_visit, blip_prepare, release. One thread.
 *          A writing (blip_start .. blip_stop) keeps a pass open: no other pass of the same memory may
 *          end after it.
 * Failure  through the pass; detection and init: ERR_FORMAT.
 * Source   Li et al. 2022, BLIP; Devlin et al. 2019. Names: DIALECT_HF is transformers'
 *          BlipForConditionalGeneration (`vision_model.…`), DIALECT_LDM salesforce/BLIP
 *          (`visual_encoder.…`, blocks of timm); the text side has the same names in both.
 *
 * Picture: patches with bias, a class row in front, learned positions, pre-norm layers without mask
 * (clip_layer_forward, exact GELU), LayerNorm. Text: word + position, LayerNorm; per layer
 * self-attention over the rows so far, attention to the picture's rows, GELU MLP, each with LayerNorm
 * after the sum (eps 1e-12); then dense, GELU, LayerNorm and the transposed word table plus bias.
 */
#ifndef ALCHEMY_BLIP_H
#define ALCHEMY_BLIP_H

#include "diffusion/text/clip_text.h"

#define BLIP_ROWS_MAX 16

struct blip_config {
    int vision_layers, text_layers;
    int64_t vision_width, vision_heads, vision_mlp, patch, grid;
    int64_t text_width, text_heads, text_mlp, vocab, positions;
    bool split_bias; /* the file keeps the words' bias beside the table's matrix only */
};

/* Sizes from the shapes; heads as clip_heads. Callers overwrite them from a config.json. */
int blip_detect(struct blip_config *config, const struct weight_store *store, enum dialect *dialect,
                struct error *err);

struct blip_attention {
    struct layer q, k, v, out;
    struct norm norm;
};

struct blip_layer {
    struct blip_attention self, cross;
    struct layer up, down;
    struct norm norm;
};

struct blip {
    struct blip_config config;
    struct layer patch;                /* as a linear layer: [width, 3 patch patch] */
    struct weight class_row, position; /* [1,1,width], [1,1 + grid grid,width] */
    struct clip_layer *vision;
    struct norm vision_norm;
    struct weight word, place; /* [vocab,width], [positions,width] */
    struct norm text_norm;
    struct blip_layer *text;
    struct layer head, words; /* words.w is the word table once more */
    struct norm head_norm;
};

int blip_init(struct blip *m, const struct blip_config *config, struct error *err);
void blip_visit(struct weight_visitor *v, struct blip *m);
/* After loading, before packing: the patch convolution becomes a matrix. */
void blip_prepare(struct blip *m);
void blip_release(struct blip *m, struct device *d);

/* x [1, grid grid, 3 patch patch] -> the picture's rows [1, 1 + grid grid, vision_width] */
struct tensor blip_look(struct pass *p, struct blip *m, struct tensor x);

/* What is remembered while a text grows. */
struct blip_writing {
    struct blip *model;
    struct pass pass;             /* open: holds the picture's keys and values of each layer */
    struct tensor *keys, *values; /* [text_layers] */
    float *past, *next;           /* [layer][key, value][row][length][text_width], host */
    int rows, length;             /* of past */
    enum dtype dtype;
};

/* patches: what blip_look reads. */
int blip_start(struct blip_writing *w, struct blip *m, struct pass_memory *memory, enum dtype dtype,
               const float *patches, struct error *err);
/* A search_step (search.h): context is the writing. */
int blip_step(void *context, float *logits, const int32_t *token, const int *parent, int count,
              struct error *err);
void blip_stop(struct blip_writing *w);

#endif
