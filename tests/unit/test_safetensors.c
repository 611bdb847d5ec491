/* tensor/safetensors: every rule of reliability F3 refuses by name; files round-trip. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buf.h"
#include "tensor/safetensors.h"

static char folder[] = "/tmp/kiln-safetensors-XXXXXX";
static char path[64];

static void put_file(const char *header, uint64_t claimed, size_t data_bytes)
{
    struct buf b;
    struct error err = {0};
    buf_init(&b, 1 << 24);
    for (int i = 0; i < 8; i++) buf_append(&b, &(uint8_t){(uint8_t)(claimed >> 8 * i)}, 1, &err);
    buf_append_string(&b, header, &err);
    for (size_t i = 0; i < data_bytes; i++) buf_append(&b, "x", 1, &err);
    assert_int_equal(buf_write_file(&b, path, 0600, &err), 0);
    buf_release(&b);
}

static void refuses(const char *header, size_t data_bytes, const char *sentence)
{
    struct safetensors file = {0};
    struct error err = {0};
    put_file(header, strlen(header), data_bytes);
    assert_int_equal(safetensors_open(&file, path, &err), ERR_FORMAT);
    if (!strstr(err.text, sentence)) fail_msg("\"%s\" lacks \"%s\"", err.text, sentence);
    assert_non_null(strstr(err.text, path));
    assert_null(file.entries);
}

#define T(name, dtype, shape, from, to)                                                            \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" #from "," #to   \
    "]}"

static void broken_headers_are_refused_by_name(void **state)
{
    refuses("[]", 0, "'{' is expected");
    refuses("{", 0, "ends where");
    refuses("{" T("a", "F32", "[2]", 0, 8) "}", 7, "spans bytes 0 to 8");
    refuses("{" T("a", "F32", "[2]", 0, 8) "}", 9, "end at byte 8");
    refuses("{" T("a", "F32", "[3]", 0, 8) "}", 8, "needs 12 bytes");
    refuses("{" T("a", "F33", "[2]", 0, 8) "}", 8, "unknown dtype \"F33\"");
    refuses("{" T("a", "U8", "[4]", 0, 4) "," T("b", "U8", "[4]", 3, 7) "}", 7, "overlaps");
    refuses("{" T("a", "U8", "[4]", 0, 4) "," T("b", "U8", "[4]", 5, 9) "}", 9, "hole");
    refuses("{" T("a", "U8", "[4]", 1, 5) "}", 5, "hole");
    refuses("{" T("a", "U8", "[4]", 0, 4) "," T("a", "U8", "[4]", 4, 8) "}", 8, "appears twice");
    refuses("{" T("a", "U8", "[4611686018427387904,4]", 0, 4) "}", 4, "overflows");
    refuses("{" T("a", "U8", "[1,1,1,1,1,1]", 0, 1) "}", 1, "more than 5 dimensions");
    refuses("{" T("a", "U8", "[-1]", 0, 1) "}", 1, "whole number");
    refuses("{" T("a", "U8", "[1.0]", 0, 1) "}", 1, "fraction");
    refuses("{" T("a", "U8", "[18446744073709551616]", 0, 1) "}", 1, "64 bits");
    refuses("{\"a\":{\"dtype\":\"U8\",\"shape\":[1]}}", 1, "lacks");
    refuses("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"shape\":[1]}}", 1, "repeated");
    refuses("{\"a\\u0000b\":1}", 1, "NUL");
    refuses("{\"__metadata__\":{\"k\":1}}", 0, "'\"' is expected");
    refuses("{} {}", 0, "after the header");
}

static void truncated_and_oversized_files_are_refused(void **state)
{
    struct safetensors file = {0};
    struct error err = {0};
    assert_int_equal(safetensors_open(&file, "/nowhere/model.safetensors", &err), ERR_NOT_FOUND);
    assert_non_null(strstr(err.text, "/nowhere/model.safetensors"));
    put_file("{}", 1ull << 62, 0);
    assert_int_equal(safetensors_open(&file, path, &err), ERR_FORMAT);
    assert_non_null(strstr(err.text, "limit is 16777216"));
    put_file("{}", 4000, 0);
    assert_int_equal(safetensors_open(&file, path, &err), ERR_FORMAT);
    assert_non_null(strstr(err.text, "cut off"));
    FILE *f = fopen(path, "wb");
    fputs("abc", f);
    fclose(f);
    assert_int_equal(safetensors_open(&file, path, &err), ERR_FORMAT);
    assert_non_null(strstr(err.text, "too few"));
    assert_int_equal(safetensors_open(&file, folder, &err), ERR_FORMAT);
}

static void what_is_written_is_read_back(void **state)
{
    float a[6] = {1, 2, 3, 4, 5, 6};
    uint16_t alpha = 0x3c00;
    const struct safetensors_entry entries[] = {
        {.name = "lora.\"up\"",
         .dtype = DTYPE_F32,
         .rank = 2,
         .dim = {2, 3},
         .data = a,
         .bytes = 24},
        {.name = "alpha", .dtype = DTYPE_F16, .rank = 0, .data = &alpha, .bytes = 2},
        {.name = "empty", .dtype = DTYPE_U8, .rank = 1, .dim = {0}, .data = a, .bytes = 0},
    };
    const struct safetensors_meta meta[] = {{"ss_output_name", "p\xc3\xb6ts \"x\"\n"},
                                            {"ss_network_dim", "8"}};
    struct safetensors file = {0};
    struct error err = {0};
    assert_int_equal(safetensors_write(path, entries, 3, meta, 2, &err), 0);
    assert_int_equal(safetensors_open(&file, path, &err), 0);
    assert_int_equal(file.count, 3);
    const struct safetensors_entry *e = safetensors_find(&file, "lora.\"up\"");
    assert_non_null(e);
    assert_int_equal(e->dim[1], 3);
    assert_memory_equal(e->data, a, 24);
    assert_int_equal(safetensors_find(&file, "alpha")->rank, 0);
    assert_null(safetensors_find(&file, "beta"));
    assert_string_equal(safetensors_meta_find(&file, "ss_output_name"), "p\xc3\xb6ts \"x\"\n");
    assert_string_equal(file.meta[1].key, "ss_network_dim");
    assert_int_equal(((uintptr_t)file.map + file.map_bytes - 26) % 8,
                     ((uintptr_t)file.map) % 8); /* data starts at a multiple of 8 */
    safetensors_close(&file);
    assert_int_equal(safetensors_write("/nowhere/x.safetensors", entries, 3, meta, 2, &err),
                     ERR_IO);
}

static void many_tensors_stop_at_the_limit(void **state)
{
    struct buf b;
    struct error err = {0};
    struct safetensors file = {0};
    buf_init(&b, 1 << 24);
    buf_append(&b, "{", 1, &err);
    for (int i = 0; i < 20001; i++)
        buf_printf(&b, &err, "%s\"t%d\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}",
                   i ? "," : "", i);
    buf_append(&b, "}", 1, &err);
    assert_int_equal(safetensors_parse(&file, b.data, b.length, b.data, 0, &err), ERR_FORMAT);
    assert_non_null(strstr(err.text, "more than 20000 tensors"));
    buf_release(&b);
}

static int start(void **state)
{
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/a.safetensors", folder);
    return 0;
}

static int stop(void **state)
{
    unlink(path);
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(broken_headers_are_refused_by_name),
        cmocka_unit_test(truncated_and_oversized_files_are_refused),
        cmocka_unit_test(what_is_written_is_read_back),
        cmocka_unit_test(many_tensors_stop_at_the_limit),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
