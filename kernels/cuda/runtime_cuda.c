#include "kernels/cuda/runtime.h"

#include <cuda_runtime_api.h>
#include <string.h>

#include "base/str.h"

static int no_device(cudaError_t code, struct error *err)
{
    switch (code) {
    case cudaErrorInsufficientDriver: {
        int driver = 0;
        cudaDriverGetVersion(&driver);
        if (driver == 0)
            return error_set(err, ERR_NOT_FOUND, "device cuda: no NVIDIA driver is installed");
        return error_set(
            err, ERR_UNSUPPORTED,
            "device cuda: the NVIDIA driver speaks CUDA %d.%d, this plug-in needs %d.%d or "
            "newer; update the driver",
            driver / 1000, driver % 1000 / 10, CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10);
    }
    case cudaErrorNoDevice:
        return error_set(err, ERR_NOT_FOUND, "device cuda: the driver sees no NVIDIA GPU");
    default: return error_set(err, ERR_UNSUPPORTED, "device cuda: %s", cudaGetErrorString(code));
    }
}

static int open_streams(struct runtime *r, bool aside, struct error *err)
{
    int least = 0, greatest = 0;
    cudaStream_t stream = NULL, copies = NULL;
    cudaError_t rc = cudaSetDevice(r->device);
    if (!rc) rc = cudaDeviceGetStreamPriorityRange(&least, &greatest);
    if (!rc)
        rc = cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, aside ? least : greatest);
    if (!rc) rc = cudaStreamCreateWithPriority(&copies, cudaStreamNonBlocking, least);
    r->stream = stream;
    r->copies = copies;
    for (int i = 0; i < RUNTIME_EVENTS && !rc; i++) {
        cudaEvent_t event = NULL;
        rc = cudaEventCreate(&event);
        r->events[i] = event;
    }
    if (!rc) return 0;
    return error_set(err, ERR_DEVICE, "device cuda:%d: %s: %s", r->device, r->label,
                     cudaGetErrorString(rc));
}

int runtime_open(struct runtime *r, int index, struct error *err)
{
    int count = 0;
    cudaError_t rc = cudaGetDeviceCount(&count);
    if (rc != cudaSuccess) return no_device(rc, err);
    if (count == 0) return no_device(cudaErrorNoDevice, err);
    if (index >= count)
        return error_set(err, ERR_NOT_FOUND,
                         "device cuda:%d: this machine has %d GPU%s, counted from 0", index, count,
                         count == 1 ? "" : "s");
    struct cudaDeviceProp prop;
    if ((rc = cudaGetDeviceProperties(&prop, index)) != cudaSuccess) return no_device(rc, err);
    struct runtime opened = {.device = index, .patience_ms = runtime_patience_ms()};
    opened.capability = prop.major * 10 + prop.minor;
    opened.multiprocessors = prop.multiProcessorCount;
    opened.shared_limit = prop.sharedMemPerBlockOptin;
    opened.memory_bytes = prop.totalGlobalMem;
    str_copy(opened.label, sizeof opened.label, prop.name);
    cudaDriverGetVersion(&opened.driver);
    if (opened.capability < 75)
        return error_set(
            err, ERR_UNSUPPORTED,
            "device cuda:%d: %s has no tensor cores that Kiln can use (compute capability "
            "%d.%d, 7.5 or newer is needed)",
            index, opened.label, prop.major, prop.minor);
    if (opened.capability == 75 && strstr(opened.label, "GTX 16"))
        return error_set(err, ERR_UNSUPPORTED, "device cuda:%d: %s has no tensor cores", index,
                         opened.label);
    int code = open_streams(&opened, false, err);
    if (!code) *r = opened;
    return code;
}

int runtime_twin(struct runtime *r, const struct runtime *first, struct error *err)
{
    struct runtime opened = *first;
    int code = open_streams(&opened, true, err);
    if (!code) *r = opened;
    return code;
}

void runtime_close(struct runtime *r)
{
    if (r->lost) return;
    for (int i = 0; i < RUNTIME_EVENTS; i++) cudaEventDestroy(r->events[i]);
    cudaStreamDestroy(r->copies);
    cudaStreamDestroy(r->stream);
}

int runtime_alloc(struct runtime *r, void **memory, size_t bytes)
{
    cudaError_t rc = cudaMalloc(memory, bytes ? bytes : 1);
    if (rc == cudaErrorMemoryAllocation) cudaGetLastError(); /* not sticky: the caller makes room */
    return (int)rc;
}

