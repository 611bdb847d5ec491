#include "engine/engine_bench.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/now.h"
#include "base/str.h"
#include "diffusion/model.h"
#include "diffusion/text/clip_text.h"
#include "engine/models.h"
#include "kernels/cpu/cpu_device.h"

#define ROUNDS_MAX 100
#define PARTS_MAX 8

static const char usage[] =
    "usage: kiln bench engine --model PATH [--precision P] [--device NAME] [--size PIXELS]\n"
    "                         [--rounds N] [--json]\n"
    "\n"
    "Loads a checkpoint and times its parts: text encoder, one guided UNet step, decoder. The "
    "first\n"
    "run of each also makes what later ones reuse; the median of the others counts.\n"
    "\n"
    "  --model PATH      a checkpoint file or diffusers folder\n"
    "  --precision P     auto, fp32, bf16, fp16 (default auto)\n"
    "  --device NAME     cpu, cpu:THREADS, plain, cuda, cuda:N (default cpu)\n"
    "  --size PIXELS     side of the picture, a multiple of 64 up to 2048 (default 512)\n"
    "  --rounds N        UNet steps after the first, 1 to 100 (default 5)\n"
    "  --json            one JSON object\n";

struct options {
    const char *model, *device;
    enum precision precision;
    int64_t size, rounds;
    bool json;
};

struct part {
    const char *name;
    double wall[ROUNDS_MAX], cpu[ROUNDS_MAX];
    double flop; /* of one run; 0: not counted */
    int runs;
};

struct bench {
    struct options o;
    struct device *device;
    struct model *model;
    struct part part[PARTS_MAX];
    int parts;
    double peak_before, peak_after; /* GFLOP/s; 0: not measured */
    size_t pass_bytes;
    /* of the run at hand */
    double wall, cpu, flop;
};

static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static bool is_cpu(const struct bench *b)
{
    return b->device->kernels == &cpu_kernels;
}

static void watch_start(struct bench *b)
{
    b->flop = b->device && is_cpu(b) ? cpu_flops(b->device) : 0;
    b->cpu = cpu_seconds();
    b->wall = now_seconds();
}

static void watch_stop(struct bench *b, const char *name)
{
    double wall = now_seconds() - b->wall, cpu = cpu_seconds() - b->cpu;
    struct part *p = b->part;
    while (p < b->part + b->parts && strcmp(p->name, name) != 0) p++;
    if (p == b->part + b->parts) {
        b->parts++;
        p->name = name;
    }
    if (p->runs == ROUNDS_MAX) return;
    p->flop = is_cpu(b) ? cpu_flops(b->device) - b->flop : 0;
    p->wall[p->runs] = wall;
    p->cpu[p->runs++] = cpu;
    if (b->o.json) return;
    printf("%s wall %.3f cpu %.3f\n", name, wall, cpu);
    fflush(stdout);
}

/* About normal; the same numbers each time. */
static float *noise(int64_t count)
{
    float *x = alloc_zero((size_t)count, sizeof *x);
    uint32_t seed = 1;
    for (int64_t i = 0; i < count; i++)
        for (int j = 0; j < 12; j++) {
            seed = seed * 1664525 + 1013904223;
            x[i] += (float)(seed >> 8) * 0x1p-24f - 0.5f;
        }
    return x;
}

static int bench_text(struct bench *b, const char *name, struct error *err)
{
    struct model *m = b->model;
    struct text_request r = {.prompt = "a small vase with a blue glaze on a wooden table"};
    struct conditioning c = {0};
    watch_start(b);
    int rc = conditioning_encode(&c, &m->text, &r, &m->memory, m->dtype, err);
    watch_stop(b, name);
    conditioning_release(&c);
    return rc;
}

/* One forward for both halves of guidance, as the sampler asks for it. */
static int bench_step(struct bench *b, const struct unet_context *context, const float *x, float *y,
                      const char *name, struct error *err)
{
    struct model *m = b->model;
    const struct unet_config *c = &m->unet.config;
    const double time[2] = {500, 500};
    int64_t side = b->o.size / vae_factor(&m->vae);
    struct pass p;
    watch_start(b);
    pass_start(&p, &m->memory, m->dtype, NULL);
    struct tensor in = pass_input(&p, x, 4, TENSOR_DIM(2, side, side, c->in_channels));
    pass_output(&p, y, unet_forward(&p, &m->unet, in, time, context, NULL));
    if (p.peak_bytes > b->pass_bytes) b->pass_bytes = p.peak_bytes;
    int rc = pass_finish(&p, err);
    watch_stop(b, name);
    return rc;
}

