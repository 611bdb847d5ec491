/* A whole checkpoint on a device, part by part: text encoder, one guided UNet step, decoder.
 *   bench_model CHECKPOINT [bf16|f32] [DEVICE] [ROUNDS] [SIZE]
 * One line a measurement, wall and processor time in seconds, so that a peer can be run alternating
 * (compare_torch.py). Peak memory is the process's. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "base/alloc.h"
#include "base/now.h"
#include "diffusion/model.h"
#include "diffusion/text/clip_text.h"

static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int peak_mib(void)
{
    struct rusage use;
    getrusage(RUSAGE_SELF, &use);
    return (int)(use.ru_maxrss / 1024);
}

struct watch {
    double wall, cpu;
};

static struct watch watch_start(void)
{
    return (struct watch){now_seconds(), cpu_seconds()};
}

static void watch_print(struct watch w, const char *what)
{
    printf("%s wall %.3f cpu %.3f\n", what, now_seconds() - w.wall, cpu_seconds() - w.cpu);
    fflush(stdout);
}

static float *noise(size_t count, uint32_t seed)
{
    float *x = alloc_zero(count, 4);
    for (size_t i = 0; i < count; i++) {
        float sum = 0;
        for (int j = 0; j < 12; j++) {
            seed = seed * 1664525 + 1013904223;
            sum += (float)(seed >> 8) * 0x1p-24f;
        }
        x[i] = sum - 6; /* about normal */
    }
    return x;
}

static int text_once(struct model *m, struct error *err)
{
    struct text_request r = {.prompt = "a small vase with a blue glaze on a wooden table"};
    struct conditioning c = {0};
    int rc = conditioning_encode(&c, &m->text, &r, &m->memory, m->dtype, err);
    conditioning_release(&c);
    return rc;
}

/* One guided step as the sampler makes it: context once, then `rounds` forwards. */
static int unet_rounds(struct model *m, int64_t side, int rounds, struct error *err)
{
    const struct unet_config *c = &m->unet.config;
    float *text = noise((size_t)(2 * 77 * c->context), 1);
    float *x = noise((size_t)(2 * side * side * c->in_channels), 2);
    float *y = alloc_zero((size_t)(2 * side * side * c->out_channels), 4);
    double time[2] = {500, 500};
    struct pass fixed;
    struct unet_context context;
    pass_start(&fixed, &m->context, m->dtype, NULL);
    struct watch w = watch_start();
    struct tensor states = pass_input(&fixed, text, 3, TENSOR_DIM(2, 77, c->context));
    int rc = unet_context_init(&context, &fixed, &m->unet, states, (struct tensor){0});
    watch_print(w, "context");
    for (int i = 0; i < rounds && !rc; i++) {
        struct pass p;
        w = watch_start();
        pass_start(&p, &m->memory, m->dtype, NULL);
        struct tensor in = pass_input(&p, x, 4, TENSOR_DIM(2, side, side, c->in_channels));
        struct tensor out = unet_forward(&p, &m->unet, in, time, &context, NULL);
        pass_output(&p, y, out);
        size_t peak = p.peak_bytes;
        rc = pass_finish(&p, err);
        watch_print(w, i ? "step" : "first step");
        if (!i) printf("step memory %zu MiB, y %g %g %g\n", peak >> 20, y[0], y[1000], y[2000]);
    }
    unet_context_release(&context);
    int end = pass_finish(&fixed, err);
    free(text);
    free(x);
    free(y);
    return rc ? rc : end;
}

static int decode_once(struct model *m, int64_t side, struct error *err)
{
    float *z = noise((size_t)(side * side * 4), 3);
    float *picture = alloc_zero((size_t)(side * side * 64 * 3), 4);
    size_t peak = 0;
    int rc = vae_decode_picture(&m->vae, &m->memory, m->vae_dtype, 0, z, 1, side, side, picture,
                                &peak, err);
    printf("decode memory %zu MiB, picture %g %g\n", peak >> 20, picture[0], picture[1000]);
    free(z);
    free(picture);
    return rc;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: bench_model CHECKPOINT [bf16|f32] [DEVICE] [ROUNDS] [SIZE]\n");
        return 2;
    }
    bool full = argc > 2 && !strcmp(argv[2], "f32");
    const char *name = argc > 3 ? argv[3] : "cpu";
    int rounds = argc > 4 ? atoi(argv[4]) : 3;
    int64_t side = (argc > 5 ? atoi(argv[5]) : 512) / 8;
    struct device *d = NULL;
    struct model *m = NULL;
    struct error err = {0};
    struct watch w = watch_start();
    int rc = device_open(&d, name, &err);
    if (!rc) rc = model_open(&m, d, argv[1], NULL, full ? PRECISION_FP32 : PRECISION_BF16, &err);
    if (rc) goto out;
    printf("%s, %s\n", d->label, dtype_name(m->dtype));
    watch_print(w, "load");
    for (int i = 0; i < 2 && !rc; i++) {
        w = watch_start();
        rc = text_once(m, &err);
        watch_print(w, i ? "text" : "first text");
    }
    if (!rc) rc = unet_rounds(m, side, rounds, &err);
    printf("peak %d MiB before decoding\n", peak_mib());
    for (int i = 0; i < 2 && !rc; i++) {
        w = watch_start();
        rc = decode_once(m, side, &err);
        watch_print(w, i ? "decode" : "first decode");
    }
    printf("peak %d MiB\n", peak_mib());
out:
    if (rc) fprintf(stderr, "bench_model: %s\n", err.text);
    model_close(m);
    device_close(d);
    return rc ? 1 : 0;
}
