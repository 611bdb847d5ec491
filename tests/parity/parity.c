#include "tests/parity/parity.h"

#include <dlfcn.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"

static uint64_t state;

void parity_seed(uint64_t seed)
{
    state = seed;
    print_message("seed %llu\n", (unsigned long long)seed);
}

/* splitmix64 */
static uint64_t next(void)
{
    uint64_t z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

double parity_uniform(void)
{
    return (double)(next() >> 11) * 0x1p-53;
}

int64_t parity_between(int64_t low, int64_t high)
{
    return low + (int64_t)(next() % (uint64_t)(high - low + 1));
}

static double normal(void)
{
    return sqrt(-2 * log(1 - parity_uniform())) * cos(6.283185307179586 * parity_uniform());
}

const struct kernels *parity_reference(void)
{
    static const struct kernels *reference;
    if (reference) return reference;
    void *library = dlopen(PARITY_REFERENCE, RTLD_NOW | RTLD_LOCAL);
    if (!library) fail_msg("%s", dlerror());
    reference = dlsym(library, "plain_kernels");
    assert_non_null(reference);
    return reference;
}

int parity_operand(struct parity_case *c, enum operand_kind kind, bool output, int64_t count,
                   double scale)
{
    assert_true(c->operands < OPERANDS_MAX);
    struct operand *o = &c->operand[c->operands];
    *o = (struct operand){.kind = kind, .output = output, .count = count};
    o->value = alloc_zero((size_t)count, sizeof(double));
    for (int64_t i = 0; i < count; i++) o->value[i] = normal() * scale;
    return c->operands++;
}

void parity_case_release(struct parity_case *c)
{
    for (int i = 0; i < c->operands; i++) free(c->operand[i].value);
    memset(c, 0, sizeof *c);
}

static enum dtype dtype_of(const struct operand *o, enum dtype dtype, enum dtype real,
                           enum dtype stored)
{
    if (o->kind == OPERAND_WEIGHT) return stored;
    return o->kind == OPERAND_ACTIVATION ? dtype : real;
}

/* Runs the case; results[i] of output operands are new arrays of double. */
static void run_case(struct parity_case *c, const struct kernels *k, struct device *d,
                     enum dtype dtype, enum dtype real, enum dtype stored,
                     double *results[OPERANDS_MAX])
{
    struct parity_run run = {.k = k, .d = d, .dtype = dtype, .real = real};
    for (int i = 0; i < c->operands; i++) {
        struct operand *o = &c->operand[i];
        enum dtype t = dtype_of(o, dtype, real, stored);
        /* an odd start for half types, and a guard behind the end */
        size_t bytes = (size_t)o->count * dtype_bytes(t);
        o->data = alloc_zero(1, bytes + 64);
        memset((char *)o->data + bytes, 0x5a, 64);
        for (int64_t j = 0; j < o->count; j++) dtype_set(o->data, t, j, o->value[j]);
        run.data[i] = o->data;
        if (o->kind == OPERAND_WEIGHT) {
            run.weight = (struct kernel_weight){.data = o->data, .dtype = t, .rank = c->rank};
            memcpy(run.weight.dim, c->dim, sizeof c->dim);
        }
    }
    struct error err = {0};
    int rc = c->run(&run, c->args, &err);
    if (rc) fail_msg("%s: %s", c->name, err.text);
    for (int i = 0; i < c->operands; i++) {
        struct operand *o = &c->operand[i];
        enum dtype t = dtype_of(o, dtype, real, stored);
        const unsigned char *guard = (unsigned char *)o->data + (size_t)o->count * dtype_bytes(t);
        for (int j = 0; j < 64; j++)
            if (guard[j] != 0x5a) fail_msg("%s: operand %d was written past its end", c->name, i);
        if (o->output) {
            results[i] = alloc_zero((size_t)o->count, sizeof(double));
            for (int64_t j = 0; j < o->count; j++) results[i][j] = dtype_get(o->data, t, j);
        }
    }
    if (d && run.weight.data) k->unpack(d, &run.weight);
    for (int i = 0; i < c->operands; i++) free(c->operand[i].data);
}

struct distance {
    double rms, worst, size;
};

static struct distance distance_of(const double *a, const double *reference, int64_t count)
{
    struct distance far = {0};
    for (int64_t i = 0; i < count; i++) {
        double off = fabs(a[i] - reference[i]);
        if (!(off <= far.worst)) far.worst = off; /* keeps NaN */
        far.rms += off * off;
        far.size += reference[i] * reference[i];
    }
    far.rms = sqrt(far.rms / (double)count);
    far.size = sqrt(far.size / (double)count);
    return far;
}

void parity_check(struct parity_case *c, struct device *device, enum dtype dtype)
{
    parity_check_stored(c, device, dtype, DTYPE_F32);
}

void parity_check_stored(struct parity_case *c, struct device *device, enum dtype dtype,
                         enum dtype stored)
{
    /* all three see the same numbers: those that the storage dtype can hold */
    for (int i = 0; i < c->operands; i++)
        for (int64_t j = 0; j < c->operand[i].count; j++) {
            double *value = &c->operand[i].value[j];
            unsigned char room[8];
            enum dtype t = c->operand[i].kind == OPERAND_REAL ? DTYPE_F32 : dtype;
            dtype_set(room, t, 0, *value);
            *value = dtype_get(room, t, 0);
            if (c->operand[i].kind != OPERAND_WEIGHT) continue;
            dtype_set(room, stored, 0, *value);
            *value = dtype_get(room, stored, 0);
        }
    double *reference[OPERANDS_MAX] = {0}, *plain[OPERANDS_MAX] = {0}, *ours[OPERANDS_MAX] = {0};
    run_case(c, parity_reference(), NULL, DTYPE_F64, DTYPE_F64, DTYPE_F64, reference);
    run_case(c, &plain_kernels, NULL, dtype, DTYPE_F32, DTYPE_F32, plain);
    run_case(c, device->kernels, device, dtype, DTYPE_F32, stored, ours);
    for (int i = 0; i < c->operands; i++) {
        if (!c->operand[i].output) continue;
        int64_t count = c->operand[i].count;
        struct distance theirs = distance_of(plain[i], reference[i], count);
        struct distance own = distance_of(ours[i], reference[i], count);
        /* below one unit in the last place of a float there is nothing to compare */
        double floor_rms = theirs.size * 0x1p-24, floor_worst = theirs.size * 0x1p-21;
        bool good =
            own.rms <= 2 * theirs.rms + floor_rms && own.worst <= 4 * theirs.worst + floor_worst;
        if (!good)
            fail_msg("%s, %s, weights %s, operand %d: rms %.3g (plain %.3g), worst %.3g (plain "
                     "%.3g), size %.3g",
                     c->name, dtype_name(dtype), dtype_name(stored), i, own.rms, theirs.rms,
                     own.worst, theirs.worst, theirs.size);
        free(reference[i]);
        free(plain[i]);
        free(ours[i]);
    }
}
