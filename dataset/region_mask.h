/*
 * region_mask.h - how much each part of a picture counts, from what was marked in it.
 *
 * Place    between annotations.h and the cache of a training, which weighs the squared error with
 *          it (kohya's masked loss, but from boxes and polygons instead of a second picture).
 * Owner    the result is the caller's (free). Any thread.
 * Failure  NULL when every part counts the same.
 *
 * Inside a box or polygon 1, outside `outside`; inside a region labelled "ignore" 0, whatever else lies
 * there. Points and lines have no inside. A picture in which nothing but "ignore" is marked counts
 * wholly elsewhere. A cell of the grid is the mean over 4 x 4 points in it.
 */
#ifndef DATASET_REGION_MASK_H
#define DATASET_REGION_MASK_H

#include "dataset/annotations.h"

/* The part of the picture that the grid covers, in its pixels. */
struct mask_part {
    double left, top, width, height;
};

float *region_mask(const struct annotated *a, const struct mask_part *part, int w, int h,
                   double outside);

#endif
