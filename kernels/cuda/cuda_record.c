/* device.recorder over CUDA graphs: one stream capture, instantiated once, launched per step. */
#include <stdlib.h>

#include "kernels/cuda/cuda.h"

int cuda_refuse_recording(struct device *d, const char *what, struct error *err)
{
    cuda_state(d)->recording_spoilt = true;
    return error_set(err, ERR_UNSUPPORTED, "%s: not while a step is recorded", what);
}

static int record_begin(struct device *d, struct error *err)
{
    struct cuda_state *s = cuda_state(d);
    int rc = runtime_check(runtime_capture_begin(&s->runtime), "recording", err);
    if (rc) return rc;
    s->recording = true;
    s->recording_spoilt = false;
    return 0;
}

static int record_end(struct device *d, void **recording, struct error *err)
{
    struct cuda_state *s = cuda_state(d);
    void *graph = NULL;
    s->recording = false;
    int code = runtime_capture_end(&s->runtime, &graph);
    if (!code && !s->recording_spoilt) {
        *recording = graph;
        return 0;
    }
    if (graph) runtime_graph_free(&s->runtime, graph);
    int device_failed = runtime_finish(&s->runtime);
    if (device_failed) return runtime_check(device_failed, "recording", err);
    return error_set(err, ERR_UNSUPPORTED, "this step cannot be recorded (CUDA error %d)", code);
}

static int record_replay(struct device *d, void *recording, struct error *err)
{
    struct cuda_state *s = cuda_state(d);
    return runtime_check(runtime_graph_launch(&s->runtime, recording), "recorded step", err);
}

static void record_free(struct device *d, void *recording)
{
    if (recording) runtime_graph_free(&cuda_state(d)->runtime, recording);
}

const struct device_recorder cuda_recorder = {record_begin, record_end, record_replay, record_free};
