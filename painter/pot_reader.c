#include "painter/pot_reader.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

#define HEIGHTS 12 /* at which the silhouette is measured */
#define FORM_MEASURES (2 * HEIGHTS + 3)
#define PATTERN_MEASURES 8
#define MEASURES_MAX FORM_MEASURES
#define CALIBRATION_PICTURES 360

struct measures {
    bool seen; /* there is a body */
    int glaze, ground;
    double form[FORM_MEASURES], pattern[PATTERN_MEASURES];
};

struct gaussian {
    double mean[MEASURES_MAX], variance[MEASURES_MAX];
    int count;
};

struct pot_reader {
    struct gaussian form[FORM_COUNT], pattern[PATTERN_COUNT];
};

/* One picture while it is being measured. */
struct look {
    int side;
    double *rgb; /* smoothed, side * side * 3 */
    int *label;  /* 0 ground, 1 body */
    int top, bottom, left, right;
    int *row_left, *row_right; /* body's edges in each row */
    double axis;
};

static double distance(const double *p, struct pot_colour c)
{
    double r = p[0] - c.r, g = p[1] - c.g, b = p[2] - c.b;
    return sqrt(r * r + g * g + b * b);
}

static void smooth(struct look *l, const uint8_t *rgb)
{
    int side = l->side;
    for (int y = 0; y < side; y++)
        for (int x = 0; x < side; x++)
            for (int c = 0; c < 3; c++) {
                int sum = 0, n = 0;
                for (int v = y - 1; v <= y + 1; v++)
                    for (int u = x - 1; u <= x + 1; u++) {
                        if (u < 0 || v < 0 || u >= side || v >= side) continue;
                        int w = (u == x ? 2 : 1) * (v == y ? 2 : 1);
                        sum += w * rgb[(v * side + u) * 3 + c];
                        n += w;
                    }
                l->rgb[(y * side + x) * 3 + c] = (double)sum / n;
            }
}

/* Mean colour of a row's outermost pixels on one side. */
static void margin(const struct look *l, int y, bool right, double mean[3])
{
    int width = l->side / 20;
    mean[0] = mean[1] = mean[2] = 0;
    for (int i = 0; i < width; i++) {
        int x = right ? l->side - 1 - i : i;
        for (int c = 0; c < 3; c++) mean[c] += l->rgb[(y * l->side + x) * 3 + c] / width;
    }
}

static int read_ground(const struct look *l)
{
    double mean[3] = {0};
    int rows = l->side * 3 / 5;
    for (int y = 0; y < rows; y++)
        for (int right = 0; right < 2; right++) {
            double m[3];
            margin(l, y, right, m);
            for (int c = 0; c < 3; c++) mean[c] += m[c] / (2 * rows);
        }
    int best = 0;
    for (int g = 1; g < GROUND_COUNT; g++)
        if (distance(mean, pot_ground_colour(g)) < distance(mean, pot_ground_colour(best)))
            best = g;
    return best;
}

/* How far p is from the ground colour b, which may be in the shadow (down to three quarters). */
static double off_ground(const double *p, const double *b)
{
    double pb = p[0] * b[0] + p[1] * b[1] + p[2] * b[2];
    double bb = b[0] * b[0] + b[1] * b[1] + b[2] * b[2] + 1e-9;
    double k = pb / bb;
    k = k < .76 ? .76 : k > 1.04 ? 1.04 : k;
    double d = 0;
    for (int c = 0; c < 3; c++) d += (p[c] - k * b[c]) * (p[c] - k * b[c]);
    return sqrt(d);
}

static int flood(int *label, int *stack, int side, int start, int number)
{
    int area = 0, depth = 0;
    stack[depth++] = start;
    label[start] = number;
    while (depth) {
        int at = stack[--depth], x = at % side;
        area++;
        const int next[4] = {x ? at - 1 : -1, x + 1 < side ? at + 1 : -1, at - side, at + side};
        for (int i = 0; i < 4; i++)
            if (next[i] >= 0 && next[i] < side * side && label[next[i]] == 1) {
                label[next[i]] = number;
                stack[depth++] = next[i];
            }
    }
    return area;
}

/* Where a row's ink or half shade has the ground's colour, a body falls in pieces: every piece of some
 * size that stands above, below or beside the largest one belongs to it. */
struct piece {
    int area, left, right;
};
#define PIECES_MAX 64