void runtime_free(struct runtime *r, void *memory)
{
    if (!r->lost) cudaFree(memory); /* would wait */
}

int runtime_alloc_pinned(struct runtime *r, void **memory, size_t bytes)
{
    return (int)cudaMallocHost(memory, bytes);
}

void runtime_free_pinned(struct runtime *r, void *memory)
{
    if (!r->lost) cudaFreeHost(memory);
}

int runtime_to_device(struct runtime *r, void *to, const void *from, size_t bytes)
{
    return (int)cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, r->stream);
}

int runtime_to_host(struct runtime *r, void *to, const void *from, size_t bytes)
{
    return (int)cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, r->stream);
}

int runtime_copy(struct runtime *r, void *to, const void *from, size_t bytes)
{
    return (int)cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, r->stream);
}

int runtime_clear(struct runtime *r, void *memory, size_t bytes)
{
    return (int)cudaMemsetAsync(memory, 0, bytes, r->stream);
}

int runtime_event_record(struct runtime *r, int event)
{
    return (int)cudaEventRecord(r->events[event], r->stream);
}

int runtime_send(struct runtime *r, void *to, const void *from, size_t bytes)
{
    return (int)cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, r->copies);
}

int runtime_send_record(struct runtime *r, int event)
{
    return (int)cudaEventRecord(r->events[event], r->copies);
}

int runtime_send_after(struct runtime *r, int event)
{
    return (int)cudaStreamWaitEvent(r->copies, r->events[event], 0);
}

int runtime_work_after(struct runtime *r, int event)
{
    return (int)cudaStreamWaitEvent(r->stream, r->events[event], 0);
}

static int query_event(struct runtime *r, int event)
{
    return (int)cudaEventQuery(r->events[event]);
}

static int query_stream(struct runtime *r, int event)
{
    return (int)cudaStreamQuery(r->stream);
}

int runtime_event_wait(struct runtime *r, int event)
{
    return runtime_wait(r, query_event, event);
}

int runtime_event_ms(struct runtime *r, int from, int to, float *ms)
{
    int rc = runtime_event_wait(r, to);
    return rc ? rc : (int)cudaEventElapsedTime(ms, r->events[from], r->events[to]);
}

int runtime_finish(struct runtime *r)
{
    return runtime_wait(r, query_stream, 0);
}

int runtime_capture_begin(struct runtime *r)
{
    return (int)cudaStreamBeginCapture(r->stream, cudaStreamCaptureModeThreadLocal);
}

int runtime_capture_end(struct runtime *r, void **graph)
{
    cudaGraph_t captured = NULL;
    cudaGraphExec_t ready = NULL;
    cudaError_t rc = cudaStreamEndCapture(r->stream, &captured);
    /* WithFlags is spelled the same in CUDA 11 and 13; plain Instantiate is not */
    if (!rc) rc = cudaGraphInstantiateWithFlags(&ready, captured, 0);
    if (captured) cudaGraphDestroy(captured);
    if (rc)
        cudaGetLastError(); /* a capture that was refused leaves the context whole */
    else
        *graph = ready;
    return (int)rc;
}

int runtime_graph_launch(struct runtime *r, void *graph)
{
    return (int)cudaGraphLaunch(graph, r->stream);
}

void runtime_graph_free(struct runtime *r, void *graph)
{
    cudaGraphExecDestroy(graph);
}

int runtime_free_bytes(struct runtime *r, size_t *bytes)
{
    size_t total;
    return (int)cudaMemGetInfo(bytes, &total);
}

int runtime_check(int code, const char *what, struct error *err)
{
    if (code == cudaSuccess) return 0;
    if (code == cudaErrorMemoryAllocation)
        return error_set(err, ERR_NO_MEMORY, "%s: the GPU has no memory left", what);
    if (code == RUNTIME_LOST)
        return error_set(err, ERR_DEVICE, "%s: the GPU does not answer any more", what);
    if (code == cudaErrorInvalidConfiguration || code == cudaErrorInvalidValue)
        return error_set(err, ERR_INTERNAL, "%s: %s (CUDA error %d)", what,
                         runtime_error_text(code), code);
    return error_set(err, ERR_DEVICE, "%s: the GPU failed: %s (CUDA error %d)", what,
                     runtime_error_text(code), code);
}

const char *runtime_error_text(int code)
{
    return cudaGetErrorString((cudaError_t)code);
}
