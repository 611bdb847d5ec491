/*
 * Control maps by networks against the Python ones (make_annotators.py): small random networks of
 * the real topology over one picture.
 *
 * usage: test_annotators DATA
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
#include "proto/terms.h"
#include "tests/golden/maps.h"

static const char *data;
static struct device *device;

static void maps_are_the_reference_s(void **state)
{
    /* Edges are rounded down from real numbers: one level may tip. Lines and ridges are decided:
     * where two neighbours are equal, or a line runs between pixels, the other may win. */
    static const struct {
        const char *type, *picture;
        int most;
        double share;
    } maps[] = {{"hed", "hed", 1, 0},      {"softedge", "softedge", 1, 0},
                {"HED", "hed", 1, 0},      {"fakescribbles", "fakescribbles", 0, 0.01},
                {"mlsd", "mlsd", 0, 0.01}, {"hough", "mlsd", 0, 0.01},
                {"depth", "depth", 1, 0},  {"midas_depth", "depth", 1, 0},
                {"normal", "normal", 1, 0}};
    struct pixels from;
    map_read(&from, data, "picture");
    for (size_t i = 0; i < COUNT_OF(maps); i++) {
        struct pixels map, want;
        struct error err;
        assert_true(annotator_available(maps[i].type, data));
        if (annotator_map(&map, &from, maps[i].type, device, data, &err))
            fail_msg("%s: %s", maps[i].type, err.text);
        map_read(&want, data, maps[i].picture);
        double share = map_off(&map, &want, maps[i].most);
        print_message("%s: %.5f of the pixels differ by more than %d\n", maps[i].type, share,
                      maps[i].most);
        assert_true(share <= maps[i].share);
        pixels_release(&map);
        pixels_release(&want);
    }
    pixels_release(&from);
}

static void what_is_missing_is_named(void **state)
{
    struct pixels from, map;
    struct error err;
    map_read(&from, data, "picture");
    assert_int_equal(annotator_map(&map, &from, "hed", device, "/nowhere", &err), ERR_NOT_FOUND);
    assert_non_null(strstr(err.text, "ControlNetHED.pth in /nowhere"));
    assert_int_equal(annotator_map(&map, &from, "hed", device, NULL, &err), ERR_NOT_FOUND);
    assert_int_equal(annotator_map(&map, &from, "palm\x1b", device, data, &err), ERR_UNSUPPORTED);
    assert_null(strchr(err.text, '\x1b'));
    pixels_release(&from);
}

/* Another network under the name that is looked for. */
static void wrong_files_are_refused(void **state)
{
    char folder[] = "/tmp/kiln-annotators-XXXXXX";
    struct pixels from, map;
    struct error err;
    assert_non_null(mkdtemp(folder));
    map_read(&from, data, "picture");
    for (int i = 0; i < 2; i++) {
        const char *types[] = {"hed", "mlsd"}, *endings[] = {"pth", "safetensors"};
        enum annotator_kind is, other;
        assert_true(annotator_find(types[i], &is) && annotator_find(types[1 - i], &other));
        char *link = alloc_printf("%s/%s.pth", folder, annotator_file(is));
        char *file = alloc_printf("%s/%s.%s", data, annotator_file(other), endings[1 - i]);
        char *target = realpath(file, NULL);
        assert_int_equal(symlink(target, link), 0);
        free(file);
        assert_int_equal(annotator_map(&map, &from, types[i], device, folder, &err), ERR_FORMAT);
        assert_non_null(strstr(err.text, "holds no"));
        unlink(link);
        free(link);
        free(target);
    }
    rmdir(folder);
    pixels_release(&from);
}

int main(int argc, char **argv)
{
    if (argc < 2) return 2;
    data = argv[1];
    if (device_open(&device, "cpu", NULL)) return 1;
    const struct CMUnitTest tests[] = {cmocka_unit_test(maps_are_the_reference_s),
                                       cmocka_unit_test(what_is_missing_is_named),
                                       cmocka_unit_test(wrong_files_are_refused)};
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    device_close(device);
    return rc;
}
