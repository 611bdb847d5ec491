/*
 * A limb is a dark filled ellipse of half-width 4, a joint a bright disc of radius 4 above them.
 * Rounding follows OpenCV's ellipse2Poly, fillConvexPoly and circle, which the reference draws by.
 */
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "diffusion/control/body_pose.h"

#define STICKS 17
#define HALF_WIDTH 4

static const uint8_t sticks[STICKS][2] = {{1, 2}, {1, 5},  {2, 3},   {3, 4},  {5, 6},   {6, 7},
                                          {1, 8}, {8, 9},  {9, 10},  {1, 11}, {11, 12}, {12, 13},
                                          {1, 0}, {0, 14}, {14, 16}, {0, 15}, {15, 17}};
static const uint8_t colours[POSE_JOINTS][3] = {
    {255, 0, 0}, {255, 85, 0}, {255, 170, 0}, {255, 255, 0}, {170, 255, 0}, {85, 255, 0},
    {0, 255, 0}, {0, 255, 85}, {0, 255, 170}, {0, 255, 255}, {0, 170, 255}, {0, 85, 255},
    {0, 0, 255}, {85, 0, 255}, {170, 0, 255}, {255, 0, 255}, {255, 0, 170}, {255, 0, 85}};
static const int8_t disc[HALF_WIDTH + 1] = {4, 3, 3, 2, 0}; /* half a row, from the middle out */

/* Of each row of a shape: where it begins and ends. */
struct outline {
    struct pixels *canvas;
    int *left, *right;
};

static void fill_row(struct pixels *p, int y, int from, int to, const uint8_t *colour)
{
    if (y < 0 || y >= p->height) return;
    if (from < 0) from = 0;
    if (to >= p->width) to = p->width - 1;
    for (int x = from; x <= to; x++) memcpy(p->data + ((int64_t)y * p->width + x) * 3, colour, 3);
}

static void touch(struct outline *o, int x, int y)
{
    if (y < 0 || y >= o->canvas->height) return;
    if (x < o->left[y]) o->left[y] = x;
    if (x > o->right[y]) o->right[y] = x;
}

/* From left to right, so that a line between two rows of pixels stays in the one it comes from. */
static void edge(struct outline *o, int x0, int y0, int x1, int y1)
{
    if (x1 < x0) {
        int x = x0, y = y0;
        x0 = x1, y0 = y1;
        x1 = x, y1 = y;
    }
    int dx = x1 - x0, dy = abs(y1 - y0), down = y1 < y0 ? -1 : 1;
    int longer = dx > dy ? dx : dy, shorter = dx > dy ? dy : dx;
    for (int i = 0, rest = longer - 2 * shorter; i <= longer; i++) {
        touch(o, x0, y0);
        bool both = rest < 0;
        rest += (both ? 2 * longer : 0) - 2 * shorter;
        if (dx > dy || both) x0++;
        if (dx <= dy || both) y0 += down;
    }
}

static double degrees_sin(int degrees)
{
    return (float)sin(degrees * (3.14159265358979323846 / 180)); /* a table of floats there */
}

/* The ellipse as a polygon of a corner a degree. */
static void stick(struct outline *o, double x0, double y0, double x1, double y1,
                  const uint8_t *colour)
{
    double length = sqrt((y0 - y1) * (y0 - y1) + (x0 - x1) * (x0 - x1));
    int angle = (int)(atan2(y0 - y1, x0 - x1) * (180 / 3.14159265358979323846));
    int mx = (int)((x0 + x1) / 2), my = (int)((y0 + y1) / 2), axis = (int)(length / 2);
    int px = 0, py = 0;
    uint8_t dark[3];
    if (angle < 0) angle += 360;
    double c = degrees_sin(450 - angle), s = degrees_sin(angle);
    for (int i = 0; i < o->canvas->height; i++) o->left[i] = INT_MAX, o->right[i] = INT_MIN;
    for (int i = 0; i <= 360; i++) {
        double x = axis * degrees_sin(450 - i), y = HALF_WIDTH * degrees_sin(i);
        int nx = (int)rint(mx + x * c - y * s), ny = (int)rint(my + x * s + y * c);
        if (i) edge(o, px, py, nx, ny);
        px = nx, py = ny;
    }
    for (int i = 0; i < 3; i++) dark[i] = (uint8_t)(colour[i] * 0.6);
    for (int y = 0; y < o->canvas->height; y++)
        fill_row(o->canvas, y, o->left[y], o->right[y], dark);
}

static void draw_body(struct outline *o, const struct poses *p, const struct body *body)
{
    double x[POSE_JOINTS], y[POSE_JOINTS], w = o->canvas->width, h = o->canvas->height;
    for (int i = 0; i < POSE_JOINTS; i++) {
        if (body->joint[i] < 0) continue;
        /* through shares of the picture and back: what that loses, the reference loses too */
        x[i] = p->peaks[body->joint[i]].x / w * w;
        y[i] = p->peaks[body->joint[i]].y / h * h;
    }
    for (int i = 0; i < STICKS; i++) {
        int a = sticks[i][0], b = sticks[i][1];
        if (body->joint[a] >= 0 && body->joint[b] >= 0)
            stick(o, x[a], y[a], x[b], y[b], colours[i]);
    }
    for (int i = 0; i < POSE_JOINTS; i++) {
        if (body->joint[i] < 0) continue;
        for (int k = -HALF_WIDTH; k <= HALF_WIDTH; k++)
            fill_row(o->canvas, (int)y[i] + k, (int)x[i] - disc[abs(k)], (int)x[i] + disc[abs(k)],
                     colours[i]);
    }
}

int poses_draw(struct pixels *to, const struct poses *p, int width, int height, struct error *err)
{
    struct pixels canvas;
    int rc = pixels_new(&canvas, width, height, 3, err);
    if (rc) return rc;
    memset(canvas.data, 0, (size_t)width * (size_t)height * 3);
    struct outline o = {.canvas = &canvas,
                        .left = alloc_zero((size_t)height, sizeof *o.left),
                        .right = alloc_zero((size_t)height, sizeof *o.right)};
    for (int i = 0; i < p->body_count; i++) draw_body(&o, p, &p->bodies[i]);
    free(o.left);
    free(o.right);
    *to = canvas;
    return 0;
}
