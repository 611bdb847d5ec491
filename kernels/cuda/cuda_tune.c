/* The way a product is done: what this card was fastest with. Measured when a shape first comes, kept by
 * tuner.c; without a tuner, while a step is recorded, or where there is no room, the cost model's. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/data_path.h"
#include "base/log.h"
#include "base/str.h"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/kernel_hash.h"

#define CANDIDATES_MAX 14
#define OWN_MAX 12 /* compute capability 9.0 has two kinds of tiles */
#define EVENT_FROM EVENT_TUNING
#define EVENT_TO (EVENT_TUNING + 1)
#define ROUNDS 4

static struct tuner_key key_of(const struct gemm_args *g, bool transposed, enum dtype dtype,
                               bool half_sums)
{
    const struct gemm_source *s = &g->source;
    const struct gemm_epilogue *e = &g->epilogue;
    unsigned form = 0;
    const bool bits[] = {
        transposed,         dtype == DTYPE_BF16, g->phases == 4,  e->geglu,     g->keep_scratch,
        g->partial != NULL, s->circular,         s->step > 1,     s->shift > 0, e->act != ACT_NONE,
        e->row != NULL,     e->add != NULL,      e->bias != NULL, half_sums};
    for (size_t i = 0; i < COUNT_OF(bits); i++) form |= (unsigned)bits[i] << i;
    return (struct tuner_key){g->m, g->n, g->k, s->c, s->taps_h * s->taps_w, form};
}

/* ---- libraries ---- */

static void open_libraries(struct device *d)
{
    struct cuda_state *s = cuda_state(d);
    if (s->libraries_asked) return;
    s->libraries_asked = true;
    if (runtime_alloc(&s->runtime, &s->workspace, LIBRARY_WORKSPACE_BYTES)) return;
    bool lt = cublaslt_open(&s->library[TUNER_CUBLASLT]);
    bool dnn = cudnn_open(&s->library[TUNER_CUDNN]);
    log_info("cuda.libraries", "cublaslt=%d cudnn=%d", lt, dnn);
}

static void close_libraries(struct cuda_state *s)
{
    for (int i = 0; i < TUNER_KIND_COUNT; i++)
        if (s->library[i].close) s->library[i].close(s->library[i].state);
    memset(s->library, 0, sizeof s->library);
    if (s->workspace) runtime_free(&s->runtime, s->workspace);
    s->workspace = NULL;
}

/* ---- choosing ---- */

static bool possible(struct device *d, const struct gemm_args *g, bool transposed, enum dtype dtype,
                     const struct tuner_choice *c, struct cuda_way *way)
{
    const struct cuda_state *s = cuda_state(d);
    way->kind = c->kind;
    if (c->kind == TUNER_OWN)
        return cuda_tile_make(&way->tile, s, g, transposed, c->tile, c->splits);
    const struct cuda_library *l = &s->library[c->kind];
    return l->can && l->can(g, transposed, dtype);
}

static int run(struct device *d, struct gemm_args g, bool transposed, enum dtype dtype,
               const struct cuda_way *way)
{
    struct error unused;
    return cuda_gemm_run(d, &g, transposed, dtype, way, "measurement", &unused);
}

/* Milliseconds of a run, or a negative number when it cannot be done. */
static float measure(struct device *d, const struct gemm_args *g, bool transposed, enum dtype dtype,
                     const struct cuda_way *way)
{
    struct runtime *r = &cuda_state(d)->runtime;
    float ms = -1;
    if (run(d, *g, transposed, dtype, way)) return -1; /* also brings code and data into caches */
    if (runtime_event_record(r, EVENT_FROM)) return -1;
    for (int i = 0; i < ROUNDS; i++)
        if (run(d, *g, transposed, dtype, way)) return -1;
    if (runtime_event_record(r, EVENT_TO)) return -1;
    return runtime_event_ms(r, EVENT_FROM, EVENT_TO, &ms) ? -1 : ms / ROUNDS;
}

static int list_candidates(struct device *d, const struct gemm_args *g, bool transposed,
                           enum dtype dtype, struct tuner_choice *list)
{
    struct cuda_state *s = cuda_state(d);
    int count = cuda_tile_list(list, OWN_MAX, s, g, transposed);
    open_libraries(d);
    for (int kind = TUNER_CUBLASLT; kind < TUNER_KIND_COUNT; kind++)
        if (s->library[kind].can && s->library[kind].can(g, transposed, dtype))
            list[count++] = (struct tuner_choice){(enum tuner_kind)kind, 0, 1};
    return count;
}

