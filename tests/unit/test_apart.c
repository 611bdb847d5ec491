/* image/apart: the helper decodes, refuses with its sentence, and its death is a broken picture. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "image/apart.h"

static struct buf encoded(enum image_format format)
{
    struct pixels p;
    struct buf b;
    struct error err = {0};
    assert_int_equal(pixels_new(&p, 300, 200, 3, &err), 0);
    for (int i = 0; i < 300 * 200 * 3; i++) p.data[i] = (uint8_t)(i * 31 >> 4);
    buf_init(&b, 1 << 22);
    assert_int_equal(codec_encode(&b, format, &p, 101, NULL, &err), 0);
    pixels_release(&p);
    return b;
}

static void decodes_as_the_codec_does(void **state)
{
    for (int f = 0; f < 2; f++) {
        struct buf b = encoded(f ? IMAGE_WEBP : IMAGE_PNG);
        struct pixels near, apart;
        struct error err = {0};
        assert_int_equal(codec_decode(&near, NULL, "x", b.data, b.length, &err), 0);
        if (apart_decode(&apart, "x", b.data, b.length, &err)) fail_msg("%s", err.text);
        assert_int_equal(apart.width, 300);
        assert_memory_equal(near.data, apart.data, 300 * 200 * 3);
        pixels_release(&near);
        pixels_release(&apart);
        buf_release(&b);
    }
}

static void broken_pictures_are_refused_with_a_sentence(void **state)
{
    struct buf b = encoded(IMAGE_PNG);
    struct pixels p = {0};
    struct error err = {0};
    assert_int_equal(apart_decode(&p, "cut", b.data, b.length / 2, &err), ERR_FORMAT);
    assert_true(strlen(err.text) > 10);
    assert_null(p.data);
    assert_int_equal(apart_decode(&p, "html", (const uint8_t *)"<html>", 6, &err), ERR_FORMAT);
    buf_release(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decodes_as_the_codec_does),
        cmocka_unit_test(broken_pictures_are_refused_with_a_sentence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
