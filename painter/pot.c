#include "painter/pot.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/error.h"

static const char *const attribute_names[] = {"form", "glaze", "pattern", "ground"};
static const int attribute_values[] = {FORM_COUNT, GLAZE_COUNT, PATTERN_KNOWN_COUNT, GROUND_COUNT};

static const char *const form_names[] = {"vase", "bowl", "bottle", "jar", "jug", "cup"};
static const char *const form_phrases[] = {"tall vase", "wide bowl", "slim bottle",
                                           "round jar", "jug",       "cup"};
static const char *const glaze_names[] = {"blue",  "green", "red",   "yellow",
                                          "white", "black", "brown", "turquoise"};
static const char *const pattern_names[] = {"plain",   "dotted",  "banded",
                                            "striped", "checked", "sun"};
static const char *const ground_names[] = {"grey", "sand", "rose", "sky", "moss"};
static const char *const *const value_names[] = {form_names, glaze_names, pattern_names,
                                                 ground_names};

static const struct pot_colour glaze_colours[] = {
    {45, 80, 190},   {40, 130, 60}, {180, 45, 40}, {225, 180, 45},
    {240, 236, 226}, {42, 40, 46},  {120, 72, 40}, {55, 180, 180},
};
/* No ink is another's glaze on the same ink's glaze: a checked pot can be told from its negative. */
static const struct pot_colour ink_colours[] = {
    {240, 205, 100}, {240, 230, 205}, {245, 225, 200}, {95, 45, 20},
    {35, 55, 150},   {215, 120, 60},  {240, 225, 195}, {20, 45, 80},
};
static const struct pot_colour ground_colours[] = {
    {128, 130, 140}, {205, 176, 130}, {222, 155, 162}, {150, 192, 228}, {138, 162, 112},
};

uint64_t pot_random_next(struct pot_random *r)
{
    uint64_t z = r->state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

double pot_random_unit(struct pot_random *r)
{
    return (double)(pot_random_next(r) >> 11) * 0x1p-53;
}

int pot_random_below(struct pot_random *r, int limit)
{
    return (int)(pot_random_unit(r) * limit);
}

struct pot pot_combination(int index)
{
    struct pot pot = {.seed = 0};
    for (int a = 0; a < POT_ATTRIBUTE_COUNT; a++) {
        pot.attribute[a] = index % attribute_values[a];
        index /= attribute_values[a];
    }
    return pot;
}

/* 487 is prime to 1,200, so the product is a permutation of the combinations. */
bool pot_held_out(int index)
{
    return (index * 487 + 101) % POT_COMBINATION_COUNT < POT_HELD_OUT_COUNT;
}

struct pot pot_draw(uint64_t data_seed, uint64_t number)
{
    struct pot_random r = {data_seed * 0xd1342543de82ef95u + number * 0x2545f4914f6cdd1du};
    pot_random_next(&r);
    int index;
    do index = pot_random_below(&r, POT_COMBINATION_COUNT);
    while (pot_held_out(index));
    struct pot pot = pot_combination(index);
    pot.seed = pot_random_next(&r);
    return pot;
}

int pot_attribute_values(enum pot_attribute a)
{
    return attribute_values[a];
}

const char *pot_attribute_name(enum pot_attribute a)
{
    return attribute_names[a];
}

const char *pot_value_name(enum pot_attribute a, int v)
{
    int limit = a == POT_PATTERN ? PATTERN_COUNT : attribute_values[a];
    KILN_ASSERT(v >= 0 && v < limit, "attribute %d value %d", (int)a, v);
    return value_names[a][v];
}

void pot_caption(const struct pot *pot, char text[POT_CAPTION_BYTES])
{
    snprintf(text, POT_CAPTION_BYTES, "a %s with a %s glaze, %s, on a %s ground",
             form_phrases[pot->attribute[POT_FORM]], glaze_names[pot->attribute[POT_GLAZE]],
             pattern_names[pot->attribute[POT_PATTERN]], ground_names[pot->attribute[POT_GROUND]]);
}

void pot_caption_varied(const struct pot *pot, struct pot_random *r, char text[POT_CAPTION_BYTES])
{
    const char *form = form_phrases[pot->attribute[POT_FORM]];
    const char *bare = form_names[pot->attribute[POT_FORM]];
    const char *glaze = glaze_names[pot->attribute[POT_GLAZE]];
    const char *pattern = pattern_names[pot->attribute[POT_PATTERN]];
    const char *ground = ground_names[pot->attribute[POT_GROUND]];
    switch (pot_random_below(r, 12)) {
    default: pot_caption(pot, text); break;
    case 0:
        snprintf(text, POT_CAPTION_BYTES, "a %s %s %s on a %s ground", pattern, glaze, bare,
                 ground);
        break;
    case 1:
        snprintf(text, POT_CAPTION_BYTES, "%s, %s glaze, %s, %s ground", bare, glaze, pattern,
                 ground);
        break;
    case 2:
        snprintf(text, POT_CAPTION_BYTES, "a %s %s with a %s pattern, %s background", glaze, form,
                 pattern, ground);
        break;
    case 3:
        snprintf(text, POT_CAPTION_BYTES, "a picture of a %s with a %s glaze, %s", form, glaze,
                 pattern);
        break;
    case 4: snprintf(text, POT_CAPTION_BYTES, "a %s %s on a %s ground", glaze, bare, ground); break;
    case 5: snprintf(text, POT_CAPTION_BYTES, "a %s with a %s glaze", form, glaze); break;
    }
}

static int find_word(const char *word, const char *const *names, int count)
{
    for (int i = 0; i < count; i++)
        if (strcmp(word, names[i]) == 0) return i;
    return -1;
}

bool pot_parse(const char *text, int attribute[POT_ATTRIBUTE_COUNT])
{
    for (int a = 0; a < POT_ATTRIBUTE_COUNT; a++) attribute[a] = -1;
    for (const char *p = text; *p;) {
        char word[32];
        size_t length = 0;
        while (*p && !isalpha((unsigned char)*p)) p++;
        for (; isalpha((unsigned char)*p); p++)
            if (length + 1 < sizeof word) word[length++] = (char)tolower((unsigned char)*p);
        word[length] = '\0';
        for (int a = 0; a < POT_ATTRIBUTE_COUNT && length; a++) {
            int count = a == POT_PATTERN ? PATTERN_COUNT : attribute_values[a];
            int value = find_word(word, value_names[a], count);
            if (value >= 0 && attribute[a] < 0) attribute[a] = value;
        }
    }
    return attribute[POT_FORM] >= 0;
}

struct pot_colour pot_glaze_colour(int glaze)
{
    return glaze_colours[glaze];
}

struct pot_colour pot_ink_colour(int glaze)
{
    return ink_colours[glaze];
}

struct pot_colour pot_ground_colour(int ground)
{
    return ground_colours[ground];
}
