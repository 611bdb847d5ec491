/*
 * Depth by LeReS against controlnet_aux's network (make_leres.py), and which network a control type
 * takes when several could serve it.
 *
 * usage: test_leres DATA ANNOTATORS
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

static const char *data, *annotators;
static struct device *device;
static struct pixels picture;

static double share_off(const char *type, const char *folder, const char *want_folder, int most)
{
    struct pixels map, want;
    struct error err;
    if (annotator_map(&map, &picture, type, device, folder, &err)) fail_msg("%s", err.text);
    map_read(&want, want_folder, "depth");
    double share = map_off(&map, &want, most);
    pixels_release(&map);
    pixels_release(&want);
    return share;
}

static void depth_is_the_reference_s(void **state)
{
    double share = share_off("depth", data, data, 0);
    print_message("%.5f of the pixels differ\n", share); /* cut to 16 bits, rounded to 8 */
    assert_true(share <= 0.001);
    assert_true(share_off("depth", data, data, 1) == 0);
}

static void link_into(const char *folder, const char *name, const char *from)
{
    char *file = alloc_printf("%s/%s", from, name), *target = realpath(file, NULL);
    char *link = alloc_printf("%s/%s", folder, name);
    assert_non_null(target);
    assert_int_equal(symlink(target, link), 0);
    free(file);
    free(target);
    free(link);
}

/* depth is LeReS's where it is there and MiDaS's otherwise; midas_depth is MiDaS's always. */
static void what_is_installed_decides(void **state)
{
    char folder[] = "/tmp/kiln-leres-XXXXXX";
    struct pixels map;
    struct error err;
    assert_non_null(mkdtemp(folder));
    assert_false(annotator_available("depth", folder));
    assert_int_equal(annotator_map(&map, &picture, "depth", device, folder, &err), ERR_NOT_FOUND);
    assert_non_null(strstr(err.text, "res101.pth"));
    link_into(folder, "dpt-hybrid-midas.safetensors", annotators);
    assert_true(annotator_available("depth", folder));
    assert_true(share_off("depth", folder, annotators, 1) == 0);
    link_into(folder, "res101.pth", data);
    assert_true(share_off("Depth", folder, data, 1) == 0);
    assert_true(share_off("midas_depth", folder, annotators, 1) == 0);
    assert_false(annotator_available("midas_depth", data));

    char file[ANNOTATOR_FILE_BYTES];
    enum annotator_kind kind;
    assert_true(annotator_choice(file, &kind, "depth", 0));
    assert_string_equal(file, "res101.pth");
    assert_true(annotator_choice(file, &kind, "depth", 5));
    assert_string_equal(file, "dpt-hybrid-midas.safetensors");
    assert_int_equal(kind, ANNOTATOR_DEPTH_MIDAS);
    assert_false(annotator_choice(file, &kind, "depth", 8));
    assert_false(annotator_choice(file, &kind, "palm", 0));
    for (int i = 0; i < 2; i++) {
        char *link = alloc_printf("%s/%s", folder, i ? "res101.pth" : file);
        unlink(link);
        free(link);
    }
    rmdir(folder);
}

static void other_files_and_sizes_are_refused(void **state)
{
    char folder[] = "/tmp/kiln-leres-XXXXXX";
    struct pixels odd, map;
    struct error err;
    assert_non_null(mkdtemp(folder));
    char *link = alloc_printf("%s/res101.pth", folder);
    char *file = alloc_printf("%s/ControlNetHED.pth", annotators), *target = realpath(file, NULL);
    assert_int_equal(symlink(target, link), 0);
    assert_int_equal(annotator_map(&map, &picture, "depth", device, folder, &err), ERR_FORMAT);
    assert_non_null(strstr(err.text, "holds no LeReS"));
    unlink(link);
    rmdir(folder);
    if (pixels_new(&odd, 72, 64, 3, &err)) fail_msg("%s", err.text);
    assert_int_equal(annotator_map(&map, &odd, "depth", device, data, &err), ERR_INVALID);
    assert_non_null(strstr(err.text, "72x64"));
    pixels_release(&odd);
    free(link);
    free(file);
    free(target);
}

int main(int argc, char **argv)
{
    if (argc < 3) return 2;
    data = argv[1];
    annotators = argv[2];
    if (device_open(&device, "cpu", NULL)) return 1;
    map_read(&picture, annotators, "picture");
    const struct CMUnitTest tests[] = {cmocka_unit_test(depth_is_the_reference_s),
                                       cmocka_unit_test(what_is_installed_decides),
                                       cmocka_unit_test(other_files_and_sizes_are_refused)};
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    pixels_release(&picture);
    device_close(device);
    return rc;
}
