/* base/: errors, buffers, arenas, text, time. */
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/arena.h"
#include "base/buf.h"
#include "base/error.h"
#include "base/free_memory.h"
#include "base/now.h"
#include "base/str.h"

static void error_keeps_the_inner_sentence(void **state)
{
    struct error err = {0};
    assert_int_equal(error_set(&err, ERR_IO, "reading %s", "a.bin"), ERR_IO);
    assert_int_equal(error_wrap(&err, ERR_IO, "loading model %d", 3), ERR_IO);
    assert_string_equal(err.text, "loading model 3: reading a.bin");
    assert_int_equal(error_set(NULL, ERR_FORMAT, "x"), ERR_FORMAT);
    assert_string_equal(error_word(ERR_NOT_FOUND), "not found");
    assert_string_equal(error_word(-999), "unknown");
}

static void buffer_stops_at_its_limit(void **state)
{
    struct buf b;
    struct error err = {0};
    buf_init(&b, 10);
    assert_int_equal(buf_append_string(&b, "12345678", &err), 0);
    assert_int_equal(buf_append_string(&b, "abc", &err), ERR_NO_MEMORY);
    assert_string_equal((char *)b.data, "12345678");
    assert_int_equal(buf_append_string(&b, "ab", &err), 0);
    buf_consume(&b, 7);
    assert_string_equal((char *)b.data, "8ab");
    buf_release(&b);
}

static void file_round_trip_is_whole(void **state)
{
    char path[] = "/tmp/kiln-test-XXXXXX";
    close(mkstemp(path));
    struct buf out, in;
    struct error err = {0};
    buf_init(&out, 1 << 20);
    buf_init(&in, 1 << 20);
    for (int i = 0; i < 100000; i++)
        assert_int_equal(buf_append(&out, &(char){(char)i}, 1, &err), 0);
    assert_int_equal(buf_write_file(&out, path, 0600, &err), 0);
    assert_int_equal(buf_read_file(&in, path, &err), 0);
    assert_int_equal(in.length, out.length);
    assert_memory_equal(in.data, out.data, in.length);
    buf_clear(&in);
    in.limit = 50000;
    assert_int_equal(buf_read_file(&in, path, &err), ERR_NO_MEMORY);
    assert_int_equal(in.length, 0);
    unlink(path);
    assert_int_equal(buf_read_file(&in, path, &err), ERR_NOT_FOUND);
    buf_release(&in);
    buf_release(&out);
}

static void arena_counts_and_limits(void **state)
{
    struct arena a;
    arena_init(&a, 100000);
    char *text = arena_printf(&a, "%s-%d", "kudos", 7);
    assert_string_equal(text, "kudos-7");
    assert_int_equal((uintptr_t)arena_zero(&a, 3, 1) % 16, 0);
    assert_null(arena_try(&a, 200000, 1));
    assert_null(arena_try(&a, SIZE_MAX, 2));
    assert_non_null(arena_try(&a, 50000, 1));
    arena_release(&a);
    assert_int_equal(a.used_bytes, 0);
}

static void text_is_cut_and_cleaned(void **state)
{
    char to[16];
    assert_int_equal(str_copy(to, 4, "ab\xc3\xa4"), 2);
    assert_string_equal(to, "ab");
    str_clean(to, sizeof to,
              "a\x1b[31mb\n\xe2\x80\xae"
              "c\xff");
    assert_string_equal(to, "a[31mbc?");
    assert_true(str_is_utf8("\xc3\xa4", 2));
    assert_false(str_is_utf8("\xc0\x80", 2));
    assert_false(str_is_utf8("\xed\xa0\x80", 3));
    int64_t i;
    uint64_t u;
    double d;
    assert_false(str_parse_i64("12x", &i));
    assert_true(str_parse_i64("-12", &i) && i == -12);
    assert_false(str_parse_u64("-1", &u));
    assert_false(str_parse_u64("18446744073709551616", &u));
    assert_true(str_parse_u64("18446744073709551615", &u) && u == UINT64_MAX);
    assert_false(str_parse_f64("nan", &d));
    assert_true(str_parse_f64("7.5", &d) && d == 7.5);
}

static void near_names_are_found(void **state)
{
    static const char *const names[] = {"k_euler", "k_euler_a", "k_heun", "DDIM", NULL};
    assert_string_equal(str_nearest("k_eular", names), "k_euler");
    assert_string_equal(str_nearest("k_huen", names), "k_heun");
    assert_null(str_nearest("plms", names));
    assert_int_equal(str_distance("kitten", "sitting"), 3);
}

static void free_memory_is_less_than_all(void **state)
{
    size_t all = (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE);
    assert_in_range(free_memory_bytes(), 1 << 20, all);
}

static void clock_turns(void **state)
{
    int64_t before = now_ms();
    now_turn_ms(3600000);
    assert_true(now_ms() - before >= 3600000);
    now_turn_ms(-3600000);
    char text[25];
    now_format_utc(text, 1795500000123);
    assert_string_equal(text, "2026-11-24T06:00:00.123Z");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(error_keeps_the_inner_sentence),
        cmocka_unit_test(buffer_stops_at_its_limit),
        cmocka_unit_test(file_round_trip_is_whole),
        cmocka_unit_test(arena_counts_and_limits),
        cmocka_unit_test(text_is_cut_and_cleaned),
        cmocka_unit_test(near_names_are_found),
        cmocka_unit_test(clock_turns),
        cmocka_unit_test(free_memory_is_less_than_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
