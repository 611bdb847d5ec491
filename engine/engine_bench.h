/*
 * engine_bench.h - how fast this machine runs a checkpoint, part by part.
 *
 * Place    `kiln-engine bench ...`, which `kiln bench engine` starts with the same arguments; never
 *          in an engine that serves.
 * Owner    the call; one thread.
 * Failure  exit codes 0, 1 (with a sentence on standard error), 2 (wrong usage).
 *
 * Measured are the load, the text encoder, guided UNet steps and the decoder, with inputs that are
 * noise: the time of a network does not depend on them. On the CPU the arithmetic done is counted by the
 * kernels, and set against products from registers measured just before and after.
 */
#ifndef ENGINE_ENGINE_BENCH_H
#define ENGINE_ENGINE_BENCH_H

/* argv[0] is "bench". Results on standard output. */
int engine_bench_main(int argc, char **argv);

#endif
