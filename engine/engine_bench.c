#include "engine/engine_bench.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/str.h"
#include "diffusion/model.h"
#include "diffusion/text/clip_text.h"
#include "engine/bench_model.h"
#include "engine/bench_watch.h"
#include "engine/models.h"
#include "engine/train_bench.h"
#include "kernels/cpu/cpu_device.h"

static const char usage[] =
    "usage: kiln bench engine [--model PATH|sd15|sdxl] [--precision P] [--device NAME]\n"
    "                         [--size PIXELS] [--rounds N] [--no-train] [--no-image] [--json]\n"
    "\n"
    "Loads a checkpoint and times its parts: text encoder, one guided UNet step, decoder, a whole\n"
    "picture of four steps (text and decoder included; \"image with load\" is the first of a "
    "fresh\n"
    "process), and one step of training a LoRA of rank 8. The first run of each also makes what\n"
    "later ones reuse; the median of the others counts.\n"
    "\n"
    "  --model PATH      a checkpoint file or diffusers folder; sd15 or sdxl: random weights of "
    "full\n"
    "                    size, written to the cache folder once (default sd15)\n"
    "  --precision P     auto, fp32, bf16, fp16, int8 (default auto)\n"
    "  --device NAME     cpu, cpu:THREADS, plain, cuda, cuda:N (default cpu)\n"
    "  --size PIXELS     side of the picture, a multiple of 64 up to 2048 (default 512)\n"
    "  --rounds N        UNet steps after the first, 1 to 100 (default 5)\n"
    "  --no-train        leaves the training step out: it takes more memory than drawing\n"
    "  --no-image        leaves the whole pictures out\n"
    "  --json            one JSON object\n";

#define IMAGE_STEPS 4

struct options {
    const char *model, *device;
    enum precision precision;
    int64_t size, rounds;
    bool json, no_train, no_image;
};

struct bench {
    struct options o;
    struct device *device;
    struct model *model;
    struct bench_watch watch;
    struct op_times times; /* of the steps after the first */
    int64_t timed_steps;
    int peak_mib; /* before training */
    size_t pass_bytes;
};

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
    watch_start(&b->watch);
    int rc = conditioning_encode(&c, &m->text, &r, m->memory, m->dtype, err);
    watch_stop(&b->watch, name);
    conditioning_release(&c);
    return rc;
}

struct bench_call {
    struct model *model;
    const struct unet_context *context;
    struct unet_time time;
    struct tensor x, out;
};

static void run_step(struct pass *p, void *context)
{
    const struct bench_call *c = context;
    struct tensor y = c->out;
    struct tensor t = unet_forward_at(p, &c->model->unet, c->x, c->time, c->context, NULL);
    op_to_channels_first_into(p, &y, t);
}

/* One forward for both halves of guidance, as the sampler asks for it: the latent once, the text twice. */
static int bench_step(struct bench *b, const struct unet_context *context,
                      const struct unet_steps *steps, const float *x, float *y,
                      struct op_times *times, const char *name, struct error *err)
{
    struct model *m = b->model;
    const struct unet_config *c = &m->unet.config;
    int64_t side = b->o.size / vae_factor(&m->vae);
    struct pass p;
    watch_start(&b->watch);
    pass_start(&p, m->memory, m->dtype, NULL);
    if (times) p.times = times;
    struct tensor in = pass_input(&p, x, 4, TENSOR_DIM(1, side, side, c->in_channels));
    struct bench_call call = {m, context, {.steps = steps}, in, {0}};
    call.out = pass_tensor(&p, m->dtype, 4, TENSOR_DIM(2, c->out_channels, side, side));
    /* replayed by a device that records, as in a picture; not where each kernel is timed */
    uint64_t key = record_key_tensor(record_key_tensor(RECORD_KEY, in), call.out);
    if (times)
        run_step(&p, &call);
    else
        record_run(&m->steps, &p, key, run_step, &call);
    pass_output(&p, y, call.out);
    if (p.peak_bytes > b->pass_bytes) b->pass_bytes = p.peak_bytes;
    int rc = pass_finish(&p, err);
    watch_stop(&b->watch, name);
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
    struct unet_steps steps = {0};
    const double time = 500;
    pass_start(&fixed, m->context, m->dtype, NULL);
    struct tensor states = pass_input(&fixed, text, 3, TENSOR_DIM(2, 77, c->context));
    struct tensor extra = {0};
    if (c->vector) extra = pass_input(&fixed, vector, 2, TENSOR_DIM(2, c->vector));
    int rc = unet_context_init(&context, &fixed, &m->unet, states, extra);
    if (!rc) rc = unet_steps_init(&steps, &fixed, &m->unet, &time, 1, context.vector);
    if (!rc) rc = bench_step(b, &context, &steps, x, y, NULL, "first step", err);
    for (int64_t i = 0; i < b->o.rounds && !rc; i++)
        rc = bench_step(b, &context, &steps, x, y, NULL, "step", err);
    /* with a clock in every kernel call: of these the table by kernel is made */
    for (int64_t i = 0; i < 2 && !rc; i++, b->timed_steps++)
        rc = bench_step(b, &context, &steps, x, y, &b->times, "step", err);
    unet_context_release(&context);
    unet_steps_release(&steps);
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
    watch_start(&b->watch);
    int rc = vae_decode_picture(&m->vae, m->memory, m->vae_dtype, 0, latent, 1, side, side, picture,
                                &peak, err);
    watch_stop(&b->watch, name);
    if (peak > b->pass_bytes) b->pass_bytes = peak;
    free(latent);
    free(picture);
    return rc;
}

