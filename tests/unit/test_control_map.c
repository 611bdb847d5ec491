/* diffusion/control: maps of drawn shapes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "diffusion/control/map.h"

#define SIDE 96

/* A bright square on a dark ground, its border at 24 and 72. */
static void draw_square(struct pixels *p)
{
    assert_int_equal(pixels_new(p, SIDE, SIDE, 3, NULL), 0);
    for (int y = 0; y < SIDE; y++)
        for (int x = 0; x < SIDE; x++) {
            bool in = x >= 24 && x < 72 && y >= 24 && y < 72;
            memset(p->data + (y * SIDE + x) * 3, in ? 220 : 30, 3);
        }
}

static int brighter(const struct pixels *p, int least, int x0, int y0, int x1, int y1)
{
    int n = 0;
    for (int y = y0; y < y1; y++)
        for (int x = x0; x < x1; x++) n += p->data[(y * SIDE + x) * 3] >= least;
    return n;
}

static int lit(const struct pixels *p, int x0, int y0, int x1, int y1)
{
    return brighter(p, 128, x0, y0, x1, y1);
}

static void make(struct pixels *to, const struct pixels *from, const char *type)
{
    struct error err;
    if (control_map(to, from, type, &err)) fail_msg("%s: %s", type, err.text);
    assert_int_equal(to->width, SIDE);
    assert_int_equal(to->height, SIDE);
    assert_int_equal(to->channels, 3);
}

static void canny_and_hough_find_the_border(void **state)
{
    static const char *const types[] = {"canny", "hough", "CANNY"};
    for (int i = 0; i < 3; i++) {
        struct pixels p, map;
        draw_square(&p);
        make(&map, &p, types[i]);
        int whole = lit(&map, 0, 0, SIDE, SIDE);
        int inner = lit(&map, 30, 30, 66, 66), outer = whole - lit(&map, 20, 20, 76, 76);
        assert_int_equal(inner, 0);
        assert_int_equal(outer, 0);
        /* four sides of 48, one pixel thin */
        assert_in_range(whole, 4 * 40, 4 * 52);
        assert_true(lit(&map, 22, 40, 27, 60) >= 18);
        assert_true(lit(&map, 40, 22, 60, 27) >= 18);
        pixels_release(&p);
        pixels_release(&map);
    }
}

static void drawings_come_out_white_on_black(void **state)
{
    struct pixels p, map;
    assert_int_equal(pixels_new(&p, SIDE, SIDE, 3, NULL), 0);
    memset(p.data, 255, SIDE * SIDE * 3);
    for (int x = 10; x < 80; x++)
        for (int y = 48; y < 51; y++) memset(p.data + (y * SIDE + x) * 3, 10, 3);
    make(&map, &p, "scribble");
    assert_int_equal(lit(&map, 0, 0, SIDE, SIDE), 70 * 3);
    pixels_release(&map);
    make(&map, &p, "lineart");
    /* 127 is the darkness that is typical of this picture's lines */
    assert_true(brighter(&map, 110, 20, 48, 70, 51) >= 140);
    assert_int_equal(lit(&map, 0, 0, SIDE, 30), 0);
    pixels_release(&map);
    make(&map, &p, "fakescribbles");
    assert_true(lit(&map, 20, 48, 70, 51) > 0);
    assert_int_equal(lit(&map, 0, 0, SIDE, 20), 0);
    pixels_release(&map);
    pixels_release(&p);
}

static void colour_is_a_palette_and_tile_the_picture(void **state)
{
    struct pixels p, map;
    draw_square(&p);
    make(&map, &p, "tile");
    assert_memory_equal(map.data, p.data, SIDE * SIDE * 3);
    pixels_release(&map);
    make(&map, &p, "color");
    for (int i = 1; i < 32 * 32; i++)
        assert_int_equal(map.data[(i / 32 * SIDE + i % 32) * 3], map.data[0]);
    pixels_release(&map);
    pixels_release(&p);
}

static void other_types_say_what_is_possible(void **state)
{
    struct pixels p, map;
    struct error err = {0};
    draw_square(&p);
    assert_int_equal(control_map(&map, &p, "depth\x1b", &err), ERR_UNSUPPORTED);
    assert_non_null(strstr(err.text, "\"depth"));
    assert_non_null(strstr(err.text, "canny"));
    assert_null(strchr(err.text, 0x1b));
    assert_true(control_map_known("Hough"));
    assert_false(control_map_known("hed"));
    pixels_release(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(canny_and_hough_find_the_border),
        cmocka_unit_test(drawings_come_out_white_on_black),
        cmocka_unit_test(colour_is_a_palette_and_tile_the_picture),
        cmocka_unit_test(other_types_say_what_is_possible),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
