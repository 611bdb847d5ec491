/*
 * conv_norm.h - a convolution followed by batch normalisation, as networks that look at pictures
 *               are made of.
 *
 * Place    beside layers.h, below matte/ and face/. A network is a list of them in the order in
 *          which it runs, so that a file without names (ONNX) fills it as well.
 * Owner    the network; what is folded belongs to the conv_norm. One thread.
 * Failure  folding: ERR_NO_MEMORY. Running: through the pass.
 * Source   Ioffe & Szegedy 2015, section 3: at inference the normalisation is a factor and an
 *          offset of each channel, which go into the convolution's weights.
 */
#ifndef DIFFUSION_CONV_NORM_H
#define DIFFUSION_CONV_NORM_H

#include "diffusion/layers.h"
#include "diffusion/weight_store.h"

struct conv_norm {
    struct layer conv;
    struct norm norm; /* absent: a plain convolution */
    struct weight mean, variance;
    float *folded; /* the weights and the bias together */
};

/* `conv` and `norm` are names relative to the open path; norm NULL: none. In the other dialect the
 * convolution is "conv.INDEX" and its normalisation, where the file still has one, "norm.INDEX". */
void visit_conv_norm(struct weight_visitor *v, struct conv_norm *m, const char *conv,
                     const char *norm, int index, int64_t out, int64_t in, int kernel, bool bias);
/* After loading: the normalisation goes into the weights. */
int conv_norm_fold(struct conv_norm *m, struct error *err);
void conv_norm_release(struct conv_norm *m, struct device *d);

/* Same size for stride 1; `dilation` >= 1 needs stride 1. */
struct tensor conv_norm_run(struct pass *p, struct conv_norm *m, struct tensor x, int stride,
                            int dilation, enum activation act);

#endif
