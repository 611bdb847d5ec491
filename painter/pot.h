/*
 * pot.h - one pot or vase: what the procedural painter can draw and a caption can say.
 *
 * Place    below the pocket model: the trainer draws its pictures from here (pot_paint), the score
 *          reads them back (pot_reader). No files, no clock: one seed, one picture.
 * Owner    structs are values. Any thread.
 * Failure  cannot fail, except pot_parse, which returns false.
 *
 * Four attributes make the caption; everything else (size, place, light, phase of the pattern) is
 * the jitter of the seed. Of the 1,200 combinations of known attributes 256 are held out: the
 * pocket model never sees them in training and is scored on exactly those (pot_held_out).
 */
#ifndef PAINTER_POT_H
#define PAINTER_POT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define POT_SIDE_PX 128
#define POT_CAPTION_BYTES 128
#define POT_HELD_OUT_COUNT 256

enum pot_attribute { POT_FORM, POT_GLAZE, POT_PATTERN, POT_GROUND, POT_ATTRIBUTE_COUNT };

enum pot_form { FORM_VASE, FORM_BOWL, FORM_BOTTLE, FORM_JAR, FORM_JUG, FORM_CUP, FORM_COUNT };

enum pot_glaze {
    GLAZE_BLUE,
    GLAZE_GREEN,
    GLAZE_RED,
    GLAZE_YELLOW,
    GLAZE_WHITE,
    GLAZE_BLACK,
    GLAZE_BROWN,
    GLAZE_TURQUOISE,
    GLAZE_COUNT
};

/* PATTERN_SUN, one large disc on the belly, is unknown to the pocket model: the training
 * demonstration teaches it. */
enum pot_pattern {
    PATTERN_PLAIN,
    PATTERN_DOTTED,
    PATTERN_BANDED,
    PATTERN_STRIPED,
    PATTERN_CHECKED,
    PATTERN_KNOWN_COUNT,
    PATTERN_SUN = PATTERN_KNOWN_COUNT,
    PATTERN_COUNT
};

enum pot_ground { GROUND_GREY, GROUND_SAND, GROUND_ROSE, GROUND_SKY, GROUND_MOSS, GROUND_COUNT };

#define POT_COMBINATION_COUNT (FORM_COUNT * GLAZE_COUNT * PATTERN_KNOWN_COUNT * GROUND_COUNT)

struct pot {
    int attribute[POT_ATTRIBUTE_COUNT]; /* enum pot_form, pot_glaze, pot_pattern, pot_ground */
    uint64_t seed;                      /* of the jitter */
};

/* splitmix64 (Steele, Lea, Flood 2014): the painter's own generator. */
struct pot_random {
    uint64_t state;
};
uint64_t pot_random_next(struct pot_random *r);
double pot_random_unit(struct pot_random *r); /* [0,1) */
int pot_random_below(struct pot_random *r, int limit);

/* Combination `index` of 0..POT_COMBINATION_COUNT-1, seed 0. */
struct pot pot_combination(int index);
bool pot_held_out(int index);
/* A combination that is not held out, with a jitter of its own: picture `number` of a data seed. */
struct pot pot_draw(uint64_t data_seed, uint64_t number);

int pot_attribute_values(enum pot_attribute a);          /* known ones: without PATTERN_SUN */
const char *pot_attribute_name(enum pot_attribute a);    /* "glaze" */
const char *pot_value_name(enum pot_attribute a, int v); /* "blue" */

/* "a tall vase with a blue glaze, dotted, on a grey ground" */
void pot_caption(const struct pot *pot, char text[POT_CAPTION_BYTES]);
/* One of several ways to say it, some leaving an attribute out, chosen by `r`. */
void pot_caption_varied(const struct pot *pot, struct pot_random *r, char text[POT_CAPTION_BYTES]);
/* Which attributes a text names (-1: none); false when it names no form. */
bool pot_parse(const char *text, int attribute[POT_ATTRIBUTE_COUNT]);

struct pot_colour {
    double r, g, b; /* 0..255 */
};
struct pot_colour pot_glaze_colour(int glaze);
struct pot_colour pot_ink_colour(int glaze); /* of the pattern on that glaze */
struct pot_colour pot_ground_colour(int ground);
/* Light on a round body at u = -1 (left edge) .. 1 (right edge): factor on its colour. */
double pot_shade(double u);

/* Draws into rgb[side * side * 3], rows top down. */
void pot_paint(uint8_t *rgb, int side, const struct pot *pot);

#endif
