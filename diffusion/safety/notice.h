/*
 * notice.h - the picture that stands in the place of one that must not leave.
 *
 * Place    after safety.h's verdict, before encoding.
 * Owner    works on the caller's pixels.
 * Failure  cannot fail: nothing is allocated.
 */
#ifndef SAFETY_NOTICE_H
#define SAFETY_NOTICE_H

#include "image/pixels.h"

/* Overwrites every pixel (alpha opaque) with a barred circle on grey; size and channels stay. */
void notice_replace(struct pixels *p);

#endif
