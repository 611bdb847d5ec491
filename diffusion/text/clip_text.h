/*
 * clip_text.h - the text transformers of SD1, SD2, SDXL and the refiner: one definition.
 *
 * Place    between chunks and the UNet: ids [n,77] in, states [n,77,width] out. conditioning.h
 *          calls it; training calls it with a tape.
 * Owner    the model embeds it: clip_text_detect, clip_text_init, weights by clip_text_visit,
 *          clip_text_release. One thread.
 * Failure  through the pass; detection: ERR_FORMAT.
 * Source   Radford et al. 2021. Names: DIALECT_HF is huggingface/transformers CLIPTextModel
 *          (`text_model.encoder.layers.0...`, the text encoder of SD1 files too), DIALECT_LDM is
 *          mlfoundations/open_clip (`transformer.resblocks.0...`, SD2, bigG).
 *
 * Pre-norm transformer, causal over padding too, LayerNorm eps 1e-5, quick_gelu in CLIP-L only.
 */
#ifndef TEXT_CLIP_TEXT_H
#define TEXT_CLIP_TEXT_H

#include "diffusion/layers.h"
#include "diffusion/weight_store.h"

#define CLIP_LAYERS_MAX 64

struct clip_text_config {
    int layers;
    int64_t width, heads, mlp;
    int64_t vocab, positions;
    int64_t projection; /* of the pooled vector; 0: none */
    enum activation act;
    bool last_dropped; /* SD2 in HF names: the layer that nobody uses is not in the file */
    bool bare_names;   /* HF names without the `text_model.` level (files of old and newest kind) */
};

/* Reads the shapes below `prefix` ("cond_stage_model.transformer.", "conditioner.embedders.1.model.",
 * "" ...). heads is width / 64, or the nearest that divides in tiny models; act follows the dialect
 * and width. Callers overwrite both from a config.json. */
int clip_text_detect(struct clip_text_config *config, const struct weight_store *store,
                     const char *prefix, enum dialect *dialect, struct error *err);

struct clip_layer {
    struct norm norm1, norm2;
    struct layer q, k, v, out, up, down;
    int64_t heads;
    enum activation act;
    bool causal; /* text; a vision transformer's rows see each other */
};

/* The layer alone, shared with safety/clip_vision: x [n,L,D] -> the same shape. */
struct tensor clip_layer_forward(struct pass *p, struct clip_layer *m, struct tensor x);
/* Below the open path: `transformer.resblocks.I` / `encoder.layers.I`. */
void clip_layer_visit(struct weight_visitor *v, struct clip_layer *m, int i, int64_t width,
                      int64_t mlp);
void clip_layer_release(struct clip_layer *m, struct device *d);
/* width / 64, or the nearest that divides in tiny models. */
int64_t clip_heads(int64_t width);

struct clip_text {
    struct clip_text_config config;
    struct weight token, position;
    struct clip_layer *layers;
    struct norm final_norm;
    struct weight projection; /* [projection,width] */
};

int clip_text_init(struct clip_text *m, const struct clip_text_config *config, struct error *err);
/* HF paths begin with `text_model.` unless bare_names; the LoRA tables are made of them. */
void clip_text_visit(struct weight_visitor *v, struct clip_text *m);
void clip_text_release(struct clip_text *m, struct device *d);

struct clip_input {
    const int32_t *id; /* [n * positions], host */
    const float *const
        *vector; /* [n * positions] or NULL: in place of the id's row, width floats */
    int64_t n;
    int skip;        /* 1: after the last layer, 2: after the one before, ... */
    bool final_norm; /* the final LayerNorm over the states */
    int32_t end_id;  /* pooled: the row of its first appearance; -1: no pooled */
};

struct clip_states {
    struct tensor context; /* [n,positions,width] */
    struct tensor pooled;  /* [n,projection]; rank 0: none */
};

struct clip_states clip_text_forward(struct pass *p, struct clip_text *m,
                                     const struct clip_input *in);

#endif
