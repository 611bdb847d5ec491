/* diffusion/sample: noise levels, schedules, every sampler against goldens and the exact solution. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "diffusion/sample/sampler.h"
#include "diffusion/sample/schedule.h"
#include "tests/support/golden_weights.h"
#include "tests/support/sampler_goldens.h"

enum { N = 256 };

static void assert_close(double a, double b, double tolerance)
{
    if (!(fabs(a - b) <= tolerance)) fail_msg("%.9g is not within %g of %.9g", a, tolerance, b);
}

static void levels_are_the_published_ones(void **state)
{
    struct noise_levels l;
    noise_levels_init(&l, false);
    assert_close(l.alpha_bar[0], 0.99915, 1e-7);
    assert_close(l.alpha_bar[999], 0.0046600985, 1e-9);
    assert_close(l.sigma[0], 0.0291671582, 1e-8);
    assert_close(l.sigma[999], 14.6146411896, 1e-6);
    assert_close(l.sigma[500], 1.6182788611, 1e-7);
    for (int t = 0; t < NOISE_LEVELS; t++) {
        assert_int_equal(noise_levels_timestep(&l, l.sigma[t]), t);
        assert_close(noise_levels_timestep_exact(&l, l.sigma[t]), t, 1e-3);
    }
    assert_int_equal(noise_levels_timestep(&l, 1e9), 999);
    assert_int_equal(noise_levels_timestep(&l, 1e-9), 0);
    assert_close(noise_levels_timestep_exact(&l, 1e9), 999, 0);
    noise_levels_init(&l, true);
    assert_close(l.sigma[0], 0.0291671582, 1e-7);
    assert_close(l.sigma[999], 4518, 1);
}

static void scalings_invert_the_training_target(void **state)
{
    const double clean = 0.7, noise = -1.3;
    for (double sigma = 0.03; sigma < 20; sigma *= 1.7) {
        double x = clean + sigma * noise, root = sqrt(1 + sigma * sigma), alpha = 1 / root;
        struct scaling e = prediction_scaling(PREDICTION_EPSILON, sigma);
        assert_close(x * e.skip + noise * e.output, clean, 1e-12);
        double v = alpha * noise - sigma * alpha * clean;
        struct scaling s = prediction_scaling(PREDICTION_V, sigma);
        assert_close(x * s.skip + v * s.output, clean, 1e-12);
        assert_close(x * e.input, alpha * clean + sigma * alpha * noise, 1e-12);
    }
}

static void schedules_are_the_references(void **state)
{
    struct noise_levels l;
    noise_levels_init(&l, false);
    for (size_t k = 0; k < COUNT_OF(schedule_goldens); k++) {
        struct sigmas s;
        enum schedule name = schedule_goldens[k].schedule;
        assert_int_equal(schedule_make(&s, name, &l, schedule_goldens[k].family,
                                       schedule_goldens[k].steps, NULL),
                         0);
        if (s.count != schedule_goldens[k].count)
            fail_msg("%s of %d steps has %d sigmas, not %d", schedule_name(name),
                     schedule_goldens[k].steps, s.count, schedule_goldens[k].count);
        for (int i = 0; i < s.count; i++) {
            double wanted = schedule_goldens[k].value[i];
            if (fabs(s.value[i] - wanted) > 2e-6 * wanted + 1e-7)
                fail_msg("%s of %d: sigma %d is %.9g, not %.9g", schedule_name(name),
                         schedule_goldens[k].steps, i, s.value[i], wanted);
        }
        sigmas_release(&s);
    }
}

/* The figures that the Horde's worker shows for ten steps. */
static void schedules_of_ten_steps(void **state)
{
    static const struct {
        enum schedule schedule;
        double value[11];
    } goldens[] = {
        {SCHEDULE_NORMAL,
         {14.61464, 7.83988, 4.60917, 2.91831, 1.95016, 1.34493, .93236, .62498, .36866, .02917,
          0}},
        {SCHEDULE_KARRAS,
         {14.61464, 9.10293, 5.47839, 3.1686, 1.74942, .91407, .44692, .2014, .08191, .02917, 0}},
        {SCHEDULE_EXPONENTIAL,
         {14.61464, 7.32487, 3.67123, 1.84002, .92222, .46222, .23166, .11611, .05819, .02917, 0}},
        {SCHEDULE_SGM_UNIFORM,
         {14.61464, 8.30717, 5.09241, 3.32507, 2.27973, 1.61558, 1.16286, .83188, .57119, .3437,
          0}},
        {SCHEDULE_SIMPLE,
         {14.61464, 8.3028, 5.08776, 3.32108, 2.27646, 1.61289, 1.16058, .82986, .56928, .34167,
          0}},
        {SCHEDULE_DDIM_UNIFORM,
         {8.39069, 5.13443, 3.34776, 2.29285, 1.62369, 1.16822, .83565, .57405, .34619, .04131, 0}},
    };
    struct noise_levels l;
    noise_levels_init(&l, false);
    for (size_t k = 0; k < COUNT_OF(goldens); k++) {
        struct sigmas s;
        assert_int_equal(schedule_make(&s, goldens[k].schedule, &l, FAMILY_SD1, 10, NULL), 0);
        assert_int_equal(s.count, 11);
        for (int i = 0; i < 11; i++) assert_close(s.value[i], goldens[k].value[i], 6e-6);
        sigmas_release(&s);
    }
}

