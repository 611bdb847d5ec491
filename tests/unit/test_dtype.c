/* kernels/dtype: every code of the narrow types, rounding, bulk conversion. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "kernels/dtype.h"

static void names_and_sizes(void **state)
{
    for (int i = 0; i < DTYPE_COUNT; i++) {
        enum dtype found = DTYPE_COUNT;
        assert_true(dtype_find(dtype_name((enum dtype)i), &found));
        assert_int_equal(found, i);
        assert_true(dtype_bytes(found) >= 1 && dtype_bytes(found) <= 8);
    }
    enum dtype untouched = DTYPE_I8;
    assert_false(dtype_find("f32", &untouched));
    assert_false(dtype_find("", &untouched));
    assert_int_equal(untouched, DTYPE_I8);
}

/* The value of a small float from its definition: sign, exponent, mantissa. */
static double defined(unsigned code, int exponent_bits, int mantissa_bits)
{
    int bias = (1 << (exponent_bits - 1)) - 1;
    unsigned mantissa = code & ((1u << mantissa_bits) - 1);
    int exponent = (int)(code >> mantissa_bits & ((1u << exponent_bits) - 1));
    double unit = ldexp(1, -mantissa_bits);
    double value =
        exponent ? ldexp(1 + mantissa * unit, exponent - bias) : ldexp(mantissa * unit, 1 - bias);
    return code >> (mantissa_bits + exponent_bits) & 1 ? -value : value;
}

static void every_half_widens_and_returns(void **state)
{
    for (unsigned code = 0; code < 65536; code++) {
        float wide = f16_to_f32((uint16_t)code);
        unsigned exponent = code >> 10 & 31, mantissa = code & 1023;
        if (exponent == 31 && mantissa) {
            assert_true(isnan(wide));
            assert_true((f32_to_f16(wide) & 0x7c00) == 0x7c00 && f32_to_f16(wide) & 0x3ff);
            continue;
        }
        if (exponent == 31)
            assert_true(wide == (code >> 15 ? -INFINITY : INFINITY));
        else
            assert_true(wide == (float)defined(code, 5, 10));
        assert_int_equal(signbit(wide) != 0, code >> 15);
        assert_int_equal(f32_to_f16(wide), code);
    }
}

/* Between two neighbours: below the middle down, above it up, on it to the even code. */
static void halves_round_to_even(void **state)
{
    for (unsigned code = 0; code < 0x7c00; code++) {
        float low = f16_to_f32((uint16_t)code);
        float high = code == 0x7bff ? 65536.0f : f16_to_f32((uint16_t)(code + 1));
        float middle = (low + high) / 2;
        unsigned even = code & 1 ? code + 1 : code;
        assert_int_equal(f32_to_f16(middle), even);
        assert_int_equal(f32_to_f16(-middle), even | 0x8000);
        assert_int_equal(f32_to_f16(nextafterf(middle, 0)), code);
        assert_int_equal(f32_to_f16(nextafterf(middle, INFINITY)), code + 1);
    }
    assert_int_equal(f32_to_f16(1e30f), 0x7c00);
    assert_int_equal(f32_to_f16(-INFINITY), 0xfc00);
    assert_int_equal(f32_to_f16(1e-30f), 0);
    assert_int_equal(f32_to_f16(-0.0f), 0x8000);
}

static void bfloats_round_to_even(void **state)
{
    for (unsigned code = 0; code < 0x7f80; code++) {
        float low = bf16_to_f32((uint16_t)code), next = bf16_to_f32((uint16_t)(code + 1));
        uint32_t bits = code << 16 | 0x8000;
        float middle;
        memcpy(&middle, &bits, 4);
        assert_int_equal(f32_to_bf16(low), code);
        assert_int_equal(f32_to_bf16(middle), code & 1 ? code + 1 : code);
        assert_int_equal(f32_to_bf16(nextafterf(middle, low)), code);
        assert_int_equal(f32_to_bf16(nextafterf(middle, next)), code + 1);
    }
    assert_int_equal(f32_to_bf16(INFINITY), 0x7f80);
    assert_true(isnan(bf16_to_f32(f32_to_bf16(NAN))));
    uint32_t quiet_bits = 0x7f800001; /* a NaN whose upper half alone would be infinity */
    float hidden;
    memcpy(&hidden, &quiet_bits, 4);
    assert_true(isnan(bf16_to_f32(f32_to_bf16(hidden))));
}

