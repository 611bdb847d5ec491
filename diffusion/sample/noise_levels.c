#include "diffusion/sample/noise_levels.h"

#include <math.h>

/* What the last alpha_bar becomes under zero terminal SNR, so that sigma stays finite. */
#define ALPHA_BAR_ZERO_SNR 4.8973451890853435e-08

void noise_levels_init(struct noise_levels *l, bool zero_terminal_snr)
{
    const double from = sqrt(0.00085), to = sqrt(0.012);
    double alpha_bar[NOISE_LEVELS], product = 1;
    for (int t = 0; t < NOISE_LEVELS; t++) {
        double root = from + (to - from) * t / (NOISE_LEVELS - 1);
        product *= 1 - root * root;
        alpha_bar[t] = product;
    }
    if (zero_terminal_snr) {
        double first = sqrt(alpha_bar[0]), last = sqrt(alpha_bar[NOISE_LEVELS - 1]);
        for (int t = 0; t < NOISE_LEVELS; t++) {
            double s = (sqrt(alpha_bar[t]) - last) * first / (first - last);
            alpha_bar[t] = s * s;
        }
        alpha_bar[NOISE_LEVELS - 1] = ALPHA_BAR_ZERO_SNR;
    }
    for (int t = 0; t < NOISE_LEVELS; t++) {
        double sigma = sqrt((1 - alpha_bar[t]) / alpha_bar[t]);
        l->alpha_bar[t] = (float)alpha_bar[t];
        l->sigma[t] = (float)sigma;
        l->log_sigma[t] = (float)log(sigma);
    }
}

double noise_levels_min(const struct noise_levels *l)
{
    return l->sigma[0];
}

double noise_levels_max(const struct noise_levels *l)
{
    return l->sigma[NOISE_LEVELS - 1];
}

double noise_levels_sigma(const struct noise_levels *l, double timestep)
{
    float t = (float)timestep;
    t = t < 0 ? 0 : t > NOISE_LEVELS - 1 ? NOISE_LEVELS - 1 : t;
    int low = (int)t, high = (int)ceilf(t);
    float w = t - (float)low;
    return expf((1 - w) * l->log_sigma[low] + w * l->log_sigma[high]);
}

int noise_levels_timestep(const struct noise_levels *l, double sigma)
{
    float wanted = logf((float)sigma);
    int best = 0;
    for (int t = 1; t < NOISE_LEVELS; t++)
        if (fabsf(wanted - l->log_sigma[t]) < fabsf(wanted - l->log_sigma[best])) best = t;
    return best;
}

double noise_levels_timestep_exact(const struct noise_levels *l, double sigma)
{
    double wanted = log(sigma);
    if (wanted <= l->log_sigma[0]) return 0;
    if (wanted >= l->log_sigma[NOISE_LEVELS - 1]) return NOISE_LEVELS - 1;
    int low = 0;
    while (l->log_sigma[low + 1] <= wanted) low++;
    double below = l->log_sigma[low], above = l->log_sigma[low + 1];
    return low + (wanted - below) / (above - below);
}

struct scaling prediction_scaling(enum prediction prediction, double sigma)
{
    double square = sigma * sigma + 1, root = sqrt(square);
    if (prediction == PREDICTION_V) return (struct scaling){1 / root, 1 / square, -sigma / root};
    return (struct scaling){1 / root, 1, -sigma};
}
