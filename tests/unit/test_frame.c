/* proto/: scan, frames, the JSON writer. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "proto/frame.h"
#include "proto/scan.h"
#include "proto/writer.h"

static void scan_counts_and_measures(void **state)
{
    struct error err = {0};
    static const char tricky[] = "{\"a\": [1, \"]}\\\"\"]}";
    assert_int_equal(scan_json("x", tricky, strlen(tricky), &err), 0);
    assert_int_equal(scan_json("the pop reply", "", 0, &err), ERR_FORMAT);
    assert_string_equal(err.text, "the pop reply is empty");
    assert_int_equal(scan_json("x", "{\"a\": [1}", 9, &err), ERR_FORMAT);
    assert_non_null(strstr(err.text, "closes what it did not open"));
    assert_int_equal(scan_json("x", "{\"a", 3, &err), ERR_FORMAT);
    assert_int_equal(scan_json("x", "{\"a\\", 4, &err), ERR_FORMAT);
    assert_int_equal(scan_json("x", "[[", 2, &err), ERR_FORMAT);
    assert_non_null(strstr(err.text, "cut off"));
    assert_int_equal(scan_json("x", "[\0]", 3, &err), ERR_FORMAT);
    assert_non_null(strstr(err.text, "NUL byte at byte 1"));

    char deep[2 * SCAN_DEPTH_MAX + 2];
    memset(deep, '[', SCAN_DEPTH_MAX);
    memset(deep + SCAN_DEPTH_MAX, ']', SCAN_DEPTH_MAX);
    assert_int_equal(scan_json("x", deep, 2 * SCAN_DEPTH_MAX, &err), 0);
    memset(deep, '[', SCAN_DEPTH_MAX + 1);
    memset(deep + SCAN_DEPTH_MAX + 1, ']', SCAN_DEPTH_MAX + 1);
    assert_int_equal(scan_json("x", deep, sizeof deep, &err), ERR_FORMAT);
    assert_non_null(strstr(err.text, "deeper than 32"));
}

static void scan_stops_a_flood_of_objects(void **state)
{
    size_t bytes = 20u << 20;
    char *flood = malloc(bytes);
    struct error err = {0};
    flood[0] = '[';
    for (size_t i = 1; i + 2 < bytes; i += 3) memcpy(flood + i, "{},", 3);
    assert_int_equal(scan_json("x", flood, bytes, &err), ERR_FORMAT);
    assert_non_null(strstr(err.text, "200000 structural"));
    free(flood);
}

static void frames_survive_any_cut(void **state)
{
    struct buf out, in;
    struct error err = {0};
    buf_init(&out, 1 << 16);
    assert_int_equal(frame_append(&out, "one", 3, 100, &err), 0);
    assert_int_equal(frame_append(&out, "second", 6, 100, &err), 0);
    assert_int_equal(out.length, 4 + 3 + 4 + 6);
    for (size_t step = 1; step <= out.length; step++) {
        int seen = 0;
        buf_init(&in, 1 << 16);
        for (size_t at = 0; at < out.length; at += step) {
            size_t n = out.length - at < step ? out.length - at : step;
            const uint8_t *payload;
            size_t length;
            assert_int_equal(buf_append(&in, out.data + at, n, &err), 0);
            while (frame_next(&in, 100, &payload, &length, &err) == 1) {
                const char *want = seen ? "second" : "one";
                assert_int_equal(length, strlen(want));
                assert_memory_equal(payload, want, length);
                frame_drop(&in, length);
                seen++;
            }
        }
        assert_int_equal(seen, 2);
        assert_int_equal(in.length, 0);
        buf_release(&in);
    }
    buf_release(&out);
}

static void frames_have_limits(void **state)
{
    struct buf b;
    struct error err = {0};
    const uint8_t *payload;
    size_t length, mark;
    buf_init(&b, 1 << 16);
    assert_int_equal(frame_append(&b, "", 0, 100, &err), ERR_INVALID);
    assert_int_equal(frame_append(&b, "12345", 5, 4, &err), ERR_INVALID);
    assert_non_null(strstr(err.text, "5 bytes, the limit is 4"));
    assert_int_equal(b.length, 0);
    assert_int_equal(frame_open(&b, &mark, &err), 0);
    assert_int_equal(buf_append_string(&b, "12345", &err), 0);
    assert_int_equal(frame_close(&b, mark, 4, &err), ERR_INVALID);
    assert_int_equal(b.length, 0);
    assert_int_equal(buf_append(&b, "\x05\0\0\0abc", 7, &err), 0);
    assert_int_equal(frame_next(&b, 100, &payload, &length, &err), 0);
    assert_int_equal(frame_next(&b, 4, &payload, &length, &err), ERR_FORMAT);
    buf_clear(&b);
    assert_int_equal(buf_append(&b, "\0\0\0\0", 4, &err), 0);
    assert_int_equal(frame_next(&b, 100, &payload, &length, &err), ERR_FORMAT);
    buf_clear(&b);
    assert_int_equal(buf_append(&b, "\xff\xff\xff\xff", 4, &err), 0);
    assert_int_equal(frame_next(&b, FRAME_ENGINE_MAX, &payload, &length, &err), ERR_FORMAT);
    buf_release(&b);
}

static void writer_is_always_valid_json(void **state)
{
    struct buf b;
    struct error err = {0};
    struct writer w;
    buf_init(&b, 1 << 16);
    writer_open(&w, &b, 0, &err);
    writer_object(&w, NULL);
    writer_text(&w, "a\"", "\x01\n\xff\xc3\xa4\xe2\x80\xae\xed\xa0\x80\\\x7f");
    writer_f64(&w, "n", NAN);
    writer_f64(&w, "t", 0.1);
    writer_f64(&w, "p", 1.0 / 3.0);
    writer_i64(&w, "i", INT64_MIN);
    writer_bool(&w, "b", true);
    writer_texts(&w, "l", (const char *const[]){"x", NULL}, 2);
    writer_array(&w, "e");
    writer_end_array(&w);
    writer_base64(&w, "s", "kiln", 4);
    writer_base64(&w, "s0", "", 0);
    writer_end_object(&w);
    assert_int_equal(writer_close(&w), 0);
    assert_string_equal(
        (char *)b.data,
        "{\"a\\\"\":\"\\u0001\\u000a?\xc3\xa4\xe2\x80\xae???\\\\\\u007f\",\"n\":null,"
        "\"t\":0.1,\"p\":0.3333333333333333,\"i\":-9223372036854775808,\"b\":true,"
        "\"l\":[\"x\",null],\"e\":[],\"s\":\"a2lsbg==\",\"s0\":\"\"}");
    size_t before = b.length;
    b.limit = b.length + 10;
    writer_open(&w, &b, 0, &err);
    writer_text(&w, NULL, "more than ten bytes");
    assert_int_equal(writer_close(&w), ERR_NO_MEMORY);
    assert_int_equal(b.length, before);
    buf_release(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scan_counts_and_measures),
        cmocka_unit_test(scan_stops_a_flood_of_objects),
        cmocka_unit_test(frames_survive_any_cut),
        cmocka_unit_test(frames_have_limits),
        cmocka_unit_test(writer_is_always_valid_json),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
