#include "kernels/kernel_bench.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/now.h"
#include "kernels/kernel_check.h"

enum bench_kind {
    BENCH_LINEAR,
    BENCH_CONV,
    BENCH_ATTENTION,
    BENCH_GROUP_NORM,
    BENCH_LAYER_NORM,
    BENCH_GEGLU,
};

/* gpu-kernels: shapes of SD1.5 at 512, SDXL at 1024 and the VAE, two images where guidance is on */
static const struct bench_case {
    const char *name;
    enum bench_kind kind;
    /* linear: rows, out, k. conv: images, side, c, out, kernel, stride, upsample. attention: images,
     * heads, lq, lk, d. norms: images, rows, c. geglu: rows, d */
    int64_t n[7];
} cases[] = {
    {"linear sd15 qkv 64", BENCH_LINEAR, {8192, 960, 320}},
    {"linear sd15 geglu 64", BENCH_LINEAR, {8192, 2560, 320}},
    {"linear sd15 ff-out 32", BENCH_LINEAR, {2048, 640, 2560}},
    {"linear sd15 out 16", BENCH_LINEAR, {512, 1280, 1280}},
    {"linear sdxl geglu 32", BENCH_LINEAR, {2048, 10240, 1280}},
    {"linear sdxl ff-out 32", BENCH_LINEAR, {2048, 1280, 5120}},
    {"linear sdxl qkv 32", BENCH_LINEAR, {2048, 3840, 1280}},
    {"linear sdxl out 32", BENCH_LINEAR, {2048, 1280, 1280}},
    {"linear sdxl geglu 64", BENCH_LINEAR, {8192, 5120, 640}},
    {"linear sdxl kv 77", BENCH_LINEAR, {154, 2560, 2048}},
    {"conv3x3 sd15 64 320", BENCH_CONV, {2, 64, 320, 320, 3, 1, 1}},
    {"conv3x3 sd15 32 640", BENCH_CONV, {2, 32, 640, 640, 3, 1, 1}},
    {"conv3x3 sd15 16 1280", BENCH_CONV, {2, 16, 1280, 1280, 3, 1, 1}},
    {"conv3x3 sd15 8 1280", BENCH_CONV, {2, 8, 1280, 1280, 3, 1, 1}},
    {"conv3x3 sd15 16 2560", BENCH_CONV, {2, 16, 2560, 1280, 3, 1, 1}},
    {"conv1x1 sd15 32 1920", BENCH_CONV, {2, 32, 1920, 640, 1, 1, 1}},
    {"conv3x3/2 sd15 64 320", BENCH_CONV, {2, 64, 320, 320, 3, 2, 1}},
    {"up+conv sd15 16 1280", BENCH_CONV, {2, 16, 1280, 1280, 3, 1, 2}},
    {"conv3x3 sdxl 128 320", BENCH_CONV, {2, 128, 320, 320, 3, 1, 1}},
    {"conv3x3 sdxl 64 640", BENCH_CONV, {2, 64, 640, 640, 3, 1, 1}},
    {"conv3x3 sdxl 32 1280", BENCH_CONV, {2, 32, 1280, 1280, 3, 1, 1}},
    {"up+conv sdxl 32 1280", BENCH_CONV, {2, 32, 1280, 1280, 3, 1, 2}},
    {"conv3x3 vae 128 512", BENCH_CONV, {1, 128, 512, 512, 3, 1, 1}},
    {"conv3x3 vae 512 256", BENCH_CONV, {1, 512, 256, 256, 3, 1, 1}},
    {"conv3x3 vae 1024 128", BENCH_CONV, {1, 1024, 128, 128, 3, 1, 1}},
    {"conv_in 4->320", BENCH_CONV, {2, 64, 4, 320, 3, 1, 1}},
    {"conv_out 320->4", BENCH_CONV, {2, 64, 320, 4, 3, 1, 1}},
    {"attention sd15 4096 d40", BENCH_ATTENTION, {2, 8, 4096, 4096, 40}},
    {"attention sd15 1024 d80", BENCH_ATTENTION, {2, 8, 1024, 1024, 80}},
    {"attention sd15 256 d160", BENCH_ATTENTION, {2, 8, 256, 256, 160}},
    {"attention sd15 4096x77 d40", BENCH_ATTENTION, {2, 8, 4096, 77, 40}},
    {"attention sdxl 4096 d64", BENCH_ATTENTION, {2, 10, 4096, 4096, 64}},
    {"attention sdxl 1024 d64", BENCH_ATTENTION, {2, 20, 1024, 1024, 64}},
    {"attention sdxl 1024x77 d64", BENCH_ATTENTION, {2, 20, 1024, 77, 64}},
    {"attention vae 4096 d512", BENCH_ATTENTION, {1, 1, 4096, 4096, 512}},
    {"group norm sd15 64 320", BENCH_GROUP_NORM, {2, 4096, 320}},
    {"group norm sdxl 128 320", BENCH_GROUP_NORM, {2, 16384, 320}},
    {"group norm vae 512 256", BENCH_GROUP_NORM, {1, 262144, 256}},
    {"layer norm sd15 64 320", BENCH_LAYER_NORM, {2, 4096, 320}},
    {"layer norm sdxl 32 1280", BENCH_LAYER_NORM, {2, 1024, 1280}},
    {"geglu sdxl 32 5120", BENCH_GEGLU, {2048, 5120}},
};

