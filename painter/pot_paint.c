/* Drawing a pot: a body of revolution seen a little from above, lit from the left. */
#include <math.h>

#include "painter/pot.h"

#define PROFILE_POINTS 8
#define SAMPLES 3 /* per side of a pixel */

struct profile {
    double height;                /* in parts of the picture's side */
    double left;                  /* centre moved left by so many heights */
    double at[PROFILE_POINTS][2]; /* from the rim down: height 0..1, radius in heights */
    bool handle;
};

static const struct profile profiles[] = {
    [FORM_VASE] = {.78,
                   0,
                   {{0, .21},
                    {.07, .15},
                    {.2, .125},
                    {.34, .17},
                    {.52, .245},
                    {.7, .23},
                    {.94, .15},
                    {1, .165}},
                   false},
    [FORM_BOWL] =
        {.42,
         0,
         {{0, .92}, {.2, .89}, {.4, .8}, {.6, .65}, {.78, .46}, {.88, .37}, {.94, .36}, {1, .4}},
         false},
    [FORM_BOTTLE] =
        {.8,
         0,
         {{0, .085}, {.04, .07}, {.3, .07}, {.42, .095}, {.55, .2}, {.7, .25}, {.92, .22}, {1, .2}},
         false},
    [FORM_JAR] =
        {.62,
         0,
         {{0, .27}, {.08, .26}, {.14, .34}, {.32, .49}, {.5, .54}, {.7, .48}, {.92, .32}, {1, .31}},
         false},
    [FORM_JUG] = {.65,
                  .1,
                  {{0, .25},
                   {.06, .22},
                   {.16, .205},
                   {.34, .27},
                   {.55, .35},
                   {.75, .35},
                   {.94, .28},
                   {1, .28}},
                  true},
    [FORM_CUP] =
        {.5,
         0,
         {{0, .5}, {.1, .485}, {.3, .465}, {.5, .45}, {.7, .435}, {.85, .42}, {.95, .4}, {1, .4}},
         false},
};

/* Everything the seed decides, and the geometry that follows from it; in pixels. */
struct scene {
    const struct profile *profile;
    struct pot_colour glaze, ink, ground;
    int pattern;
    double x, top, height; /* axis, rim, height */
    double tilt;           /* half height of the rim's ellipse over its half width */
    double horizon;        /* where wall turns into table */
    double period, phase_x, phase_y;
    double light;
};

static struct scene scene_of(const struct pot *pot, double side)
{
    struct pot_random r = {pot->seed};
    double jitter[8];
    for (int i = 0; i < 8; i++) jitter[i] = 2 * pot_random_unit(&r) - 1;
    const struct profile *profile = &profiles[pot->attribute[POT_FORM]];
    double height = side * profile->height * (1 + .05 * jitter[0]);
    double base = side * (.9 + .012 * jitter[1]);
    return (struct scene){
        .profile = profile,
        .glaze = pot_glaze_colour(pot->attribute[POT_GLAZE]),
        .ink = pot_ink_colour(pot->attribute[POT_GLAZE]),
        .ground = pot_ground_colour(pot->attribute[POT_GROUND]),
        .pattern = pot->attribute[POT_PATTERN],
        .x = side * (.5 + .025 * jitter[2]) - profile->left * height,
        .top = base - height,
        .height = height,
        .tilt = .16 + .02 * jitter[3],
        .horizon = side * (.74 + .01 * jitter[4]),
        .period = side * .14 * (1 + .05 * jitter[5]),
        .phase_x = .25 * jitter[6],
        .phase_y = .25 * jitter[7],
        .light = 1,
    };
}

/* Radius at depth h (0 rim, 1 foot), in heights: cubic Hermite through the points (Catmull-Rom). */
static double profile_radius(const struct profile *p, double h)
{
    int i = 0;
    while (i < PROFILE_POINTS - 2 && h > p->at[i + 1][0]) i++;
    const double *a = p->at[i], *b = p->at[i + 1];
    const double *before = p->at[i ? i - 1 : 0];
    const double *after = p->at[i + 2 < PROFILE_POINTS ? i + 2 : PROFILE_POINTS - 1];
    double span = b[0] - a[0], t = (h - a[0]) / span;
    double slope_a = i ? (b[1] - before[1]) / (b[0] - before[0]) * span : b[1] - a[1];
    double slope_b =
        i + 2 < PROFILE_POINTS ? (after[1] - a[1]) / (after[0] - a[0]) * span : b[1] - a[1];
    double t2 = t * t, t3 = t2 * t;
    return a[1] * (2 * t3 - 3 * t2 + 1) + slope_a * (t3 - 2 * t2 + t) + b[1] * (3 * t2 - 2 * t3) +
           slope_b * (t3 - t2);
}

double pot_shade(double u)
{
    double facing = u > -1 && u < 1 ? sqrt(1 - u * u) : 0;
    double lambert = .85 * facing - .45 * u;
    return .48 + .6 * (lambert > 0 ? lambert : 0);
}

