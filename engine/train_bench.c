#include "engine/train_bench.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/str.h"
#include "diffusion/train/branches.h"
#include "diffusion/train/objective.h"
#include "engine/bench_model.h"
#include "engine/models.h"
#include "kernels/cpu/cpu_device.h"

static const char usage[] =
    "usage: kiln bench train [--model PATH|sd15|sdxl] [--precision P] [--device NAME]\n"
    "                        [--size PIXELS] [--rank R] [--rounds N] [--lean] [--json]\n"
    "\n"
    "Times one step of training a LoRA on every attention: forward, backward and update for a\n"
    "batch of one, latents and text states ready; seconds, arithmetic by kernel, peak memory.\n"
    "\n"
    "  --model PATH      a checkpoint file or diffusers folder; sd15 or sdxl: random weights of "
    "full\n"
    "                    size, written to the cache folder once (default sd15)\n"
    "  --precision P     auto, fp32, bf16, fp16 (default auto)\n"
    "  --device NAME     cpu, cpu:THREADS, plain, cuda, cuda:N (default cpu)\n"
    "  --size PIXELS     side of the picture, a multiple of 64 up to 2048 (default 512)\n"
    "  --rank R          of the adapters, 1 to 1024 (default 8)\n"
    "  --rounds N        steps after the first, 1 to 98 (default 3)\n"
    "  --lean            keeps no activations inside blocks and computes them again\n"
    "  --json            one JSON object\n";

struct options {
    struct train_bench_options train;
    const char *model, *device;
    enum precision precision;
    bool json;
};

struct training {
    struct model *model;
    struct params params;
    struct branches branches;
    struct tape *tape;
    struct objective objective;
    float *noisy, *target, *text, *vector;
    int64_t side, channels;
    size_t peak_bytes;
    double loss;
};

static int start(struct training *t, const struct train_bench_options *o, struct error *err)
{
    struct model *m = t->model;
    const struct unet_config *c = &m->unet.config;
    t->side = o->size / vae_factor(&m->vae);
    t->channels = c->out_channels;
    size_t count = (size_t)(t->side * t->side * t->channels), text = (size_t)(77 * c->context);
    float *latent = alloc_zero(2 * count, sizeof *latent), *noise = latent + count;
    t->noisy = alloc_zero(count, sizeof *t->noisy);
    t->target = alloc_zero(count, sizeof *t->target);
    t->text = alloc_zero(text, sizeof *t->text);
    t->vector = alloc_zero((size_t)c->vector + 1, sizeof *t->vector);
    struct noise_cpu g;
    noise_cpu_seed(&g, 20261124);
    noise_cpu_normal(&g, latent, 2 * count);
    noise_cpu_normal(&g, t->text, text);
    noise_cpu_normal(&g, t->vector, (size_t)c->vector + 1);
    objective_init(&t->objective, m->info.v_prediction ? PREDICTION_V : PREDICTION_EPSILON);
    objective_noisy(&t->objective, t->noisy, t->target, latent, noise, count, 500);
    free(latent);
    params_init(&t->params, m->device, false);
    t->tape = tape_new();
    tape_recompute(t->tape, o->lean);
    int rank = o->rank ? o->rank : 8;
    struct lora_options lora = {.cover = LORA_ATTENTION, .rank = rank, .alpha = rank, .seed = 1};
    return branches_attach(&t->branches, &t->params, m, &lora, NULL, err);
}

static void end(struct training *t)
{
    branches_release(&t->branches, t->model->device);
    params_release(&t->params);
    tape_free(t->tape);
    free(t->noisy);
    free(t->target);
    free(t->text);
    free(t->vector);
}

static int forward_backward(struct training *t, struct op_times *times, struct error *err)
{
    struct model *m = t->model;
    const struct unet_config *c = &m->unet.config;
    const int64_t shape[] = {1, t->side, t->side, t->channels};
    const double time = 500;
    struct unet_context context = {0};
    struct pass p;
    float loss = 0;
    pass_start(&p, m->memory, m->dtype, t->tape);
    p.times = times;
    struct tensor text = pass_input(&p, t->text, 3, TENSOR_DIM(1, 77, c->context)), vector = {0};
    if (c->vector) vector = pass_input(&p, t->vector, 2, TENSOR_DIM(1, c->vector));
    int rc = unet_context_init(&context, &p, &m->unet, text, vector);
    if (!rc) {
        struct tensor x = pass_input(&p, t->noisy, 4, shape);
        struct tensor y = unet_forward(&p, &m->unet, x, &time, &context, NULL);
        struct tensor error =
            op_mse(&p, y, pass_input(&p, t->target, 4, shape), (struct tensor){0});
        tape_backward(&p, error, 1);
        pass_output(&p, &loss, error);
    }
    int finished = pass_finish(&p, err);
    if (p.peak_bytes > t->peak_bytes) t->peak_bytes = p.peak_bytes;
    tape_clear(t->tape);
    unet_context_release(&context);
    t->loss = (double)loss;
    return rc ? rc : finished;
}