static int find_pieces(const struct look *l, struct piece piece[PIECES_MAX])
{
    int side = l->side, pieces = 0;
    int *stack = alloc_zero((size_t)side * side, sizeof *stack);
    for (int i = 0; i < side * side && pieces < PIECES_MAX; i++) {
        if (l->label[i] != 1) continue;
        int area = flood(l->label, stack, side, i, 2 + pieces);
        piece[pieces++] = (struct piece){area, side, -1};
    }
    free(stack);
    for (int i = 0; i < side * side; i++) {
        if (l->label[i] < 2) continue;
        struct piece *p = &piece[l->label[i] - 2];
        if (i % side < p->left) p->left = i % side;
        if (i % side > p->right) p->right = i % side;
    }
    return pieces;
}

/* Labels what is not ground; false when it is too small to be a pot. */
static bool find_body(struct look *l)
{
    int side = l->side, count = side * side;
    for (int y = 0; y < side; y++) {
        double a[3], b[3];
        margin(l, y, false, a);
        margin(l, y, true, b);
        for (int x = 0; x < side; x++) {
            double t = (double)x / side, ground[3];
            for (int c = 0; c < 3; c++) ground[c] = a[c] * (1 - t) + b[c] * t;
            l->label[y * side + x] = off_ground(l->rgb + (y * side + x) * 3, ground) > 17;
        }
    }
    struct piece piece[PIECES_MAX];
    int pieces = find_pieces(l, piece), best = 0;
    for (int i = 1; i < pieces; i++)
        if (piece[i].area > piece[best].area) best = i;
    if (!pieces || piece[best].area < count / 50) return false;
    bool part[PIECES_MAX + 2] = {false};
    for (int i = 0; i < pieces; i++)
        part[i + 2] = piece[i].area >= count / 1200 && piece[i].left > piece[best].left - side / 8 &&
                      piece[i].right < piece[best].right + side / 8;
    l->top = l->left = side;
    l->bottom = l->right = -1;
    for (int y = 0; y < side; y++) {
        l->row_left[y] = side;
        l->row_right[y] = -1;
        for (int x = 0; x < side; x++) {
            int *label = &l->label[y * side + x];
            *label = *label < PIECES_MAX + 2 && part[*label];
            if (!*label) continue;
            if (x < l->row_left[y]) l->row_left[y] = x;
            l->row_right[y] = x;
        }
        if (l->row_right[y] < 0) continue;
        if (y < l->top) l->top = y;
        l->bottom = y;
        if (l->row_left[y] < l->left) l->left = l->row_left[y];
        if (l->row_right[y] > l->right) l->right = l->row_right[y];
    }
    return l->bottom - l->top >= side / 8;
}

static void measure_form(struct look *l, double out[FORM_MEASURES])
{
    int height = l->bottom - l->top + 1;
    double sum = 0;
    int n = 0;
    for (int y = l->bottom - height / 5; y < l->bottom - height / 25; y++, n++)
        sum += .5 * (l->row_left[y] + l->row_right[y]);
    l->axis = n ? sum / n : .5 * (l->left + l->right);
    for (int i = 0; i < HEIGHTS; i++) {
        int y = l->top + (int)((i + .5) / HEIGHTS * height);
        out[i] = (l->axis - l->row_left[y]) / height;
        out[HEIGHTS + i] = (l->row_right[y] - l->axis) / height;
    }
    int inside = 0, holes = 0;
    for (int y = l->top; y <= l->bottom; y++)
        for (int x = l->row_left[y]; x <= l->row_right[y]; x++, inside++)
            holes += !l->label[y * l->side + x];
    out[2 * HEIGHTS] = (double)(l->right - l->left + 1) / height;
    out[2 * HEIGHTS + 1] = inside ? (double)holes / inside : 0;
    out[2 * HEIGHTS + 2] = (double)height / l->side;
}

/* The colour at (x, y) with the light divided out; false outside the well-lit middle. */
static bool unshaded(const struct look *l, int x, int y, double p[3])
{
    double radius = l->axis - l->row_left[y] + .5;
    if (radius < 2 || x > l->row_right[y]) return false;
    double u = (x - l->axis) / radius;
    if (u < -.85 || u > .78) return false;
    double shade = pot_shade(u);
    for (int c = 0; c < 3; c++) p[c] = l->rgb[(y * l->side + x) * 3 + c] / shade;
    return true;
}

static double square_distance(const double *p, struct pot_colour c)
{
    double r = p[0] - c.r, g = p[1] - c.g, b = p[2] - c.b;
    return r * r + g * g + b * b;
}

