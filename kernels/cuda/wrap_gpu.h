/* wrap_gpu.h - the words of wrap.h as CUDA and PTX. Contract in wrap.h. */
#ifndef KERNELS_CUDA_WRAP_GPU_H
#define KERNELS_CUDA_WRAP_GPU_H

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#define DEVICE __device__ __forceinline__
#define UNROLL _Pragma("unroll")
#define PRAGMA_OF(text) _Pragma(#text)
/* a loop of copies: without cp.async each one in flight holds registers */
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
#define UNROLL_COPIES(count) _Pragma("unroll 1")
#define HAS_COPY_ASYNC false
#else
#define UNROLL_COPIES(count) PRAGMA_OF(unroll count)
#define HAS_COPY_ASYNC true
#endif
#define KERNEL(threads, blocks) __global__ void __launch_bounds__(threads, blocks)

extern __shared__ __align__(128) unsigned char kiln_shared[];

DEVICE int thread_index()
{
    return (int)threadIdx.x;
}
DEVICE int block_x()
{
    return (int)blockIdx.x;
}
DEVICE int block_y()
{
    return (int)blockIdx.y;
}
DEVICE int block_z()
{
    return (int)blockIdx.z;
}
DEVICE int grid_x()
{
    return (int)gridDim.x;
}

DEVICE shared_t shared_base()
{
    return (shared_t)__cvta_generic_to_shared(kiln_shared);
}

DEVICE uint32_t float_to_bits(float v)
{
    return __float_as_uint(v);
}
DEVICE float bits_to_float(uint32_t v)
{
    return __uint_as_float(v);
}

template <class V> DEVICE V shared_load(shared_t a)
{
    V v;
    if constexpr (sizeof(V) == 2) {
        uint16_t x;
        asm volatile("ld.shared.u16 %0, [%1];" : "=h"(x) : "r"(a) : "memory");
        memcpy(&v, &x, 2);
    } else if constexpr (sizeof(V) == 4) {
        uint32_t x;
        asm volatile("ld.shared.u32 %0, [%1];" : "=r"(x) : "r"(a) : "memory");
        memcpy(&v, &x, 4);
    } else if constexpr (sizeof(V) == 8) {
        uint32_t x[2];
        asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];"
                     : "=r"(x[0]), "=r"(x[1])
                     : "r"(a)
                     : "memory");
        memcpy(&v, x, 8);
    } else {
        static_assert(sizeof(V) == 16, "2, 4, 8 or 16 bytes");
        uint32_t x[4];
        asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                     : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                     : "r"(a)
                     : "memory");
        memcpy(&v, x, 16);
    }
    return v;
}

template <class V> DEVICE void shared_store(shared_t a, V v)
{
    if constexpr (sizeof(V) == 2) {
        uint16_t x;
        memcpy(&x, &v, 2);
        asm volatile("st.shared.u16 [%0], %1;" ::"r"(a), "h"(x) : "memory");
    } else if constexpr (sizeof(V) == 4) {
        uint32_t x;
        memcpy(&x, &v, 4);
        asm volatile("st.shared.u32 [%0], %1;" ::"r"(a), "r"(x) : "memory");
    } else if constexpr (sizeof(V) == 8) {
        uint32_t x[2];
        memcpy(x, &v, 8);
        asm volatile("st.shared.v2.u32 [%0], {%1, %2};" ::"r"(a), "r"(x[0]), "r"(x[1]) : "memory");
    } else {
        static_assert(sizeof(V) == 16, "2, 4, 8 or 16 bytes");
        uint32_t x[4];
        memcpy(x, &v, 16);
        asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(a), "r"(x[0]), "r"(x[1]),
                     "r"(x[2]), "r"(x[3])
                     : "memory");
    }
}

template <class V> DEVICE V global_load(const void *p)
{
    return *(const V *)p;
}
template <class V> DEVICE void global_store(void *p, V v)
{
    *(V *)p = v;
}

DEVICE void copy_async(shared_t to, const void *from, bool valid)
{
#if __CUDA_ARCH__ >= 800
    int bytes = valid ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to),
                 "l"(__cvta_generic_to_global(from)), "r"(bytes)
                 : "memory");
#else
    word16 v = {{0, 0, 0, 0}};
    if (valid) v = *(const word16 *)from;
    shared_store(to, v);
#endif
}
DEVICE void copy_commit()
{
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
template <int N> DEVICE void copy_wait()
{
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
#endif
}

DEVICE void block_sync()
{
    __syncthreads();
}
DEVICE void warp_sync()
{
    __syncwarp();
}

/* r[i]: element pair (row lane/4, columns 2 (lane%4)..) of the i-th 8x8 matrix, whose row j is at
 * the address that lane 8 i + j gives. */
DEVICE void matrix_load4(uint32_t *r, shared_t row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(row)
                 : "memory");
}
DEVICE void matrix_load4_transposed(uint32_t *r, shared_t row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(row)
                 : "memory");
}
DEVICE void matrix_load2(uint32_t *r, shared_t row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(row)
                 : "memory");
}
DEVICE void matrix_load2_transposed(uint32_t *r, shared_t row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(row)
                 : "memory");
}

