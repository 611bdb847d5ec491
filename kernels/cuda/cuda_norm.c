#include "kernels/cuda/norm.h"

#include "kernels/cuda/cuda.h"

static int check(const char *what, enum dtype dtype, enum dtype weights, struct error *err)
{
    if (!cuda_dtype_ok(dtype)) return cuda_dtype_refuse(what, dtype, err);
    return cuda_dtype_ok(weights) ? 0 : cuda_dtype_refuse(what, weights, err);
}

/* Row ranges so that there are some blocks for every multiprocessor, of at least 64 rows each. */
static int plan_make(struct device *d, const struct group_norm_args *a, struct norm_plan *plan,
                     struct error *err)
{
    int64_t slab = a->dtype == DTYPE_F32 ? 32 : 64, slabs = (a->c + slab - 1) / slab * a->n;
    int64_t ranges = (4 * cuda_state(d)->runtime.multiprocessors + slabs - 1) / slabs;
    if (ranges > (a->rows + 63) / 64) ranges = (a->rows + 63) / 64;
    if (ranges > 1024) ranges = 1024;
    int64_t each = ((a->rows + ranges - 1) / ranges + 31) / 32 * 32;
    ranges = (a->rows + each - 1) / each;
    size_t partial = (size_t)(a->n * ranges * a->c * 2), groups = (size_t)(a->n * a->groups);
    void *memory;
    int rc = cuda_scratch(d, &memory, (partial + 4 * groups) * sizeof(float), err);
    if (rc) return rc;
    *plan =
        (struct norm_plan){.ranges = (int)ranges, .rows_per_range = (int)each, .partial = memory};
    plan->sums = plan->partial + partial;
    plan->mean = a->mean ? a->mean : plan->sums + 2 * groups;
    plan->rstd = a->rstd ? a->rstd : plan->sums + 3 * groups;
    return 0;
}

static int forward(struct device *d, const struct group_norm_args *a,
                   int (*run)(const struct group_norm_args *, const struct norm_plan *, void *),
                   struct error *err)
{
    struct norm_plan plan;
    int rc = check("group_norm", a->dtype, a->weight_dtype, err);
    if (!rc && a->n > 65535)
        rc = error_set(err, ERR_UNSUPPORTED, "group_norm: %lld images at once", (long long)a->n);
    if (!rc) rc = plan_make(d, a, &plan, err);
    if (rc) return rc;
    return runtime_check(run(a, &plan, cuda_state(d)->runtime.stream), "group_norm", err);
}

int cuda_group_norm(struct device *d, const struct group_norm_args *a, struct error *err)
{
    return forward(d, a, norm_group, err);
}

int cuda_group_measure(struct device *d, const struct group_norm_args *a, struct error *err)
{
    return forward(d, a, norm_group_measure, err);
}

int cuda_group_apply(struct device *d, const struct group_norm_args *a, struct error *err)
{
    const struct norm_plan plan = {.mean = a->mean, .rstd = a->rstd};
    return runtime_check(norm_group_apply(a, &plan, cuda_state(d)->runtime.stream), "group_norm",
                         err);
}

int cuda_group_norm_grad(struct device *d, const struct group_norm_grad_args *g, struct error *err)
{
    const struct group_norm_args *a = &g->forward;
    struct norm_plan plan;
    int rc = check("group_norm_grad", a->dtype, a->weight_dtype, err);
    if (!rc && (!a->mean || !a->rstd))
        rc = error_set(err, ERR_INTERNAL, "group_norm_grad: the forward's statistics are needed");
    if (!rc) rc = plan_make(d, a, &plan, err);
    if (rc) return rc;
    return runtime_check(norm_group_grad(g, &plan, cuda_state(d)->runtime.stream),
                         "group_norm_grad", err);
}

int cuda_layer_norm(struct device *d, const struct layer_norm_args *a, struct error *err)
{
    int rc = check("layer_norm", a->dtype, a->weight_dtype, err);
    if (rc || !a->rows) return rc;
    return runtime_check(norm_layer(a, cuda_state(d)->runtime.stream), "layer_norm", err);
}

int cuda_layer_norm_grad(struct device *d, const struct layer_norm_grad_args *g, struct error *err)
{
    int rc = check("layer_norm_grad", g->forward.dtype, g->forward.weight_dtype, err);
    if (rc || !g->forward.rows) return rc;
    if (!g->forward.mean || !g->forward.rstd)
        return error_set(err, ERR_INTERNAL, "layer_norm_grad: the forward's statistics are needed");
    return runtime_check(norm_layer_grad(g, cuda_state(d)->runtime.stream), "layer_norm_grad", err);
}