static double capped(double square)
{
    return square < 120 * 120 ? sqrt(square) : 120;
}

/* The glaze that, with its ink, explains the body best; the foot is always bare. */
static int read_glaze(const struct look *l)
{
    int height = l->bottom - l->top + 1, best = 0, body_count = 1, foot_count = 1;
    double body[GLAZE_COUNT] = {0}, foot[GLAZE_COUNT] = {0}, p[3];
    for (int y = l->top + height / 5; y <= l->bottom; y++) {
        double h = (double)(y - l->top) / height;
        bool is_body = h<.88, is_foot = h> .93;
        for (int x = l->row_left[y]; x <= l->row_right[y]; x++) {
            if ((!is_body && !is_foot) || !unshaded(l, x, y, p)) continue;
            body_count += is_body;
            foot_count += is_foot;
            for (int g = 0; g < GLAZE_COUNT; g++) {
                double glaze = square_distance(p, pot_glaze_colour(g));
                double ink = square_distance(p, pot_ink_colour(g));
                if (is_body)
                    body[g] += capped(glaze < ink ? glaze : ink);
                else
                    foot[g] += capped(glaze);
            }
        }
    }
    for (int g = 0; g < GLAZE_COUNT; g++) {
        body[g] = body[g] / body_count + .4 * foot[g] / foot_count;
        if (body[g] < body[best]) best = g;
    }
    return best;
}

/* Ink share, how much of its variance lies between rows and between columns, how often it begins
 * along each, its share in the middle of the belly and away from it. */
static void measure_pattern(const struct look *l, int glaze, double out[PATTERN_MEASURES])
{
    int side = l->side, height = l->bottom - l->top + 1;
    double *row = alloc_zero(4 * (size_t)side, sizeof *row);
    double *row_n = row + side, *column = row_n + side, *column_n = column + side;
    signed char *ink = alloc_zero((size_t)side * side, 1);
    memset(ink, -1, (size_t)side * side);
    double share = 0, total = 0, middle = 0, middle_n = 0, outer = 0, outer_n = 0;
    for (int y = l->top + height / 4; y < l->top + height * 86 / 100; y++)
        for (int x = l->row_left[y]; x <= l->row_right[y]; x++) {
            double p[3];
            if (!unshaded(l, x, y, p)) continue;
            bool is = distance(p, pot_ink_colour(glaze)) < distance(p, pot_glaze_colour(glaze));
            ink[y * side + x] = is;
            share += is;
            total++;
            row[y] += is;
            row_n[y]++;
            column[x] += is;
            column_n[x]++;
            double dx = x - l->axis, dy = y - (l->top + .59 * height);
            double d = sqrt(dx * dx + dy * dy) / height;
            if (d < .07) {
                middle += is;
                middle_n++;
            } else if (d > .3) {
                outer += is;
                outer_n++;
            }
        }
    share = total ? share / total : 0;
    double variance = share * (1 - share) + .015, rows = 0, columns = 0;
    double across = 0, along = 0;
    for (int i = 0; i < side; i++) {
        if (row_n[i]) rows += row_n[i] * (row[i] / row_n[i] - share) * (row[i] / row_n[i] - share);
        if (column_n[i] > 2)
            columns +=
                column_n[i] * (column[i] / column_n[i] - share) * (column[i] / column_n[i] - share);
    }
    for (int y = 1; y < side; y++)
        for (int x = 1; x < side; x++) {
            int is = ink[y * side + x], left = ink[y * side + x - 1], up = ink[(y - 1) * side + x];
            if (is >= 0 && left >= 0) across += is != left;
            if (is >= 0 && up >= 0) along += is != up;
        }
    out[0] = share;
    out[1] = total ? rows / total / variance : 0;
    out[2] = total ? columns / total / variance : 0;
    out[3] = total ? 10 * across / total : 0;
    out[4] = total ? 10 * along / total : 0;
    out[5] = middle_n ? middle / middle_n : 0;
    out[6] = outer_n ? outer / outer_n : 0;
    out[7] = sqrt(share);
    free(ink);
    free(row);
}

