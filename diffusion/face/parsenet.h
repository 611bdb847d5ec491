/*
 * parsenet.h - which pixels of an aligned face are face.
 *
 * Place    below restorer.c, for the edge of what is pasted back; optional.
 * Owner    parsenet_detect makes it, weights by parsenet_visit, parsenet_fold, parsenet_release.
 *          One thread.
 * Failure  through the pass; detection: ERR_FORMAT.
 * Source   Chen et al. 2021 (PSFR-GAN), face parsing network of its section 3; names, mirrored edges
 *          and the classes that count as face of xinntao/facexlib (CelebAMask-HQ's nineteen).
 */
#ifndef DIFFUSION_FACE_PARSENET_H
#define DIFFUSION_FACE_PARSENET_H

#include "diffusion/conv_norm.h"

#define PARSENET_BLOCKS_MAX 48
#define PARSENET_SIZE_PX 512

enum parsenet_scale { PARSENET_SAME, PARSENET_DOWN, PARSENET_UP };

struct parsenet_block {
    enum parsenet_scale scale;
    char name[16]; /* "encoder.1" */
    bool has_shortcut;
    int64_t in, out;
    struct conv_norm conv1, conv2, shortcut;
};

struct parsenet {
    int64_t base, classes;
    int downs, bodies, ups;
    struct parsenet_block *list; /* encoder, body, decoder */
    struct conv_norm first, last;
};

int parsenet_detect(struct parsenet *m, const struct weight_store *store, struct error *err);
void parsenet_visit(struct weight_visitor *v, struct parsenet *m);
int parsenet_fold(struct parsenet *m, struct error *err);
void parsenet_release(struct parsenet *m, struct device *d);

/* x [1,H,W,3] of -1 .. 1 -> [1,H,W,classes] */
struct tensor parsenet_forward(struct pass *p, struct parsenet *m, struct tensor x);
/* Do pixels of this class belong to the face? */
bool parsenet_is_face(int class);

#endif