static int bench_steps(struct bench *b, struct error *err)
{
    struct model *m = b->model;
    const struct unet_config *c = &m->unet.config;
    int64_t side = b->o.size / vae_factor(&m->vae), pixels = 2 * side * side;
    float *text = noise(2 * 77 * c->context), *vector = noise(2 * (c->vector + 1));
    float *x = noise(pixels * c->in_channels), *y = noise(pixels * c->out_channels);
    struct pass fixed; /* holds what all steps of a request share */
    struct unet_context context;
    pass_start(&fixed, &m->context, m->dtype, NULL);
    struct tensor states = pass_input(&fixed, text, 3, TENSOR_DIM(2, 77, c->context));
    struct tensor extra = {0};
    if (c->vector) extra = pass_input(&fixed, vector, 2, TENSOR_DIM(2, c->vector));
    int rc = unet_context_init(&context, &fixed, &m->unet, states, extra);
    if (!rc) rc = bench_step(b, &context, x, y, "first step", err);
    for (int64_t i = 0; i < b->o.rounds && !rc; i++)
        rc = bench_step(b, &context, x, y, "step", err);
    unet_context_release(&context);
    int end = pass_finish(&fixed, err);
    free(text);
    free(vector);
    free(x);
    free(y);
    return rc ? rc : end;
}

static int bench_decode(struct bench *b, const char *name, struct error *err)
{
    struct model *m = b->model;
    int64_t side = b->o.size / vae_factor(&m->vae);
    float *latent = noise(side * side * m->vae.config.latent_channels);
    float *picture = alloc_zero((size_t)(b->o.size * b->o.size * 3), sizeof *picture);
    size_t peak = 0;
    watch_start(b);
    int rc = vae_decode_picture(&m->vae, &m->memory, m->vae_dtype, 0, latent, 1, side, side,
                                picture, &peak, err);
    watch_stop(b, name);
    if (peak > b->pass_bytes) b->pass_bytes = peak;
    free(latent);
    free(picture);
    return rc;
}

static int bench_run(struct bench *b, struct error *err)
{
    int rc = device_open(&b->device, b->o.device, err);
    if (rc) return rc;
    watch_start(b);
    rc = model_open(&b->model, b->device, b->o.model, NULL, b->o.precision, err);
    if (rc) return rc;
    watch_stop(b, "load");
    enum dtype dtype = b->model->dtype;
    if (is_cpu(b)) b->peak_before = cpu_peak_gflops(b->device, dtype, 0.2);
    rc = bench_text(b, "first text", err);
    for (int i = 0; i < 3 && !rc; i++) rc = bench_text(b, "text", err);
    if (!rc) rc = bench_steps(b, err);
    if (!rc) rc = bench_decode(b, "first decode", err);
    for (int i = 0; i < 2 && !rc; i++) rc = bench_decode(b, "decode", err);
    if (is_cpu(b)) b->peak_after = cpu_peak_gflops(b->device, dtype, 0.2);
    return rc;
}

static double median(const double *value, int n)
{
    double sorted[ROUNDS_MAX];
    for (int i = 0; i < n; i++) {
        int j = i;
        for (; j > 0 && sorted[j - 1] > value[i]; j--) sorted[j] = sorted[j - 1];
        sorted[j] = value[i];
    }
    return n % 2 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2;
}

/* GFLOP/s in processor time, which other programs on the machine disturb less; 0: not counted */
static double rate_of(const struct bench *b, const struct part *p)
{
    double cpu = median(p->cpu, p->runs);
    return p->flop > 0 && cpu > 0 ? p->flop / cpu * cpu_state(b->device)->threads * 1e-9 : 0;
}

static int peak_mib(void)
{
    struct rusage use;
    getrusage(RUSAGE_SELF, &use);
    return (int)(use.ru_maxrss / 1024);
}