/* Whatever is asked, sigmas descend strictly to one zero. */
static void every_schedule_descends(void **state)
{
    struct noise_levels l[2];
    noise_levels_init(&l[0], false);
    noise_levels_init(&l[1], true);
    for (int name = 0; name < SCHEDULE_COUNT; name++)
        for (int steps = 1; steps <= 500; steps += steps < 60 ? 1 : 37)
            for (int k = 0; k < 2; k++) {
                struct sigmas s;
                assert_int_equal(
                    schedule_make(&s, (enum schedule)name, &l[k], FAMILY_SDXL, steps, NULL), 0);
                assert_true(s.count >= 2);
                for (int i = 1; i < s.count; i++)
                    if (!(s.value[i] < s.value[i - 1] && (s.value[i] > 0 || i == s.count - 1)))
                        fail_msg("%s of %d steps: %g after %g at %d", schedule_name(name), steps,
                                 s.value[i], s.value[i - 1], i);
                sigmas_release(&s);
            }
}

static void a_run_cuts_its_schedule(void **state)
{
    struct noise_levels l;
    struct sigmas s, whole;
    struct error err = {0};
    noise_levels_init(&l, false);
    /* img2img: 12 steps at 0.6 are the end of 20 */
    assert_int_equal(
        schedule_for_run(&s, SCHEDULE_NORMAL, SAMPLER_K_EULER, &l, FAMILY_SD1, 12, 0.6, &err), 0);
    static const double wanted[] = {2.115658,  1.764822,   1.480581,  1.245813,  1.048142,
                                    0.8784282, 0.7297187,  0.5964336, 0.4735847, 0.3555454,
                                    0.2321642, 0.02916716, 0.0};
    assert_int_equal(s.count, 13);
    for (int i = 0; i < 13; i++) assert_close(s.value[i], wanted[i], 2e-6);
    assert_close(schedule_noise_factor(&l, s.value[0]), s.value[0], 0);
    sigmas_release(&s);
    /* dpm_2 loses the second last of one step more */
    assert_int_equal(
        schedule_for_run(&s, SCHEDULE_KARRAS, SAMPLER_K_DPM_2, &l, FAMILY_SD1, 10, 1, &err), 0);
    assert_int_equal(schedule_make(&whole, SCHEDULE_KARRAS, &l, FAMILY_SD1, 11, &err), 0);
    assert_int_equal(s.count, 11);
    for (int i = 0; i < 10; i++) assert_close(s.value[i], whole.value[i], 0);
    assert_close(s.value[10], 0, 0);
    assert_close(schedule_noise_factor(&l, s.value[0]), sqrt(1 + s.value[0] * s.value[0]), 0);
    sigmas_release(&s);
    sigmas_release(&whole);

    /* the most that a request can ask for, of every schedule: still strictly down to 0 */
    for (int name = 0; name < SCHEDULE_COUNT; name++)
        for (int lose = 0; lose < 2; lose++) {
            enum sampler sampler = lose ? SAMPLER_K_DPM_2 : SAMPLER_K_EULER;
            assert_int_equal(
                schedule_for_run(&s, (enum schedule)name, sampler, &l, FAMILY_SD1, 500, 0.01, &err),
                0);
            assert_in_range(s.count, 2, 501);
            for (int i = 1; i < s.count; i++) assert_true(s.value[i] < s.value[i - 1]);
            assert_true(s.value[s.count - 1] == 0);
            sigmas_release(&s);
        }

    assert_int_equal(
        schedule_for_run(&s, SCHEDULE_NORMAL, SAMPLER_K_EULER, &l, FAMILY_SD1, 0, 1, &err),
        ERR_INVALID);
    assert_int_equal(
        schedule_for_run(&s, SCHEDULE_NORMAL, SAMPLER_K_EULER, &l, FAMILY_SD1, 5, 0, &err),
        ERR_INVALID);
    assert_non_null(strstr(err.text, "denoise 0"));
    assert_int_equal(
        schedule_for_run(&s, SCHEDULE_NORMAL, SAMPLER_K_EULER, &l, FAMILY_SD1, 5, NAN, &err),
        ERR_INVALID);
    assert_int_equal(
        schedule_for_run(&s, SCHEDULE_NORMAL, SAMPLER_K_EULER, &l, FAMILY_SD1, 500, 0.001, &err),
        ERR_INVALID);
}

