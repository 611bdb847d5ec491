/*
 * vq_blocks.h - a list of blocks as VQGAN's encoder and generator are: convolutions, residual
 *               blocks, attention, halving and doubling, told apart by the names in the file.
 *
 * Place    below codeformer.c.
 * Owner    vq_blocks_detect makes the list, vq_blocks_release frees it. One thread.
 * Failure  detection: ERR_FORMAT. Running: through the pass.
 * Source   Esser et al. 2021 (VQGAN), figure 2; names of sczhou/CodeFormer.
 */
#ifndef DIFFUSION_FACE_VQ_BLOCKS_H
#define DIFFUSION_FACE_VQ_BLOCKS_H

#include "diffusion/layers.h"
#include "diffusion/weight_store.h"

#define VQ_BLOCKS_MAX 64

enum vq_kind { VQ_CONV, VQ_NORM, VQ_RES, VQ_ATTENTION, VQ_RESAMPLE };

/* norm1, conv1, norm2, conv2 and where the widths differ conv_out */
struct vq_res {
    int64_t in, out;
    struct norm norm1, norm2;
    struct layer conv1, conv2, skip;
};

struct vq_block {
    enum vq_kind kind;
    int64_t in, out;
    struct vq_res res;
    struct norm norm;                  /* VQ_NORM, VQ_ATTENTION */
    struct layer conv;                 /* VQ_CONV, VQ_RESAMPLE */
    struct layer q, k, v, out_project; /* VQ_ATTENTION */
};

struct vq_blocks {
    const char *name; /* "encoder", "generator" */
    int64_t groups;
    bool up; /* VQ_RESAMPLE doubles */
    int count;
    struct vq_block *list;
};

int vq_blocks_detect(struct vq_blocks *b, const struct weight_store *store, const char *name,
                     bool up, int64_t groups, struct error *err);
void vq_blocks_visit(struct weight_visitor *v, struct vq_blocks *b);
void vq_blocks_release(struct vq_blocks *b, struct device *d);

struct tensor vq_block_run(struct pass *p, const struct vq_blocks *b, int index, struct tensor x);

void vq_res_visit(struct weight_visitor *v, struct vq_res *m, const char *name);
struct tensor vq_res_run(struct pass *p, struct vq_res *m, int64_t groups, struct tensor x);

#endif