static void print_text(const struct bench *b)
{
    printf("\n%s, %s, %lldx%lld\n", b->device->label, dtype_name(b->model->dtype),
           (long long)b->o.size, (long long)b->o.size);
    printf("%-13s %5s %9s %9s %8s %9s %6s\n", "", "runs", "wall s", "cpu s", "TFLOP", "GFLOP/s",
           "peak");
    double peak = (b->peak_before + b->peak_after) / 2;
    for (int i = 0; i < b->parts; i++) {
        const struct part *p = &b->part[i];
        double rate = rate_of(b, p);
        printf("%-13s %5d %9.3f %9.3f", p->name, p->runs, median(p->wall, p->runs),
               median(p->cpu, p->runs));
        if (rate > 0) printf(" %8.3f %9.0f %5.0f%%", p->flop * 1e-12, rate, 100 * rate / peak);
        printf("\n");
    }
    if (peak > 0) printf("peak %.0f GFLOP/s before, %.0f after\n", b->peak_before, b->peak_after);
    printf("peak %d MiB\npasses %zu MiB\n", peak_mib(), b->pass_bytes >> 20);
}

static void print_json(const struct bench *b)
{
    printf("{\"device\": \"%s\", \"dtype\": \"%s\", \"size\": %lld, \"peak_mib\": %d, "
           "\"pass_mib\": %zu, \"peak_gflops\": [%.1f, %.1f], \"parts\": [",
           b->device->label, dtype_name(b->model->dtype), (long long)b->o.size, peak_mib(),
           b->pass_bytes >> 20, b->peak_before, b->peak_after);
    for (int i = 0; i < b->parts; i++) {
        const struct part *p = &b->part[i];
        printf("%s{\"name\": \"%s\", \"runs\": %d, \"wall_seconds\": %.4f, \"cpu_seconds\": %.4f, "
               "\"tflop\": %.4f, \"gflops\": %.1f}",
               i ? ", " : "", p->name, p->runs, median(p->wall, p->runs), median(p->cpu, p->runs),
               p->flop * 1e-12, rate_of(b, p));
    }
    printf("]}\n");
}

static bool parse_between(const char *text, int64_t low, int64_t high, int64_t *value)
{
    return str_parse_i64(text, value) && *value >= low && *value <= high;
}

static int parse_options(struct options *o, int argc, char **argv)
{
    static const struct option table[] = {
        {"model", required_argument, NULL, 'm'},  {"precision", required_argument, NULL, 'p'},
        {"device", required_argument, NULL, 'd'}, {"size", required_argument, NULL, 's'},
        {"rounds", required_argument, NULL, 'r'}, {"json", no_argument, NULL, 'j'},
        {"help", no_argument, NULL, 'h'},         {0},
    };
    optind = 1;
    for (int c; (c = getopt_long(argc, argv, "", table, NULL)) != -1;) {
        bool ok = true;
        switch (c) {
        case 'm': o->model = optarg; break;
        case 'd': o->device = optarg; break;
        case 'p': ok = precision_find(optarg, &o->precision); break;
        case 's': ok = parse_between(optarg, 64, 2048, &o->size) && o->size % 64 == 0; break;
        case 'r': ok = parse_between(optarg, 1, ROUNDS_MAX, &o->rounds); break;
        case 'j': o->json = true; break;
        case 'h': fputs(usage, stdout); exit(0);
        default: ok = false;
        }
        if (!ok) return 2;
    }
    return !o->model || optind < argc ? 2 : 0;
}

int engine_bench_main(int argc, char **argv)
{
    struct bench *b = alloc_zero(1, sizeof *b);
    struct error err = {0};
    b->o = (struct options){.device = "cpu", .size = 512, .rounds = 5};
    int code = parse_options(&b->o, argc, argv);
    if (code) {
        fputs(usage, stderr);
    } else if (bench_run(b, &err)) {
        fprintf(stderr, "kiln bench engine: %s\n", err.text);
        code = 1;
    } else if (b->o.json) {
        print_json(b);
    } else {
        print_text(b);
    }
    model_close(b->model);
    device_close(b->device);
    free(b);
    return code;
}
