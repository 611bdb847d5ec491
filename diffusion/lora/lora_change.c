/* Differences that depend on the weight they change: GLoRA, (IA)^3; turns are in lora_turn.c. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "diffusion/lora/lora_delta.h"

bool lora_depends(const struct lora_module *m)
{
    return m->tensor[LORA_A1] || m->tensor[LORA_A2] || m->tensor[LORA_SCALE] ||
           m->tensor[LORA_IA3] || lora_turns(m);
}

/* ---- GLoRA: W a1 a2 + b1 b2 ---- */

/* delta += W a1 a2, a1 [in,r], a2 [r,in], at each place of the kernel */
static int add_inner(float *delta, const float *base, const struct lora_module *m,
                     struct lora_shape s, int64_t rank, double scale, struct error *err)
{
    float *a1 = lora_tensor_floats(m->tensor[LORA_A1]),
          *a2 = lora_tensor_floats(m->tensor[LORA_A2]);
    double *row = alloc_try((size_t)rank + 1, sizeof *row);
    int rc = a1 && a2 && row ? 0 : lora_no_memory(m, err);
    for (int64_t o = 0; !rc && o < s.out; o++)
        for (int64_t k = 0; k < s.area; k++) {
            const float *w = base + o * s.in * s.area + k;
            memset(row, 0, (size_t)rank * sizeof *row);
            for (int64_t i = 0; i < s.in; i++)
                for (int64_t r = 0; r < rank; r++)
                    row[r] += (double)w[i * s.area] * (double)a1[i * rank + r];
            for (int64_t i = 0; i < s.in; i++) {
                double sum = 0;
                for (int64_t r = 0; r < rank; r++) sum += row[r] * (double)a2[r * s.in + i];
                delta[(o * s.in + i) * s.area + k] += (float)(scale * sum);
            }
        }
    free(a1);
    free(a2);
    free(row);
    return rc;
}

static int general(float **delta, const float *base, const struct lora_module *m,
                   struct lora_shape s, struct error *err)
{
    const struct safetensors_entry *a1 = m->tensor[LORA_A1], *a2 = m->tensor[LORA_A2];
    if (!a1 || !a2 || a1->rank < 2 || a2->rank < 2) return lora_misfit(m, err);
    int64_t rank = a2->dim[0];
    if (rank < 1 || a1->dim[0] != s.in || lora_tensor_count(a1) != s.in * rank ||
        lora_tensor_count(a2) != s.in * rank)
        return lora_misfit(m, err);
    /* the second half is a plain pair, with its own core perhaps */
    struct lora_module pair = *m;
    memset(pair.tensor, 0, sizeof pair.tensor);
    pair.tensor[LORA_UP] = m->tensor[LORA_B1];
    pair.tensor[LORA_DOWN] = m->tensor[LORA_B2];
    pair.tensor[LORA_MID] = m->tensor[LORA_BM];
    if (!pair.tensor[LORA_UP] || !pair.tensor[LORA_DOWN]) return lora_misfit(m, err);
    int rc = lora_delta(delta, &pair, s, err);
    if (rc) return rc;
    rc = add_inner(*delta, base, m, s, rank, lora_scale(m, rank), err);
    if (rc) free(*delta);
    return rc;
}

/* ---- (IA)^3: W times a factor of each row or column ---- */

static int scaled(float **delta, const float *base, const struct lora_module *m,
                  struct lora_shape s, struct error *err)
{
    const struct safetensors_entry *e = m->tensor[LORA_SCALE], *on = m->tensor[LORA_ON_INPUT];
    bool peft = !e, by_input;
    if (peft) {
        e = m->tensor[LORA_IA3];
        by_input = e->rank > 1 && e->dim[0] == 1 && e->dim[1] != 1;
    } else {
        by_input = on && on->bytes && dtype_get(on->data, on->dtype, 0) != 0;
    }
    if (lora_tensor_count(e) != (by_input ? s.in : s.out)) return lora_misfit(m, err);
    float *factor = lora_tensor_floats(e),
          *made = alloc_try((size_t)(s.out * s.in * s.area) + 1, sizeof *made);
    int rc = factor && made ? 0 : lora_no_memory(m, err);
    for (int64_t i = 0; !rc && i < s.out * s.in * s.area; i++) {
        int64_t at = by_input ? i / s.area % s.in : i / s.area / s.in;
        made[i] = base[i] * (factor[at] - (peft ? 1 : 0)); /* LyCORIS stores what is added to 1 */
    }
    free(factor);
    if (rc)
        free(made);
    else
        *delta = made;
    return rc;
}

int lora_change(float **delta, const float *base, const struct lora_module *m,
                struct lora_shape shape, double *strength, struct error *err)
{
    if (lora_turns(m)) return lora_turn(delta, base, m, shape, strength, err);
    if (m->tensor[LORA_SCALE] || m->tensor[LORA_IA3]) return scaled(delta, base, m, shape, err);
    return general(delta, base, m, shape, err);
}

int lora_scale_bias(float *bias, int64_t n, const struct lora_module *m, double strength,
                    struct error *err)
{
    const struct safetensors_entry *e = m->tensor[LORA_IA3];
    if (lora_tensor_count(e) != n) return lora_misfit(m, err);
    for (int64_t i = 0; i < n; i++)
        bias[i] += (float)(strength * (dtype_get(e->data, e->dtype, i) - 1) * (double)bias[i]);
    return 0;
}