static void measure(struct measures *m, const uint8_t *rgb, int side)
{
    size_t count = (size_t)side * side;
    struct look l = {.side = side};
    l.rgb = alloc_zero(count * 3, sizeof *l.rgb);
    l.label = alloc_zero(count + 2 * (size_t)side, sizeof *l.label);
    l.row_left = l.label + count;
    l.row_right = l.row_left + side;
    smooth(&l, rgb);
    m->ground = read_ground(&l);
    m->seen = find_body(&l);
    m->glaze = -1;
    if (m->seen) {
        measure_form(&l, m->form);
        m->glaze = read_glaze(&l);
        measure_pattern(&l, m->glaze, m->pattern);
    }
    free(l.label);
    free(l.rgb);
}

static void gaussian_add(struct gaussian *g, const double *x, int count)
{
    g->count++;
    for (int i = 0; i < count; i++) { /* Welford's running mean and sum of squares */
        double before = x[i] - g->mean[i];
        g->mean[i] += before / g->count;
        g->variance[i] += before * (x[i] - g->mean[i]);
    }
}

static int most_likely(const struct gaussian *g, int classes, const double *x, int count,
                       double floor)
{
    int best = 0;
    double best_cost = INFINITY;
    for (int k = 0; k < classes; k++) {
        double cost = 0;
        for (int i = 0; i < count; i++) {
            double variance = g[k].variance[i] / g[k].count + floor;
            double d = x[i] - g[k].mean[i];
            cost += d * d / variance + log(variance);
        }
        if (cost < best_cost) {
            best_cost = cost;
            best = k;
        }
    }
    return best;
}

static double gaussian(struct pot_random *r)
{
    double u = 1 - pot_random_unit(r), v = pot_random_unit(r);
    return sqrt(-2 * log(u)) * cos(6.283185307179586 * v);
}

void pot_weather(uint8_t *rgb, int side, double blur, double noise, struct pot_random *r)
{
    size_t bytes = (size_t)side * side * 3;
    uint8_t *old = alloc_zero(bytes, 1);
    memcpy(old, rgb, bytes);
    for (int y = 0; y < side; y++)
        for (int x = 0; x < side; x++)
            for (int c = 0; c < 3; c++) {
                double sum = 0;
                int n = 0;
                for (int v = y - 1; v <= y + 1; v++)
                    for (int u = x - 1; u <= x + 1; u++)
                        if (u >= 0 && v >= 0 && u < side && v < side) {
                            sum += old[(v * side + u) * 3 + c];
                            n++;
                        }
                size_t at = ((size_t)y * side + x) * 3 + c;
                double value = (1 - blur) * old[at] + blur * sum / n + noise * gaussian(r);
                rgb[at] = (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value + .5);
            }
    free(old);
}

struct pot_reader *pot_reader_new(void)
{
    struct pot_reader *reader = alloc_zero(1, sizeof *reader);
    uint8_t *rgb = alloc_zero(POT_SIDE_PX * POT_SIDE_PX, 3);
    struct pot_random r = {20261124};
    for (int i = 0; i < CALIBRATION_PICTURES; i++) {
        struct pot pot = pot_draw(r.state, (uint64_t)i);
        if (i % PATTERN_COUNT == 0) pot.attribute[POT_PATTERN] = PATTERN_SUN;
        pot_paint(rgb, POT_SIDE_PX, &pot);
        pot_weather(rgb, POT_SIDE_PX, pot_random_unit(&r), 8 * pot_random_unit(&r), &r);
        struct measures m;
        measure(&m, rgb, POT_SIDE_PX);
        if (!m.seen) continue;
        gaussian_add(&reader->form[pot.attribute[POT_FORM]], m.form, FORM_MEASURES);
        gaussian_add(&reader->pattern[pot.attribute[POT_PATTERN]], m.pattern, PATTERN_MEASURES);
    }
    free(rgb);
    return reader;
}

void pot_reader_free(struct pot_reader *reader)
{
    free(reader);
}

void pot_reader_read(const struct pot_reader *reader, const uint8_t *rgb, int side,
                     int attribute[POT_ATTRIBUTE_COUNT])
{
    struct measures m;
    measure(&m, rgb, side);
    attribute[POT_GROUND] = m.ground;
    attribute[POT_GLAZE] = m.glaze;
    attribute[POT_FORM] = attribute[POT_PATTERN] = -1;
    if (!m.seen) return;
    attribute[POT_FORM] = most_likely(reader->form, FORM_COUNT, m.form, FORM_MEASURES, 4e-4);
    attribute[POT_PATTERN] =
        most_likely(reader->pattern, PATTERN_COUNT, m.pattern, PATTERN_MEASURES, 3e-3);
}
