#include <math.h>
#include <string.h>

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/selftest.h"

/* small integers: A[16][16] then B[8][16], rows of the right matrix's columns */
static int number(int row, int k)
{
    if (row == 15 && k >= 8) return 0; /* the chunk that copy_async fills with zeros */
    return (row * 3 + k * 5) % 7 - 3;
}

static int raw_number(int row, int k)
{
    return (row * 3 + k * 5) % 7 - 3;
}

static uint32_t encode(double value, enum dtype dtype)
{
    return dtype == DTYPE_F16 ? f32_to_f16((float)value) : f32_to_bf16((float)value);
}

static uint32_t pair(double lo, double hi, enum dtype dtype)
{
    return encode(lo, dtype) | encode(hi, dtype) << 16;
}

void selftest_input(uint32_t *input, int dtype)
{
    for (int row = 0; row < 24; row++)
        for (int i = 0; i < 8; i++)
            input[row * 8 + i] =
                pair(raw_number(row, 2 * i), raw_number(row, 2 * i + 1), (enum dtype)dtype);
}

static double product(int i, int j, int width)
{
    double sum = 0;
    for (int k = 0; k < width; k++) sum += number(i, k) * number(16 + j, k);
    return sum;
}

static bool is_float(uint32_t bits, double value)
{
    float f;
    memcpy(&f, &bits, 4);
    return fabs((double)f - value) <= 1e-6 * fabs(value);
}

static const char *lane_check(const uint32_t *w, int lane, enum dtype t)
{
    int g = lane / 4, e = lane % 4 * 2;
    for (int m = 0; m < 4; m++) {
        int row = m % 2 * 8, k = m / 2 * 8; /* x4: rows 0-7, 8-15 of k 0-7, then of k 8-15 */
        if (w[m] != pair(number(row + g, k + e), number(row + g, k + e + 1), t))
            return "ldmatrix or cp.async";
        if (w[4 + m] != pair(number(row + e, k + g), number(row + e + 1, k + g), t))
            return "ldmatrix.trans";
    }
    for (int m = 0; m < 2; m++) {
        int k = 8 * m;
        if (w[8 + m] != pair(number(16 + g, k + e), number(16 + g, k + e + 1), t))
            return "ldmatrix x2";
        if (w[10 + m] != pair(number(16 + e, k + g), number(17 + e, k + g), t))
            return "ldmatrix x2.trans";
    }
    for (int i = 0; i < 4; i++) {
        int row = g + i / 2 * 8, column = e + i % 2;
        if (!is_float(w[12 + i], product(row, column, 16) + 1 + i)) return "mma m16n8k16";
        if (!is_float(w[16 + i], product(row, column, 8))) return "mma m16n8k8";
    }
    for (int i = 0; i < 2 && t == DTYPE_F16; i++) {
        int row = g + 8 * i;
        if (w[20 + i] != pair(product(row, e, 16), product(row, e + 1, 16), t))
            return "mma with fp16 accumulation";
    }
    if (!is_float(w[22], lane ^ 5) || !is_float(w[23], 7)) return "shuffle";
    if (!is_float(w[24], ldexp(1, lane - 16))) return "ex2";
    if (w[25] != pair(lane, -0.5, t)) return "packing";
    if (!is_float(w[26], 1.5) || !is_float(w[27], -lane)) return "unpacking";
    return NULL;
}

const char *selftest_check(const uint32_t *output, int dtype)
{
    for (int lane = 0; lane < 32; lane++) {
        const char *wrong =
            lane_check(output + lane * SELFTEST_LANE_WORDS, lane, (enum dtype)dtype);
        if (wrong) return wrong;
    }
    return NULL;
}

int cuda_selftest(struct device *d, struct error *err)
{
    struct cuda_state *s = cuda_state(d);
    static const enum dtype dtypes[] = {DTYPE_F16, DTYPE_BF16};
    uint32_t input[SELFTEST_INPUT_WORDS], output[SELFTEST_WORDS] = {0};
    for (int i = 0; i < 2; i++) {
        if (dtypes[i] == DTYPE_BF16 && s->runtime.capability < 80) continue;
        void *memory;
        int rc = cuda_scratch(d, &memory, sizeof input + sizeof output, err);
        uint32_t *to = rc ? NULL : (uint32_t *)memory + SELFTEST_INPUT_WORDS;
        selftest_input(input, dtypes[i]);
        if (!rc) rc = cuda_upload(d, memory, input, sizeof input, err);
        if (!rc)
            rc = runtime_check(selftest_run(memory, to, dtypes[i], s->runtime.stream), "selftest",
                               err);
        if (!rc) rc = d->kernels->download(d, output, to, sizeof output, err);
        if (rc) return rc;
        const char *wrong = selftest_check(output, dtypes[i]);
        if (wrong)
            return error_set(err, ERR_DEVICE,
                             "device %s: %s computes another result than it should (%s)", d->name,
                             d->label, wrong);
    }
    return cuda_wgmma_open(d, err);
}
