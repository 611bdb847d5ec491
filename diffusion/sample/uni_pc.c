/* UniPC: a predictor of order up to 3 and a corrector that reuses the next network call. Zhao et
 * al. 2023; data prediction, multistep, B(h) = h (bh1) or e^h - 1 (bh2), lower order at the end, as
 * ComfyUI's "uni_pc" and "uni_pc_bh2". There the last sigma 0 is taken as 0.001, and the last
 * step is a prediction without a network call. In sigma space alpha is 1 everywhere. */
#include <string.h>

#include "diffusion/sample/sampling.h"

enum { ORDER = 3 };
static const double SIGMA_LAST = 0.001;

struct unipc {
    struct sampling *s;
    bool bh2;
    float *m[ORDER + 1]; /* denoised, newest first; m[ORDER] takes the next one */
    double sigma[ORDER]; /* theirs */
    float *base, *next;  /* the exponential step alone; the predicted x */
};

/* Solves R rho = b for n <= 3 unknowns, R[i][j] = r[j]^i (Gauss, pivots never vanish: r differ). */
static void solve_vandermonde(double *rho, const double *r, const double *b, int n)
{
    double a[ORDER][ORDER + 1];
    for (int i = 0; i < n; i++) {
        for (int j = 0; j < n; j++) a[i][j] = i ? a[i - 1][j] * r[j] : 1;
        a[i][n] = b[i];
    }
    for (int k = 0; k < n; k++)
        for (int i = k + 1; i < n; i++) {
            double f = a[i][k] / a[k][k];
            for (int j = k; j <= n; j++) a[i][j] -= f * a[k][j];
        }
    for (int i = n - 1; i >= 0; i--) {
        rho[i] = a[i][n];
        for (int j = i + 1; j < n; j++) rho[i] -= a[i][j] * rho[j];
        rho[i] /= a[i][i];
    }
}

/* x at the next level; with `correct`, the network is asked there and x is improved with it. */
static int update(struct unipc *u, double next, int order, bool correct, struct error *err)
{
    struct sampling *s = u->s;
    size_t count = s->count;
    double h = log(u->sigma[0] / next), hh = -h, phi = expm1(hh);
    double scale = u->bh2 ? phi : hh; /* B(h) */
    double r[ORDER], b[ORDER], rho[ORDER], term = phi / hh - 1, factorial = 1;
    for (int i = 1; i < order; i++) r[i - 1] = log(u->sigma[0] / u->sigma[i]) / h;
    r[order - 1] = 1;
    for (int i = 0; i < order; i++) {
        b[i] = term * factorial / scale;
        factorial *= i + 2;
        term = term / hh - 1 / factorial;
    }

    vector_sum2(u->base, count, next / u->sigma[0], s->x, -phi, u->m[0]);
    if (order == 2)
        rho[0] = 0.5;
    else
        solve_vandermonde(rho, r, b, order - 1);
    vector_scale(u->next, count, 1, u->base);
    for (int i = 1; i < order; i++) {
        double w = -scale * rho[i - 1] / r[i - 1];
        vector_sum3(u->next, count, 1, u->next, w, u->m[i], -w, u->m[0]);
    }
    if (!correct) {
        vector_scale(s->x, count, 1, u->next);
        return 0;
    }

    float *ahead = u->m[ORDER];
    int rc = sampling_denoise(s, ahead, u->next, next, err);
    if (rc) return rc;
    if (order == 1)
        rho[0] = 0.5;
    else
        solve_vandermonde(rho, r, b, order);
    vector_scale(s->x, count, 1, u->base);
    for (int i = 1; i < order; i++) {
        double w = -scale * rho[i - 1] / r[i - 1];
        vector_sum3(s->x, count, 1, s->x, w, u->m[i], -w, u->m[0]);
    }
    double w = -scale * rho[order - 1];
    vector_sum3(s->x, count, 1, s->x, w, ahead, -w, u->m[0]);
    return 0;
}

/* m[ORDER], made at `sigma`, becomes the newest. */
static void shift(struct unipc *u, double sigma)
{
    float *newest = u->m[ORDER];
    memmove(u->m + 1, u->m, ORDER * sizeof u->m[0]);
    u->m[0] = newest;
    memmove(u->sigma + 1, u->sigma, (ORDER - 1) * sizeof u->sigma[0]);
    u->sigma[0] = sigma;
}

static int run(struct sampling *s, bool bh2, struct error *err)
{
    struct unipc u = {.s = s, .bh2 = bh2};
    for (int i = 0; i <= ORDER; i++)
        if (!(u.m[i] = sampling_vector(s, err))) return ERR_NO_MEMORY;
    u.base = sampling_vector(s, err);
    u.next = sampling_vector(s, err);
    if (!u.base || !u.next) return ERR_NO_MEMORY;

    int order = s->steps - 1 < ORDER ? s->steps - 1 : ORDER;
    if (order < 1) order = 1;
    int rc = sampling_denoise(s, u.m[ORDER], s->x, s->sigmas[0], err);
    if (rc) return rc;
    shift(&u, s->sigmas[0]);
    rc = sampling_step_done(s, 0, u.m[0], err);
    for (int i = 1; !rc && i <= s->steps; i++) {
        bool last = i == s->steps;
        double next = s->sigmas[i] > 0 ? s->sigmas[i] : fmin(SIGMA_LAST, s->sigmas[i - 1] / 2);
        int use = i < order ? i : order;
        if (use > s->steps + 1 - i) use = s->steps + 1 - i;
        rc = update(&u, next, use, !last, err);
        if (rc || last) break;
        shift(&u, next);
        rc = sampling_step_done(s, i, u.m[0], err);
    }
    return rc;
}

int sample_uni_pc(struct sampling *s, struct error *err)
{
    return run(s, false, err);
}

int sample_uni_pc_bh2(struct sampling *s, struct error *err)
{
    return run(s, true, err);
}
