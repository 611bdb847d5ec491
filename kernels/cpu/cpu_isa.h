/*
 * cpu_isa.h - one source, several instruction sets.
 *
 * Place    first include of every file that is compiled once an instruction set (see meson.build):
 *          avx512bf16, avx512, avx2, portable. CPU_ISA is the set's name; every external symbol of
 *          such a file gets it as a suffix, so that all sets live in one program.
 * Failure  none. What runs is chosen in cpu_device.c.
 */
#ifndef KERNELS_CPU_CPU_ISA_H
#define KERNELS_CPU_CPU_ISA_H

#ifndef CPU_ISA
#error "CPU_ISA is set by kernels/cpu/meson.build"
#endif

#define CPU_JOIN_(a, b) a##_##b
#define CPU_JOIN(a, b) CPU_JOIN_(a, b)
#define CPU_NAME(name) CPU_JOIN(name, CPU_ISA)

#define ALWAYS_INLINE static inline __attribute__((always_inline))

#endif
