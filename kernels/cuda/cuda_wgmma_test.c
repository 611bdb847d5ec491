/* Whether this card, driver and build have the wgmma kernels, and whether they compute what they should.
 * What is wrong here turns the tier off; the mma.sync kernels do all without it. */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/selftest_wgmma.h"

static int number(int row, int k)
{
    return row >= 0 && row < SELFTEST_ROWS && k < SELFTEST_C ? (row * 3 + k * 5) % 7 - 3 : 0;
}

void selftest_wgmma_input(uint16_t *input, int dtype)
{
    for (int row = 0; row < SELFTEST_ROWS; row++)
        for (int k = 0; k < SELFTEST_C; k++)
            input[row * SELFTEST_C + k] = dtype == DTYPE_F16 ? f32_to_f16((float)number(row, k))
                                                             : f32_to_bf16((float)number(row, k));
}

int selftest_wgmma_maps(struct selftest_wgmma_params *p, const void *input)
{
    const int64_t row = 2 * SELFTEST_C;
    const struct tensor_tiles tiles = {.base = input,
                                       .dim = {SELFTEST_C, SELFTEST_ROWS, 1, 1},
                                       .pitch = {row, row, row},
                                       .box = {64, 1, 1}};
    struct tensor_pixels pixels = {.base = input,
                                   .c = SELFTEST_C,
                                   .w = SELFTEST_W,
                                   .h = SELFTEST_H,
                                   .n = 2,
                                   .pixel_pitch = row,
                                   .line_pitch = row * SELFTEST_W,
                                   .image_pitch = row * SELFTEST_W * SELFTEST_H,
                                   .from_y = -1,
                                   .from_x = -1,
                                   .rows = SELFTEST_H,
                                   .columns = SELFTEST_W,
                                   .step = 1,
                                   .pixels = 64};
    int code = tensor_map_tiles(&p->rows, &tiles);
    if (!code) code = tensor_map_pixels(&p->pixels, &pixels);
    pixels.rows = pixels.columns = 3;
    pixels.step = 2;
    return code ? code : tensor_map_pixels(&p->steps, &pixels);
}

/* The input's row that box row `row` takes of a walk over `high` x `wide` pixels; -1: zeros. */
static int walk(int row, int high, int wide, int step, int right, int down)
{
    int image = row / (high * wide);
    int y = row / wide % high * step - 1 + down, x = row % wide * step - 1 + right;
    if (image > 1 || y < 0 || y >= SELFTEST_H || x < 0 || x >= SELFTEST_W) return -1;
    return (image * SELFTEST_H + y) * SELFTEST_W + x;
}

static bool is_float(uint32_t bits, int value)
{
    float f;
    memcpy(&f, &bits, 4);
    return f == (float)value;
}

static const char *check_products(const uint32_t *output)
{
    for (int i = 0; i < 64; i++) {
        for (int j = 0; j < 64; j++) {
            int sum = 0;
            for (int k = 0; k < SELFTEST_C; k++) sum += number(i, k) * number(j, k);
            if (!is_float(output[SELFTEST_PRODUCT + 64 * i + j], sum))
                return "cp.async.bulk.tensor or wgmma";
        }
        for (int j = 0; j < 128; j++) {
            int sum = 0;
            for (int k = 0; k < 16; k++) {
                int row = j < 64 ? 16 + k : walk(16 + k, SELFTEST_H, SELFTEST_W, 1, 2, 1);
                sum += ((i + k) % 5 - 2) * number(row, j % 64);
            }
            if (!is_float(output[SELFTEST_COLUMNS + 128 * i + j], sum))
                return j < 64 ? "wgmma with A in registers and B by columns"
                              : "cp.async.bulk.tensor of pixels, or the second panel of B";
        }
    }
    return NULL;
}

const char *selftest_wgmma_check(const uint32_t *output, int dtype)
{
    if (output[SELFTEST_BUILT] != 1) return "";
    const char *wrong = check_products(output);
    for (int row = 0; row < 64 && !wrong; row++) {
        for (int c = 0; c < 64; c++) {
            uint32_t word = output[SELFTEST_STEPS + 32 * row + c / 2] >> c % 2 * 16;
            float value =
                dtype == DTYPE_F16 ? f16_to_f32((uint16_t)word) : bf16_to_f32((uint16_t)word);
            if (value != (float)number(walk(row, 3, 3, 2, 0, 1), c))
                return "cp.async.bulk.tensor of every other pixel";
        }
    }
    return wrong;
}

static int run(struct device *d, enum dtype dtype, const char **wrong, struct error *err)
{
    struct cuda_state *s = cuda_state(d);
    struct selftest_wgmma_params p;
    uint16_t input[SELFTEST_ROWS * SELFTEST_C];
    static const size_t input_bytes = (sizeof input + 255) / 256 * 256;
    uint32_t *output = calloc(SELFTEST_WGMMA_WORDS, sizeof *output);
    void *memory;
    if (!output) return error_set(err, ERR_NO_MEMORY, "selftest: no memory");
    int rc = cuda_scratch(d, &memory, input_bytes + SELFTEST_WGMMA_WORDS * sizeof *output, err);
    selftest_wgmma_input(input, dtype);
    if (!rc) {
        p.output = (uint32_t *)((char *)memory + input_bytes);
        rc = cuda_upload(d, memory, input, sizeof input, err);
    }
    if (!rc) rc = runtime_check(runtime_clear(&s->runtime, p.output, 4), "selftest", err);
    if (!rc) rc = runtime_check(selftest_wgmma_maps(&p, memory), "tensor maps", err);
    if (!rc) rc = runtime_check(selftest_wgmma_run(&p, dtype, s->runtime.stream), "selftest", err);
    if (!rc)
        rc = d->kernels->download(d, output, p.output, SELFTEST_WGMMA_WORDS * sizeof *output, err);
    if (!rc) *wrong = selftest_wgmma_check(output, dtype);
    free(output);
    return rc;
}

int cuda_wgmma_open(struct device *d, struct error *err)
{
    static const enum dtype dtypes[] = {DTYPE_F16, DTYPE_BF16};
    struct cuda_state *s = cuda_state(d);
    const char *asked = getenv("KILN_CUDA_WGMMA");
    s->wgmma = false;
    if (s->runtime.capability != 90 || (asked && strcmp(asked, "0") == 0) || !tensor_map_ready())
        return 0;
    for (int i = 0; i < 2; i++) {
        const char *wrong = NULL;
        int rc = run(d, dtypes[i], &wrong, err);
        if (rc) return rc;
        if (wrong) {
            if (*wrong)
                log_warn("cuda.wgmma",
                         "reason=\"%s computes another result than it should\" "
                         "text=\"the mma.sync kernels do it all\"",
                         wrong);
            else
                log_info("cuda.wgmma", "built=0");
            return 0;
        }
    }
    s->wgmma = true;
    return 0;
}
