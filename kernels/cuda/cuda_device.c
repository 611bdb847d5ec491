#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/str.h"
#include "kernels/cuda/cuda.h"
#include "kernels/plugin.h"

#define STAGING_BYTES ((size_t)8 << 20)
#define BAND_BYTES ((size_t)32 << 20) /* rows enough to fill a card with blocks */

static int device_alloc(struct device *d, void **memory, size_t bytes, struct error *err)
{
    struct cuda_state *s = cuda_state(d);
    if (s->recording) return cuda_refuse_recording(d, "memory", err);
    int code = runtime_alloc(&s->runtime, memory, bytes);
    while (code == RUNTIME_NO_MEMORY &&
           (cuda_sending_trim(d) || (d->relief && d->relief(d->relief_context))))
        code = runtime_alloc(&s->runtime, memory, bytes);
    if (code == 0) return 0;
    int rc = runtime_check(code, "memory", err);
    size_t left = 0;
    if (rc == ERR_NO_MEMORY && runtime_free_bytes(&s->runtime, &left) == 0)
        error_set(err, rc, "the GPU has no room for %zu MiB more (%zu MiB are free)", bytes >> 20,
                  left >> 20);
    return rc;
}

static void device_free(struct device *d, void *memory)
{
    if (!memory) return;
    d->moves++;
    runtime_free(&cuda_state(d)->runtime, memory);
}

int cuda_scratch(struct device *d, void **memory, size_t bytes, struct error *err)
{
    struct cuda_state *s = cuda_state(d);
    if (bytes > s->scratch_bytes) {
        size_t wanted = bytes + bytes / 4;
        void *larger;
        int rc = device_alloc(d, &larger, wanted, err);
        if (rc) return rc;
        device_free(d, s->scratch); /* waits for what still reads it */
        s->scratch = larger;
        s->scratch_bytes = wanted;
    }
    *memory = s->scratch;
    return 0;
}

/* Through two pinned buffers in turn: one is filled while the other travels. The caller's memory is
 * free again at the return. */
int cuda_upload(struct device *d, void *to, const void *from_host, size_t bytes, struct error *err)
{
    struct cuda_state *s = cuda_state(d);
    if (s->recording) return cuda_refuse_recording(d, "upload", err);
    for (size_t at = 0; at < bytes;) {
        size_t part = bytes - at < STAGING_BYTES ? bytes - at : STAGING_BYTES;
        int turn = s->staging_turn ^= 1;
        int code = runtime_event_wait(&s->runtime, turn);
        if (!code) {
            memcpy(s->staging[turn], (const char *)from_host + at, part);
            code = runtime_to_device(&s->runtime, (char *)to + at, s->staging[turn], part);
        }
        if (!code) code = runtime_event_record(&s->runtime, turn);
        if (code) return runtime_check(code, "upload", err);
        at += part;
    }
    return 0;
}

static int device_download(struct device *d, void *to_host, const void *from, size_t bytes,
                           struct error *err)
{
    struct cuda_state *s = cuda_state(d);
    if (s->recording) return cuda_refuse_recording(d, "download", err);
    for (size_t at = 0; at < bytes;) {
        size_t part = bytes - at < STAGING_BYTES ? bytes - at : STAGING_BYTES;
        int turn = s->staging_turn ^= 1;
        int code = runtime_event_wait(&s->runtime, turn);
        if (!code)
            code = runtime_to_host(&s->runtime, s->staging[turn], (const char *)from + at, part);
        if (!code) code = runtime_finish(&s->runtime);
        if (code) return runtime_check(code, "download", err);
        memcpy((char *)to_host + at, s->staging[turn], part);
        at += part;
    }
    return 0;
}

static int device_zero(struct device *d, void *memory, size_t bytes, struct error *err)
{
    return runtime_check(runtime_clear(&cuda_state(d)->runtime, memory, bytes), "zero", err);
}

static int device_finish(struct device *d, struct error *err)
{
    if (cuda_state(d)->recording) return cuda_refuse_recording(d, "finish", err);
    cuda_tune_save(d);
    return runtime_check(runtime_finish(&cuda_state(d)->runtime), "finish", err);
}

