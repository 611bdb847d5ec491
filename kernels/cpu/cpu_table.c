#include "kernels/cpu/cpu_table.h"

/* Memory and packing are cpu_device.c's; here are the kernels. */
extern const struct kernels CPU_NAME(cpu_table);

const struct kernels CPU_NAME(cpu_table) = {.name = "cpu",
#define X(name, args) .name = cpu_##name,
                                            KERNEL_TABLE(X) CPU_FUSED_TABLE(X)
#undef X
};
