/*
 * dpm_solver.h - the single steps of DPM-Solver (orders 1 to 3) over t = -ln sigma.
 *
 * Place    shared by dpm_fast and dpm_adaptive.
 * Owner    dpm_solver_init takes vectors of the run.
 * Failure  the denoiser's. Source: Lu et al. 2022 (DPM-Solver), as k-diffusion's DPMSolver class.
 */
#ifndef SAMPLE_DPM_SOLVER_H
#define SAMPLE_DPM_SOLVER_H

#include "diffusion/sample/sampling.h"

struct dpm_solver {
    struct sampling *s;
    float *D;               /* newest denoised, for the hook */
    float *eps;             /* slope at t, made by dpm_solver_start */
    float *eps1, *eps2, *u; /* slopes and point of the inner stages */
    double r1;              /* of eps1 */
};

int dpm_solver_init(struct dpm_solver *d, struct sampling *s, struct error *err);
/* eps = (x - D) / sigma at t: once for a step, whatever the order */
int dpm_solver_start(struct dpm_solver *d, const float *x, double t, struct error *err);
void dpm_solver_1(struct dpm_solver *d, float *y, const float *x, double t, double t_next);
/* r1: where the inner stage lies; its slope is made here and kept for order 3 */
int dpm_solver_2(struct dpm_solver *d, float *y, const float *x, double t, double t_next, double r1,
                 struct error *err);
/* r1 = 1/3, r2 = 2/3; `again` uses the slope that dpm_solver_2 with r1 = 1/3 left behind */
int dpm_solver_3(struct dpm_solver *d, float *y, const float *x, double t, double t_next,
                 bool again, struct error *err);

#endif
