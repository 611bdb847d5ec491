/* DPM-Solver-fast: n network calls in all, steps of order 3 with a lower order at the end, equal in
 * log sigma. Ends at the last positive sigma, as the reference does. Lu et al. 2022. */
#include "diffusion/sample/dpm_solver.h"

int sample_dpm_fast(struct sampling *s, struct error *err)
{
    struct dpm_solver d;
    int rc = dpm_solver_init(&d, s, err);
    int calls = s->steps, pieces = calls / 3 + 1;
    double start = -log(s->sigma_max), end = -log(s->sigma_min), done = 0;
    for (int i = 0; !rc && i < pieces; i++) {
        int order = 3; /* calls % 3 == 0: 3 .. 3 2 1, else 3 .. 3 and the rest */
        if (i == pieces - 1) order = calls % 3 ? calls % 3 : 1;
        if (i == pieces - 2 && calls % 3 == 0) order = 2;
        double t = start + (end - start) * i / pieces,
               next = start + (end - start) * (i + 1) / pieces;
        rc = dpm_solver_start(&d, s->x, t, err);
        if (rc) break;
        if (order == 1) dpm_solver_1(&d, s->x, s->x, t, next);
        if (order == 2) rc = dpm_solver_2(&d, s->x, s->x, t, next, 0.5, err);
        if (order == 3) rc = dpm_solver_3(&d, s->x, s->x, t, next, false, err);
        done += order;
        if (!rc) rc = sampling_step_done(s, (int)done - 1, d.D, err);
    }
    return rc;
}
