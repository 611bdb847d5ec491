/*
 * lora_delta.h - the difference that one module makes to a weight, as a matrix in float.
 *
 * Place    for the forms that lora.c merges: LoHa, LoKr, DoRA, full differences, GLoRA, (IA)^3,
 *          OFT, BOFT, VeRA.
 * Owner    results are the caller's (free).
 * Failure  ERR_FORMAT when the module's shapes do not make the weight's; ERR_NO_MEMORY.
 * Source   KohakuBlueleaf/LyCORIS (LoHa, LoKr, GLoRA, Tucker forms, OFT, BOFT); Liu et al. 2024
 *          (DoRA); Liu et al. 2022 ((IA)^3; PEFT's names); Kopiczko et al. 2024 (VeRA) and
 *          huggingface/peft (VeRA, its own OFT and BOFT).
 */
#ifndef DIFFUSION_LORA_LORA_DELTA_H
#define DIFFUSION_LORA_LORA_DELTA_H

#include "diffusion/lora/lora_file.h"

struct lora_shape {
    int64_t out, in, area; /* area: kernel height times width, 1 for matrices */
};
struct lora_shape lora_shape_of(const struct weight *w);

/* What all forms say and read: ERR_FORMAT, ERR_NO_MEMORY; numbers in an entry, and those as floats
 * (the caller's; NULL without memory). */
int lora_misfit(const struct lora_module *m, struct error *err);
int lora_no_memory(const struct lora_module *m, struct error *err);
int64_t lora_tensor_count(const struct safetensors_entry *e);
float *lora_tensor_floats(const struct safetensors_entry *e);

/* delta [out, in, area], scaled by alpha / rank, strength not applied. */
int lora_delta(float **delta, const struct lora_module *m, struct lora_shape shape,
               struct error *err);
/* base += strength * (what the module makes of base); base [out, in, area]. */
int lora_delta_merge(float *base, const struct lora_module *m, struct lora_shape shape,
                     double strength, struct error *err);
/* For the forms that depend on the weight (GLoRA, (IA)^3: lora_change.c; OFT, BOFT: lora_turn.c): the
 * delta of `base`. strength is what is left to multiply it by. */
bool lora_depends(const struct lora_module *m);
int lora_change(float **delta, const float *base, const struct lora_module *m,
                struct lora_shape shape, double *strength, struct error *err);
bool lora_turns(const struct lora_module *m);
int lora_turn(float **delta, const float *base, const struct lora_module *m,
              struct lora_shape shape, double *strength, struct error *err);
/* PEFT's (IA)^3 on outputs scales the bias, too. */
int lora_scale_bias(float *bias, int64_t n, const struct lora_module *m, double strength,
                    struct error *err);
/* alpha / rank of a module whose factors share `rank`. */
double lora_scale(const struct lora_module *m, int64_t rank);

#endif