static void every_code_of_the_eight_bit_floats(void **state)
{
    for (unsigned code = 0; code < 256; code++) {
        float e4m3 = f8_e4m3_to_f32((uint8_t)code), e5m2 = f8_e5m2_to_f32((uint8_t)code);
        uint8_t back;
        if ((code & 0x7f) == 0x7f)
            assert_true(isnan(e4m3)); /* no infinity, one NaN */
        else
            assert_true(e4m3 == (float)defined(code, 4, 3));
        if ((code & 0x7f) > 0x7c)
            assert_true(isnan(e5m2));
        else if ((code & 0x7f) == 0x7c)
            assert_true(isinf(e5m2));
        else
            assert_true(e5m2 == (float)defined(code, 5, 2));
        dtype_set(&back, DTYPE_F8_E4M3, 0, e4m3);
        assert_int_equal(back, code);
        if (!isnan(e5m2)) {
            dtype_set(&back, DTYPE_F8_E5M2, 0, e5m2);
            assert_int_equal(back, code);
        }
    }
    assert_true(f8_e4m3_to_f32(0x7e) == 448.0f);
    assert_true(f8_e5m2_to_f32(0x7b) == 57344.0f);
    assert_true(f8_e4m3_to_f32(0x01) == 0x1p-9f);
    const struct {
        enum dtype dtype;
        double value;
        unsigned code;
    } rounded[] = {
        {DTYPE_F8_E4M3, 1.0625, 0x38},    {DTYPE_F8_E4M3, 1.07, 0x39},
        {DTYPE_F8_E4M3, 1.1875, 0x3a},    {DTYPE_F8_E4M3, 463.9, 0x7e},
        {DTYPE_F8_E4M3, 464, 0x7f},       {DTYPE_F8_E4M3, -1e9, 0xff},
        {DTYPE_F8_E4M3, 0x1p-10, 0x00},   {DTYPE_F8_E4M3, 0.0015, 0x01},
        {DTYPE_F8_E5M2, 1.125, 0x3c},     {DTYPE_F8_E5M2, 1.375, 0x3e},
        {DTYPE_F8_E5M2, 61439, 0x7b},     {DTYPE_F8_E5M2, 61440, 0x7c},
        {DTYPE_F8_E5M2, -INFINITY, 0xfc},
    };
    for (size_t i = 0; i < COUNT_OF(rounded); i++) {
        uint8_t code;
        dtype_set(&code, rounded[i].dtype, 0, rounded[i].value);
        assert_int_equal(code, rounded[i].code);
    }
}

static void integers_round_and_stop_at_their_ends(void **state)
{
    const struct {
        enum dtype dtype;
        double value, stored;
    } cases[] = {
        {DTYPE_I8, 127.4, 127},
        {DTYPE_I8, 300, 127},
        {DTYPE_I8, -300, -128},
        {DTYPE_U8, -1, 0},
        {DTYPE_U8, 2.5, 2},
        {DTYPE_U8, 3.5, 4},
        {DTYPE_I16, 1e9, 32767},
        {DTYPE_U16, 65535, 65535},
        {DTYPE_I32, -0x1p40, -0x1p31},
        {DTYPE_U32, 0x1p32, 4294967295.0},
        {DTYPE_I64, -0x1p70, -0x1p63},
        {DTYPE_U64, -5, 0},
        {DTYPE_I32, NAN, 0},
        {DTYPE_BOOL, 0.5, 1},
        {DTYPE_BOOL, 0, 0},
        {DTYPE_I64, 4503599627370497.0, 4503599627370497.0},
        {DTYPE_F64, 0.1, 0.1},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        uint8_t room[8];
        dtype_set(room, cases[i].dtype, 0, cases[i].value);
        if (dtype_get(room, cases[i].dtype, 0) == cases[i].stored) continue;
        fail_msg("case %d: %s %g became %g", (int)i, dtype_name(cases[i].dtype), cases[i].value,
                 dtype_get(room, cases[i].dtype, 0));
    }
    uint8_t room[8];
    dtype_set(room, DTYPE_I64, 0, 0x1p63);
    assert_true(dtype_get(room, DTYPE_I64, 0) > 0);
}

/* Bulk and element by element agree on every pair of types, unaligned and at odd lengths. */
static void bulk_agrees_with_elements(void **state)
{
    enum { COUNT = 1037 };
    static uint8_t from[COUNT * 8 + 1], bulk[COUNT * 8 + 1], single[COUNT * 8 + 1];
    for (int f = 0; f < DTYPE_COUNT; f++) {
        for (int64_t i = 0; i < COUNT; i++) {
            dtype_set(from + 1, (enum dtype)f, i,
                      sin((double)i) * pow(1.02, (double)(i % 600)) - 3);
        }
        for (int t = 0; t < DTYPE_COUNT; t++) {
            memset(bulk, 0, sizeof(bulk));
            memset(single, 0, sizeof(single));
            dtype_convert(bulk + 1, (enum dtype)t, from + 1, (enum dtype)f, COUNT);
            for (int64_t i = 0; i < COUNT; i++) {
                dtype_set(single + 1, (enum dtype)t, i, dtype_get(from + 1, (enum dtype)f, i));
            }
            if (memcmp(bulk, single, sizeof(bulk)) == 0) continue;
            fail_msg("%s to %s", dtype_name((enum dtype)f), dtype_name((enum dtype)t));
        }
    }
    dtype_convert(NULL, DTYPE_F32, NULL, DTYPE_F16, 0);
    dtype_convert(NULL, DTYPE_F32, NULL, DTYPE_F32, 0);
}

static void bulk_halves_are_exact(void **state)
{
    static uint16_t codes[65536], back[65536];
    static float wide[65536];
    for (int i = 0; i < 65536; i++) codes[i] = (uint16_t)i;
    dtype_convert(wide, DTYPE_F32, codes, DTYPE_F16, 65536);
    dtype_convert(back, DTYPE_F16, wide, DTYPE_F32, 65536);
    for (int i = 0; i < 65536; i++) {
        bool is_nan = (i & 0x7c00) == 0x7c00 && (i & 0x3ff);
        if (is_nan)
            assert_true(isnan(wide[i]) && (back[i] & 0x7e00) == 0x7e00);
        else
            assert_true(wide[i] == f16_to_f32((uint16_t)i) && back[i] == i);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_and_sizes),
        cmocka_unit_test(every_half_widens_and_returns),
        cmocka_unit_test(halves_round_to_even),
        cmocka_unit_test(bfloats_round_to_even),
        cmocka_unit_test(every_code_of_the_eight_bit_floats),
        cmocka_unit_test(integers_round_and_stop_at_their_ends),
        cmocka_unit_test(bulk_agrees_with_elements),
        cmocka_unit_test(bulk_halves_are_exact),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
