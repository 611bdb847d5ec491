/* wrap_emulated.h - the words of wrap.h for the host; each goes to the emulator. Contract in
 * wrap.h. Line numbers of the calls are kept for the messages and to tell divergence. */
#ifndef KERNELS_CUDA_EMULATOR_WRAP_EMULATED_H
#define KERNELS_CUDA_EMULATOR_WRAP_EMULATED_H

#include <cmath>
#include <cstring>

#include "kernels/cuda/emulator/emulator.h"
extern "C" {
#include "kernels/dtype.h"
}

#define DEVICE inline
#define KERNEL(threads, blocks) void
#define UNROLL
#define UNROLL_COPIES(count)
#define HAS_COPY_ASYNC true
#define HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()
#define AT file, line

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_)
    {
    }
};

enum emulated_collective {
    COLLECTIVE_NONE,
    COLLECTIVE_WARP_SYNC,
    COLLECTIVE_SHUFFLE_XOR,
    COLLECTIVE_SHUFFLE,
    COLLECTIVE_MATRIX_LOAD4,
    COLLECTIVE_MATRIX_LOAD4_TRANSPOSED,
    COLLECTIVE_MATRIX_LOAD2,
    COLLECTIVE_MATRIX_LOAD2_TRANSPOSED,
    COLLECTIVE_MMA_F16,
    COLLECTIVE_MMA_BF16,
    COLLECTIVE_MMA_K8_F16,
    COLLECTIVE_MMA_K8_BF16,
    COLLECTIVE_MMA_HALF,
};

/* What a lane brings to a collective. */
struct emulated_operands {
    enum emulated_collective what;
    void *out;
    const void *a, *b;
    uint32_t value;
};

struct emulated_place {
    int thread, block_x, block_y, block_z, grid_x;
};
extern struct emulated_place *emulated_here; /* the running lane's */
extern float emulated_f16_table[65536];

void emulated_meet(const struct emulated_operands *operands, const char *file, int line);
void emulated_barrier(const char *file, int line);
void emulated_shared(bool write, shared_t a, void *value, size_t bytes, const char *file, int line);
void emulated_global(bool write, const void *p, size_t bytes, const char *file, int line);
void emulated_copy(shared_t to, const void *from, bool valid, const char *file, int line);
void emulated_copy_commit();
void emulated_copy_wait(int pending, const char *file, int line);

DEVICE int thread_index()
{
    return emulated_here->thread;
}
DEVICE int block_x()
{
    return emulated_here->block_x;
}
DEVICE int block_y()
{
    return emulated_here->block_y;
}
DEVICE int block_z()
{
    return emulated_here->block_z;
}
DEVICE int grid_x()
{
    return emulated_here->grid_x;
}
DEVICE shared_t shared_base()
{
    return 1152; /* not 0: a forgotten base is out of range; aligned to 128 and no more */
}

DEVICE uint32_t float_to_bits(float v)
{
    uint32_t bits;
    memcpy(&bits, &v, 4);
    return bits;
}
DEVICE float bits_to_float(uint32_t v)
{
    float f;
    memcpy(&f, &v, 4);
    return f;
}

template <class V> DEVICE V shared_load(shared_t a, HERE)
{
    V v;
    emulated_shared(false, a, &v, sizeof v, AT);
    return v;
}
template <class V> DEVICE void shared_store(shared_t a, V v, HERE)
{
    emulated_shared(true, a, &v, sizeof v, AT);
}
template <class V> DEVICE V global_load(const void *p, HERE)
{
    emulated_global(false, p, sizeof(V), AT);
    V v;
    memcpy(&v, p, sizeof v);
    return v;
}
template <class V> DEVICE void global_store(void *p, V v, HERE)
{
    emulated_global(true, p, sizeof(V), AT);
    memcpy(p, &v, sizeof v);
}

DEVICE void copy_async(shared_t to, const void *from, bool valid, HERE)
{
    emulated_copy(to, from, valid, AT);
}
DEVICE void copy_commit()
{
    emulated_copy_commit();
}
template <int N> DEVICE void copy_wait(HERE)
{
    emulated_copy_wait(N, AT);
}
DEVICE void block_sync(HERE)
{
    emulated_barrier(AT);
}

