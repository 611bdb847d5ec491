/*
 * What annotators see and what ControlNets are shown, against OpenCV and torch (make_frame.py).
 *
 * usage: test_frame DATA SOURCE    (SOURCE: the folder with part.png)
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "diffusion/control/frame.h"
#include "tests/golden/maps.h"

static const char *data;
static struct pixels source;

static void sources_come_to_the_small_size_first(void **state)
{
    static const struct {
        enum family family;
        int w, h, to_w, to_h;
    } cases[] = {
        {FAMILY_SD1, 768, 1152, 512, 768},           {FAMILY_SD1, 832, 1216, 512, 704},
        {FAMILY_SD1, 512, 1024, 512, 1024},          {FAMILY_SD1, 640, 640, 512, 512},
        {FAMILY_SD2_768, 768, 768, 512, 512},        {FAMILY_SD2_512, 448, 2048, 448, 2048},
        {FAMILY_SD1, 3072, 576, 2688, 512},          {FAMILY_SDXL, 1024, 1024, 1024, 1024},
        {FAMILY_SDXL_REFINER, 896, 1152, 896, 1152},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        int w, h;
        control_source_size(cases[i].family, cases[i].w, cases[i].h, &w, &h);
        assert_int_equal(w, cases[i].to_w);
        assert_int_equal(h, cases[i].to_h);
    }
}

static void annotators_see_the_reference_s_frame(void **state)
{
    /* cubics in floats: OpenCV 4 has them in fixed point, one level apart in some bytes */
    static const struct {
        const char *type, *picture;
        int side, w, h;
        double share;
    } cases[] = {{"canny", "cubic", 90, 130, 90, 0.002}, {"hed", "cubic", 90, 130, 90, 0.002},
                 {"scribble", "area", 90, 130, 90, 0},   {"MLSD", "area", 90, 130, 90, 0},
                 {"hough", "area", 90, 130, 90, 0},      {"depth", "same", 70, 101, 70, 0}};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct pixels frame, want;
        struct error err;
        int w, h;
        if (control_frame(&frame, &w, &h, &source, cases[i].type, cases[i].side, &err))
            fail_msg("%s", err.text);
        map_read(&want, data, cases[i].picture);
        assert_int_equal(w, cases[i].w);
        assert_int_equal(h, cases[i].h);
        double share = map_off(&frame, &want, 0);
        print_message("%s: %.5f of the pixels differ\n", cases[i].type, share);
        assert_true(share <= cases[i].share);
        assert_true(map_off(&frame, &want, 1) == 0);
        pixels_release(&frame);
        pixels_release(&want);
    }
}

static void hints_are_the_nearest_pixels_of_the_middle(void **state)
{
    static const char *const names[] = {"wide", "tall"};
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        struct pixels want;
        struct error err;
        float *hint;
        map_read(&want, data, names[i]);
        if (control_hint(&hint, &source, want.width, want.height, &err)) fail_msg("%s", err.text);
        for (int k = 0; k < want.width * want.height * 3; k++)
            assert_int_equal(lrintf(hint[k] * 255), want.data[k]);
        free(hint);
        pixels_release(&want);
    }
}

int main(int argc, char **argv)
{
    if (argc < 3) return 2;
    data = argv[1];
    map_read(&source, argv[2], "part");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sources_come_to_the_small_size_first),
        cmocka_unit_test(annotators_see_the_reference_s_frame),
        cmocka_unit_test(hints_are_the_nearest_pixels_of_the_middle),
    };
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    pixels_release(&source);
    return rc;
}