/* A picture of four steps, from the prompt to bytes. */
static int bench_image(struct bench *b, const char *name, struct error *err)
{
    struct image_request r;
    struct pipeline_result result = {0};
    image_request_init(&r);
    free(r.prompt);
    r.prompt = alloc_string("a small vase with a blue glaze on a wooden table");
    r.width_px = r.height_px = (int)b->o.size;
    r.steps = IMAGE_STEPS;
    r.sampler = SAMPLER_K_EULER;
    watch_start(&b->watch);
    int rc = pipeline_run(b->model, &r, NULL, &result, err);
    double wall, cpu;
    watch_read(&b->watch, &wall, &cpu);
    const struct watch_part *load = watch_find(&b->watch, "load");
    if (!strcmp(name, "image with load"))
        watch_add(&b->watch, name, wall + load->wall[0], cpu + load->cpu[0]);
    else
        watch_stop(&b->watch, name);
    if (result.peak_bytes > b->pass_bytes) b->pass_bytes = result.peak_bytes;
    pipeline_result_release(&result);
    image_request_release(&r);
    return rc;
}

static int bench_parts(struct bench *b, struct error *err)
{
    int rc = b->o.no_image ? 0 : bench_image(b, "image with load", err);
    if (!rc) rc = bench_text(b, "first text", err);
    for (int i = 0; i < 3 && !rc; i++) rc = bench_text(b, "text", err);
    if (!rc) rc = bench_steps(b, err);
    if (!rc) rc = bench_decode(b, "first decode", err);
    for (int i = 0; i < 3 && !rc; i++) rc = bench_decode(b, "decode", err);
    for (int i = 0; i < 2 && !rc && !b->o.no_image; i++) rc = bench_image(b, "image", err);
    return rc;
}

static int bench_run(struct bench *b, struct error *err)
{
    char *found = NULL;
    if (str_equal(b->o.model, "sd15") || str_equal(b->o.model, "sdxl")) {
        found = bench_model_find(b->o.model, err);
        if (!found) return err->code;
    }
    int rc = device_open(&b->device, b->o.device, err);
    b->watch.device = b->device;
    b->watch.quiet = b->o.json;
    b->times.flops = !rc && b->device->kernels == &cpu_kernels ? cpu_flops : NULL;
    watch_start(&b->watch);
    if (!rc)
        rc =
            model_open(&b->model, b->device, found ? found : b->o.model, NULL, b->o.precision, err);
    free(found);
    if (rc) return rc;
    watch_stop(&b->watch, "load");
    watch_peak(&b->watch, b->model->dtype, false);
    rc = bench_parts(b, err);
    watch_peak(&b->watch, b->model->dtype, true);
    b->peak_mib = watch_peak_mib();
    bool trains = b->model->info.family != FAMILY_SDXL_REFINER && !b->model->info.inpainting;
    if (rc || b->o.no_train || !trains) return rc;
    struct train_bench_options o = {.size = b->o.size, .rounds = 2};
    return train_bench_steps(&b->watch, b->model, &o, NULL, &b->pass_bytes, err);
}

static void print_text(const struct bench *b)
{
    printf("\n%s, %s, %lldx%lld\n", b->device->label, dtype_name(b->model->dtype),
           (long long)b->o.size, (long long)b->o.size);
    watch_print(&b->watch);
    watch_print_ops(&b->watch, &b->times, b->timed_steps);
    printf("peak %d MiB\npasses %zu MiB\n", b->peak_mib, b->pass_bytes >> 20);
    if (watch_find(&b->watch, "training step")) printf("training %d MiB\n", watch_peak_mib());
}

static void print_json(const struct bench *b)
{
    printf("{\"device\": \"%s\", \"dtype\": \"%s\", \"size\": %lld, \"peak_mib\": %d, "
           "\"pass_mib\": %zu, \"training_mib\": %d, ",
           b->device->label, dtype_name(b->model->dtype), (long long)b->o.size, b->peak_mib,
           b->pass_bytes >> 20, watch_peak_mib());
    watch_print_json(&b->watch);
    printf("}\n");
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
        {"no-train", no_argument, NULL, 'T'},     {"no-image", no_argument, NULL, 'I'},
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
        case 'r': ok = parse_between(optarg, 1, WATCH_RUNS_MAX - 2, &o->rounds); break;
        case 'j': o->json = true; break;
        case 'T': o->no_train = true; break;
        case 'I': o->no_image = true; break;
        case 'h': fputs(usage, stdout); exit(0);
        default: ok = false;
        }
        if (!ok) return 2;
    }
    return optind < argc ? 2 : 0;
}

int engine_bench_main(int argc, char **argv)
{
    struct bench *b = alloc_zero(1, sizeof *b);
    struct error err = {0};
    b->o = (struct options){.model = "sd15", .device = "cpu", .size = 512, .rounds = 5};
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
