/*
 * plan.h - a device that computes nothing: a pass over it takes the memory that it would take on the
 *          device that it stands for, in the same order.
 *
 * Place    tensor/pass_plan.c, before the pass itself.
 * Owner    plan_device_open / device_close. One thread; weights are looked at, never changed.
 * Failure  cannot fail: no memory is behind its addresses, and nobody may follow them.
 */
#ifndef KERNELS_PLAN_H
#define KERNELS_PLAN_H

#include "kernels/device.h"

/* It has the kernels that `like` has, so that ops compose the same way. */
struct device *plan_device_open(const struct device *like);

#endif
