/* selftest.cu - one warp through the words of wrap.h. Contract in selftest.h. */
#include "kernels/cuda/selftest.h"

#include "kernels/cuda/wrap.h"

struct selftest_params {
    const uint32_t *input;
    uint32_t *output;
};

static constexpr int selftest_pitch = 48; /* 32 bytes and an odd chunk */

template <class T> struct is_f16 {
    static constexpr bool value = false;
};
template <> struct is_f16<f16> {
    static constexpr bool value = true;
};

template <class T> KERNEL(32, 1) selftest_kernel(const selftest_params p)
{
    const int lane = thread_index();
    const shared_t a = shared_base(), b = a + 16 * selftest_pitch;
    /* rows of 16 elements are two chunks; the last row of A loses its second one */
    for (int i = lane; i < 48; i += 32)
        copy_async(a + i / 2 * selftest_pitch + i % 2 * 16, p.input + 4 * i, i != 31);
    copy_commit();
    copy_wait<0>();
    block_sync();
    uint32_t fa[4], turned[4], fb[2], fb_turned[2];
    const shared_t row_a = a + lane % 16 * selftest_pitch + lane / 16 * 16;
    const shared_t row_b = b + lane % 8 * selftest_pitch + lane / 8 % 2 * 16;
    matrix_load4(fa, row_a);
    matrix_load4_transposed(turned, row_a);
    matrix_load2(fb, row_b);
    matrix_load2_transposed(fb_turned, row_b);
    float c[4] = {1.0f, 2.0f, 3.0f, 4.0f}, c8[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    mma<T>(c, fa, fb);
    mma_k8<T>(c8, fa, fb);
    uint32_t half[2] = {0, 0};
    if constexpr (is_f16<T>::value) mma_half(half, fa, fb);
    uint32_t *to = p.output + lane * SELFTEST_LANE_WORDS;
    for (int i = 0; i < 4; i++) {
        global_store(to + i, fa[i]);
        global_store(to + 4 + i, turned[i]);
        global_store(to + 12 + i, float_to_bits(c[i]));
        global_store(to + 16 + i, float_to_bits(c8[i]));
    }
    for (int i = 0; i < 2; i++) {
        global_store(to + 8 + i, fb[i]);
        global_store(to + 10 + i, fb_turned[i]);
        global_store(to + 20 + i, half[i]);
    }
    global_store(to + 22, float_to_bits(shuffle_xor((float)lane, 5)));
    global_store(to + 23, float_to_bits(shuffle((float)lane, 7)));
    global_store(to + 24, float_to_bits(exp2_fast((float)(lane - 16))));
    global_store(to + 25, pack<T>((float)lane, -0.5f));
    float lo, hi;
    unpack<T>(pack<T>(1.5f, (float)-lane), lo, hi);
    global_store(to + 26, float_to_bits(lo));
    global_store(to + 27, float_to_bits(hi));
}

extern "C" int selftest_run(const uint32_t *input, uint32_t *output, int dtype, void *stream)
{
    const selftest_params p = {input, output};
    if (dtype == 1)
        return launch<selftest_kernel<f16>>("selftest", dim3(1), 32, 24 * selftest_pitch, stream,
                                            p);
    return launch<selftest_kernel<bf16>>("selftest", dim3(1), 32, 24 * selftest_pitch, stream, p);
}
