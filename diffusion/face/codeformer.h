/*
 * codeformer.h - a face restored from a book of codes that a transformer looks up.
 *
 * Place    below restorer.c: an aligned face in, a restored one out.
 * Owner    codeformer_detect makes it, weights by codeformer_visit, codeformer_release. One thread.
 * Failure  through the pass; detection: ERR_FORMAT.
 * Source   Zhou et al. 2022, "Towards robust blind face restoration with codebook lookup
 *          transformer", section 3 and figure 3: encoder, transformer that predicts codes, decoder,
 *          and controllable feature transformation (equation 5) from encoder to decoder. Names of
 *          sczhou/CodeFormer. Sizes come from the file: a face has 16 times as many pixels a side as
 *          the encoder halves doubled, 512 for the published one.
 */
#ifndef DIFFUSION_FACE_CODEFORMER_H
#define DIFFUSION_FACE_CODEFORMER_H

#include "diffusion/face/vq_blocks.h"

#define CODEFORMER_LAYERS_MAX 64
#define CODEFORMER_FUSES_MAX 8

struct codeformer_layer {
    struct norm norm1, norm2;
    struct layer q, k, v, out, linear1, linear2;
};

/* y = x + w (x * scale + shift), both from encoder and decoder features */
struct codeformer_fuse {
    int size;
    int64_t width;
    struct vq_res mix;
    struct layer scale[2], shift[2];
};

struct codeformer {
    struct vq_blocks encoder, generator;
    int layer_count, fuse_count, size; /* of a face, pixels a side */
    int64_t tokens, width, inner, code_width, codes;
    struct codeformer_layer *layers;
    struct codeformer_fuse fuses[CODEFORMER_FUSES_MAX];
    struct weight position, book;
    struct layer embed, predict;
    struct norm predict_norm;
};

/* false: this is no such file (err untouched); on failure rc is set */
bool codeformer_is(const struct weight_store *store);
int codeformer_detect(struct codeformer *m, const struct weight_store *store, struct error *err);
void codeformer_visit(struct weight_visitor *v, struct codeformer *m);
void codeformer_release(struct codeformer *m, struct device *d);

/* x [1,S,S,3] of -1 .. 1 -> the same. fidelity 0 trusts the book, 1 the picture. */
struct tensor codeformer_forward(struct pass *p, struct codeformer *m, struct tensor x,
                                 double fidelity);

#endif