template <class T> DEVICE void mma_k8(float *c, const uint32_t *a, const uint32_t *b);
template <> DEVICE void mma_k8<f16>(float *c, const uint32_t *a, const uint32_t *b)
{
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(b[0]));
}
template <> DEVICE void mma_k8<bf16>(float *c, const uint32_t *a, const uint32_t *b)
{
#if __CUDA_ARCH__ >= 800
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5}, "
                 "{%6}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(b[0]));
#else
    __trap(); /* the dispatcher offers no bf16 below sm_80 */
#endif
}

template <class T> DEVICE void mma(float *c, const uint32_t *a, const uint32_t *b);
template <> DEVICE void mma<f16>(float *c, const uint32_t *a, const uint32_t *b)
{
#if __CUDA_ARCH__ >= 800
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, "
                 "%7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    mma_k8<f16>(c, a, b);
    mma_k8<f16>(c, a + 2, b + 1);
#endif
}
template <> DEVICE void mma<bf16>(float *c, const uint32_t *a, const uint32_t *b)
{
#if __CUDA_ARCH__ >= 800
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, "
                 "%6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    __trap();
#endif
}

/* c: two words of two fp16 each, accumulated in fp16. */
DEVICE void mma_half(uint32_t *c, const uint32_t *a, const uint32_t *b)
{
#if __CUDA_ARCH__ >= 800
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f16.f16.f16.f16 {%0, %1}, {%2, %3, %4, %5}, "
                 "{%6, %7}, {%0, %1};"
                 : "+r"(c[0]), "+r"(c[1])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f16.f16.f16.f16 {%0, %1}, {%2, %3}, {%4}, {%0, "
                 "%1};"
                 : "+r"(c[0]), "+r"(c[1])
                 : "r"(a[0]), "r"(a[1]), "r"(b[0]));
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f16.f16.f16.f16 {%0, %1}, {%2, %3}, {%4}, {%0, "
                 "%1};"
                 : "+r"(c[0]), "+r"(c[1])
                 : "r"(a[2]), "r"(a[3]), "r"(b[1]));
#endif
}

DEVICE float shuffle_xor(float v, int mask)
{
    return __shfl_xor_sync(0xffffffffu, v, mask);
}
DEVICE float shuffle(float v, int lane)
{
    return __shfl_sync(0xffffffffu, v, lane);
}

DEVICE float exp2_fast(float v)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(v));
    return y;
}
DEVICE float reciprocal_root(float v)
{
    return rsqrtf(v);
}

template <class T> DEVICE uint32_t pack(float lo, float hi);
template <> DEVICE uint32_t pack<f16>(float lo, float hi)
{
    __half2 h = __floats2half2_rn(lo, hi);
    uint32_t bits;
    memcpy(&bits, &h, 4);
    return bits;
}
template <> DEVICE uint32_t pack<bf16>(float lo, float hi)
{
    __nv_bfloat162 h = __floats2bfloat162_rn(lo, hi);
    uint32_t bits;
    memcpy(&bits, &h, 4);
    return bits;
}

template <class T> DEVICE void unpack(uint32_t bits, float &lo, float &hi);
template <> DEVICE void unpack<f16>(uint32_t bits, float &lo, float &hi)
{
    __half2 h;
    memcpy(&h, &bits, 4);
    float2 f = __half22float2(h);
    lo = f.x;
    hi = f.y;
}
template <> DEVICE void unpack<bf16>(uint32_t bits, float &lo, float &hi)
{
    lo = __uint_as_float(bits << 16);
    hi = __uint_as_float(bits & 0xffff0000u);
}

DEVICE float to_float(float v)
{
    return v;
}
DEVICE float to_float(f16 v)
{
    return __half2float(__ushort_as_half(v.bits));
}
DEVICE float to_float(bf16 v)
{
    return __uint_as_float((uint32_t)v.bits << 16);
}
template <class T> DEVICE T to_storage(float v);
template <> DEVICE float to_storage<float>(float v)
{
    return v;
}
template <> DEVICE f16 to_storage<f16>(float v)
{
    f16 s;
    s.bits = __half_as_ushort(__float2half_rn(v));
    return s;
}
template <> DEVICE bf16 to_storage<bf16>(float v)
{
    bf16 s;
    s.bits = (uint16_t)(pack<bf16>(v, 0.0f) & 0xffffu);
    return s;
}

/* One launch; the attribute for more than 48 KB of shared memory is set once a kernel. */
template <auto Kernel, class P>
int launch(const char *name, dim3 grid, unsigned block, size_t shared_bytes, void *stream,
           const P &p)
{
    (void)name;
    static bool ready = false;
    if (!ready) {
        int device = 0, limit = 0;
        cudaGetDevice(&device);
        cudaDeviceGetAttribute(&limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
        cudaError_t set =
            cudaFuncSetAttribute(Kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, limit);
        if (set != cudaSuccess) return (int)set;
        ready = true;
    }
    Kernel<<<grid, block, shared_bytes, (cudaStream_t)stream>>>(p);
    return (int)cudaGetLastError();
}

#endif
