/* image/: codecs round-trip, limits come from the header, text survives, resizing follows Pillow.
 */
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
#include "image/codec.h"
#include "image/resize.h"

static struct pixels painted(int width, int height, int channels)
{
    struct pixels p;
    struct error err;
    assert_int_equal(pixels_new(&p, width, height, channels, &err), 0);
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++)
            for (int c = 0; c < channels; c++)
                p.data[(y * width + x) * channels + c] = (uint8_t)(x * 7 + y * 13 + c * 50);
    return p;
}

static void round_trip(enum image_format format, int channels, int quality)
{
    struct pixels p = painted(37, 21, channels), q = {0};
    struct buf b;
    struct error err = {0};
    struct image_text text = {.parameters = (char *)(uintptr_t) "a p\xc3\xb6t\nSteps: 4",
                              .xmp = (char *)(uintptr_t) "<x:xmpmeta/>"};
    struct image_text read = {0};
    buf_init(&b, 1 << 20);
    assert_int_equal(codec_encode(&b, format, &p, quality, &text, &err), 0);
    assert_int_equal(codec_decode(&q, &read, "test", b.data, b.length, &err), 0);
    assert_int_equal(q.width, 37);
    assert_int_equal(q.height, 21);
    assert_int_equal(q.channels, channels);
    assert_memory_equal(p.data, q.data, (size_t)(37 * 21 * channels));
    assert_string_equal(read.xmp, text.xmp);
    if (format == IMAGE_PNG) assert_string_equal(read.parameters, text.parameters);
    /* other text, the same pixels */
    struct buf c;
    struct pixels again = {0};
    struct image_text other = {.parameters = (char *)(uintptr_t)"plain", .xmp = (char *)(uintptr_t)"<x/>"};
    image_text_release(&read);
    buf_init(&c, 1 << 20);
    assert_int_equal(codec_set_text(&c, "test", b.data, b.length, &other, &err), 0);
    assert_int_equal(codec_decode(&again, &read, "again", c.data, c.length, &err), 0);
    assert_memory_equal(p.data, again.data, (size_t)(37 * 21 * channels));
    assert_string_equal(read.xmp, "<x/>");
    if (format == IMAGE_PNG) assert_string_equal(read.parameters, "plain");
    pixels_release(&again);
    buf_release(&c);
    /* every cut is refused, or (metadata at the end lost) decodes to the same size */
    for (size_t cut = 1; cut < b.length - 1; cut += 7) {
        struct pixels r = {0};
        if (codec_decode(&r, NULL, "cut", b.data, cut, &err) == 0) {
            assert_int_equal(r.width, 37);
            pixels_release(&r);
        } else {
            assert_non_null(strstr(err.text, "cut"));
            assert_null(r.data);
        }
    }
    image_text_release(&read);
    pixels_release(&p);
    pixels_release(&q);
    buf_release(&b);
}

static void codecs_round_trip_with_their_text(void **state)
{
    round_trip(IMAGE_PNG, 3, 0);
    round_trip(IMAGE_PNG, 4, 0);
    round_trip(IMAGE_WEBP, 3, 101);
}

static void bombs_are_refused_from_the_header(void **state)
{
    /* a PNG header of 100000 x 100000, and a WebP VP8X canvas of 16384 x 16384 */
    uint8_t png[33] = {0x89, 'P',  'N', 'G', 13,  10, 26, 10,   0,    0, 0,
                       13,   'I',  'H', 'D', 'R', 0,  1,  0x86, 0xa0, 0, 1,
                       0x86, 0xa0, 8,   2,   0,   0,  0,  0,    0,    0, 0};
    uint8_t webp[34] = {'R', 'I', 'F', 'F', 26, 0, 0, 0,    'W',  'E',  'B',  'P', 'V',
                        'P', '8', 'L', 13,  0,  0, 0, 0x2f, 0xff, 0xff, 0xff, 0x0f};
    struct image_header header;
    struct error err = {0};
    assert_int_equal(codec_probe(&header, "bomb", png, sizeof png, &err), ERR_INVALID);
    assert_non_null(strstr(err.text, "100000 x 100000"));
    assert_int_equal(codec_probe(&header, "bomb", webp, sizeof webp, &err), ERR_INVALID);
    assert_non_null(strstr(err.text, "16384 x 16384"));
    assert_int_equal(codec_probe(&header, "text", (const uint8_t *)"<html>", 6, &err), ERR_FORMAT);
    assert_non_null(strstr(err.text, "none of PNG, JPEG, WebP"));
    uint8_t *large = alloc_zero(CODEC_BYTES_MAX + 1, 1);
    assert_int_equal(codec_probe(&header, "large", large, CODEC_BYTES_MAX + 1, &err), ERR_INVALID);
    free(large);
}