/* --- samplers over D = 0.9 x / (1 + sigma^2) --- */

struct toy {
    int calls, fail_at, steps_done, steps, cancel_at;
};

static int toy_denoise(void *context, float *D, const float *x, double sigma, struct error *err)
{
    struct toy *t = context;
    if (++t->calls == t->fail_at) return error_set(err, ERR_DEVICE, "the card fell off");
    for (int i = 0; i < N; i++) D[i] = (float)(0.9 * x[i] / (1 + sigma * sigma));
    return 0;
}

static int toy_step(void *context, int step, int steps, const float *D, struct error *err)
{
    struct toy *t = context;
    assert_in_range(step, 0, steps - 1);
    t->steps_done++;
    t->steps = steps;
    for (int i = 0; i < N; i++) assert_true(isfinite(D[i]));
    if (t->steps_done == t->cancel_at) return error_set(err, ERR_CANCELED, "stopped");
    return 0;
}

static double toy_eta = NAN;

static int run_toy(struct toy *t, float *x, enum sampler sampler, const double *sigmas, int count,
                   struct error *err)
{
    struct noise noise;
    noise_init(&noise, NOISE_CPU, 7);
    golden_normal(x, 0, N);
    for (int i = 0; i < N; i++) x[i] = (float)(x[i] * sigmas[0]);
    struct sampler_run run = {
        .denoiser = {t, toy_denoise},
        .x = x,
        .count = N,
        .sigmas = sigmas,
        .sigma_count = count,
        .noise = &noise,
        .eta = toy_eta,
        .hook_context = t,
        .step_done = toy_step,
    };
    int rc = sampler_run(sampler, &run, err);
    noise_release(&noise);
    return rc;
}

/* Relative to values near 1. k-diffusion's own float32 rounding comes to 4.2e-6 (dpm_2_a, normal).
 * dpm_adaptive's first errors are rounding alone and choose its steps: k-diffusion differs from
 * itself by 1.1e-4 when sigma_max changes in the last place. */
static double sampler_tolerance(enum sampler name)
{
    return name == SAMPLER_K_DPM_ADAPTIVE ? 2e-4 : 4e-6;
}

struct difference {
    double value, norm; /* largest of the first four values; of the norm, a value's share of it */
    int steps_done;
};

static struct difference against_golden(size_t k)
{
    struct noise_levels l;
    struct sigmas s;
    struct toy toy = {0};
    struct difference d = {0};
    float x[N];
    double norm = 0;
    noise_levels_init(&l, false);
    assert_int_equal(schedule_make(&s, sampler_goldens[k].schedule, &l, FAMILY_SD1,
                                   sampler_goldens[k].steps, NULL),
                     0);
    assert_int_equal(run_toy(&toy, x, sampler_goldens[k].sampler, s.value, s.count, NULL), 0);
    for (int i = 0; i < N; i++) norm += (double)x[i] * x[i];
    for (int i = 0; i < 4; i++) d.value = fmax(d.value, fabs(x[i] - sampler_goldens[k].first[i]));
    d.norm = fabs(sqrt(norm) - sampler_goldens[k].norm) / sqrt(N);
    d.steps_done = toy.steps_done;
    sigmas_release(&s);
    return d;
}

static void samplers_are_the_references(void **state)
{
    for (size_t k = 0; k < COUNT_OF(sampler_goldens); k++) {
        enum sampler name = sampler_goldens[k].sampler;
        struct difference d = against_golden(k);
        double tolerance = fmax(sampler_goldens[k].norm / sqrt(N), 1) * sampler_tolerance(name);
        if (!(d.value <= tolerance && d.norm <= tolerance))
            fail_msg("%s %s: values differ by %g, norm by %g; %g is allowed", sampler_name(name),
                     schedule_name(sampler_goldens[k].schedule), d.value, d.norm, tolerance);
        if (name != SAMPLER_K_DPM_FAST && name != SAMPLER_K_DPM_ADAPTIVE)
            assert_int_equal(d.steps_done, sampler_goldens[k].steps);
    }
}

