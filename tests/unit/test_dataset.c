/* dataset/: captions, annotations, crops, what is named as not fitting; buckets; the contact sheet. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "dataset/bucket.h"
#include "dataset/contact.h"
#include "image/codec.h"

static char folder[] = "/tmp/kiln-dataset-XXXXXX";

static char *path_of(const char *name)
{
    return alloc_printf("%s/%s", folder, name);
}

static void write_text(const char *name, const char *text)
{
    char *path = path_of(name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
    free(path);
}

static void write_picture(const char *name, int width, int height)
{
    struct pixels p;
    struct error err;
    char *path = path_of(name);
    assert_int_equal(pixels_new(&p, width, height, 3, &err), 0);
    for (int i = 0; i < width * height * 3; i++) p.data[i] = (uint8_t)(i * 7);
    if (image_write(&p, NULL, path, 90, &err)) fail_msg("%s", err.text);
    pixels_release(&p);
    free(path);
}

static void empty_folder(void)
{
    char *command = alloc_printf("rm -f %s/*", folder);
    assert_int_equal(system(command), 0);
    free(command);
}

static bool names(const struct dataset *d, const char *text)
{
    for (int i = 0; i < d->problem_count; i++)
        if (strstr(d->problem[i], text)) return true;
    return false;
}

static const struct sample *sample_named(const struct dataset *d, const char *name, bool crop)
{
    for (int i = 0; i < d->count; i++)
        if (!strcmp(d->sample[i].name, name) && d->sample[i].is_crop == crop) return &d->sample[i];
    fail_msg("no sample %s", name);
    return NULL;
}

static struct dataset_options options(void)
{
    return (struct dataset_options){.folder = folder,
                                    .annotations = "",
                                    .trigger = "zkiln",
                                    .crop_margin = .1,
                                    .min_side_px = 64,
                                    .warn_side_px = 100};
}

static void captions_come_from_four_places(void **state)
{
    struct dataset d;
    struct error err;
    struct dataset_options o = options();
    empty_folder();
    write_picture("a.png", 128, 112);
    write_picture("b.png", 200, 200);
    write_picture("c.png", 128, 128);
    write_picture("d.webp", 128, 128);
    write_text("a.txt", "  an oven, red \nsecond line\n");
    write_text("captions.csv", "image,caption\nb.png,\"two women, baking\"\n");
    write_text("labels_my-project_2026-11-24-09-30-00.csv", "C.PNG,\"[oven,tiles]\"");
    if (dataset_open(&d, &o, &err)) fail_msg("%s", err.text);
    assert_int_equal(d.pictures, 4);
    assert_string_equal(sample_named(&d, "a.png", false)->caption, "zkiln, an oven, red");
    assert_string_equal(sample_named(&d, "b.png", false)->caption, "zkiln, two women, baking");
    assert_string_equal(sample_named(&d, "c.png", false)->caption, "zkiln, oven, tiles");
    assert_string_equal(sample_named(&d, "d.webp", false)->caption, "zkiln");
    assert_true(names(&d, "d.webp has no caption"));
    for (int i = 0; i < d.problem_count; i++)
        if (!strstr(d.problem[i], "d.webp")) fail_msg("%s", d.problem[i]);
    struct label_count *labels;
    assert_int_equal(dataset_labels(&d, &labels), 2);
    free(labels);
    dataset_release(&d);
    o.caption = "a photo of %s";
    assert_int_equal(dataset_open(&d, &o, &err), 0);
    assert_string_equal(sample_named(&d, "c.png", false)->caption, "zkiln, a photo of oven, tiles");
    dataset_release(&d);
}

static void boxes_become_captions_and_crops(void **state)
{
    struct dataset d;
    struct error err;
    struct dataset_options o = options();
    empty_folder();
    write_picture("k.png", 400, 300);
    /* annotated at half the size; the second box is too small for a crop, the third outside */
    write_text("boxes.csv", "oven,50,40,60,70,k.png,200,150\nspoon,5,5,6,6,k.png,200,150\n"
                            "woman,150,100,90,20,k.png,200,150\nghost,1,1,9,9,gone.png,200,150\n");
    char *annotations = path_of("boxes.csv");
    o.annotations = annotations;
    o.crops = true;
    o.hint = ANNOTATIONS_ARE_BOXES;
    if (dataset_open(&d, &o, &err)) fail_msg("%s", err.text);
    assert_int_equal(d.count, 2);
    assert_string_equal(sample_named(&d, "k.png", false)->caption, "zkiln, oven, woman, spoon");
    const struct sample *crop = sample_named(&d, "k.png", true);
    assert_string_equal(crop->caption, "zkiln, oven");
    assert_int_equal(crop->x, 88); /* 2 * 50 less a tenth of 120 */
    assert_int_equal(crop->y, 66);
    assert_int_equal(crop->w, 144);
    assert_int_equal(crop->h, 168);
    assert_true(names(&d, "annotated as 200x150"));
    assert_true(names(&d, "'spoon' is"));
    assert_true(names(&d, "reaches outside"));
    assert_true(names(&d, "gone.png"));
    struct pixels p;
    assert_int_equal(sample_pixels(&p, crop, &err), 0);
    assert_int_equal(p.width, 144);
    assert_int_equal(p.height, 168);
    assert_int_equal(p.channels, 3);
    pixels_release(&p);
    assert_int_equal(contact_sheet(&p, &d, &err), 0);
    pixels_release(&p);
    dataset_release(&d);
    free(annotations);
}

