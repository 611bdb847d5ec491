/*
 * cpu_table.h - the kernels of one instruction set, as kernels.h describes them.
 *
 * Place    each cpu_*.c defines some of them; cpu_table.c makes the table.
 */
#ifndef KERNELS_CPU_CPU_TABLE_H
#define KERNELS_CPU_CPU_TABLE_H

#include "kernels/cpu/cpu_device.h"
#include "kernels/cpu/cpu_isa.h"
#include "kernels/kernels.h"

#define X(name, args)                                                                              \
    int CPU_NAME(cpu_##name)(struct device * d, const struct args *a, struct error *err);
KERNEL_TABLE(X)
CPU_FUSED_TABLE(X)
#undef X

#define cpu_linear CPU_NAME(cpu_linear)
#define cpu_linear_geglu CPU_NAME(cpu_linear_geglu)
#define cpu_linear_dx CPU_NAME(cpu_linear_dx)
#define cpu_linear_dw CPU_NAME(cpu_linear_dw)
#define cpu_conv2d CPU_NAME(cpu_conv2d)
#define cpu_conv2d_dx CPU_NAME(cpu_conv2d_dx)
#define cpu_conv2d_dw CPU_NAME(cpu_conv2d_dw)
#define cpu_group_norm CPU_NAME(cpu_group_norm)
#define cpu_group_norm_grad CPU_NAME(cpu_group_norm_grad)
#define cpu_layer_norm CPU_NAME(cpu_layer_norm)
#define cpu_layer_norm_grad CPU_NAME(cpu_layer_norm_grad)
#define cpu_attention CPU_NAME(cpu_attention)
#define cpu_attention_grad CPU_NAME(cpu_attention_grad)
#define cpu_geglu CPU_NAME(cpu_geglu)
#define cpu_geglu_grad CPU_NAME(cpu_geglu_grad)
#define cpu_activation CPU_NAME(cpu_activation)
#define cpu_activation_grad CPU_NAME(cpu_activation_grad)
#define cpu_add CPU_NAME(cpu_add)
#define cpu_mul CPU_NAME(cpu_mul)
#define cpu_copy CPU_NAME(cpu_copy)
#define cpu_transpose CPU_NAME(cpu_transpose)
#define cpu_column_sum CPU_NAME(cpu_column_sum)
#define cpu_upsample CPU_NAME(cpu_upsample)
#define cpu_upsample_grad CPU_NAME(cpu_upsample_grad)
#define cpu_max_pool CPU_NAME(cpu_max_pool)
#define cpu_bilinear CPU_NAME(cpu_bilinear)
#define cpu_embedding CPU_NAME(cpu_embedding)
#define cpu_embedding_grad CPU_NAME(cpu_embedding_grad)
#define cpu_mse CPU_NAME(cpu_mse)
#define cpu_mse_grad CPU_NAME(cpu_mse_grad)
#define cpu_adamw CPU_NAME(cpu_adamw)
#define cpu_adamw8 CPU_NAME(cpu_adamw8)
#define cpu_norm CPU_NAME(cpu_norm)
#define cpu_norm_conv2d CPU_NAME(cpu_norm_conv2d)

/* Activations are F32 or BF16 on the CPU. */
#define CPU_CHECK_DTYPE(dtype, name)                                                               \
    do {                                                                                           \
        if ((dtype) != DTYPE_F32 && (dtype) != DTYPE_BF16)                                         \
            return error_set(err, ERR_UNSUPPORTED, "the CPU has no %s for %s; use fp32 or bf16",   \
                             name, dtype_name(dtype));                                             \
    } while (0)

#endif