/* Whose numbers make_samplers.py wrote: k-diffusion's own unless a paper's form is named here. */
static const char *reference_of(enum sampler s)
{
    static const struct {
        enum sampler sampler;
        const char *name;
    } own[] = {
        {SAMPLER_DDIM, "k-diffusion (as euler)"},
        {SAMPLER_DPMSOLVER, "k-diffusion (as euler)"},
        {SAMPLER_LCM, "Luo et al. 2023"},
        {SAMPLER_UNI_PC, "Zhao et al. 2023, B1"},
        {SAMPLER_UNI_PC_BH2, "Zhao et al. 2023, B2"},
        {SAMPLER_DDPM, "Ho et al. 2020"},
        {SAMPLER_DEIS, "Zhang & Chen 2022, tAB"},
        {SAMPLER_IPNDM, "Zhang & Chen 2022, iPNDM"},
        {SAMPLER_RES_MULTISTEP, "Zhang et al. 2023, RES"},
        {SAMPLER_HEUNPP2, "Heun++ (three slopes)"},
        {SAMPLER_ER_SDE, "Cui et al. 2023"},
    };
    for (size_t i = 0; i < COUNT_OF(own); i++)
        if (own[i].sampler == s) return own[i].name;
    return "k-diffusion";
}

/* The rows of docs/parity-samplers.md: test_sampler --table */
static int print_table(void)
{
    printf(
        "| sampler | reference | schedule | steps | largest difference | root mean square of the "
        "result |\n| --- | --- | --- | ---: | ---: | ---: |\n");
    for (size_t k = 0; k < COUNT_OF(sampler_goldens); k++) {
        struct difference d = against_golden(k);
        printf("| %s | %s | %s | %d | %.1e | %.3f |\n", sampler_name(sampler_goldens[k].sampler),
               reference_of(sampler_goldens[k].sampler), schedule_name(sampler_goldens[k].schedule),
               sampler_goldens[k].steps, fmax(d.value, d.norm), sampler_goldens[k].norm / sqrt(N));
    }
    return 0;
}

/* x(sigma) = c sigma^0.1 (1 + sigma^2)^0.45 solves the toy exactly; noise-free samplers must come to
 * it as steps get finer, at their order. */
static void solvers_converge_to_the_exact_path(void **state)
{
    static const struct {
        enum sampler sampler;
        double order; /* at least; halving the step divides the error by 2^order */
    } cases[] = {
        {SAMPLER_K_EULER, 0.8}, {SAMPLER_K_HEUN, 1.8},        {SAMPLER_K_DPM_2, 1.6},
        {SAMPLER_K_LMS, 1.8},   {SAMPLER_K_DPMPP_2M, 1.6},    {SAMPLER_K_DPM_FAST, 2.2},
        {SAMPLER_UNI_PC, 1.8},  {SAMPLER_UNI_PC_BH2, 1.8},    {SAMPLER_DEIS, 0.8},
        {SAMPLER_IPNDM, 0.7},   {SAMPLER_RES_MULTISTEP, 1.6},
    };
    for (size_t k = 0; k < COUNT_OF(cases); k++) {
        double error[2];
        for (int fine = 0; fine < 2; fine++) {
            enum { COUNT = 41 };
            int count = fine ? 2 * COUNT - 1 : COUNT;
            double sigmas[2 * COUNT], from = 14.6, to = 0.1, low = pow(to, 1 / 7.0),
                                      high = pow(from, 1 / 7.0);
            for (int i = 0; i < count; i++)
                sigmas[i] = pow(high + (low - high) * i / (count - 1), 7);
            struct toy toy = {0};
            float x[N], x0[N];
            golden_normal(x0, 0, N);
            assert_int_equal(run_toy(&toy, x, cases[k].sampler, sigmas, count, NULL), 0);
            double gain = pow(to / from, 0.1) * pow((1 + to * to) / (1 + from * from), 0.45);
            error[fine] = fabs(x[0] / (x0[0] * from * gain) - 1);
        }
        double order = log2(error[0] / error[1]);
        if (error[1] > 1e-6 && order < cases[k].order)
            fail_msg("%s: errors %g and %g, order %.2f", sampler_name(cases[k].sampler), error[0],
                     error[1], order);
        if (error[1] > 0.03) fail_msg("%s: error %g", sampler_name(cases[k].sampler), error[1]);
    }
}