static int device_free_bytes(struct device *d, size_t *bytes, struct error *err)
{
    return runtime_check(runtime_free_bytes(&cuda_state(d)->runtime, bytes), "free memory", err);
}

static const struct kernels cuda_kernels = {.name = "cuda",
                                            .alloc = device_alloc,
                                            .free = device_free,
                                            .upload = cuda_upload,
                                            .download = device_download,
                                            .zero = device_zero,
                                            .finish = device_finish,
                                            .pack = cuda_pack,
                                            .unpack = cuda_unpack,
#define X(name, args) .name = cuda_##name,
                                            KERNEL_TABLE(X) KERNEL_FUSED_TABLE(X)
                                                KERNEL_BANDED_TABLE(X)
#undef X
};

static void cuda_device_close(struct device *d)
{
    struct cuda_state *s = cuda_state(d);
    cuda_tune_close(d);
    cuda_sending_close(d);
    for (int i = 0; i < 2; i++)
        if (s->staging[i]) runtime_free_pinned(&s->runtime, s->staging[i]);
    if (s->scratch) runtime_free(&s->runtime, s->scratch);
    runtime_close(&s->runtime);
    free(s);
    free(d);
}

/* What the two kinds of handles share. */
static struct device *handle_new(struct cuda_state *s)
{
    struct device *d = alloc_zero(1, sizeof *d);
    s->forced_tile = -1;
    d->state = s;
    d->kernels = &cuda_kernels;
    d->close = cuda_device_close;
    d->fetches = true;
    d->default_dtype = DTYPE_F16;
    d->band_bytes = BAND_BYTES;
    d->memory_bytes = s->runtime.memory_bytes;
    d->free_bytes = device_free_bytes;
    snprintf(d->driver, sizeof d->driver, "CUDA %d.%d", s->runtime.driver / 1000,
             s->runtime.driver % 1000 / 10);
    snprintf(d->name, sizeof d->name, "cuda:%d", s->runtime.device);
    snprintf(d->label, sizeof d->label, "%.80s, sm_%d", s->runtime.label, s->runtime.capability);
    return d;
}

static int open_staging(struct cuda_state *s, struct error *err)
{
    int code = 0;
    for (int i = 0; i < 2 && !code; i++) {
        void *memory;
        code = runtime_alloc_pinned(&s->runtime, &memory, STAGING_BYTES);
        if (!code) s->staging[i] = memory;
    }
    return runtime_check(code, "pinned memory", err);
}

/* Loads models; measures and records nothing. */
static int cuda_twin(struct device *first, struct device **twin, struct error *err)
{
    struct cuda_state *s = alloc_zero(1, sizeof *s);
    int rc = runtime_twin(&s->runtime, &cuda_state(first)->runtime, err);
    if (rc) {
        free(s);
        return rc;
    }
    struct device *d = handle_new(s);
    rc = open_staging(s, err);
    if (rc)
        cuda_device_close(d);
    else
        *twin = d;
    return rc;
}

extern const struct plugin_abi kiln_plugin_abi;
PLUGIN_EXPORT const struct plugin_abi kiln_plugin_abi = PLUGIN_ABI;

PLUGIN_EXPORT int cuda_device_open(struct device **device, const char *options, struct error *err)
{
    int64_t index = 0;
    if (options && (!str_parse_i64(options, &index) || index < 0 || index > 255))
        return error_set(err, ERR_INVALID, "device cuda:%s: a number of 0 to 255 is wanted",
                         options);
    struct cuda_state *s = alloc_zero(1, sizeof *s);
    int rc = runtime_open(&s->runtime, (int)index, err);
    if (rc) {
        free(s);
        return rc;
    }
    struct device *d = handle_new(s);
    d->peak = cuda_peak;
    d->twin = cuda_twin;
    const char *graphs = getenv("KILN_CUDA_GRAPHS");
    if (!graphs || strcmp(graphs, "0") != 0) d->recorder = &cuda_recorder;
    rc = open_staging(s, err);
    if (!rc) rc = cuda_selftest(d, err);
    if (!rc) cuda_tune_open(d);
    if (rc) {
        cuda_device_close(d);
        return rc;
    }
    *device = d;
    return 0;
}
