#include "kernels/kernel_check.h"

#include <stdlib.h>

#include "base/alloc.h"
#include "base/now.h"
#include "kernels/plain/plain.h"

struct check {
    const struct family *f;
    const int64_t *n;
    struct family_operand o[FAMILY_OPERANDS_MAX];
    struct family_side device, plain;
    void *host[FAMILY_OPERANDS_MAX]; /* the numbers as the device's type has them */
};

static double draw(uint64_t *random)
{
    double sum = 0; /* of 4 uniform numbers: near enough to normal */
    for (int i = 0; i < 4; i++) {
        *random = *random * 6364136223846793005u + 1442695040888963407u;
        sum += (double)(*random >> 40) / 16777216 - 0.5;
    }
    return sum * 1.7320508;
}

static enum dtype type_of(const struct family_operand *o, enum dtype activations)
{
    return o->activation ? activations : o->dtype;
}

/* Both sides get what the device's type can hold. */
static int fill(struct check *c, int i, uint64_t *random, bool compared, struct error *err)
{
    const struct family_operand *o = &c->o[i];
    const enum dtype type = type_of(o, c->device.dtype), plain = type_of(o, DTYPE_F32);
    const size_t bytes = (size_t)o->count * dtype_bytes(type);
    c->host[i] = alloc_try((size_t)o->count, dtype_bytes(type));
    c->plain.at[i] = compared ? alloc_try((size_t)o->count, dtype_bytes(plain)) : NULL;
    if (!c->host[i] || (compared && !c->plain.at[i]))
        return error_set(err, ERR_NO_MEMORY, "no host memory for %zu bytes", bytes);
    for (int64_t j = 0; j < o->count; j++)
        dtype_set(c->host[i], type, j, o->scale == 0 ? 0 : o->scale * draw(random));
    if (compared)
        for (int64_t j = 0; j < o->count; j++)
            dtype_set(c->plain.at[i], plain, j, dtype_get(c->host[i], type, j));
    if (o->host) {
        c->device.at[i] = c->host[i];
        return 0;
    }
    const struct kernels *k = c->device.d->kernels;
    int rc = k->alloc(c->device.d, &c->device.at[i], bytes, err);
    return rc ? rc : k->upload(c->device.d, c->device.at[i], c->host[i], bytes, err);
}

static void release(struct check *c)
{
    for (int i = 0; i < 3; i++) {
        if (c->device.w[i].packed) c->device.d->kernels->unpack(c->device.d, &c->device.w[i]);
        if (c->plain.w[i].packed) c->plain.d->kernels->unpack(c->plain.d, &c->plain.w[i]);
    }
    for (int i = 0; i < c->f->operands; i++) {
        if (c->device.at[i] && !c->o[i].host)
            c->device.d->kernels->free(c->device.d, c->device.at[i]);
        free(c->plain.at[i]);
        free(c->host[i]);
    }
    device_close(c->plain.d);
}

/* The worst of the results. */
static int compare(struct check *c, double *worst, struct error *err)
{
    *worst = 0;
    for (int i = 0; i < c->f->operands; i++) {
        const struct family_operand *o = &c->o[i];
        if (!o->result) continue;
        const enum dtype type = type_of(o, c->device.dtype), plain = type_of(o, DTYPE_F32);
        double wrong = 0, right = 0;
        int rc = c->device.d->kernels->download(c->device.d, c->host[i], c->device.at[i],
                                                (size_t)o->count * dtype_bytes(type), err);
        if (rc) return rc;
        for (int64_t j = 0; j < o->count; j++) {
            double want = dtype_get(c->plain.at[i], plain, j);
            double off = dtype_get(c->host[i], type, j) - want;
            wrong += off * off;
            right += want * want;
        }
        double error = right > 0 ? sqrt(wrong / right) : sqrt(wrong);
        if (!(error <= *worst)) *worst = error; /* keeps NaN */
    }
    return 0;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static int measure(struct check *c, double wanted, double *seconds, struct error *err)
{
    enum { ROUNDS = 7 };
    const struct kernels *k = c->device.d->kernels;
    double times[ROUNDS];
    int calls = 1, rc = 0;
    for (int r = -1; r < ROUNDS && !rc; r++) { /* the first tells how many calls a round takes */
        double start = now_seconds();
        for (int i = 0; i < calls && !rc; i++) rc = c->f->run(&c->device, c->n, err);
        if (!rc) rc = k->finish(c->device.d, err);
        double each = (now_seconds() - start) / calls;
        if (r >= 0) times[r] = each;
        double more = each > 0 ? wanted / ROUNDS / each : 1;
        if (r < 0) calls = more > 1000 ? 1000 : more < 1 ? 1 : (int)more;
    }
    if (rc) return rc;
    qsort(times, ROUNDS, sizeof times[0], by_size);
    *seconds = times[ROUNDS / 2];
    return 0;
}

static double bytes_of(const struct check *c)
{
    double sum = 0;
    for (int i = 0; i < c->f->operands; i++)
        sum += (double)c->o[i].count * (double)dtype_bytes(type_of(&c->o[i], c->device.dtype));
    return sum;
}

int kernel_check_run(struct device *d, const struct family *f, enum dtype dtype, bool quick,
                     double seconds, uint64_t *random, struct kernel_check *result,
                     struct error *err)
{
    struct check c = {.f = f, .n = quick ? f->small : f->n, .device = {.d = d, .dtype = dtype}};
    *result = (struct kernel_check){.error = -1, .there = !f->there || f->there(d->kernels)};
    if (!result->there) return 0;
    f->describe(c.n, c.o);
    c.plain.dtype = DTYPE_F32;
    int rc = plain_device_open(&c.plain.d, err);
    for (int i = 0; i < f->operands && !rc; i++) rc = fill(&c, i, random, quick, err);
    double start = now_seconds();
    if (!rc) rc = f->run(&c.device, c.n, err); /* packs weights, warms up */
    if (!rc) rc = d->kernels->finish(d, err);
    result->seconds = now_seconds() - start;
    if (!rc && quick) rc = f->run(&c.plain, c.n, err);
    if (!rc && quick) rc = compare(&c, &result->error, err);
    if (!rc && !quick) rc = measure(&c, seconds, &result->seconds, err);
    result->limit = f->limit * (dtype == DTYPE_BF16 ? 8 : 1);
    result->work = f->flop ? f->flop(c.n) : bytes_of(&c);
    if (c.plain.d) release(&c);
    return rc;
}