#define SAMPLES 48

struct bench {
    struct device *d;
    const struct kernel_bench_options *options;
    struct bench_case c; /* shrunk when quick */
    enum dtype dtype;
    uint64_t random;
    double peak_tflops, peak_gbps;
    /* device memory and its host copy, in dtype */
    void *memory[6], *host[6];
    int64_t count[6];
    int operands;
    struct kernel_weight w;
    double work; /* FLOP, or bytes for what memory bounds */
    bool in_bytes;
};

static double draw(struct bench *b)
{
    double sum = 0; /* of 4 uniform numbers: near enough to normal */
    for (int i = 0; i < 4; i++) {
        b->random = b->random * 6364136223846793005u + 1442695040888963407u;
        sum += (double)(b->random >> 40) / 16777216 - 0.5;
    }
    return sum * 1.7320508;
}

static int operand(struct bench *b, int64_t count, double scale, struct error *err)
{
    int i = b->operands;
    size_t bytes = (size_t)count * dtype_bytes(b->dtype);
    b->host[i] = alloc_try((size_t)count, dtype_bytes(b->dtype));
    if (!b->host[i]) return error_set(err, ERR_NO_MEMORY, "no host memory for %zu bytes", bytes);
    b->operands++;
    for (int64_t j = 0; j < count; j++) dtype_set(b->host[i], b->dtype, j, draw(b) * scale);
    b->count[i] = count;
    int rc = b->d->kernels->alloc(b->d, &b->memory[i], bytes, err);
    if (!rc) rc = b->d->kernels->upload(b->d, b->memory[i], b->host[i], bytes, err);
    return rc;
}

static void operands_free(struct bench *b)
{
    if (b->w.packed) b->d->kernels->unpack(b->d, &b->w);
    for (int i = 0; i < b->operands; i++) {
        if (b->memory[i]) b->d->kernels->free(b->d, b->memory[i]);
        free(b->host[i]);
        b->memory[i] = b->host[i] = NULL;
    }
    b->operands = 0;
    b->w = (struct kernel_weight){0};
}

static int64_t conv_out(const int64_t *n)
{
    return (n[1] * n[6] + 2 * (n[4] / 2) - n[4]) / n[5] + 1;
}

