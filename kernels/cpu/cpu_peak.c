#include "kernels/cpu/cpu_gemm.h"

/* Products from registers alone: what the microkernel cannot exceed. Returns the operations done. */
double CPU_NAME(cpu_peak_loop)(int64_t rounds, enum dtype dtype);

/* Twelve independent sums fit every register file and cover every latency. */
#define SUMS 12

double CPU_NAME(cpu_peak_loop)(int64_t rounds, enum dtype dtype)
{
    vf sum[SUMS];
#pragma GCC unroll 12
    for (int i = 0; i < SUMS; i++) sum[i] = vf_set((float)i);
    vf a = vf_set(1e-9f), b = vf_set(0.5f);
    for (int64_t r = 0; r < rounds; r++) {
        __asm__ volatile("" : "+m"(a), "+m"(b)); /* not to be folded into one product */
        vf x = a, y = b;
        if (dtype == DTYPE_BF16) {
#pragma GCC unroll 12
            for (int i = 0; i < SUMS; i++) sum[i] = gemm_step_bf16(sum[i], (vu)x, (vu)y);
        } else {
#pragma GCC unroll 12
            for (int i = 0; i < SUMS; i++) sum[i] += x * y;
        }
    }
    vf total = {0};
#pragma GCC unroll 12
    for (int i = 0; i < SUMS; i++) total += sum[i];
    volatile float sink = vf_sum(total);
    (void)sink;
    return (double)rounds * SUMS * VL * (dtype == DTYPE_BF16 ? 4 : 2);
}
