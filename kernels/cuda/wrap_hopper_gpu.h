/* wrap_hopper_gpu.h - the words of wrap_hopper.h as CUDA and PTX. Contract there. Only a compilation for
 * sm_90a has the instructions; in all others the words are empty and HAS_WGMMA is false. */
#ifndef KERNELS_CUDA_WRAP_HOPPER_GPU_H
#define KERNELS_CUDA_WRAP_HOPPER_GPU_H

#define GRID_CONSTANT __grid_constant__
#if defined(__CUDA_ARCH_FEAT_SM90_ALL) && CUDART_VERSION >= 12000
#define HAS_WGMMA true
#define HOPPER_ASM(...) asm volatile(__VA_ARGS__)
#else
#define HAS_WGMMA false
#define HOPPER_ASM(...) __trap()
#endif

DEVICE void phase_init(shared_t barrier, int arrivals)
{
    HOPPER_ASM("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
DEVICE void phase_init_visible()
{
    HOPPER_ASM("fence.mbarrier_init.release.cluster;" ::: "memory");
    HOPPER_ASM("fence.proxy.async.shared::cta;" ::: "memory");
}
DEVICE void phase_expect(shared_t barrier, int bytes)
{
    HOPPER_ASM("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
}
DEVICE void phase_arrive(shared_t barrier)
{
    HOPPER_ASM("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
DEVICE void phase_wait(shared_t barrier, int parity)
{
    uint32_t done = 0;
    do {
        HOPPER_ASM("{\n"
                   ".reg .pred p;\n"
                   "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
                   "selp.u32 %0, 1, 0, p;\n"
                   "}"
                   : "=r"(done)
                   : "r"(barrier), "r"(parity)
                   : "memory");
    } while (!done);
}

DEVICE void tensor_load(shared_t to, const tensor_map *map, shared_t barrier, int x, int y, int z,
                        int w)
{
    HOPPER_ASM("cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
               "[%0], [%1, {%3, %4, %5, %6}], [%2];" ::"r"(to),
               "l"(map), "r"(barrier), "r"(x), "r"(y), "r"(z), "r"(w)
               : "memory");
}
DEVICE void tensor_load_pixels(shared_t to, const tensor_map *map, shared_t barrier, int c, int x,
                               int y, int image, int tap_x, int tap_y)
{
    HOPPER_ASM("cp.async.bulk.tensor.4d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes "
               "[%0], [%1, {%3, %4, %5, %6}], [%2], {%7, %8};" ::"r"(to),
               "l"(map), "r"(barrier), "r"(c), "r"(x), "r"(y), "r"(image), "h"((uint16_t)tap_x),
               "h"((uint16_t)tap_y)
               : "memory");
}

DEVICE void group_fence()
{
    HOPPER_ASM("wgmma.fence.sync.aligned;" ::: "memory");
}
DEVICE void group_commit()
{
    HOPPER_ASM("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int N> DEVICE void group_wait()
{
    HOPPER_ASM("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}
/* the compiler may not read the sums before the wait that this stands after */
template <int COUNT> DEVICE void registers_hold(float (&d)[COUNT])
{
    UNROLL
    for (int i = 0; i < COUNT; i++) asm volatile("" : "+f"(d[i])::"memory");
}
template <int STEPS> DEVICE void registers_hold(uint32_t (&a)[STEPS][4])
{
    UNROLL
    for (int i = 0; i < STEPS; i++) {
        UNROLL
        for (int r = 0; r < 4; r++) asm volatile("" : "+r"(a[i][r])::"memory");
    }
}
template <int COUNT> DEVICE void registers_give()
{
    HOPPER_ASM("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(COUNT));
}
template <int COUNT> DEVICE void registers_take()
{
    HOPPER_ASM("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(COUNT));
}

/* ---- products: N / 2 sums a thread; operands of the instruction by number ---- */

// clang-format off
#define SUMS_32                                                                                    \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, "        \
    "%19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define SUMS_40                                                                                    \
    SUMS_32 ", "                                                                                   \
    "%32, %33, %34, %35, %36, %37, %38, %39"
#define SUMS_64                                                                                    \
    SUMS_32 ", "                                                                                   \
    "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, "        \
    "%49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define SUMS_80                                                                                    \
    SUMS_64 ", "                                                                                   \
    "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79"
#define SUM_8(d, i)                                                                                \
    "+f"((d)[i]), "+f"((d)[i + 1]), "+f"((d)[i + 2]), "+f"((d)[i + 3]), "+f"((d)[i + 4]),          \
        "+f"((d)[i + 5]), "+f"((d)[i + 6]), "+f"((d)[i + 7])
#define SUM_32(d) SUM_8(d, 0), SUM_8(d, 8), SUM_8(d, 16), SUM_8(d, 24)
#define SUM_40(d) SUM_32(d), SUM_8(d, 32)
#define SUM_64(d) SUM_32(d), SUM_8(d, 32), SUM_8(d, 40), SUM_8(d, 48), SUM_8(d, 56)
#define SUM_80(d) SUM_64(d), SUM_8(d, 64), SUM_8(d, 72)
/* A and B from shared memory, k next to each other: descriptors A and B, then whether D is kept */
#define PRODUCT(N, TYPE, SUMS, OUT, a, b, keep, A, B, KEEP)                                        \
    HOPPER_ASM("{\n.reg .pred p;\nsetp.ne.b32 p, " KEEP ", 0;\n"                                   \
               "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." TYPE "." TYPE " {" SUMS "}, " A   \
               ", " B ", p, 1, 1, 0, 0;\n}"                                                        \
               : OUT                                                                               \
               : "l"(a), "l"(b), "r"((int)(keep))                                                  \
               : "memory")
/* A from registers, B by columns */
#define PRODUCT_REGISTERS(N, TYPE, SUMS, OUT, a, b, keep, A, B, KEEP)                              \
    HOPPER_ASM("{\n.reg .pred p;\nsetp.ne.b32 p, " KEEP ", 0;\n"                                   \
               "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." TYPE "." TYPE " {" SUMS "}, {" A  \
               "}, " B ", p, 1, 1, 1;\n}"                                                          \
               : OUT                                                                               \
               : "r"((a)[0]), "r"((a)[1]), "r"((a)[2]), "r"((a)[3]), "l"(b), "r"((int)(keep))      \
               : "memory")
// clang-format on

template <class T> struct wgmma_type;
template <> struct wgmma_type<f16> {
    static constexpr bool half = true;
};
template <> struct wgmma_type<bf16> {
    static constexpr bool half = false;
};

template <class T, int N> DEVICE void wgmma(float (&d)[N / 2], uint64_t a, uint64_t b, bool keep)
{
    static_assert(N == 64 || N == 80 || N == 128 || N == 160,
                  "another width wants its list of sums");
    if constexpr (wgmma_type<T>::half) {
        if constexpr (N == 64)
            PRODUCT(64, "f16", SUMS_32, SUM_32(d), a, b, keep, "%32", "%33", "%34");
        else if constexpr (N == 80)
            PRODUCT(80, "f16", SUMS_40, SUM_40(d), a, b, keep, "%40", "%41", "%42");
        else if constexpr (N == 128)
            PRODUCT(128, "f16", SUMS_64, SUM_64(d), a, b, keep, "%64", "%65", "%66");
        else
            PRODUCT(160, "f16", SUMS_80, SUM_80(d), a, b, keep, "%80", "%81", "%82");
    } else {
        if constexpr (N == 64)
            PRODUCT(64, "bf16", SUMS_32, SUM_32(d), a, b, keep, "%32", "%33", "%34");
        else if constexpr (N == 80)
            PRODUCT(80, "bf16", SUMS_40, SUM_40(d), a, b, keep, "%40", "%41", "%42");
        else if constexpr (N == 128)
            PRODUCT(128, "bf16", SUMS_64, SUM_64(d), a, b, keep, "%64", "%65", "%66");
        else
            PRODUCT(160, "bf16", SUMS_80, SUM_80(d), a, b, keep, "%80", "%81", "%82");
    }
}

template <class T, int N>
DEVICE void wgmma_registers(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b, bool keep)
{
    static_assert(N == 64 || N == 128, "another width wants its list of sums");
    if constexpr (wgmma_type<T>::half) {
        if constexpr (N == 64)
            PRODUCT_REGISTERS(64, "f16", SUMS_32, SUM_32(d), a, b, keep, "%32, %33, %34, %35",
                              "%36", "%37");
        else
            PRODUCT_REGISTERS(128, "f16", SUMS_64, SUM_64(d), a, b, keep, "%64, %65, %66, %67",
                              "%68", "%69");
    } else {
        if constexpr (N == 64)
            PRODUCT_REGISTERS(64, "bf16", SUMS_32, SUM_32(d), a, b, keep, "%32, %33, %34, %35",
                              "%36", "%37");
        else
            PRODUCT_REGISTERS(128, "bf16", SUMS_64, SUM_64(d), a, b, keep, "%64, %65, %66, %67",
                              "%68", "%69");
    }
}

#endif
