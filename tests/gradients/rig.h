/*
 * rig.h - backward against central differences, in the double build.
 *
 * Place    tests/gradients. A case makes inputs and weights, and a function that computes one
 *          tensor from them. rig_check walks the tape back from a loss on that tensor and compares
 *          every gradient with (loss(x + h) - loss(x - h)) / 2h, in three ways: gradients touched
 *          first by the case, gradients that hold values already, and the whole case checkpointed.
 * Owner    the test. Random numbers come from one printed seed (KILN_TEST_SEED).
 * Failure  cmocka's.
 */
#ifndef TESTS_GRADIENTS_RIG_H
#define TESTS_GRADIENTS_RIG_H

#include "tensor/ops.h"
#include "tensor/tape.h"

#define RIG_MAX 24

struct rig;
typedef struct tensor (*rig_function)(struct pass *p, struct rig *r, const struct tensor *in);

struct rig {
    struct device *device;
    struct pass_memory memory;
    struct rig_input {
        int rank;
        int64_t dim[4];
        double *data;
        bool fixed; /* no gradient asked */
    } inputs[RIG_MAX];
    struct weight weights[RIG_MAX];
    int input_count, weight_count;
    rig_function run;
    const void *context;
    double tolerance; /* relative to the largest gradient of the tensor */
    const char *name; /* of the case, for messages */
    int checked;      /* derivatives compared so far */
};

void rig_init(struct rig *r, const char *name, rig_function run, const void *context);
void rig_release(struct rig *r);
/* Standard normal numbers times `scale` plus `offset`; returns the index. */
int rig_input(struct rig *r, int rank, const int64_t *dim);
int rig_weight(struct rig *r, int rank, const int64_t *dim, double scale, double offset);
void rig_check(struct rig *r);

double rig_normal(void);

#endif
