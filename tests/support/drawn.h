/*
 * drawn.h - weights that are drawn by rule from their names, so that no test keeps them.
 *
 * Place    goldens whose networks are too large to commit (make_faces.py draws the same), and
 *          kiln-draw-weights for end-to-end tests.
 * Owner    drawn_values: free. Failure: drawn_write's ERR_*; a table with a bad line is ERR_FORMAT.
 *
 * A value is offset + scale * u, u uniform in [-1, 1): splitmix64 seeded with FNV-1a of the name. A
 * table has a line for each tensor: name, shape as 4x3x1x1 ("-": none), scale, offset.
 */
#ifndef TESTS_SUPPORT_DRAWN_H
#define TESTS_SUPPORT_DRAWN_H

#include <stdint.h>

#include "base/error.h"

float *drawn_values(const char *name, int64_t count, double scale, double offset);
/* Each file is a table; "name=value" instead sets all elements of a tensor after it. */
int drawn_write(const char *path, const char *const *tables, int table_count, struct error *err);

#endif