static double fraction(double x)
{
    return x - floor(x);
}

/* Ink or glaze at (dx from the axis, depth h of the body). Rim and foot stay bare. */
static bool is_ink(const struct scene *s, double dx, double dy)
{
    double h = dy / s->height, p = s->period;
    if (h < .14 || h > .9) return false;
    double x = dx / p + s->phase_x, y = dy / p + s->phase_y;
    switch (s->pattern) {
    case PATTERN_DOTTED: {
        double row = floor(y), cx = fraction(x + (fmod(row, 2) != 0 ? .5 : 0)) - .5;
        double cy = fraction(y) - .5;
        return cx * cx + cy * cy < .31 * .31;
    }
    case PATTERN_BANDED: return fraction(y) < .4;
    case PATTERN_STRIPED: return fraction(x) < .4;
    case PATTERN_CHECKED: return (fraction(x / 1.5) < .5) == (fraction(y / 1.5) < .5);
    case PATTERN_SUN: {
        double cy = dy - .56 * s->height, r = s->height * profile_radius(s->profile, .56) * .7;
        double limit = .3 * s->height;
        if (r > limit) r = limit;
        return dx * dx + cy * cy < r * r;
    }
    default: return false;
    }
}

static struct pot_colour scaled(struct pot_colour c, double f, double white)
{
    return (struct pot_colour){c.r * f + white, c.g * f + white, c.b * f + white};
}

static struct pot_colour ground_at(const struct scene *s, double x, double y, double side)
{
    double f = y < s->horizon ? 1.04 - .06 * y / side : .9;
    double foot = s->top + s->height, r = s->height * profile_radius(s->profile, 1);
    double dx = (x - s->x - .35 * r) / (1.5 * r), dy = (y - foot) / (.07 * side);
    double d2 = dx * dx + dy * dy;
    if (y >= s->horizon && d2 < 1) f *= 1 - .2 * (1 - d2);
    return scaled(s->ground, f, 0);
}

/* The handle: a ring of round section to the right of a jug's body. */
static bool handle_at(const struct scene *s, double x, double y, double *u)
{
    double dx = (x - s->x) / s->height - .3, dy = (y - s->top) / s->height - .4;
    double d = sqrt(dx * dx * 1.1 + dy * dy * .8), middle = .21, thick = .045;
    if (dx < -.12 || fabs(d - middle) > thick) return false;
    *u = (d - middle) / thick * .8;
    return true;
}

static struct pot_colour colour_at(const struct scene *s, double x, double y, double side)
{
    double dx = x - s->x, dy = y - s->top, u;
    double rim = s->height * profile_radius(s->profile, 0);
    double ellipse = dx * dx / (rim * rim) + dy * dy / (rim * rim * s->tilt * s->tilt);
    if (ellipse < .72) return scaled(s->glaze, .38 + .12 * dx / rim, 0); /* the dark inside */
    if (ellipse < 1) return scaled(s->glaze, pot_shade(.6 * dx / rim), 8);

    /* the body; its foot bends down by the same ellipse */
    double h = dy / s->height, foot = s->height * profile_radius(s->profile, 1);
    double in_foot = 1 - dx * dx / (foot * foot);
    double low = 1 + (in_foot > 0 ? foot * s->tilt * sqrt(in_foot) / s->height : 0);
    if (h >= 0 && h < low) {
        double r = s->height * profile_radius(s->profile, h > 1 ? 1 : h);
        u = dx / r;
        if (u > -1 && u < 1) {
            double shine = (u + .42) / .1;
            double white = 34 * exp(-shine * shine) * (h > .06 && h < .8);
            return scaled(is_ink(s, dx, dy) ? s->ink : s->glaze, pot_shade(u), white);
        }
    }
    if (s->profile->handle && handle_at(s, x, y, &u)) return scaled(s->glaze, pot_shade(u), 0);
    return ground_at(s, x, y, side);
}

static uint8_t to_byte(double v)
{
    return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v + .5);
}

void pot_paint(uint8_t *rgb, int side, const struct pot *pot)
{
    struct scene s = scene_of(pot, side);
    for (int y = 0; y < side; y++) {
        for (int x = 0; x < side; x++) {
            double r = 0, g = 0, b = 0;
            for (int i = 0; i < SAMPLES * SAMPLES; i++) {
                struct pot_colour c = colour_at(&s, x + (i % SAMPLES + .5) / SAMPLES,
                                                y + (i / SAMPLES + .5) / SAMPLES, side);
                r += c.r > 255 ? 255 : c.r;
                g += c.g > 255 ? 255 : c.g;
                b += c.b > 255 ? 255 : c.b;
            }
            *rgb++ = to_byte(r / (SAMPLES * SAMPLES));
            *rgb++ = to_byte(g / (SAMPLES * SAMPLES));
            *rgb++ = to_byte(b / (SAMPLES * SAMPLES));
        }
    }
}
