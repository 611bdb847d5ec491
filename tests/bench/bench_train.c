/* One training step of rank 16 adapters on an SD1.5-shaped UNet with random weights: memory and time.
 *   bench_train [SIZE] [lean|full] [DEVICE] [bf16|f32]
 * "peak" is the pass's plan (activations and gradients); resident memory holds the weights, their packed
 * forms and the program too (docs/design/tensor.md). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/now.h"
#include "base/str.h"
#include "diffusion/unet/unet.h"

enum { RANK = 16, TOKENS = 77, CONTEXT = 768 };

static uint64_t random_state = 1;

static float number(void)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (float)((double)(int64_t)random_state * 0x1p-63);
}

static float *numbers(int64_t count, float scale)
{
    float *data = alloc_zero((size_t)count, sizeof(*data));
    for (int64_t i = 0; i < count; i++) data[i] = scale * number();
    return data;
}

/* Frozen weights in bf16, of a size that keeps activations near one; norms are left at one. */
static int fill(struct weight_visitor *v, struct weight *w, const struct weight_site *site,
                struct error *err)
{
    bool norm = site->rank == 1 && !site->layer && str_ends(site->name[0], ".weight");
    w->name = alloc_string(site->name[0]);
    w->k.dtype = DTYPE_BF16;
    w->k.rank = site->rank;
    memcpy(w->k.dim, site->dim, sizeof(w->k.dim));
    int64_t count = weight_count(w);
    uint16_t *data = alloc_zero((size_t)count, sizeof(*data));
    float scale = site->rank > 1 ? sqrtf(3 * (float)site->dim[0] / (float)count) : 0.1f;
    for (int64_t i = 0; i < count; i++) data[i] = f32_to_bf16(norm ? 1 : scale * number());
    w->k.data = data;
    *(int64_t *)v->context += count;
    return 0;
}

static void adapter_half(struct weight *w, int64_t rows, int64_t cols, float scale)
{
    *w = (struct weight){.name = "adapter", .trainable = true};
    w->k =
        (struct kernel_weight){.dtype = DTYPE_F32, .rank = 2, .dim = {rows, cols}, .changes = true};
    w->k.data = numbers(rows * cols, scale);
    w->grad = alloc_zero((size_t)(rows * cols), sizeof(float));
}

static int attach(struct weight_visitor *v, struct weight *w, const struct weight_site *site,
                  struct error *err)
{
    if (!site->layer || w != &site->layer->w || !strstr(site->name[0], "attn")) return 0;
    struct adapter *a = layer_attach(site->layer, 1);
    adapter_half(&a->down, RANK, site->dim[1], 0.02f);
    adapter_half(&a->up, site->dim[0], RANK, 0.02f);
    ++*(int64_t *)v->context;
    return 0;
}

static int unet_make(struct unet *m, struct error *err)
{
    const int64_t channels[4] = {320, 640, 1280, 1280};
    int64_t count = 0, adapters = 0;
    struct unet_config c = {.levels = 4,
                            .in_channels = 4,
                            .out_channels = 4,
                            .context = CONTEXT,
                            .time = 1280,
                            .groups = 32,
                            .conv_proj = true,
                            .mid_present = true,
                            .mid_second = true,
                            .depth_mid = 1};
    for (int i = 0; i < 4; i++) {
        c.blocks[i] = 2;
        c.channels[i] = channels[i];
        c.heads[i] = 8;
        for (int j = 0; i < 3 && j < 3; j++) c.depth_up[i][j] = 1;
        for (int j = 0; i < 3 && j < 2; j++) c.depth_down[i][j] = 1;
    }
    int rc = unet_init(m, &c, err);
    if (rc) return rc;
    struct weight_visitor v = {.visit = fill, .context = &count, .err = err};
    unet_visit(&v, m);
    if (v.failed) return v.failed;
    v = (struct weight_visitor){.visit = attach, .context = &adapters, .err = err};
    unet_visit(&v, m);
    printf("%.1f million weights, %d adapters\n", (double)count / 1e6, (int)adapters);
    return v.failed;
}

static double resident_mib(void)
{
    long whole = 0, resident = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (f && fscanf(f, "%ld %ld", &whole, &resident) != 2) resident = 0;
    if (f) fclose(f);
    return (double)resident * (double)sysconf(_SC_PAGESIZE) / 1048576;
}

static int step(struct unet *m, struct pass_memory *memory, enum dtype dtype, struct tape *tape,
                int64_t side, struct error *err)
{
    struct pass p;
    struct unet_context context;
    random_state = 9; /* every step sees the same picture */
    float *picture = numbers(side * side * 4, 1.7f), *text = numbers(TOKENS * CONTEXT, 1.7f),
          loss = 0;
    double start = now_seconds(), when = 500;
    pass_start(&p, memory, dtype, tape);
    struct tensor x = pass_input(&p, picture, 4, TENSOR_DIM(1, side, side, 4));
    struct tensor states = pass_input(&p, text, 3, TENSOR_DIM(1, TOKENS, CONTEXT));
    unet_context_init(&context, &p, m, states, (struct tensor){0});
    struct tensor y = unet_forward(&p, m, x, &when, &context, NULL);
    struct tensor off = op_mse(&p, y, x, (struct tensor){0});
    double turn = now_seconds();
    if (tape) tape_backward(&p, off, 1);
    pass_output(&p, &loss, off);
    printf("%s: forward %.2f s, backward %.2f s, peak %.1f MiB, resident %.0f MiB, loss %.6f\n",
           tape ? "training " : "inference", turn - start, now_seconds() - turn,
           (double)p.peak_bytes / 1048576, resident_mib(), loss);
    int rc = pass_finish(&p, err);
    unet_context_release(&context);
    free(picture);
    free(text);
    return rc;
}

int main(int argc, char **argv)
{
    int64_t size = 512;
    struct unet m;
    struct device *device;
    struct pass_memory memory;
    struct error err;
    if (argc > 1 && (!str_parse_i64(argv[1], &size) || size < 64 || size % 64)) {
        fprintf(stderr, "usage: bench_train [SIZE] [lean|full] [DEVICE] [bf16|f32]\n");
        return 2;
    }
    enum dtype dtype = argc > 4 && str_equal(argv[4], "f32") ? DTYPE_F32 : DTYPE_BF16;
    struct tape *tape = tape_new();
    tape_recompute(tape, !(argc > 2 && str_equal(argv[2], "full")));
    int rc = device_open(&device, argc > 3 ? argv[3] : "cpu", &err);
    if (!rc) {
        pass_memory_init(&memory, device, 0);
        rc = unet_make(&m, &err);
    }
    for (int i = 0; i < 4 && !rc; i++) {
        rc = step(&m, &memory, dtype, i < 2 ? NULL : tape, size / 8, &err);
    }
    if (rc) fprintf(stderr, "%s\n", err.text);
    return rc ? 1 : 0; /* the system takes the weights back faster than we could */
}