static int step(struct training *t, int64_t number, struct op_times *times, struct error *err)
{
    const struct adamw adamw = {
        .lr = 1e-4, .beta1 = .9, .beta2 = .999, .eps = 1e-8, .weight_decay = .01, .clip = 1};
    int rc = params_zero_grad(&t->params, err);
    if (!rc) rc = forward_backward(t, times, err);
    return rc ? rc : params_update(&t->params, &adamw, number, 1, NULL, err);
}

int train_bench_steps(struct bench_watch *w, struct model *model,
                      const struct train_bench_options *o, struct op_times *times,
                      size_t *pass_bytes, struct error *err)
{
    struct training t = {.model = model};
    model_rest(model);
    int rc = start(&t, o, err);
    for (int64_t i = 0; i <= o->rounds && !rc; i++) {
        watch_start(w);
        rc = step(&t, i + 1, i ? times : NULL, err);
        const char *name = i         ? o->lean ? "lean training step" : "training step"
                           : o->lean ? "first lean step"
                                     : "first training step";
        if (!rc) watch_stop(w, name);
    }
    if (!rc && !w->quiet)
        printf("loss %.6f, %d branches of rank %d\n", t.loss, t.branches.count, t.branches.rank);
    if (t.peak_bytes > *pass_bytes) *pass_bytes = t.peak_bytes;
    end(&t);
    return rc;
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
        {"rank", required_argument, NULL, 'k'},   {"rounds", required_argument, NULL, 'r'},
        {"lean", no_argument, NULL, 'l'},         {"json", no_argument, NULL, 'j'},
        {"help", no_argument, NULL, 'h'},         {0},
    };
    int64_t rank = 8;
    for (int c; (c = getopt_long(argc, argv, "", table, NULL)) != -1;) {
        bool ok = true;
        switch (c) {
        case 'm': o->model = optarg; break;
        case 'd': o->device = optarg; break;
        case 'p': ok = precision_find(optarg, &o->precision); break;
        case 's':
            ok = parse_between(optarg, 64, 2048, &o->train.size) && o->train.size % 64 == 0;
            break;
        case 'k': ok = parse_between(optarg, 1, 1024, &rank); break;
        case 'r': ok = parse_between(optarg, 1, WATCH_RUNS_MAX - 2, &o->train.rounds); break;
        case 'l': o->train.lean = true; break;
        case 'j': o->json = true; break;
        case 'h': fputs(usage, stdout); exit(0);
        default: ok = false;
        }
        if (!ok) return 2;
    }
    o->train.rank = (int)rank;
    return optind < argc ? 2 : 0;
}

static void print(const struct options *o, const struct bench_watch *w, const struct model *m,
                  const struct op_times *times, size_t pass_bytes)
{
    if (o->json) {
        printf("{\"device\": \"%s\", \"dtype\": \"%s\", \"size\": %lld, \"rank\": %d, "
               "\"lean\": %s, \"peak_mib\": %d, \"pass_mib\": %zu, ",
               w->device->label, dtype_name(m->dtype), (long long)o->train.size, o->train.rank,
               o->train.lean ? "true" : "false", watch_peak_mib(), pass_bytes >> 20);
        watch_print_json(w);
        printf("}\n");
        return;
    }
    printf("\n%s, %s, %lldx%lld, rank %d%s\n", w->device->label, dtype_name(m->dtype),
           (long long)o->train.size, (long long)o->train.size, o->train.rank,
           o->train.lean ? ", lean" : "");
    watch_print(w);
    watch_print_ops(w, times, o->train.rounds);
    printf("peak %d MiB\npasses %zu MiB\n", watch_peak_mib(), pass_bytes >> 20);
}

static int run(struct options *o, struct error *err)
{
    struct bench_watch w = {.quiet = o->json};
    struct model *model = NULL;
    struct op_times times = {0};
    char *found = NULL;
    size_t pass_bytes = 0;
    if (str_equal(o->model, "sd15") || str_equal(o->model, "sdxl")) {
        found = bench_model_find(o->model, err);
        if (!found) return err->code;
    }
    int rc = device_open(&w.device, o->device, err);
    if (rc) goto out;
    if (w.device->kernels == &cpu_kernels) times.flops = cpu_flops;
    watch_start(&w);
    rc = model_open(&model, w.device, found ? found : o->model, NULL, o->precision, err);
    if (rc) goto out;
    watch_stop(&w, "load");
    watch_peak(&w, model->dtype, false);
    rc = train_bench_steps(&w, model, &o->train, &times, &pass_bytes, err);
    watch_peak(&w, model->dtype, true);
    if (!rc) print(o, &w, model, &times, pass_bytes);
out:
    free(found);
    model_close(model);
    if (w.device) device_close(w.device);
    return rc;
}

int train_bench_main(int argc, char **argv)
{
    struct options o = {.model = "sd15", .device = "cpu", .train = {.size = 512, .rounds = 3}};
    struct error err = {0};
    if (parse_options(&o, argc, argv)) {
        fputs(usage, stderr);
        return 2;
    }
    if (!run(&o, &err)) return 0;
    fprintf(stderr, "kiln bench train: %s\n", err.text);
    return 1;
}