/* Pillow 11: Image.fromarray(a).resize((w, h), filter) of painted(23, 17, 3) */
static unsigned long checksum(const struct pixels *p)
{
    unsigned long sum = 5381;
    for (int i = 0; i < p->width * p->height * p->channels; i++)
        sum = (sum * 33 + p->data[i]) & 0xffffffff;
    return sum;
}

static void resizing_equals_pillow(void **state)
{
    static const struct {
        int width, height;
        enum resize_filter filter;
        unsigned long sum;
    } cases[] = {
#include "data/resize_pillow.inc"
    };
    struct pixels p = painted(23, 17, 3);
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct pixels q;
        struct error err;
        assert_int_equal(
            pixels_resize(&q, &p, cases[i].width, cases[i].height, cases[i].filter, &err), 0);
        assert_int_equal(checksum(&q), cases[i].sum);
        pixels_release(&q);
    }
    pixels_release(&p);
}

static void orientation_turns_as_exif_says(void **state)
{
    /* 2 x 3 picture 0 1 / 2 3 / 4 5; what a viewer shows for each orientation */
    static const struct {
        int width;
        uint8_t shown[6];
    } wanted[9] = {
        {0, {0}},
        {2, {0, 1, 2, 3, 4, 5}},
        {2, {1, 0, 3, 2, 5, 4}},
        {2, {5, 4, 3, 2, 1, 0}},
        {2, {4, 5, 2, 3, 0, 1}},
        {3, {0, 2, 4, 1, 3, 5}},
        {3, {4, 2, 0, 5, 3, 1}},
        {3, {5, 3, 1, 4, 2, 0}},
        {3, {1, 3, 5, 0, 2, 4}},
    };
    for (int o = 1; o <= 8; o++) {
        struct pixels p;
        struct error err;
        assert_int_equal(pixels_new(&p, 2, 3, 1, &err), 0);
        for (int i = 0; i < 6; i++) p.data[i] = (uint8_t)i;
        assert_int_equal(pixels_orient(&p, o, &err), 0);
        assert_int_equal(p.width, wanted[o].width);
        assert_memory_equal(p.data, wanted[o].shown, 6);
        pixels_release(&p);
    }
}

static void crops_stay_inside(void **state)
{
    struct pixels p = painted(20, 10, 3), q;
    struct error err = {0};
    assert_int_equal(pixels_crop(&q, &p, 15, 0, 6, 5, &err), ERR_INVALID);
    assert_non_null(strstr(err.text, "20 x 10"));
    assert_int_equal(pixels_crop(&q, &p, 14, 5, 6, 5, &err), 0);
    assert_int_equal(q.data[0], p.data[(5 * 20 + 14) * 3]);
    pixels_release(&q);
    assert_int_equal(pixels_cover(&q, &p, 8, 8, RESIZE_BICUBIC, &err), 0);
    assert_int_equal(q.width, 8);
    pixels_release(&q);
    pixels_release(&p);
}

static void files_are_named_by_extension(void **state)
{
    struct pixels p = painted(8, 8, 3);
    struct error err = {0};
    assert_int_equal(image_write(&p, NULL, "/tmp/kiln-test.tga", 90, &err), ERR_INVALID);
    assert_non_null(strstr(err.text, ".png or .webp"));
    assert_int_equal(image_write(&p, NULL, "/nowhere/x.png", 90, &err), ERR_IO);
    enum image_format format;
    assert_true(image_format_of_path("A.JPEG", &format) && format == IMAGE_JPEG);
    pixels_release(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(codecs_round_trip_with_their_text),
        cmocka_unit_test(bombs_are_refused_from_the_header),
        cmocka_unit_test(resizing_equals_pillow),
        cmocka_unit_test(orientation_turns_as_exif_says),
        cmocka_unit_test(crops_stay_inside),
        cmocka_unit_test(files_are_named_by_extension),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
