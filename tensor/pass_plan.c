#include "tensor/pass_plan.h"

#include "kernels/plan.h"
#include "tensor/pass_memory.h"

int pass_plan(struct pass_memory *memory, enum dtype dtype, record_ops ops, void *context,
              struct error *err)
{
    if (memory->device->host_memory) return 0;
    struct device *d = plan_device_open(memory->device);
    struct pass_memory planned;
    struct pass p;
    pass_memory_init(&planned, d, 0);
    pass_start(&p, &planned, dtype, NULL);
    ops(&p, context);
    bool whole = !p.failed;
    pass_finish(&p, NULL);
    size_t bytes = planned.peak_bytes;
    pass_memory_release(&planned);
    device_close(d);
    return whole ? pass_memory_hold(memory, bytes, err) : 0;
}