/* Operands: 0 the result, then what is read, in the order that run() names. */
static int prepare(struct bench *b, struct error *err)
{
    const int64_t *n = b->c.n;
    int64_t side, taps;
    int rc = 0;
    switch (b->c.kind) {
    case BENCH_LINEAR:
        rc = operand(b, n[0] * n[1], 1, err);
        if (!rc) rc = operand(b, n[0] * n[2], 1, err);
        if (!rc) rc = operand(b, n[1] * n[2], 1 / sqrt((double)n[2]), err);
        b->w = (struct kernel_weight){.rank = 2, .dim = {n[1], n[2]}};
        b->work = 2.0 * (double)n[0] * (double)n[1] * (double)n[2];
        break;
    case BENCH_CONV:
        side = conv_out(n);
        taps = n[4] * n[4];
        rc = operand(b, n[0] * side * side * n[3], 1, err);
        if (!rc) rc = operand(b, n[0] * n[1] * n[1] * n[2], 1, err);
        if (!rc) rc = operand(b, n[3] * n[2] * taps, 1 / sqrt((double)(n[2] * taps)), err);
        b->w = (struct kernel_weight){.rank = 4, .dim = {n[3], n[2], n[4], n[4]}};
        b->work = 2.0 * (double)(n[0] * side * side) * (double)(n[3] * n[2] * taps);
        break;
    case BENCH_ATTENTION:
        rc = operand(b, n[0] * n[2] * n[1] * n[4], 1, err);
        if (!rc) rc = operand(b, n[0] * n[2] * n[1] * n[4], 1, err);
        for (int i = 0; i < 2 && !rc; i++) rc = operand(b, n[0] * n[3] * n[1] * n[4], 1, err);
        b->work = 4.0 * (double)(n[0] * n[1]) * (double)n[2] * (double)n[3] * (double)n[4];
        break;
    case BENCH_GROUP_NORM:
    case BENCH_LAYER_NORM:
        for (int i = 0; i < 2 && !rc; i++) rc = operand(b, n[0] * n[1] * n[2], 1, err);
        for (int i = 0; i < 2 && !rc; i++) rc = operand(b, n[2], 1, err);
        b->work = 2.0 * (double)(n[0] * n[1] * n[2]) * (double)dtype_bytes(b->dtype);
        break;
    case BENCH_GEGLU:
        rc = operand(b, n[0] * n[1], 1, err);
        if (!rc) rc = operand(b, n[0] * n[1] * 2, 1, err);
        b->work = 3.0 * (double)(n[0] * n[1]) * (double)dtype_bytes(b->dtype);
        break;
    }
    b->in_bytes = b->c.kind >= BENCH_GROUP_NORM;
    b->w.data = b->w.rank ? b->host[2] : NULL;
    b->w.dtype = b->dtype;
    return rc;
}

static struct conv2d_args conv_args(struct bench *b)
{
    const int64_t *n = b->c.n;
    return (struct conv2d_args){.y = b->memory[0],
                                .x = b->memory[1],
                                .w = &b->w,
                                .n = n[0],
                                .h = n[1],
                                .w_px = n[1],
                                .c = n[2],
                                .oh = conv_out(n),
                                .ow = conv_out(n),
                                .out = n[3],
                                .kh = (int)n[4],
                                .kw = (int)n[4],
                                .stride = (int)n[5],
                                .pad_top = (int)n[4] / 2,
                                .pad_left = (int)n[4] / 2,
                                .upsample = (int)n[6],
                                .dtype = b->dtype};
}

static int run(struct bench *b, struct error *err)
{
    const int64_t *n = b->c.n;
    const struct kernels *k = b->d->kernels;
    switch (b->c.kind) {
    case BENCH_LINEAR: {
        struct linear_args a = {.y = b->memory[0],
                                .x = b->memory[1],
                                .w = &b->w,
                                .m = n[0],
                                .k = n[2],
                                .out = n[1],
                                .ldx = n[2],
                                .ldy = n[1],
                                .dtype = b->dtype};
        return k->linear(b->d, &a, err);
    }
    case BENCH_CONV: {
        struct conv2d_args a = conv_args(b);
        return k->conv2d(b->d, &a, err);
    }
    case BENCH_ATTENTION: {
        int64_t width = n[1] * n[4];
        struct attention_args a = {.y = b->memory[0],
                                   .q = b->memory[1],
                                   .k = b->memory[2],
                                   .v = b->memory[3],
                                   .n = n[0],
                                   .heads = n[1],
                                   .lq = n[2],
                                   .lk = n[3],
                                   .d = n[4],
                                   .ldq = width,
                                   .ldk = width,
                                   .ldv = width,
                                   .ldy = width,
                                   .scale = 1 / sqrt((double)n[4]),
                                   .dtype = b->dtype};
        return k->attention(b->d, &a, err);
    }
    case BENCH_GROUP_NORM: {
        struct group_norm_args a = {.y = b->memory[0],
                                    .x = b->memory[1],
                                    .gamma = b->memory[2],
                                    .beta = b->memory[3],
                                    .n = n[0],
                                    .rows = n[1],
                                    .c = n[2],
                                    .groups = 32,
                                    .eps = 1e-5,
                                    .act = ACT_SILU,
                                    .dtype = b->dtype,
                                    .weight_dtype = b->dtype};
        return k->group_norm(b->d, &a, err);
    }
    case BENCH_LAYER_NORM: {
        struct layer_norm_args a = {.y = b->memory[0],
                                    .x = b->memory[1],
                                    .gamma = b->memory[2],
                                    .beta = b->memory[3],
                                    .rows = n[0] * n[1],
                                    .d = n[2],
                                    .eps = 1e-5,
                                    .dtype = b->dtype,
                                    .weight_dtype = b->dtype};
        return k->layer_norm(b->d, &a, err);
    }
    case BENCH_GEGLU: {
        struct geglu_args a = {
            .y = b->memory[0], .x = b->memory[1], .rows = n[0], .d = n[1], .dtype = b->dtype};
        return k->geglu(b->d, &a, err);
    }
    }
    return ERR_INTERNAL;
}