static void what_cannot_be_trained_on_is_named(void **state)
{
    struct dataset d;
    struct error err;
    struct dataset_options o = options();
    empty_folder();
    write_picture("small.png", 60, 200);
    write_picture("low.png", 90, 90);
    write_text("broken.png", "this is no picture");
    write_text("alone.txt", "a caption");
    write_text("low.txt", "fine");
    if (dataset_open(&d, &o, &err)) fail_msg("%s", err.text);
    assert_int_equal(d.pictures, 1);
    assert_int_equal(d.skipped, 2);
    assert_true(names(&d, "small.png is left out: 60x200"));
    assert_true(names(&d, "broken.png is left out"));
    assert_true(names(&d, "low.png is 90x90, smaller than the training size 100"));
    assert_true(names(&d, "alone.txt is a caption without a picture"));
    dataset_release(&d);
    empty_folder();
    assert_int_equal(dataset_open(&d, &o, &err), ERR_NOT_FOUND);
    o.folder = "/tmp/kiln-no-such-folder";
    assert_int_equal(dataset_open(&d, &o, &err), ERR_NOT_FOUND);
}

static void check_bucket(int width, int height, int resolution, int w, int h)
{
    struct bucket b = bucket_of(width, height, resolution, true);
    assert_int_equal(b.width, w);
    assert_int_equal(b.height, h);
    struct cover c = bucket_cover(b, width, height);
    assert_true(c.width >= w && c.height >= h);
    assert_true(c.width == w || c.height == h || c.left == 0 || c.top == 0);
    assert_true(c.left >= 0 && c.left + w <= c.width && c.top >= 0 && c.top + h <= c.height);
}

static void buckets(void **state)
{
    check_bucket(1024, 1024, 512, 512, 512);
    check_bucket(4032, 3024, 512, 576, 448);
    check_bucket(3024, 4032, 512, 448, 576);
    check_bucket(640, 384, 512, 640, 384);
    check_bucket(128, 128, 128, 128, 128);
    struct bucket square = bucket_of(4032, 3024, 768, false);
    assert_int_equal(square.width, 768);
    assert_int_equal(square.height, 768);
}

static int make_folder(void **state)
{
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    empty_folder();
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(captions_come_from_four_places),
        cmocka_unit_test(boxes_become_captions_and_crops),
        cmocka_unit_test(what_cannot_be_trained_on_is_named),
        cmocka_unit_test(buckets),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