DEVICE void emulated_collect(enum emulated_collective what, void *out, const void *a, const void *b,
                             uint32_t value, const char *file, int line)
{
    struct emulated_operands operands = {what, out, a, b, value};
    emulated_meet(&operands, file, line);
}
DEVICE void warp_sync(HERE)
{
    emulated_collect(COLLECTIVE_WARP_SYNC, nullptr, nullptr, nullptr, 0, AT);
}
DEVICE void matrix_load4(uint32_t *r, shared_t row, HERE)
{
    emulated_collect(COLLECTIVE_MATRIX_LOAD4, r, nullptr, nullptr, row, AT);
}
DEVICE void matrix_load4_transposed(uint32_t *r, shared_t row, HERE)
{
    emulated_collect(COLLECTIVE_MATRIX_LOAD4_TRANSPOSED, r, nullptr, nullptr, row, AT);
}
DEVICE void matrix_load2(uint32_t *r, shared_t row, HERE)
{
    emulated_collect(COLLECTIVE_MATRIX_LOAD2, r, nullptr, nullptr, row, AT);
}
DEVICE void matrix_load2_transposed(uint32_t *r, shared_t row, HERE)
{
    emulated_collect(COLLECTIVE_MATRIX_LOAD2_TRANSPOSED, r, nullptr, nullptr, row, AT);
}

template <class T> struct emulated_type;
template <> struct emulated_type<f16> {
    static constexpr emulated_collective mma = COLLECTIVE_MMA_F16, mma_k8 = COLLECTIVE_MMA_K8_F16;
};
template <> struct emulated_type<bf16> {
    static constexpr emulated_collective mma = COLLECTIVE_MMA_BF16, mma_k8 = COLLECTIVE_MMA_K8_BF16;
};
template <class T> DEVICE void mma(float *c, const uint32_t *a, const uint32_t *b, HERE)
{
    emulated_collect(emulated_type<T>::mma, c, a, b, 0, AT);
}
template <class T> DEVICE void mma_k8(float *c, const uint32_t *a, const uint32_t *b, HERE)
{
    emulated_collect(emulated_type<T>::mma_k8, c, a, b, 0, AT);
}
DEVICE void mma_half(uint32_t *c, const uint32_t *a, const uint32_t *b, HERE)
{
    emulated_collect(COLLECTIVE_MMA_HALF, c, a, b, 0, AT);
}
DEVICE float shuffle_xor(float v, int mask, HERE)
{
    float out;
    emulated_collect(COLLECTIVE_SHUFFLE_XOR, &out, &v, nullptr, (uint32_t)mask, AT);
    return out;
}
DEVICE float shuffle(float v, int lane, HERE)
{
    float out;
    emulated_collect(COLLECTIVE_SHUFFLE, &out, &v, nullptr, (uint32_t)lane, AT);
    return out;
}

DEVICE float exp2_fast(float v)
{
    return exp2f(v);
}
DEVICE float reciprocal_root(float v)
{
    return 1.0f / sqrtf(v);
}

DEVICE float to_float(float v)
{
    return v;
}
DEVICE float to_float(f16 v)
{
    return emulated_f16_table[v.bits];
}
DEVICE float to_float(bf16 v)
{
    return bits_to_float((uint32_t)v.bits << 16);
}
uint16_t emulated_to_f16(float v);
template <class T> DEVICE T to_storage(float v);
template <> DEVICE float to_storage<float>(float v)
{
    return v;
}
template <> DEVICE f16 to_storage<f16>(float v)
{
    f16 s;
    s.bits = emulated_to_f16(v);
    return s;
}
template <> DEVICE bf16 to_storage<bf16>(float v)
{
    bf16 s;
    s.bits = f32_to_bf16(v);
    return s;
}
template <class T> DEVICE uint32_t pack(float lo, float hi)
{
    return to_storage<T>(lo).bits | (uint32_t)to_storage<T>(hi).bits << 16;
}
template <class T> DEVICE void unpack(uint32_t bits, float &lo, float &hi)
{
    T a, b;
    a.bits = (uint16_t)bits;
    b.bits = (uint16_t)(bits >> 16);
    lo = to_float(a);
    hi = to_float(b);
}

template <auto Kernel, class P>
int launch(const char *name, dim3 grid, unsigned block, size_t shared_bytes, void *, const P &p)
{
    return emulator_launch(
        name, [](const void *params) { Kernel(*(const P *)params); }, &p, sizeof p, grid.x, grid.y,
        grid.z, block, shared_bytes);
}

#endif
