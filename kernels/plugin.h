/*
 * plugin.h - how a back end in a shared object of its own says that it fits this program.
 *
 * Place    kernels/device.c opens the object and compares; kernels/cuda/cuda_device.c exports.
 * Failure  device_open: ERR_UNSUPPORTED, when the two were built from different sources.
 *
 * Exported symbols: `kiln_plugin_abi` (const struct plugin_abi) and the open function
 * `int cuda_device_open(struct device **, const char *options, struct error *)`.
 */
#ifndef KERNELS_PLUGIN_H
#define KERNELS_PLUGIN_H

#include <stdint.h>

#include "kernels/device.h"

struct plugin_abi {
    uint32_t version, table_bytes, device_bytes, args_bytes;
};

#define PLUGIN_VERSION 4
/* sizes of the table, of the device and of all arguments together */
#define PLUGIN_ARGS_SIZE(name, args) +sizeof(struct args)
#define PLUGIN_ABI                                                                                 \
    {                                                                                              \
        PLUGIN_VERSION, sizeof(struct kernels), sizeof(struct device),                             \
            0 KERNEL_TABLE(PLUGIN_ARGS_SIZE) KERNEL_FUSED_TABLE(PLUGIN_ARGS_SIZE)                  \
                KERNEL_BANDED_TABLE(PLUGIN_ARGS_SIZE)                                              \
    }
#define PLUGIN_EXPORT __attribute__((visibility("default")))

#endif
