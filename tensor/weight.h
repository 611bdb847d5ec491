/*
 * weight.h - one named parameter of a model.
 *
 * Place    members of every model struct. A model's visitor names each once, with the checkpoint's
 *          own name and the shape it must have; loading, counting, LoRA and saving are visitors.
 * Owner    the model embeds it; data is borrowed from a mapped file (struct weight_store) or from a
 *          trainer. Packed forms belong to the device and are dropped by weight_release.
 * Failure  visitors stop at the first error.
 */
#ifndef TENSOR_WEIGHT_H
#define TENSOR_WEIGHT_H

#include "kernels/kernels.h"
#include "tensor/tensor.h"

struct weight {
    const char *name; /* checkpoint's name, borrowed; NULL while absent */
    struct kernel_weight k; /* k.data NULL while absent */
    bool trainable;   /* gradients are wanted */
    void *grad;       /* F32 (real), same count, device memory; set by the trainer, += by tapes */
};

static inline bool weight_present(const struct weight *w)
{
    return w && w->k.data;
}

static inline bool weight_trains(const struct weight *w)
{
    return weight_present(w) && w->trainable;
}

int64_t weight_count(const struct weight *w);
/* Drops what the device packed; the data is not the weight's to free. */
void weight_release(struct weight *w, struct device *d);

#endif