static double value(const struct bench *b, int operand_index, int64_t i)
{
    return dtype_get(b->host[operand_index], b->dtype, i);
}

static double linear_reference(const struct bench *b, int64_t at)
{
    const int64_t *n = b->c.n;
    double sum = 0;
    for (int64_t k = 0; k < n[2]; k++)
        sum += value(b, 1, at / n[1] * n[2] + k) * value(b, 2, at % n[1] * n[2] + k);
    return sum;
}

static double conv_reference(const struct bench *b, int64_t at)
{
    const int64_t *n = b->c.n, side = conv_out(n), large = n[1] * n[6], pad = n[4] / 2;
    int64_t o = at % n[3], ox = at / n[3] % side, oy = at / n[3] / side % side;
    int64_t image = at / n[3] / side / side;
    double sum = 0;
    for (int64_t ky = 0; ky < n[4]; ky++) {
        for (int64_t kx = 0; kx < n[4]; kx++) {
            int64_t y = oy * n[5] + ky - pad, x = ox * n[5] + kx - pad;
            if (y < 0 || x < 0 || y >= large || x >= large) continue;
            int64_t pixel = (image * n[1] + y / n[6]) * n[1] + x / n[6];
            for (int64_t c = 0; c < n[2]; c++)
                sum += value(b, 1, pixel * n[2] + c) *
                       value(b, 2, ((o * n[2] + c) * n[4] + ky) * n[4] + kx);
        }
    }
    return sum;
}

static double attention_reference(const struct bench *b, int64_t at)
{
    const int64_t *n = b->c.n, width = n[1] * n[4];
    int64_t column = at % width, row = at / width, head = column / n[4] * n[4];
    int64_t keys = row / n[2] * n[3];
    double *score = alloc_zero((size_t)n[3], sizeof *score), top = -INFINITY, sum = 0, y = 0;
    for (int64_t j = 0; j < n[3]; j++) {
        for (int64_t e = 0; e < n[4]; e++)
            score[j] +=
                value(b, 1, row * width + head + e) * value(b, 2, (keys + j) * width + head + e);
        score[j] /= sqrt((double)n[4]);
        top = fmax(top, score[j]);
    }
    for (int64_t j = 0; j < n[3]; j++) {
        double weight = exp(score[j] - top);
        sum += weight;
        y += weight * value(b, 3, (keys + j) * width + column);
    }
    free(score);
    return y / sum;
}

