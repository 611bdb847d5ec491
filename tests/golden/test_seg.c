/*
 * Segments against a torch implementation (make_seg.py): a tiny random UniFormer with UPerNet over
 * two pictures, one of odd sizes.
 *
 * usage: test_seg DATA
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "diffusion/control/annotator.h"
#include "tests/golden/maps.h"

static const char *data;
static struct device *device;

static void segments_are_the_reference_s(void **state)
{
    static const char *const names[] = {"whole", "part"};
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        struct pixels from, map, want;
        struct error err;
        char *seg = alloc_printf("%s_seg", names[i]);
        map_read(&from, data, names[i]);
        map_read(&want, data, seg);
        assert_true(annotator_available("seg", data));
        if (annotator_map(&map, &from, "seg", device, data, &err)) fail_msg("%s", err.text);
        /* OpenCV's enlargement differs from its own scalar form by one level in 0.1 % of the bytes:
         * that alone moves 0.30 % of the first map's pixels, in torch too */
        double share = map_off(&map, &want, 0);
        print_message("%s: %.5f of the pixels are of another class\n", names[i], share);
        assert_true(share <= 0.004);
        pixels_release(&from);
        pixels_release(&map);
        pixels_release(&want);
        free(seg);
    }
}

static void the_palette_is_ade20k_s(void **state)
{
    static const struct {
        int class;
        uint8_t rgb[3];
    } known[] = {
        {0, {120, 120, 120}}, {2, {6, 230, 230}}, {4, {4, 200, 3}}, {12, {150, 5, 61}},
        {20, {0, 102, 200}},  {149, {92, 0, 255}}}; /* wall, sky, tree, person, car, flag */
    for (size_t i = 0; i < COUNT_OF(known); i++)
        assert_memory_equal(ade_palette[known[i].class], known[i].rgb, 3);
}

static void other_files_and_slivers_are_refused(void **state)
{
    char folder[] = "/tmp/kiln-seg-XXXXXX";
    struct pixels from, thin, map;
    struct error err;
    assert_non_null(mkdtemp(folder));
    map_read(&from, data, "part");
    char *link = alloc_printf("%s/upernet_global_small.pth", folder);
    char *file = alloc_printf("%s/../annotators/ControlNetHED.pth", data);
    char *target = realpath(file, NULL);
    assert_int_equal(symlink(target, link), 0);
    assert_int_equal(annotator_map(&map, &from, "seg", device, folder, &err), ERR_FORMAT);
    assert_non_null(strstr(err.text, "holds no UniFormer"));
    unlink(link);
    rmdir(folder);
    if (pixels_new(&thin, 2048, 16, 3, &err)) fail_msg("%s", err.text);
    assert_int_equal(annotator_map(&map, &thin, "seg", device, data, &err), ERR_INVALID);
    assert_non_null(strstr(err.text, "2048x16"));
    pixels_release(&from);
    pixels_release(&thin);
    free(link);
    free(file);
    free(target);
}

int main(int argc, char **argv)
{
    if (argc < 2) return 2;
    data = argv[1];
    if (device_open(&device, "cpu", NULL)) return 1;
    const struct CMUnitTest tests[] = {cmocka_unit_test(segments_are_the_reference_s),
                                       cmocka_unit_test(the_palette_is_ade20k_s),
                                       cmocka_unit_test(other_files_and_slivers_are_refused)};
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    device_close(device);
    return rc;
}
