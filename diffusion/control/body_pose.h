/*
 * body_pose.h - people as dots and sticks, out of what the body network says.
 *
 * Place    after annotate_openpose.c's network; the result is the map that a ControlNet looks at.
 * Owner    results are the caller's. One thread.
 * Failure  ERR_NO_MEMORY; ERR_UNSUPPORTED for maps with more peaks than people can have.
 * Source   Cao et al. 2017 (part affinity fields), sections 2.3 and 2.4; constants, order of joints,
 *          colours and drawing as controlnet_aux' OpenposeDetector has them (body only).
 */
#ifndef DIFFUSION_CONTROL_BODY_POSE_H
#define DIFFUSION_CONTROL_BODY_POSE_H

#include "diffusion/control/annotator.h"

#define POSE_JOINTS 18
#define POSE_HEATS 19  /* the last is the background */
#define POSE_FIELDS 38 /* x and y of each limb */
#define POSE_STRIDE 8

struct body {
    int joint[POSE_JOINTS]; /* index of a peak, -1: not seen */
    double score;
    int parts;
};

struct pose_peak {
    int x, y;
    double score;
};

/* What the network says of a picture whose inner w x h pixels it saw, without the padding. */
struct pose_maps {
    float *fields; /* [rows,columns,38] */
    float *heats;  /* [rows,columns,19] */
    int columns, rows;
    int width, height;
};

struct poses {
    struct pose_peak *peaks;
    struct body *bodies;
    int peak_count, body_count;
};

/* Peaks and bodies in a picture of width x height. */
int poses_find(struct poses *p, const struct pose_maps *maps, int width, int height,
               struct error *err);
void poses_release(struct poses *p);
/* Onto black. */
int poses_draw(struct pixels *to, const struct poses *p, int width, int height, struct error *err);

/* The network's input: [*rows,*columns,3] in multiples of 8, blue first; free with free. *width and
 * *height of it are picture. NULL without memory. */
float *pose_input(const struct pixels *from, int *columns, int *rows, int *width, int *height);
/* in: as pose_input makes it; fills fields and heats (rows / 8 * columns / 8 cells). */
int pose_network(struct annotator *a, float *fields, float *heats, const float *in, int columns,
                 int rows, struct error *err);

#endif