/* false: nothing could be measured */
static bool measure_all(struct device *d, const struct gemm_args *asked, bool transposed,
                        enum dtype dtype, struct tuner_choice *best)
{
    struct cuda_state *s = cuda_state(d);
    struct tuner_choice list[CANDIDATES_MAX];
    struct gemm_args g = *asked;
    float least = -1;
    int count = list_candidates(d, &g, transposed, dtype, list);
    /* results go aside: y may be what is added to */
    size_t bytes = (size_t)g.m * (size_t)g.phases * (size_t)g.y_pitch * dtype_bytes(dtype);
    if (g.partial || runtime_alloc(&s->runtime, &g.y, bytes)) return false;
    for (int i = 0; i < count; i++) {
        struct cuda_way way;
        if (!possible(d, &g, transposed, dtype, &list[i], &way)) continue;
        float ms = measure(d, &g, transposed, dtype, &way);
        if (ms < 0 || (least >= 0 && ms >= least)) continue;
        least = ms;
        *best = list[i];
    }
    runtime_free(&s->runtime, g.y);
    return least >= 0;
}

struct cuda_way cuda_tune_choose(struct device *d, const struct gemm_args *g, bool transposed,
                                 enum dtype dtype)
{
    struct cuda_state *s = cuda_state(d);
    struct cuda_way way = {.kind = TUNER_OWN};
    if (s->tuner && s->forced_tile < 0 && !s->forced_splits) {
        struct tuner_key key = key_of(g, transposed, dtype, s->half_sums);
        const struct tuner_choice *known = tuner_find(s->tuner, &key);
        struct tuner_choice best;
        if (known && known->kind != TUNER_OWN) open_libraries(d);
        if (known && possible(d, g, transposed, dtype, known, &way)) return way;
        if (!known && !s->recording && measure_all(d, g, transposed, dtype, &best)) {
            tuner_add(s->tuner, &key, best);
            if (possible(d, g, transposed, dtype, &best, &way)) return way;
        }
    }
    way.kind = TUNER_OWN;
    way.tile = cuda_tile_choose(s, g, transposed);
    return way;
}

/* ---- the device's table ---- */

static bool set(const char *variable)
{
    const char *value = getenv(variable);
    return value && *value && strcmp(value, "0") != 0;
}

/* The file of this card in the cache folder; NULL: none. */
static char *table_path(const struct tuner_identity *id)
{
    const char *named = getenv("KILN_CUDA_TUNE_DIR");
    char *folder = named ? alloc_string(named) : data_path_cache();
    if (!folder) return NULL;
    mkdir(folder, 0755); /* a folder that cannot be made is told at the first saving */
    uint64_t hash = id->kernels ^ (uint64_t)id->driver * 0x9e3779b97f4a7c15u;
    for (const char *c = id->card; *c; c++) hash = (hash ^ (uint8_t)*c) * 0x100000001b3u;
    char *path = alloc_printf("%s/cuda-tune-%016llx", folder, (unsigned long long)hash);
    free(folder);
    return path;
}

void cuda_tune_open(struct device *d)
{
    struct cuda_state *s = cuda_state(d);
    struct error why;
    s->half_sums = set("KILN_CUDA_HALF_SUMS");
    if (set("KILN_CUDA_REPRODUCIBLE")) return;
    if (s->runtime.emulated && !set("KILN_EMULATOR_TUNE")) return; /* its clock stands */
    struct tuner_identity id = {.driver = s->runtime.driver, .kernels = KILN_KERNEL_HASH};
    str_copy(id.card, sizeof id.card, d->label);
    char *path = table_path(&id);
    s->tuner = tuner_open(&id, path, &why);
    if (why.code) log_warn("cuda.tune", "reason=\"%s\"", why.text);
    log_info("cuda.tune", "shapes=%d", tuner_count(s->tuner));
    free(path);
}

void cuda_tune_save(struct device *d)
{
    struct error err;
    struct cuda_state *s = cuda_state(d);
    if (s->tuner && tuner_save(s->tuner, &err))
        log_warn("cuda.tune", "reason=\"%s\" text=\"measurements are not kept\"", err.text);
}

void cuda_tune_close(struct device *d)
{
    struct cuda_state *s = cuda_state(d);
    cuda_tune_save(d);
    close_libraries(s);
    tuner_close(s->tuner);
    s->tuner = NULL;
}
