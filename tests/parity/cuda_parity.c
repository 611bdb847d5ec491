#include "tests/parity/cuda_parity.h"

#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/emulator/emulator.h"
#include "kernels/plain/plain.h"

static char label[256];
static struct {
    struct kernel_weight w;
    struct device *device;
    const struct kernels *kernels;
} weights[64];
static int weight_count;
static double worst_ratio;
static char worst_label[300];
static int compared;

static uint64_t draw(struct cuda_parity *p)
{
    uint64_t z = p->random += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static double normal(struct cuda_parity *p)
{
    double u = ((double)(draw(p) >> 11) + 1) / 9007199254740993.0, v = (double)(draw(p) >> 11);
    return sqrt(-2 * log(u)) * cos(2 * 3.14159265358979323846 * v / 9007199254740992.0);
}

void cuda_parity_open(struct cuda_parity *p)
{
    struct error err = {0};
    *p = (struct cuda_parity){.random = 1};
    const char *seed = getenv("KILN_TEST_SEED");
    if (seed) p->random = strtoull(seed, NULL, 10);
    print_message("seed %llu\n", (unsigned long long)p->random);
    void *library = dlopen(PARITY_REFERENCE, RTLD_NOW | RTLD_LOCAL);
    if (!library) fail_msg("%s", dlerror());
    int (*open_truth)(struct device **, struct error *);
    *(void **)&open_truth = dlsym(library, "plain_device_open");
    assert_non_null(open_truth);
    assert_int_equal(open_truth(&p->device[SIDE_TRUTH], &err), 0);
    assert_int_equal(p->device[SIDE_TRUTH]->default_dtype, DTYPE_F64);
    assert_int_equal(plain_device_open(&p->device[SIDE_PLAIN], &err), 0);
    int rc = cuda_device_open(&p->device[SIDE_CUDA], NULL, &err);
    if (rc) fail_msg("%s", err.text);
    for (int side = 0; side < SIDE_COUNT; side++) p->kernels[side] = p->device[side]->kernels;
}

static void free_case(struct cuda_parity *p)
{
    for (int i = 0; i < weight_count; i++)
        weights[i].kernels->unpack(weights[i].device, &weights[i].w);
    weight_count = 0;
    for (int i = 0; i < p->operand_count; i++) {
        struct operand *o = p->operands[i];
        free(o->data[SIDE_TRUTH]);
        free(o->data[SIDE_PLAIN]);
        p->kernels[SIDE_CUDA]->free(p->device[SIDE_CUDA], o->data[SIDE_CUDA]);
        free(o);
    }
    p->operand_count = 0;
}

void cuda_parity_close(struct cuda_parity *p)
{
    free_case(p);
    for (int side = 0; side < SIDE_COUNT; side++) device_close(p->device[side]);
}

void cuda_parity_case(struct cuda_parity *p, const char *format, ...)
{
    va_list args;
    free_case(p);
    va_start(args, format);
    vsnprintf(label, sizeof label, format, args);
    va_end(args);
    p->label = label;
}

static struct operand *operand_new(struct cuda_parity *p, enum dtype dtype, int64_t count)
{
    struct error err;
    struct operand *o = alloc_zero(1, sizeof *o);
    assert_true(p->operand_count < 256);
    p->operands[p->operand_count++] = o;
    o->dtype = dtype;
    o->count = count;
    size_t n = (size_t)count;
    o->data[SIDE_TRUTH] = alloc_zero(n, sizeof(double));
    o->data[SIDE_PLAIN] = alloc_zero(n, dtype_bytes(dtype));
    assert_int_equal(p->kernels[SIDE_CUDA]->alloc(p->device[SIDE_CUDA], &o->data[SIDE_CUDA],
                                                  n * dtype_bytes(dtype), &err),
                     0);
    return o;
}

struct operand *cuda_parity_values(struct cuda_parity *p, enum dtype dtype, int64_t count,
                                   const double *value)
{
    struct error err;
    struct operand *o = operand_new(p, dtype, count);
    dtype_convert(o->data[SIDE_PLAIN], dtype, value, DTYPE_F64, count);
    dtype_convert(o->data[SIDE_TRUTH], DTYPE_F64, o->data[SIDE_PLAIN], dtype, count);
    assert_int_equal(p->kernels[SIDE_CUDA]->upload(p->device[SIDE_CUDA], o->data[SIDE_CUDA],
                                                   o->data[SIDE_PLAIN],
                                                   (size_t)count * dtype_bytes(dtype), &err),
                     0);
    return o;
}

struct operand *cuda_parity_random(struct cuda_parity *p, enum dtype dtype, int64_t count,
                                   double scale)
{
    double *value = alloc_zero((size_t)count, sizeof *value);
    for (int64_t i = 0; i < count; i++) value[i] = scale * normal(p);
    struct operand *o = cuda_parity_values(p, dtype, count, value);
    free(value);
    return o;
}

struct operand *cuda_parity_constant(struct cuda_parity *p, enum dtype dtype, int64_t count,
                                     double constant)
{
    double *value = alloc_zero((size_t)count, sizeof *value);
    for (int64_t i = 0; i < count; i++) value[i] = constant;
    struct operand *o = cuda_parity_values(p, dtype, count, value);
    free(value);
    return o;
}

struct operand *cuda_parity_result(struct cuda_parity *p, enum dtype dtype, int64_t count)
{
    return operand_new(p, dtype, count);
}

enum dtype cuda_parity_dtype(const struct operand *o, enum side side)
{
    return side == SIDE_TRUTH ? DTYPE_F64 : o ? o->dtype : DTYPE_F32;
}

struct kernel_weight *cuda_parity_weight(struct cuda_parity *p, struct operand *o, enum side side,
                                         int rank, const int64_t *dim)
{
    assert_true(weight_count < 64);
    struct kernel_weight *w = &weights[weight_count].w;
    *w = (struct kernel_weight){.dtype = cuda_parity_dtype(o, side), .rank = rank};
    /* the CUDA side gets host memory, as a mapped checkpoint is */
    w->data = o->data[side == SIDE_CUDA ? SIDE_PLAIN : side];
    for (int i = 0; i < rank; i++) w->dim[i] = dim[i];
    weights[weight_count].device = p->device[side];
    weights[weight_count++].kernels = p->kernels[side];
    return w;
}

struct measure {
    double rms, most;
};

static struct measure measure_errors(const struct operand *o, const void *values)
{
    struct measure m = {0, 0};
    double sum = 0;
    for (int64_t i = 0; i < o->count; i++) {
        double off =
            fabs(dtype_get(values, o->dtype, i) - ((const double *)o->data[SIDE_TRUTH])[i]);
        sum += off * off;
        if (!(off <= m.most)) m.most = off; /* keeps NaN */
    }
    m.rms = sqrt(sum / (double)o->count);
    return m;
}

void cuda_parity_finish(struct cuda_parity *p)
{
    struct error err = {0};
    if (p->kernels[SIDE_CUDA]->finish(p->device[SIDE_CUDA], &err))
        fail_msg("%s: %s", p->label, err.text);
    assert_null(emulator_failure());
}

static void *download(struct cuda_parity *p, const struct operand *o)
{
    struct error err = {0};
    size_t bytes = (size_t)o->count * dtype_bytes(o->dtype);
    void *values = alloc_zero(bytes, 1);
    int rc = p->kernels[SIDE_CUDA]->download(p->device[SIDE_CUDA], values, o->data[SIDE_CUDA],
                                             bytes, &err);
    if (rc) fail_msg("%s: %s", p->label, err.text);
    return values;
}

void cuda_parity_compare_absolute(struct cuda_parity *p, const struct operand *o, const char *what,
                                  double limit)
{
    void *values = download(p, o);
    struct measure cuda = measure_errors(o, values);
    free(values);
    compared++;
    if (!(cuda.most <= limit))
        fail_msg("%s: %s is off by %.3g, limit %.3g", p->label, what, cuda.most, limit);
}

void cuda_parity_compare_relative(struct cuda_parity *p, const struct operand *o, const char *what,
                                  double limit)
{
    void *values = download(p, o);
    double squares = 0;
    for (int64_t i = 0; i < o->count; i++) {
        double v = ((const double *)o->data[SIDE_TRUTH])[i];
        squares += v * v;
    }
    double share = measure_errors(o, values).rms / sqrt(squares / (double)o->count);
    free(values);
    compared++;
    if (!(share <= limit))
        fail_msg("%s: %s is off by %.3g of its norm, limit %.3g", p->label, what, share, limit);
}

void cuda_parity_compare(struct cuda_parity *p, const struct operand *o, const char *what)
{
    void *values = download(p, o);
    double largest = 0;
    for (int64_t i = 0; i < o->count; i++)
        largest = fmax(largest, fabs(((const double *)o->data[SIDE_TRUTH])[i]));
    double unit = largest * (o->dtype == DTYPE_F16    ? 0x1p-11
                             : o->dtype == DTYPE_BF16 ? 0x1p-8
                                                      : 0x1p-23);
    struct measure plain = measure_errors(o, o->data[SIDE_PLAIN]);
    struct measure cuda = measure_errors(o, values);
    free(values);
    /* plain loops keep statistics in double: in F32 their error can be a lucky fraction of the last
     * place (layer norm of 8 numbers: 0.10 of it, the kernel 0.33) */
    double rms_floor = unit / (o->dtype == DTYPE_F32 ? 4 : 16);
    double rms_limit = 2 * fmax(plain.rms, rms_floor), most_limit = 4 * fmax(plain.most, unit / 4);
    compared++;
    double ratio = 2 * cuda.rms / rms_limit;
    if (ratio > worst_ratio) {
        worst_ratio = ratio;
        snprintf(worst_label, sizeof worst_label, "%s, %s", p->label, what);
    }
    if (!(cuda.rms <= rms_limit) || !(cuda.most <= most_limit))
        fail_msg(
            "%s: %s is off by rms %.3g, most %.3g; plain loops by %.3g, %.3g (largest value %.3g)",
            p->label, what, cuda.rms, cuda.most, plain.rms, plain.most, largest);
}

void cuda_parity_summary(void)
{
    print_message("%d results compared, largest error %.2f times that of plain loops (%s)\n",
                  compared, worst_ratio, worst_label);
}

static struct cuda_parity *shared;

static int open_all(void **state)
{
    cuda_parity_open(shared);
    return 0;
}

static int close_all(void **state)
{
    cuda_parity_summary();
    cuda_parity_close(shared);
    return 0;
}

int cuda_parity_main_on(const struct emulator_options *runs, size_t run_count, const char *name,
                        const struct CMUnitTest *tests, size_t count, struct cuda_parity *p)
{
    int failed = 0;
    shared = p;
    for (size_t i = 0; i < run_count; i++) {
        print_message("sm_%d, order seed %llu\n", runs[i].target, (unsigned long long)runs[i].seed);
        emulator_set(&runs[i]);
        failed += _cmocka_run_group_tests(name, tests, count, open_all, close_all);
    }
    return failed;
}

int cuda_parity_main(const char *name, const struct CMUnitTest *tests, size_t count,
                     struct cuda_parity *p)
{
    static const struct emulator_options runs[] = {
        {.target = 80, .seed = 0, .check_races = true, .check_global = true},
        {.target = 86, .seed = 11, .check_races = true, .check_global = true},
        {.target = 120, .seed = 12, .check_races = true, .check_global = true},
        {.target = 75, .seed = 0, .check_races = true, .check_global = true},
    };
    return cuda_parity_main_on(runs, COUNT_OF(runs), name, tests, count, p);
}
