/*
 * bucket.h - the size at which a picture is trained.
 *
 * Place    between dataset.h and the latents' cache.
 * Owner    values. Any thread.
 * Failure  cannot fail.
 * Source   aspect buckets of kohya-ss/sd-scripts: sides are multiples of 64 between min and max,
 *          the area at most resolution squared; the exact size if it is one, else the nearest
 *          ratio.
 */
#ifndef DATASET_BUCKET_H
#define DATASET_BUCKET_H

#include <stdbool.h>

struct bucket {
    int width, height;
};

/* aspect false: always the square. */
struct bucket bucket_of(int width, int height, int resolution, bool aspect);

/* How a picture covers its bucket: resized to `width` x `height`, then cut at left, top. */
struct cover {
    int width, height, left, top;
};
struct cover bucket_cover(struct bucket b, int width, int height);
/* A cut from elsewhere: enlarged by `zoom` (1: as above) and at u, v of the way (0..1) from the left
 * and the top. */
struct cover bucket_cut(struct bucket b, int width, int height, double zoom, double u, double v);

#endif
