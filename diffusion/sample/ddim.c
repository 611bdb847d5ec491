/* DDIM (Song et al. 2020) in sigma: Euler's step, and with eta > 0 the ancestral one, whose noise has
 * DDIM's variance eta^2 sigma'^2 (sigma^2 - sigma'^2) / sigma^2. */
#include "diffusion/sample/sampling.h"

int sample_ddim(struct sampling *s, struct error *err)
{
    return sampling_eta(s, 0) > 0 ? sample_euler_ancestral(s, err) : sample_euler(s, err);
}
