/*
 * u2net.h - the network behind matte.h: what stands out in a picture.
 *
 * Place    below matte.c, which prepares the picture and uses the mask.
 * Owner    u2net_detect, u2net_init, weights by u2net_visit, u2net_fold, u2net_release. One thread.
 * Failure  through the pass; detection: ERR_FORMAT.
 * Source   Qin et al. 2020, "U2-Net: Going deeper with nested U-structure for salient object
 *          detection", figures 2 and 5, table 1 of the appendix. DIALECT_LDM are the names of the
 *          authors' checkpoint (stage1.rebnconvin.conv_s1), DIALECT_HF is the order of
 *          convolutions (conv.0), as an ONNX file gives them.
 */
#ifndef DIFFUSION_MATTE_U2NET_H
#define DIFFUSION_MATTE_U2NET_H

#include "diffusion/conv_norm.h"

#define U2NET_BLOCKS 11 /* six down, five up */
#define U2NET_SIDES 6
#define U2NET_CONVS 119

struct u2net_config {
    int64_t in[U2NET_BLOCKS], mid[U2NET_BLOCKS], out[U2NET_BLOCKS];
};

struct u2net {
    struct u2net_config config;
    struct conv_norm conv[U2NET_CONVS]; /* in the order in which they run */
};

int u2net_detect(struct u2net_config *config, const struct weight_store *store,
                 enum dialect *dialect, struct error *err);
void u2net_init(struct u2net *m, const struct u2net_config *config);
void u2net_visit(struct weight_visitor *v, struct u2net *m);
int u2net_fold(struct u2net *m, struct error *err);
void u2net_release(struct u2net *m, struct device *d);

/* x [N,H,W,3] -> [N,H,W,1], 0 .. 1. H and W at least 32. */
struct tensor u2net_forward(struct pass *p, struct u2net *m, struct tensor x);

#endif
