/* painter/: one seed is one picture, and what is painted can be read back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "painter/pot_reader.h"

#define PIXEL_BYTES (POT_SIDE_PX * POT_SIDE_PX * 3)

static uint8_t picture[PIXEL_BYTES], again[PIXEL_BYTES];
static struct pot_reader *reader;

static int make_reader(void **state)
{
    reader = pot_reader_new();
    return 0;
}

static int free_reader(void **state)
{
    pot_reader_free(reader);
    return 0;
}

static void same_seed_same_picture(void **state)
{
    struct pot a = pot_draw(3, 17), b = pot_draw(3, 17), c = pot_draw(3, 18);
    pot_paint(picture, POT_SIDE_PX, &a);
    pot_paint(again, POT_SIDE_PX, &b);
    assert_memory_equal(picture, again, PIXEL_BYTES);
    pot_paint(again, POT_SIDE_PX, &c);
    assert_int_not_equal(memcmp(picture, again, PIXEL_BYTES), 0);
}

static void held_out_combinations_are_never_drawn(void **state)
{
    int held = 0;
    for (int i = 0; i < POT_COMBINATION_COUNT; i++) held += pot_held_out(i);
    assert_int_equal(held, POT_HELD_OUT_COUNT);
    for (uint64_t i = 0; i < 2000; i++) {
        struct pot pot = pot_draw(1, i);
        int index = 0;
        for (int a = POT_ATTRIBUTE_COUNT; a-- > 0;)
            index = index * pot_attribute_values(a) + pot.attribute[a];
        assert_false(pot_held_out(index));
    }
}

static void captions_say_the_attributes(void **state)
{
    char text[POT_CAPTION_BYTES];
    int read[POT_ATTRIBUTE_COUNT];
    struct pot_random r = {9};
    for (int i = 0; i < POT_COMBINATION_COUNT; i++) {
        struct pot pot = pot_combination(i);
        pot_caption(&pot, text);
        assert_true(pot_parse(text, read));
        assert_memory_equal(read, pot.attribute, sizeof read);
        pot_caption_varied(&pot, &r, text);
        assert_true(pot_parse(text, read));
        for (int a = 0; a < POT_ATTRIBUTE_COUNT; a++)
            assert_true(read[a] == -1 || read[a] == pot.attribute[a]);
    }
    struct pot pot = {{FORM_VASE, GLAZE_BLUE, PATTERN_DOTTED, GROUND_GREY}, 0};
    pot_caption(&pot, text);
    assert_string_equal(text, "a tall vase with a blue glaze, dotted, on a grey ground");
    assert_false(pot_parse("a portrait of nobody", read));
}

/* At least 99 % of each attribute, blurred and noisy as a decoded latent may be. */
static void pictures_read_back(void **state)
{
    enum { COUNT = 200 };
    struct pot_random r = {4};
    int wrong[POT_ATTRIBUTE_COUNT] = {0};
    for (int i = 0; i < COUNT; i++) {
        struct pot pot = pot_draw(77, (uint64_t)i);
        if (i % PATTERN_COUNT == 0) pot.attribute[POT_PATTERN] = PATTERN_SUN;
        pot_paint(picture, POT_SIDE_PX, &pot);
        pot_weather(picture, POT_SIDE_PX, .5 * (i % 3), 4 * (i % 3), &r);
        int read[POT_ATTRIBUTE_COUNT];
        pot_reader_read(reader, picture, POT_SIDE_PX, read);
        for (int a = 0; a < POT_ATTRIBUTE_COUNT; a++) wrong[a] += read[a] != pot.attribute[a];
    }
    print_message("wrong of %d: form %d, glaze %d, pattern %d, ground %d\n", COUNT, wrong[POT_FORM],
                  wrong[POT_GLAZE], wrong[POT_PATTERN], wrong[POT_GROUND]);
    for (int a = 0; a < POT_ATTRIBUTE_COUNT; a++) assert_true(wrong[a] * 100 <= COUNT);
}

static void an_empty_picture_has_no_form(void **state)
{
    int read[POT_ATTRIBUTE_COUNT];
    memset(picture, 128, sizeof picture);
    pot_reader_read(reader, picture, POT_SIDE_PX, read);
    assert_int_equal(read[POT_FORM], -1);
    assert_int_equal(read[POT_PATTERN], -1);
    assert_int_equal(read[POT_GROUND], GROUND_GREY);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_seed_same_picture),
        cmocka_unit_test(held_out_combinations_are_never_drawn),
        cmocka_unit_test(captions_say_the_attributes),
        cmocka_unit_test(pictures_read_back),
        cmocka_unit_test(an_empty_picture_has_no_form),
    };
    return cmocka_run_group_tests(tests, make_reader, free_reader);
}
