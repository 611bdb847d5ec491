/* selftest_wgmma.cu - four warps through the words of wrap_hopper.h. Contract in selftest_wgmma.h. */
#include "kernels/cuda/selftest_wgmma.h"

#include "kernels/cuda/wrap_hopper.h"

static constexpr int box_bytes = 64 * TENSOR_BOX * 2;

template <int N> DEVICE void store_sums(uint32_t *to, const float (&sums)[N / 2])
{
    const int t = thread_index(), row = t / 32 * 16 + t % 32 / 4, column = t % 4 * 2;
    UNROLL
    for (int i = 0; i < N / 2; i++)
        global_store(to + (row + i / 2 % 2 * 8) * N + i / 4 * 8 + column + i % 2,
                     float_to_bits(sums[i]));
}

template <class T> KERNEL(128, 1) selftest_wgmma_kernel(const GRID_CONSTANT selftest_wgmma_params p)
{
    const int t = thread_index();
    if constexpr (!HAS_WGMMA) return;
    const shared_t base = shared_base(), rows = base + (1024 - base % 1024) % 1024;
    const shared_t pixels = rows + box_bytes, steps = pixels + box_bytes;
    const shared_t barrier = steps + box_bytes;
    if (t == 0) {
        phase_init(barrier, 1);
        phase_init_visible();
    }
    block_sync();
    if (t == 0) {
        phase_expect(barrier, 2 * box_bytes);
        tensor_load(rows, &p.rows, barrier, 0, 0, 0, 0);
        /* one line down and two to the right of a walk that starts outside */
        tensor_load_pixels(pixels, &p.pixels, barrier, 0, -1, -1, 0, 2, 1);
    }
    phase_wait(barrier, 0);
    float sums[32], wide[64];
    UNROLL
    for (int i = 0; i < 32; i++) sums[i] = 0.0f;
    UNROLL
    for (int i = 0; i < 64; i++) wide[i] = 0.0f;
    uint32_t weights[4];
    UNROLL
    for (int r = 0; r < 4; r++) {
        const int row = t / 32 * 16 + t % 32 / 4 + r % 2 * 8, k = r / 2 * 8 + t % 4 * 2;
        weights[r] = pack<T>((float)((row + k) % 5 - 2), (float)((row + k + 1) % 5 - 2));
    }
    const uint64_t a = matrix_rows(rows);
    group_fence();
    UNROLL
    for (int step = 0; step < 4; step++) wgmma<T, 64>(sums, a + 2 * step, a + 2 * step, step > 0);
    group_commit();
    wgmma_registers<T, 128>(wide, weights, matrix_columns(rows + 16 * 128, box_bytes), false);
    group_commit();
    group_wait<1>();
    registers_hold(sums);
    group_wait<0>();
    registers_hold(wide);
    if (t == 0) {
        phase_expect(barrier, box_bytes);
        tensor_load_pixels(steps, &p.steps, barrier, 0, -1, -1, 0, 0, 1);
    }
    phase_wait(barrier, 1);
    if (t == 0) global_store(p.output + SELFTEST_BUILT, 1u);
    store_sums<64>(p.output + SELFTEST_PRODUCT, sums);
    store_sums<128>(p.output + SELFTEST_COLUMNS, wide);
    for (int i = t; i < 64 * 8; i += 128) {
        const int row = i / 8, chunk = i % 8;
        const word16 v = shared_load<word16>(steps + row * 128 + (chunk ^ (row & 7)) * 16);
        global_store(p.output + SELFTEST_STEPS + 4 * i, v);
    }
}

extern "C" int selftest_wgmma_run(const struct selftest_wgmma_params *p, int dtype, void *stream)
{
    const size_t shared = 3 * box_bytes + 1024 + 64;
    if (dtype == 1)
        return launch<selftest_wgmma_kernel<f16>>("selftest_wgmma", dim3(1), 128, shared, stream,
                                                  *p);
    return launch<selftest_wgmma_kernel<bf16>>("selftest_wgmma", dim3(1), 128, shared, stream, *p);
}