static void samplers_stop_where_they_are_told(void **state)
{
    static const double sigmas[] = {10, 5, 2, 1, 0.5, 0.1, 0};
    for (int name = 0; name < SAMPLER_COUNT; name++) {
        float x[N];
        struct error err = {0};
        struct toy all = {0};
        assert_int_equal(run_toy(&all, x, (enum sampler)name, sigmas, COUNT_OF(sigmas), &err), 0);
        for (int call = 1; call <= all.calls; call++) {
            struct toy failing = {.fail_at = call};
            assert_int_equal(
                run_toy(&failing, x, (enum sampler)name, sigmas, COUNT_OF(sigmas), &err),
                ERR_DEVICE);
            assert_int_equal(failing.calls, call);
        }
        for (int step = 1; step <= all.steps_done; step++) {
            struct toy canceled = {.cancel_at = step};
            assert_int_equal(
                run_toy(&canceled, x, (enum sampler)name, sigmas, COUNT_OF(sigmas), &err),
                ERR_CANCELED);
            assert_int_equal(canceled.steps_done, step);
        }
        struct toy one = {0};
        assert_int_equal(run_toy(&one, x, (enum sampler)name, (double[]){10, 0}, 2, &err), 0);
        for (int i = 0; i < N; i++) assert_true(isfinite(x[i]));
    }
}

static void eta_scales_the_noise(void **state)
{
    static const double sigmas[] = {10, 5, 2, 1, 0.5, 0.1, 0};
    float plain[N], ancestral[N], x[N];
    struct toy toy = {0};
    assert_int_equal(run_toy(&toy, plain, SAMPLER_K_EULER, sigmas, COUNT_OF(sigmas), NULL), 0);
    assert_int_equal(run_toy(&toy, ancestral, SAMPLER_K_EULER_A, sigmas, COUNT_OF(sigmas), NULL),
                     0);
    toy_eta = 0;
    assert_int_equal(run_toy(&toy, x, SAMPLER_K_EULER_A, sigmas, COUNT_OF(sigmas), NULL), 0);
    for (int i = 0; i < N; i++) assert_close(x[i], plain[i], 1e-6);
    assert_int_equal(run_toy(&toy, x, SAMPLER_DPMPP_2M_SDE, sigmas, COUNT_OF(sigmas), NULL), 0);
    float ode[N];
    assert_int_equal(run_toy(&toy, ode, SAMPLER_K_DPMPP_2M, sigmas, COUNT_OF(sigmas), NULL), 0);
    for (int i = 0; i < N; i++) assert_close(x[i], ode[i], 1e-6);
    toy_eta = 1; /* DDIM with eta 1 is the ancestral sampler */
    assert_int_equal(run_toy(&toy, x, SAMPLER_DDIM, sigmas, COUNT_OF(sigmas), NULL), 0);
    for (int i = 0; i < N; i++) assert_close(x[i], ancestral[i], 1e-6);
    toy_eta = NAN;
    assert_int_equal(run_toy(&toy, x, SAMPLER_DDIM, sigmas, COUNT_OF(sigmas), NULL), 0);
    for (int i = 0; i < N; i++) assert_close(x[i], plain[i], 0);
}

static void broken_sigmas_are_refused(void **state)
{
    static const double cases[][3] = {{1, 2, 0},   {1, 1, 0},  {1, 0, 0},
                                      {NAN, 1, 0}, {2, 1, -1}, {INFINITY, 1, 0}};
    for (size_t k = 0; k < COUNT_OF(cases); k++) {
        float x[N];
        struct toy toy = {0};
        struct error err = {0};
        assert_int_equal(run_toy(&toy, x, SAMPLER_K_EULER, cases[k], 3, &err), ERR_INVALID);
        assert_int_equal(toy.calls, 0);
    }
}

int main(int argc, char **argv)
{
    if (argc > 1 && !strcmp(argv[1], "--table")) return print_table();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(levels_are_the_published_ones),
        cmocka_unit_test(scalings_invert_the_training_target),
        cmocka_unit_test(schedules_are_the_references),
        cmocka_unit_test(schedules_of_ten_steps),
        cmocka_unit_test(every_schedule_descends),
        cmocka_unit_test(a_run_cuts_its_schedule),
        cmocka_unit_test(samplers_are_the_references),
        cmocka_unit_test(solvers_converge_to_the_exact_path),
        cmocka_unit_test(samplers_stop_where_they_are_told),
        cmocka_unit_test(eta_scales_the_noise),
        cmocka_unit_test(broken_sigmas_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
