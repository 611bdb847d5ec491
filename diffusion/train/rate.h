/*
 * rate.h - the learning rate of a step.
 *
 * Place    every training loop asks before its update.
 * Owner    the caller's struct, read-only. Any thread.
 * Failure  cannot fail.
 *
 * Linear warm-up, then one of four shapes; the result multiplies nothing but `peak`.
 */
#ifndef TRAIN_RATE_H
#define TRAIN_RATE_H

#include <stdbool.h>
#include <stdint.h>

enum rate_shape {
    RATE_CONSTANT,
    RATE_COSINE,   /* from peak to `low` over the whole run */
    RATE_RESTARTS, /* the same every `period` steps, as Draw Things does */
    RATE_TAIL,     /* constant, then a cosine over the last `period` steps */
    RATE_SHAPE_COUNT
};

struct rate {
    enum rate_shape shape;
    double peak, low;
    int64_t warmup, total, period;
};

const char *rate_shape_name(enum rate_shape shape);
bool rate_shape_find(const char *name, enum rate_shape *shape);
double rate_at(const struct rate *r, int64_t step); /* step counts from 1 */

#endif
