/*
 * Whole pictures of the tiny models through the emulated CUDA kernels, fp16, against the pictures of
 * the Python reference (tests/golden): at least 35 dB; and steps that are replayed as CUDA graphs draw
 * the same bytes as steps asked op by op.
 *
 * usage: test_cuda_image DATA [CASE]...      without cases: all that DATA has (minutes)
 * KILN_CUDA_PLUGIN names the emulated plug-in.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/now.h"
#include "diffusion/model.h"
#include "image/codec.h"
#include "tests/golden/golden.h"

#define LIMIT_DB 35.0
#define SAME_DB 120.0

static double compare(const struct pixels *a, const struct pixels *b)
{
    if (a->width != b->width || a->height != b->height) return -1;
    double squares = 0;
    int64_t n = (int64_t)a->width * a->height;
    for (int64_t i = 0; i < n; i++)
        for (int k = 0; k < 3; k++) {
            double d = (double)a->data[i * a->channels + k] - b->data[i * b->channels + k];
            squares += d * d;
        }
    return squares == 0 ? SAME_DB : 10 * log10(255.0 * 255.0 / (squares / (double)(n * 3)));
}

/* The same request without recordings: every byte alike, and there were recordings. */
static bool same_op_by_op(struct model *m, const struct image_request *r,
                          const struct pipeline_result *recorded)
{
    struct error err;
    struct pipeline_result plain = {0};
    const struct device_recorder *recorder = m->device->recorder;
    uint64_t replayed = m->steps.replayed;
    printf("  %llu steps recorded, %llu replayed\n", (unsigned long long)m->steps.recorded,
           (unsigned long long)replayed);
    m->device->recorder = NULL;
    bool same = pipeline_run(m, r, NULL, &plain, &err) == 0 && m->steps.replayed == replayed &&
                replayed > 0 && plain.count == recorded->count;
    m->device->recorder = recorder;
    for (int i = 0; same && i < plain.count; i++)
        same = compare(&plain.images[i], &recorded->images[i]) == SAME_DB;
    pipeline_result_release(&plain);
    if (!same) printf("  op by op it is another picture\n");
    return same;
}

static double run_case(struct golden *g, const json_t *c)
{
    struct error err = {0};
    struct image_request r;
    struct pipeline_result result = {0};
    double worst = SAME_DB;
    struct model *m = golden_model(g, c);
    golden_request(g, &r, c);
    if (pipeline_run(m, &r, NULL, &result, &err)) {
        printf("%s\n", err.text);
        worst = -1;
    }
    for (int i = 0; i < result.count; i++) {
        struct pixels want = {0};
        json_t *name = json_array_get(json_object_get(c, "images"), (size_t)i);
        char *path = alloc_printf("%s/%s", g->data, json_string_value(name));
        if (image_read(&want, NULL, path, &err)) {
            printf("%s\n", err.text);
            worst = -1;
        } else {
            worst = fmin(worst, compare(&result.images[i], &want));
        }
        pixels_release(&want);
        free(path);
    }
    bool gate_only = getenv("KILN_CUDA_HALF_SUMS") != NULL;
    if (worst >= 0 && !gate_only && !same_op_by_op(m, &r, &result)) worst = -1;
    pipeline_result_release(&result);
    image_request_release(&r);
    return worst;
}

static const struct kernels *whole;
static int room_made;

static int no_memory_once(struct device *d, void **memory, size_t bytes, struct error *err)
{
    d->kernels = whole;
    return error_set(err, ERR_NO_MEMORY, "as was asked for");
}

static void note_room(void *context)
{
    room_made++;
}

/* A card that has no memory left once: the lean plan draws the same picture. */
static bool lean_plan(struct golden *g, const json_t *c)
{
    struct error err = {0};
    struct image_request r;
    struct pipeline_result first = {0}, lean = {0};
    struct pipeline_hooks hooks = {.make_room = note_room};
    struct model *m = golden_model(g, c);
    golden_request(g, &r, c);
    r.steps = 1;
    bool good = pipeline_run(m, &r, NULL, &first, &err) == 0;
    pass_memory_trim(m->memory);
    struct kernels tight = *m->device->kernels;
    tight.alloc = no_memory_once;
    whole = m->device->kernels;
    m->device->kernels = &tight;
    good = good && pipeline_run(m, &r, &hooks, &lean, &err) == 0 && room_made == 1 &&
           lean.count == first.count && m->device->kernels == whole;
    m->device->kernels = whole;
    for (int i = 0; good && i < first.count; i++)
        good = compare(&first.images[i], &lean.images[i]) >= LIMIT_DB;
    printf("lean plan: %s%s\n", good ? "the same picture" : "FAILED ", good ? "" : err.text);
    pipeline_result_release(&first);
    pipeline_result_release(&lean);
    image_request_release(&r);
    return good;
}

static bool wanted(int argc, char **argv, const char *id)
{
    for (int i = 2; i < argc; i++)
        if (strcmp(argv[i], id) == 0) return true;
    return argc == 2;
}

int main(int argc, char **argv)
{
    struct golden g;
    struct error err;
    if (argc < 2) return 2;
    golden_open(&g, argv[1], PRECISION_FP16);
    device_close(g.device);
    if (device_open(&g.device, "cuda", &err)) {
        printf("%s\n", err.text);
        return 1;
    }
    printf("%s\n", g.device->label);
    int ran = 0, failed = 0;
    size_t i;
    json_t *c;
    json_array_foreach(g.cases, i, c)
    {
        const char *id = golden_string(c, "id", "?");
        if (!wanted(argc, argv, id)) continue;
        double start = now_seconds(), db = run_case(&g, c);
        bool bad = !(db >= LIMIT_DB);
        printf("%-28s %6.1f dB %6.1f s%s\n", id, db, now_seconds() - start, bad ? "  FAILED" : "");
        fflush(stdout);
        ran++;
        if (ran == 1 && argc > 2 && !getenv("KILN_CUDA_HALF_SUMS")) bad = !lean_plan(&g, c) || bad;
        failed += bad;
    }
    printf("%d cases, %d failed (%.0f dB)\n", ran, failed, LIMIT_DB);
    golden_close(&g);
    return ran == 0 || failed;
}
