/*
 * retinaface.h - where the faces of a picture are: five points each.
 *
 * Place    below restorer.c.
 * Owner    retinaface_detect makes it, weights by retinaface_visit, retinaface_fold,
 *          retinaface_release. One thread.
 * Failure  through the pass; finding: ERR_NO_MEMORY and the pass's. Detection: ERR_FORMAT.
 * Source   Deng et al. 2019 (RetinaFace), section 3; Lin et al. 2017 (feature pyramid), Najibi et
 *          al. 2017 (SSH context heads), He et al. 2016 (ResNet-50). Names, anchors (16 .. 512
 *          pixels at strides 8, 16, 32), variances 0.1 and 0.2 of xinntao/facexlib.
 */
#ifndef DIFFUSION_FACE_RETINAFACE_H
#define DIFFUSION_FACE_RETINAFACE_H

#include "diffusion/conv_norm.h"

#define RETINAFACE_STAGES 4
#define RETINAFACE_BLOCKS_MAX 40
#define RETINAFACE_LEVELS 3
#define FACES_MAX 64

struct found_face {
    float box[4]; /* left, top, right, bottom */
    float score;
    float point[5][2]; /* eyes, nose, corners of the mouth; left first as seen */
};

struct retinaface_block {
    struct conv_norm conv[3], shortcut;
    bool has_shortcut;
    int64_t in, mid, out;
    int stride;
};

struct retinaface {
    int blocks[RETINAFACE_STAGES];
    int64_t first_width, width; /* of the picture's first convolution, of the pyramid */
    struct conv_norm first;
    struct retinaface_block *list;
    int block_count;
    struct conv_norm output[RETINAFACE_LEVELS], merge[2], context[RETINAFACE_LEVELS][5];
    struct layer score[RETINAFACE_LEVELS], box[RETINAFACE_LEVELS], point[RETINAFACE_LEVELS];
};

/* "" or "module.": what stands in front of the names */
int retinaface_detect(struct retinaface *m, const struct weight_store *store, const char **prefix,
                      struct error *err);
void retinaface_visit(struct weight_visitor *v, struct retinaface *m);
int retinaface_fold(struct retinaface *m, struct error *err);
void retinaface_release(struct retinaface *m, struct device *d);

/* x [1,H,W,3]: blue, green, red less 104, 117, 123. Raw results of each level: [1,h,w,2*2],
 * [1,h,w,2*4], [1,h,w,2*10]. */
struct retinaface_raw {
    struct tensor score[RETINAFACE_LEVELS], box[RETINAFACE_LEVELS], point[RETINAFACE_LEVELS];
};
struct retinaface_raw retinaface_forward(struct pass *p, struct retinaface *m, struct tensor x);

/* Faces surer than `least`, the surest first, none overlapping another by more than 0.4 (area of both
 * over area of either). values: each level's host copies, in the order of the raw struct. */
int retinaface_decode(struct found_face faces[FACES_MAX], float *const score[RETINAFACE_LEVELS],
                      float *const box[RETINAFACE_LEVELS], float *const point[RETINAFACE_LEVELS],
                      int width, int height, double least);

#endif
