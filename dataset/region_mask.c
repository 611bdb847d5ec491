#include "dataset/region_mask.h"

#include <math.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/str.h"

#define POINTS 4 /* a side of a cell */

static bool has_inside(const struct region *r)
{
    return (r->kind == REGION_BOX || r->kind == REGION_POLYGON) && r->w > 0 && r->h > 0;
}

static bool ignores(const struct region *r)
{
    return r->label && str_equal_nocase(r->label, "ignore");
}

/* Even-odd over all rings; a ring ends at a pair of NANs and closes on its first point. */
static bool inside_rings(const struct region *r, double x, double y)
{
    bool inside = false;
    int first = 0;
    for (int i = 0; i < r->point_count; i++) {
        const double *p = &r->point[2 * i];
        if (isnan(p[0])) {
            first = i + 1;
            continue;
        }
        bool last = i + 1 == r->point_count || isnan(r->point[2 * i + 2]);
        const double *q = last ? &r->point[2 * first] : p + 2;
        if ((p[1] > y) != (q[1] > y) && x < p[0] + (q[0] - p[0]) * (y - p[1]) / (q[1] - p[1]))
            inside = !inside;
    }
    return inside;
}

static bool inside(const struct region *r, double x, double y)
{
    if (x < r->x || y < r->y || x >= r->x + r->w || y >= r->y + r->h) return false;
    return !r->point_count || inside_rings(r, x, y);
}

static double weight_at(const struct annotated *a, double x, double y, double outside)
{
    double weight = outside;
    for (int i = 0; i < a->region_count; i++) {
        const struct region *r = &a->region[i];
        if (!has_inside(r) || (weight >= 1 && !ignores(r)) || !inside(r, x, y)) continue;
        if (ignores(r)) return 0;
        weight = 1;
    }
    return weight;
}

float *region_mask(const struct annotated *a, const struct mask_part *part, int w, int h,
                   double outside)
{
    bool marked = false, ignored = false;
    for (int i = 0; a && i < a->region_count; i++) {
        if (!has_inside(&a->region[i])) continue;
        if (ignores(&a->region[i]))
            ignored = true;
        else
            marked = true;
    }
    if (!marked) outside = 1;
    if (!ignored && outside >= 1) return NULL;
    float *mask = alloc_zero((size_t)w * (size_t)h, sizeof *mask);
    for (int i = 0; i < w * h; i++) {
        double sum = 0;
        for (int k = 0; k < POINTS * POINTS; k++) {
            double u = (i % w + (k % POINTS + .5) / POINTS) / w;
            double v = (i / w + (k / POINTS + .5) / POINTS) / h;
            sum +=
                weight_at(a, part->left + u * part->width, part->top + v * part->height, outside);
        }
        mask[i] = (float)(sum / (POINTS * POINTS));
    }
    return mask;
}
