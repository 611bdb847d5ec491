/*
 * kernels_bench.h - `kiln bench kernels`, run by the program that may open devices.
 *
 * Place    engine/main.c hands over when its first argument is "bench-kernels".
 * Failure  returns an exit code: 1 failed, 2 wrong usage, ENGINE_EXIT_DEVICE.
 */
#ifndef ENGINE_KERNELS_BENCH_H
#define ENGINE_KERNELS_BENCH_H

int kernels_bench_main(int argc, char **argv);

#endif
