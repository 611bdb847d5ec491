/*
 * params.h - the weights that a training changes, with gradients, moments and running mean.
 *
 * Place    between a model (its layers or adapters) and the training loops. AdamW (Loshchilov &
 *          Hutter 2019) runs in the back end; everything here is F32 in device memory but the
 *          moments of OPTIMIZER_ADAMW8, which are bytes.
 * Owner    init/release; adopted weights borrow their data from here until release. One thread.
 * Failure  ERR_NO_MEMORY, ERR_DEVICE, ERR_FORMAT (a state that belongs to other weights).
 *
 * The state (weights, moments, mean, step) goes to one safetensors file, so that a run that was
 * killed goes on as if it had not been: everything random is drawn from (seed, step).
 */
#ifndef TRAIN_PARAMS_H
#define TRAIN_PARAMS_H

#include "kernels/device.h"
#include "tensor/safetensors.h"
#include "tensor/weight.h"

enum optimizer {
    OPTIMIZER_ADAMW,
    OPTIMIZER_ADAMW8, /* moments of 8 bits for parameters of OPTIMIZER_LEAST_8BIT values and more */
    OPTIMIZER_COUNT
};
/* Smaller parameters keep whole moments, as bitsandbytes does (Dettmers et al. 2022). */
#define OPTIMIZER_LEAST_8BIT 4096

const char *optimizer_name(enum optimizer o);  /* "adamw", "adamw8bit" */
const char *optimizer_kohya(enum optimizer o); /* as ss_optimizer has it */
bool optimizer_find(const char *name, enum optimizer *o);

struct param {
    struct weight *w;
    char *name;
    int64_t count;
    bool frozen; /* params_update leaves it alone */
    /* device memory; mean NULL when not kept; m and v, or m8 and v8 with their factors */
    float *data, *grad, *m, *v, *mean, *m_scale, *v_scale;
    unsigned char *m8, *v8;
};

struct params {
    struct device *device;
    bool keep_mean;
    enum optimizer optimizer; /* OPTIMIZER_ADAMW unless changed before the first params_adopt */
    struct param *item;
    int count;
    int64_t total; /* elements */
};

struct adamw {
    double lr, beta1, beta2, eps, weight_decay;
    double clip;       /* of the global gradient norm; 0: none */
    double mean_decay; /* of the running mean of the weights */
};

void params_init(struct params *p, struct device *device, bool keep_mean);
void params_release(struct params *p);

/* Makes w trainable from here on, starting from `values` (host). w has its rank and dims. */
int params_adopt(struct params *p, struct weight *w, const char *name, const float *values,
                 struct error *err);
/* Freezes all but the parameters whose names begin with one of `prefixes` (NULL-terminated; NULL:
 * none is frozen), and forgets all moments: another training of the same weights begins. */
int params_restart(struct params *p, const char *const *prefixes, struct error *err);
int params_zero_grad(struct params *p, struct error *err);
/* Bytes of the moments as they are kept. */
size_t params_moment_bytes(const struct params *p);
int params_grad_norm(struct params *p, double *norm, struct error *err);
/* One update, step counts from 1; gradients are multiplied by grad_scale first. norm may be NULL.
 * A norm that is no number is ERR_INVALID and changes nothing. */
int params_update(struct params *p, const struct adamw *a, int64_t step, double grad_scale,
                  double *norm, struct error *err);

/* The weights themselves (or their running mean) to the host. */
int params_read(const struct params *p, int index, bool mean, float *out, struct error *err);
/* Replaces the weights by their running mean; for the end of a training. */
int params_use_mean(struct params *p, struct error *err);

/* extra: metadata beside "step"; written in the given order. Atomic. */
int params_save(const struct params *p, const char *path, int64_t step,
                const struct safetensors_meta *extra, size_t extra_count, struct error *err);
/* Reads what params_save wrote into the same weights; returns the step. */
int params_load(struct params *p, const char *path, int64_t *step, struct error *err);

#endif
