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
#include "image/codec.h"
#include "proto/terms.h"

static const char *data;
static struct device *device;

static void read_picture(struct pixels *p, const char *name)
{
    struct error err;
    char *path = alloc_printf("%s/%s.png", data, name);
    if (image_read(p, NULL, path, &err)) fail_msg("%s", err.text);
    free(path);
}

/* Pixels that differ by more than `most`, as a share. */
static double off(const struct pixels *a, const struct pixels *b, int most)
{
    int n = a->width * a->height, count = 0;
    assert_int_equal(a->width, b->width);
    assert_int_equal(a->height, b->height);
    assert_int_equal(a->channels, 3);
    for (int i = 0; i < n; i++) {
        int worst = 0;
        for (int k = 0; k < 3; k++) {
            int d = abs(a->data[i * 3 + k] - b->data[i * b->channels + k]);
            if (d > worst) worst = d;
        }
        count += worst > most;
    }
    return (double)count / n;
}

static void maps_are_the_reference_s(void **state)
{
    /* Edges are rounded down from real numbers: one level may tip. Lines and ridges are decided:
     * where two neighbours are equal, or a line runs between pixels, the other may win. */
    static const struct {
        const char *type, *picture;
        int most;
        double share;
    } maps[] = {{"hed", "hed", 1, 0},      {"softedge", "hed", 1, 0},
                {"HED", "hed", 1, 0},      {"fakescribbles", "fakescribbles", 0, 0.01},
                {"mlsd", "mlsd", 0, 0.01}, {"hough", "mlsd", 0, 0.01},
                {"depth", "depth", 1, 0},  {"midas_depth", "depth", 1, 0},
                {"normal", "normal", 1, 0}};
    struct pixels from;
    read_picture(&from, "picture");
    for (size_t i = 0; i < COUNT_OF(maps); i++) {
        struct pixels map, want;
        struct error err;
        assert_true(annotator_available(maps[i].type, data));
        if (annotator_map(&map, &from, maps[i].type, device, data, &err))
            fail_msg("%s: %s", maps[i].type, err.text);
        read_picture(&want, maps[i].picture);
        double share = off(&map, &want, maps[i].most);
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
    read_picture(&from, "picture");
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
    read_picture(&from, "picture");
    for (int i = 0; i < 2; i++) {
        const char *types[] = {"hed", "mlsd"}, *endings[] = {"pth", "safetensors"};
        enum annotator_kind is, other;
        annotator_find(types[i], &is);
        annotator_find(types[1 - i], &other);
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
