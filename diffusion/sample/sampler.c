#include "diffusion/sample/sampler.h"

#include "diffusion/sample/sampling.h"

static const struct {
    sampler_function *function;
    bool random;
} samplers[SAMPLER_COUNT] = {
    [SAMPLER_K_EULER] = {sample_euler, false},
    [SAMPLER_K_EULER_A] = {sample_euler_ancestral, true},
    [SAMPLER_K_HEUN] = {sample_heun, false},
    [SAMPLER_K_LMS] = {sample_lms, false},
    [SAMPLER_K_DPM_2] = {sample_dpm_2, false},
    [SAMPLER_K_DPM_2_A] = {sample_dpm_2_ancestral, true},
    [SAMPLER_K_DPM_FAST] = {sample_dpm_fast, false},
    [SAMPLER_K_DPM_ADAPTIVE] = {sample_dpm_adaptive, false},
    [SAMPLER_K_DPMPP_2S_A] = {sample_dpmpp_2s_ancestral, true},
    [SAMPLER_K_DPMPP_2M] = {sample_dpmpp_2m, false},
    [SAMPLER_K_DPMPP_SDE] = {sample_dpmpp_sde, true},
    [SAMPLER_DPMSOLVER] = {sample_euler, false}, /* what the Horde's worker runs under this name */
    [SAMPLER_DDIM] = {sample_ddim, false},
    [SAMPLER_LCM] = {sample_lcm, true},
    [SAMPLER_UNI_PC] = {sample_uni_pc, false},
    [SAMPLER_UNI_PC_BH2] = {sample_uni_pc_bh2, false},
    [SAMPLER_DPMPP_2M_SDE] = {sample_dpmpp_2m_sde, true},
    [SAMPLER_DPMPP_3M_SDE] = {sample_dpmpp_3m_sde, true},
    [SAMPLER_DDPM] = {sample_ddpm, true},
    [SAMPLER_DEIS] = {sample_deis, false},
    [SAMPLER_IPNDM] = {sample_ipndm, false},
    [SAMPLER_RES_MULTISTEP] = {sample_res_multistep, false},
    [SAMPLER_HEUNPP2] = {sample_heunpp2, false},
    [SAMPLER_ER_SDE] = {sample_er_sde, true},
};

bool sampler_is_random(enum sampler sampler)
{
    return samplers[sampler].random;
}

static int check_sigmas(const struct sampler_run *run, struct error *err)
{
    if (run->sigma_count < 2)
        return error_set(err, ERR_INVALID, "a run needs at least 2 sigmas, not %d",
                         run->sigma_count);
    for (int i = 0; i < run->sigma_count; i++) {
        double sigma = run->sigmas[i];
        bool last = i == run->sigma_count - 1;
        if (!isfinite(sigma) || sigma < 0 || (sigma == 0 && !last))
            return error_set(err, ERR_INVALID, "sigma %d of %d is %g", i, run->sigma_count, sigma);
        if (i && sigma >= run->sigmas[i - 1])
            return error_set(err, ERR_INVALID, "sigmas must descend: %g follows %g", sigma,
                             run->sigmas[i - 1]);
    }
    return 0;
}

int sampler_run(enum sampler sampler, struct sampler_run *run, struct error *err)
{
    KILN_ASSERT(sampler >= 0 && sampler < SAMPLER_COUNT, "sampler %d", (int)sampler);
    int rc = check_sigmas(run, err);
    if (rc) return rc;
    bool random = samplers[sampler].random || run->eta > 0;
    KILN_ASSERT(run->noise || !random, "%s without noise", sampler_name(sampler));
    struct sampling s = {
        .run = run,
        .x = run->x,
        .count = run->count,
        .sigmas = run->sigmas,
        .steps = run->sigma_count - 1,
        .sigma_max = run->sigmas[0],
        .sigma_min = run->sigmas[run->sigma_count - 1],
    };
    if (s.sigma_min == 0) s.sigma_min = run->sigmas[run->sigma_count - 2];
    arena_init(&s.arena, 0);
    rc = samplers[sampler].function(&s, err);
    arena_release(&s.arena);
    return rc;
}
