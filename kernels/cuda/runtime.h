/*
 * runtime.h - the few calls of the CUDA runtime that the host side makes.
 *
 * Place    below cuda_*.c. runtime_cuda.c is the real one; emulator/runtime_emulated.c runs the
 *          same host code over the emulator.
 * Owner    struct runtime belongs to a cuda device: a stream of work, a stream of copies beside it, one
 *          thread. Several on one card (twins) share its memory, and its fate.
 * Failure  runtime_open tells in a sentence what is missing (driver, GPU, a newer driver, tensor
 *          cores). The rest returns a CUDA error number; runtime_check turns it into an ERR_*: no
 *          memory, or the device failed and the process must be replaced.
 */
#ifndef KERNELS_CUDA_RUNTIME_H
#define KERNELS_CUDA_RUNTIME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* Who records which: a number has one user. */
enum {
    EVENT_STAGING = 0, /* 2: in-stream transfers through pinned memory */
    EVENT_SENDING = 2, /* 2: the same beside the work (cuda_send.c) */
    EVENT_LANDING = 4, /* 2: what landed has been read */
    EVENT_ARRIVED = 6, /* what was sent is there */
    EVENT_PEAK = 7,    /* 2 */
    EVENT_TUNING = 9,  /* 2 */
    RUNTIME_EVENTS = 11
};

struct runtime {
    int device;
    void *stream;
    void *copies; /* host to device only */
    void *events[RUNTIME_EVENTS];
    char label[96]; /* "NVIDIA GeForce RTX 3060" */
    int capability; /* 86 */
    int multiprocessors;
    size_t shared_limit; /* bytes a block */
    size_t memory_bytes;
    int driver; /* 13000 */
    bool emulated;
    int64_t patience_ms; /* how long a wait may last */
    bool lost; /* it did not answer: nothing more is asked of it, not even to free memory */
};

#define RUNTIME_NO_MEMORY 2 /* cudaErrorMemoryAllocation */
#define RUNTIME_BUSY 600    /* cudaErrorNotReady */
#define RUNTIME_LOST 702    /* cudaErrorLaunchTimeout */

/* runtime_wait.c: asks until the answer is not RUNTIME_BUSY; RUNTIME_LOST when patience ends.
 * KILN_CUDA_PATIENCE_MS, 60000 unless said. */
int64_t runtime_patience_ms(void);
int runtime_wait(struct runtime *r, int (*query)(struct runtime *r, int event), int event);

int runtime_open(struct runtime *r, int index, struct error *err);
/* Another one on the card of `first`, whose streams give way to that one's. Called by the thread that will
 * use it. */
int runtime_twin(struct runtime *r, const struct runtime *first, struct error *err);
void runtime_close(struct runtime *r);

int runtime_alloc(struct runtime *r, void **memory, size_t bytes);
void runtime_free(struct runtime *r, void *memory);
int runtime_alloc_pinned(struct runtime *r, void **memory, size_t bytes);
void runtime_free_pinned(struct runtime *r, void *memory);

/* Asked for in the order of the stream; `to_device` and `to_host` want pinned host memory. */
int runtime_to_device(struct runtime *r, void *to, const void *from, size_t bytes);
int runtime_to_host(struct runtime *r, void *to, const void *from, size_t bytes);
int runtime_copy(struct runtime *r, void *to, const void *from, size_t bytes);
int runtime_clear(struct runtime *r, void *memory, size_t bytes);
int runtime_event_record(struct runtime *r, int event);
/* In the order of the stream of copies; `from` is pinned and stays as it is until the copy is done. */
int runtime_send(struct runtime *r, void *to, const void *from, size_t bytes);
int runtime_send_record(struct runtime *r, int event);
/* What is sent from now on waits for the event; what the stream is asked from now on waits for it. Only
 * what was recorded before counts. */
int runtime_send_after(struct runtime *r, int event);
int runtime_work_after(struct runtime *r, int event);
int runtime_event_wait(struct runtime *r, int event);
/* Milliseconds between two recorded events, after waiting for the second. */
int runtime_event_ms(struct runtime *r, int from, int to, float *ms);
int runtime_finish(struct runtime *r);

/* What the stream is asked between the two is kept as a graph instead of done. Whatever waits for the
 * device in between fails, and `end` then gives none. */
int runtime_capture_begin(struct runtime *r);
int runtime_capture_end(struct runtime *r, void **graph);
int runtime_graph_launch(struct runtime *r, void *graph);
void runtime_graph_free(struct runtime *r, void *graph);

int runtime_free_bytes(struct runtime *r, size_t *bytes);

/* 0 for 0; else sets err: `what` is the kernel or call that returned `code`. */
int runtime_check(int code, const char *what, struct error *err);
const char *runtime_error_text(int code);

#endif
