/*
 * epilogue.h - what follows a matrix product while it is still in registers (gemm.h).
 *
 *     y = act(row_scale[m] z + bias[n] + row[image, n]) + add[m, n]          in fp32
 *     geglu: y[m, j] = (z_value + bias[j]) * gelu(z_gate + bias[n / 2 + j])
 */
#ifndef KERNELS_CUDA_EPILOGUE_H
#define KERNELS_CUDA_EPILOGUE_H

#include "kernels/cuda/activation.h"
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/wrap.h"

/* enum dtype's first three, as kernels see them */
enum { KERNEL_F32, KERNEL_F16, KERNEL_BF16 };

DEVICE float load_as(const void *p, int dtype, int64_t i)
{
    if (dtype == KERNEL_F32) return global_load<float>((const float *)p + i);
    if (dtype == KERNEL_F16) return to_float(global_load<f16>((const f16 *)p + i));
    return to_float(global_load<bf16>((const bf16 *)p + i));
}

/* Two neighbours of type T, as one access when `together`. */
template <class T> DEVICE void load_pair(const T *p, bool together, bool second, float *v)
{
    if constexpr (sizeof(T) == 2) {
        if (together) {
            unpack<T>(global_load<uint32_t>(p), v[0], v[1]);
            return;
        }
    }
    v[0] = to_float(global_load<T>(p));
    v[1] = second ? to_float(global_load<T>(p + 1)) : 0.0f;
}

template <class T> DEVICE void store_pair(T *p, bool together, bool second, float a, float b)
{
    if constexpr (sizeof(T) == 2) {
        if (together) {
            global_store(p, pack<T>(a, b));
            return;
        }
    }
    global_store(p, to_storage<T>(a));
    if (second) global_store(p + 1, to_storage<T>(b));
}

/* One row of y that a thread writes pairs of columns of. */
template <class T> struct epilogue_row {
    T *y;
    const T *row, *add;
    float scale;
    bool even; /* pairs of y are aligned */

    DEVICE epilogue_row(const gemm_args &p, int m, int phase_y, int phase_x)
    {
        int64_t at = m;
        if (p.phases == 4) {
            int image = m / p.source.image_rows, pixel = m - image * p.source.image_rows;
            int oy = pixel / p.source.row_px, ox = pixel - oy * p.source.row_px;
            at = (int64_t)image * 4 * p.source.image_rows +
                 (int64_t)(2 * oy + phase_y) * 2 * p.source.row_px + 2 * ox + phase_x;
        }
        y = (T *)p.y + at * p.y_pitch;
        const gemm_epilogue &e = p.epilogue;
        row = e.row ? (const T *)e.row + at / e.rows_per_image * e.row_pitch : nullptr;
        scale = e.row_scale ? global_load<float>(e.row_scale + at) : 1.0f;
        add = e.add ? (const T *)e.add + at * p.y_pitch : nullptr;
        even = ((p.y_pitch & 1) | ((uintptr_t)p.y & (2 * sizeof(T) - 1)) |
                ((uintptr_t)e.add & (2 * sizeof(T) - 1))) == 0;
    }

    DEVICE void store(const gemm_args &p, int n, float a, float b)
    {
        if (n >= p.n) return;
        const gemm_epilogue &e = p.epilogue;
        const bool second = n + 1 < p.n, together = second && even;
        float v[2] = {a * scale, b * scale};
        if (e.bias) {
            v[0] += load_as(e.bias, e.bias_dtype, n);
            if (second) v[1] += load_as(e.bias, e.bias_dtype, n + 1);
        }
        if (row) {
            float r[2];
            load_pair(row + n, false, second, r);
            v[0] += r[0], v[1] += r[1];
        }
        if (e.act) v[0] = activate(e.act, v[0]), v[1] = activate(e.act, v[1]);
        if (add) {
            float r[2];
            load_pair(add + n, together, second, r);
            v[0] += r[0], v[1] += r[1];
        }
        store_pair(y + n, together, second, v[0], v[1]);
    }

    /* n: column of the first value, in the interleaved order */
    DEVICE void store_geglu(const gemm_args &p, int n, const float *value, const float *gate)
    {
        if (n >= p.n) return;
        const gemm_epilogue &e = p.epilogue;
        const int j = n / 16 * 8 + n % 8;
        float v[2];
        UNROLL
        for (int i = 0; i < 2; i++) {
            float a = value[i], b = gate[i];
            if (e.bias) {
                a += load_as(e.bias, e.bias_dtype, j + i);
                b += load_as(e.bias, e.bias_dtype, p.n / 2 + j + i);
            }
            v[i] = a * gelu(b);
        }
        store_pair(y + j, even, true, v[0], v[1]);
    }
};

#endif
