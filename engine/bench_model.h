/*
 * bench_model.h - a checkpoint of full size with random weights, for measuring without one.
 *
 * Place    `kiln bench make`, and the benchmarks when no --model is named. The time and memory of a
 *          network do not depend on what its weights are; the pictures are noise.
 * Owner    the call; one thread.
 * Failure  ERR_INVALID (a layout that is none), ERR_NO_MEMORY, ERR_IO.
 * Source   shapes: CompVis/stable-diffusion v1-5, Stability AI SDXL base 1.0. The layers' names are
 *          the models' own visitors'.
 */
#ifndef ENGINE_BENCH_MODEL_H
#define ENGINE_BENCH_MODEL_H

#include "base/error.h"
#include "kernels/dtype.h"

/* layout "sd15" or "sdxl". PATH ending in .safetensors: one file in LDM names (sd15 only); else a
 * diffusers folder with what torch needs to open it. */
int bench_model_make(const char *layout, const char *path, enum dtype dtype, struct error *err);
/* The folder of a layout's random model in F16 in the cache folder, made when it is not there (or was
 * not finished). The caller frees; NULL on failure. */
char *bench_model_find(const char *layout, struct error *err);

/* "kiln-engine bench-make sd15|sdxl PATH [--precision P]" */
int bench_make_main(int argc, char **argv);

#endif