/* |err| / |ref| over a sample; -1 where no reference is kept here (tests/parity has them all) */
static int measure_error(struct bench *b, double *relative, struct error *err)
{
    *relative = -1;
    if (b->c.kind > BENCH_ATTENTION) return 0;
    size_t bytes = (size_t)b->count[0] * dtype_bytes(b->dtype);
    int rc = b->d->kernels->download(b->d, b->host[0], b->memory[0], bytes, err);
    if (rc) return rc;
    double wrong = 0, right = 0;
    for (int i = 0; i < SAMPLES; i++) {
        int64_t at = (int64_t)(fabs(draw(b)) * 1e15) % b->count[0];
        double want = b->c.kind == BENCH_LINEAR ? linear_reference(b, at)
                      : b->c.kind == BENCH_CONV ? conv_reference(b, at)
                                                : attention_reference(b, at);
        double off = value(b, 0, at) - want;
        wrong += off * off;
        right += want * want;
    }
    *relative = sqrt(wrong / right);
    return 0;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* Median seconds of one call. */
static int measure_time(struct bench *b, double *seconds, struct error *err)
{
    enum { ROUNDS = 9 };
    double wanted = b->options->seconds > 0 ? b->options->seconds : 0.2, times[ROUNDS];
    int rounds = b->options->quick ? 1 : ROUNDS, calls = 1;
    int rc = run(b, err); /* packs weights, warms up */
    if (!rc) rc = b->d->kernels->finish(b->d, err);
    for (int r = 0; r < rounds && !rc; r++) {
        double start = now_seconds();
        for (int i = 0; i < calls && !rc; i++) rc = run(b, err);
        if (!rc) rc = b->d->kernels->finish(b->d, err);
        times[r] = (now_seconds() - start) / calls;
        if (r == 0 && rounds > 1 && times[0] > 0) {
            double more = wanted / ROUNDS / times[0];
            calls = more > 1000 ? 1000 : more < 1 ? 1 : (int)more;
        }
    }
    if (rc) return rc;
    if (rounds > 1) times[0] = times[rounds - 1]; /* the first round was a single call */
    qsort(times, (size_t)rounds, sizeof times[0], by_size);
    *seconds = times[rounds / 2];
    return 0;
}

static void shrink(struct bench_case *c)
{
    static const struct {
        int from, to;
    } most[] = {
        [BENCH_LINEAR] = {0, 2},     [BENCH_CONV] = {1, 3},       [BENCH_ATTENTION] = {1, 3},
        [BENCH_GROUP_NORM] = {1, 1}, [BENCH_LAYER_NORM] = {1, 1}, [BENCH_GEGLU] = {0, 1}};
    for (int i = most[c->kind].from; i <= most[c->kind].to; i++) {
        int64_t limit = c->kind == BENCH_CONV && i == 1        ? 8
                        : c->kind == BENCH_CONV                ? 64
                        : c->kind == BENCH_ATTENTION && i == 1 ? 2
                                                               : 96;
        if (c->n[i] > limit) c->n[i] = limit;
    }
}

static void print_case(const struct bench *b, FILE *out, double seconds, double relative,
                       bool first)
{
    double rate = seconds > 0 ? b->work / seconds / (b->in_bytes ? 1e9 : 1e12) : 0;
    double peak = b->in_bytes ? b->peak_gbps : b->peak_tflops;
    if (b->options->json) {
        fprintf(out, "%s{\"case\":\"%s\",\"ms\":%.6f,\"%s\":%.3f", first ? "" : ",\n", b->c.name,
                seconds * 1e3, b->in_bytes ? "gbps" : "tflops", rate);
        if (peak > 0) fprintf(out, ",\"share_of_peak\":%.4f", rate / peak);
        if (relative >= 0) fprintf(out, ",\"error\":%.3e", relative);
        fputs("}", out);
        return;
    }
    fprintf(out, "%-28s %10.4f ms %9.2f %-8s", b->c.name, seconds * 1e3, rate,
            b->in_bytes ? "GB/s" : "TFLOP/s");
    if (peak > 0) fprintf(out, " %5.1f%% of peak", 100 * rate / peak);
    if (relative >= 0) fprintf(out, "  error %.1e", relative);
    fputc('\n', out);
}

static int run_case(struct bench *b, FILE *out, bool first, struct error *err)
{
    double seconds = 0, relative = -1;
    int rc = prepare(b, err);
    if (!rc) rc = measure_time(b, &seconds, err);
    if (!rc) rc = measure_error(b, &relative, err);
    operands_free(b);
    if (!rc) print_case(b, out, seconds, relative, first);
    return rc;
}

static void print_family(const struct bench *b, FILE *out, const struct family *f,
                         const struct kernel_check *r, bool first)
{
    const double rate = r->seconds > 0 ? r->work / r->seconds / (f->flop ? 1e12 : 1e9) : 0;
    const double peak = f->flop ? b->peak_tflops : b->peak_gbps;
    const bool wrong = !(r->error <= r->limit);
    if (b->options->json) {
        fprintf(out, "%s{\"case\":\"%s\",\"ms\":%.6f,\"%s\":%.3f", first ? "" : ",\n", f->name,
                r->seconds * 1e3, f->flop ? "tflops" : "gbps", rate);
        if (peak > 0) fprintf(out, ",\"share_of_peak\":%.4f", rate / peak);
        if (r->error >= 0 || wrong) fprintf(out, ",\"plain_error\":%.3e", r->error);
        fputs("}", out);
        return;
    }
    fprintf(out, "%-38s %10.4f ms", f->name, r->seconds * 1e3);
    if (b->options->quick) {
        fprintf(out, "  off plain %.1e%s\n", r->error, wrong ? ", WRONG" : "");
        return;
    }
    fprintf(out, " %9.2f %-8s", rate, f->flop ? "TFLOP/s" : "GB/s");
    if (peak > 0) fprintf(out, " %5.1f%% of peak", 100 * rate / peak);
    fputc('\n', out);
}

/* The rest of the table; *wrong counts what is off by more than its limit (quick only). */
static int run_families(struct bench *b, const struct family *list, int count, FILE *out,
                        bool *first, int *wrong, struct error *err)
{
    int rc = 0;
    const double seconds = b->options->seconds > 0 ? b->options->seconds : 0.1;
    for (int i = 0; i < count && !rc; i++) {
        const struct family *f = &list[i];
        struct kernel_check r;
        if (b->options->only && !strstr(f->name, b->options->only)) continue;
        rc = kernel_check_run(b->d, f, b->dtype, b->options->quick, seconds, &b->random, &r, err);
        if (rc == ERR_UNSUPPORTED || rc == ERR_NO_MEMORY) {
            if (!b->options->json)
                fprintf(out, "%-38s skipped: %s\n", f->name, err ? err->text : "");
            rc = 0;
            continue;
        }
        if (rc) return error_wrap(err, rc, "%s", f->name);
        if (!r.there) {
            if (!b->options->json) fprintf(out, "%-38s composed by this back end\n", f->name);
            continue;
        }
        print_family(b, out, f, &r, *first);
        *first = false;
        if (b->options->quick && !(r.error <= r.limit)) (*wrong)++;
    }
    return rc;
}

int kernel_bench_run(struct device *d, const struct kernel_bench_options *options, FILE *out,
                     struct error *err)
{
    struct bench b = {.d = d, .options = options, .dtype = d->default_dtype, .random = 1};
    int rc = 0, wrong = 0;
    bool first = true;
    if (d->peak && !options->quick) rc = d->peak(d, &b.peak_tflops, &b.peak_gbps, err);
    if (rc) return rc;
    if (options->json) {
        fprintf(out,
                "{\"device\":\"%s\",\"dtype\":\"%s\",\"peak_tflops\":%.2f,\"peak_gbps\":%.1f,"
                "\n\"cases\":[",
                d->label, dtype_name(b.dtype), b.peak_tflops, b.peak_gbps);
    } else {
        fprintf(out, "%s, %s\n", d->label, dtype_name(b.dtype));
        if (b.peak_tflops > 0)
            fprintf(out, "register-only mma loop %.1f TFLOP/s, copy %.0f GB/s\n", b.peak_tflops,
                    b.peak_gbps);
    }
    for (size_t i = 0; i < COUNT_OF(cases) && !rc; i++) {
        if (options->only && !strstr(cases[i].name, options->only)) continue;
        b.c = cases[i];
        if (options->quick) shrink(&b.c);
        rc = run_case(&b, out, first, err);
        if (rc == ERR_UNSUPPORTED || rc == ERR_NO_MEMORY) {
            if (!options->json)
                fprintf(out, "%-28s skipped: %s\n", cases[i].name, err ? err->text : "");
            rc = 0;
            continue;
        }
        first = false;
    }
    if (rc) error_wrap(err, rc, "%s", b.c.name);
    if (!rc)
        rc = run_families(&b, kernel_families_model, kernel_families_model_count, out, &first,
                          &wrong, err);
    if (!rc)
        rc = run_families(&b, kernel_families_rest, kernel_families_rest_count, out, &first, &wrong,
                          err);
    if (options->json) fputs("]}\n", out);
    if (!rc && wrong)
        rc = error_set(err, ERR_DEVICE, "%d families of kernels compute wrongly on %s", wrong,
                       d->label);
    return rc;
}
