/*
 * rrdb.h - the network behind upscaler.h: residual blocks in residual dense blocks.
 *
 * Place    below upscaler.c, which cuts pictures into tiles for it.
 * Owner    rrdb_detect, rrdb_init, weights by rrdb_visit, rrdb_release. One thread.
 * Failure  through the pass; detection: ERR_FORMAT.
 * Source   Wang et al. 2018, section 3.1. DIALECT_LDM are Real-ESRGAN's names (conv_first,
 *          body.0.rdb1), DIALECT_HF the older ESRGAN's (model.0, model.1.sub.0.RDB1).
 */
#ifndef DIFFUSION_UPSCALE_RRDB_H
#define DIFFUSION_UPSCALE_RRDB_H

#include "diffusion/layers.h"
#include "diffusion/weight_store.h"

#define RRDB_DENSE 5

struct rrdb_config {
    int blocks;
    int64_t in, width, growth;
    int unshuffle; /* the input comes as squares of so many pixels: 1, 2 or 4 */
};

struct rrdb_block {
    struct layer conv[3][RRDB_DENSE];
};

struct rrdb {
    struct rrdb_config config;
    struct layer first, body, up1, up2, hr, last;
    struct rrdb_block *blocks;
};

int rrdb_detect(struct rrdb_config *config, const struct weight_store *store, enum dialect *dialect,
                struct error *err);
int rrdb_init(struct rrdb *m, const struct rrdb_config *config, struct error *err);
void rrdb_visit(struct weight_visitor *v, struct rrdb *m);
void rrdb_release(struct rrdb *m, struct device *d);

/* x [N,h,w,in] -> [N,4h,4w,3] */
struct tensor rrdb_forward(struct pass *p, struct rrdb *m, struct tensor x);

#endif
