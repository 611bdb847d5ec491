#include "kernels/plan.h"

#include <stdlib.h>

#include "base/alloc.h"

#define ADDRESS_FIRST ((uintptr_t)1 << 40)
#define ADDRESS_ALIGNMENT ((uintptr_t)4096)

struct plan {
    struct device device;
    struct kernels table;
    uintptr_t next;
};

static int plan_alloc(struct device *d, void **memory, size_t bytes, struct error *err)
{
    struct plan *p = d->state;
    *memory = (void *)p->next;
    p->next += (bytes + ADDRESS_ALIGNMENT) / ADDRESS_ALIGNMENT * ADDRESS_ALIGNMENT;
    return 0;
}

static void plan_free(struct device *d, void *memory)
{
}

static int plan_upload(struct device *d, void *to, const void *from, size_t bytes,
                       struct error *err)
{
    return 0;
}

static int plan_zero(struct device *d, void *memory, size_t bytes, struct error *err)
{
    return 0;
}

static int plan_finish(struct device *d, struct error *err)
{
    return 0;
}

static int plan_pack(struct device *d, struct kernel_weight *w, enum dtype activation_dtype,
                     struct error *err)
{
    return 0;
}

static void plan_unpack(struct device *d, struct kernel_weight *w)
{
}

#define X(name, args)                                                                              \
    static int plan_##name(struct device *d, const struct args *a, struct error *err)              \
    {                                                                                              \
        return 0;                                                                                  \
    }
KERNEL_TABLE(X)
KERNEL_FUSED_TABLE(X)
KERNEL_BANDED_TABLE(X)
#undef X

static void plan_close(struct device *d)
{
    free(d->state);
}

struct device *plan_device_open(const struct device *like)
{
    struct plan *p = alloc_zero(1, sizeof *p);
    p->next = ADDRESS_FIRST;
    p->table = (struct kernels){.name = "plan",
                                .alloc = plan_alloc,
                                .free = plan_free,
                                .upload = plan_upload,
                                .download = plan_upload,
                                .zero = plan_zero,
                                .finish = plan_finish,
                                .pack = plan_pack,
                                .unpack = plan_unpack};
#define X(name, args)                                                                              \
    if (like->kernels->name) p->table.name = plan_##name;
    KERNEL_TABLE(X)
    KERNEL_FUSED_TABLE(X)
    KERNEL_BANDED_TABLE(X)
#undef X
    p->device = (struct device){.kernels = &p->table,
                                .default_dtype = like->default_dtype,
                                .band_bytes = like->band_bytes,
                                .state = p,
                                .close = plan_close};
    return &p->device;
}
