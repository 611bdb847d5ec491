/*
 * pass_plan.h - one reservation for all that a pass will take, before it begins.
 *
 * Place    around network calls (guidance.c, vae_picture.c) on devices with memory of their own; where
 *          the host's serves, address space is reserved anyway and nothing happens here.
 * Owner    the caller's struct pass_memory; between passes.
 * Failure  ERR_NO_MEMORY before anything is computed. What the ops themselves would refuse is left to
 *          them.
 */
#ifndef TENSOR_PASS_PLAN_H
#define TENSOR_PASS_PLAN_H

#include "tensor/record.h"

/* Runs `ops` once over a device that computes nothing. They make their own inputs (pass_tensor) and read
 * no results. */
int pass_plan(struct pass_memory *memory, enum dtype dtype, record_ops ops, void *context,
              struct error *err);

#endif
