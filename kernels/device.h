/*
 * device.h - opening a compute device by the name people type.
 *
 * Place    kiln-engine and the local commands, before any weight is loaded.
 * Owner    device_open / device_close; one thread uses a device at a time (the CPU device has a
 *          thread pool of its own below). A second thread takes a twin.
 * Failure  ERR_INVALID for a name that is none; ERR_NOT_FOUND / ERR_UNSUPPORTED with a sentence
 *          for CUDA without plug-in, driver or GPU, or with a driver too old.
 *
 * Names: "cpu", "cpu:THREADS", "plain", "cuda", "cuda:N".
 * KILN_CPU=avx512|avx2|portable forces the CPU path; a path the machine lacks is ERR_UNSUPPORTED.
 */
#ifndef KERNELS_DEVICE_H
#define KERNELS_DEVICE_H

#include "kernels/kernels.h"

/* Work that is asked for again and again: what is asked between `begin` and `end` is kept instead of
 * done, and `replay` asks for all of it in one call. It reads and writes the addresses that it was
 * recorded with, so it is void once `device.moves` has gone on. While recording, whatever needs the
 * host (alloc, upload, download, finish, a weight that is not packed yet) is ERR_UNSUPPORTED, and
 * `end` then gives no recording. `end` ends the recording in any case. */
struct device_recorder {
    int (*begin)(struct device *d, struct error *err);
    int (*end)(struct device *d, void **recording, struct error *err);
    int (*replay)(struct device *d, void *recording, struct error *err);
    void (*free)(struct device *d, void *recording);
};

struct pass_memory;

struct device {
    const struct kernels *kernels;
    char name[64];            /* "cpu" */
    char label[96];           /* for people and provenance: "AMD EPYC, 2 threads, avx512" */
    enum dtype default_dtype; /* activation dtype when nothing is asked: F32 or BF16, or F16 */
    bool eight_bits;          /* multiplies weights that allow it in 8 bits (kernel_weight) */
    bool host_memory;         /* tensors can be read by the host directly */
    void *state;              /* the back end's own */
    char driver[32];          /* "CUDA 13.0"; "" where there is none */
    size_t memory_bytes;      /* of the card; 0: not its own (the host's) */
    size_t band_bytes;        /* norm_conv2d wants room of the pass for bands of so many; 0: none */
    uint64_t moves;           /* rises when memory that a recording may know was given back */
    const struct device_recorder *recorder;                                /* NULL: cannot record */
    int (*free_bytes)(struct device *d, size_t *bytes, struct error *err); /* NULL: not known */
    /* Weights come to the device when they are first used, out of a pool (weight_pool.h), and while
     * others are computed with. Else they are packed when a model is opened. */
    bool fetches;
    /* A second handle of the same device for another thread: what one has packed and allocated is good
     * for the other, and its work gives way to the first one's. Called by that thread, closed after it.
     * NULL: none. */
    int (*twin)(struct device *first, struct device **twin, struct error *err);
    /* Asked between pieces of what takes long (packing, uploads); true: ERR_CANCELED. May be NULL. */
    bool (*canceled)(void *context);
    void *canceled_context;
    /* Asked when there is no memory left, before saying so: the owner gives back what nobody needs now;
     * false: nothing was left to give. May be NULL. */
    bool (*relief)(void *context);
    void *relief_context;
    struct pass_memory *shared[2]; /* tensor/pass_memory.h's, while somebody has them */
    /* What the device reaches with nothing but multiply-adds and nothing but copies (TFLOP/s, GB/s);
     * NULL where nobody measures it. */
    int (*peak)(struct device *d, double *tflops, double *gigabytes, struct error *err);
    void (*close)(struct device *d);
};

int device_open(struct device **device, const char *name, struct error *err);
void device_close(struct device *device);
int device_twin(struct device *device, struct device **twin, struct error *err);
static inline bool device_canceled(const struct device *d)
{
    return d->canceled && d->canceled(d->canceled_context);
}

#endif
