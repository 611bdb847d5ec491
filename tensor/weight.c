#include "tensor/weight.h"

#include "kernels/device.h"

int64_t weight_count(const struct weight *w)
{
    int64_t count = 1;
    for (int i = 0; i < w->k.rank; i++) count *= w->k.dim[i];
    return count;
}

void weight_release(struct weight *w, struct device *d)
{
    if (w->k.packed) d->kernels->unpack(d, &w->k);
    w->k.packed = NULL;
}
