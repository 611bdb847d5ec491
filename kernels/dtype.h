/*
 * dtype.h - element types of tensors and files, in one table.
 *
 * Place    kernels, tensors, safetensors.
 * Failure  dtype_find returns false for a name that the table lacks.
 */
#ifndef KERNELS_DTYPE_H
#define KERNELS_DTYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/*    enum        safetensors name   bytes */
#define DTYPE_TABLE(X)                                                                             \
    X(F32, "F32", 4)                                                                               \
    X(F16, "F16", 2)                                                                               \
    X(BF16, "BF16", 2)                                                                             \
    X(F64, "F64", 8)                                                                               \
    X(F8_E4M3, "F8_E4M3", 1)                                                                       \
    X(F8_E5M2, "F8_E5M2", 1)                                                                       \
    X(I64, "I64", 8)                                                                               \
    X(I32, "I32", 4)                                                                               \
    X(I16, "I16", 2)                                                                               \
    X(I8, "I8", 1)                                                                                 \
    X(U8, "U8", 1)                                                                                 \
    X(U16, "U16", 2)                                                                               \
    X(U32, "U32", 4)                                                                               \
    X(U64, "U64", 8)                                                                               \
    X(BOOL, "BOOL", 1)

enum dtype {
#define X(name, text, bytes) DTYPE_##name,
    DTYPE_TABLE(X)
#undef X
        DTYPE_COUNT
};

size_t dtype_bytes(enum dtype dtype);
const char *dtype_name(enum dtype dtype);
bool dtype_find(const char *name, enum dtype *dtype);

static inline float bf16_to_f32(uint16_t bits)
{
    uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, 4);
    return value;
}

/* Round to nearest, ties to even; NaN stays NaN. */
static inline uint16_t f32_to_bf16(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, 4);
    if ((bits & 0x7fffffff) > 0x7f800000) return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

float f16_to_f32(uint16_t bits); /* subnormals, infinities and NaN included */
uint16_t f32_to_f16(float value);
float f8_e4m3_to_f32(uint8_t bits);
float f8_e5m2_to_f32(uint8_t bits);

/* Element `index` of an array of any of the types above, widened; and stored back (float types). */
double dtype_get(const void *data, enum dtype dtype, int64_t index);
void dtype_set(void *data, enum dtype dtype, int64_t index, double value);
/* Bulk conversion between any two types of the table; from and to must not overlap. */
void dtype_convert(void *to, enum dtype to_dtype, const void *from, enum dtype from_dtype,
                   int64_t count);

#endif
