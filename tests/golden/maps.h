/*
 * maps.h - what the tests of control maps share: pictures read, and how far two are apart.
 *
 * Place    test_annotators.c, test_seg.c, test_leres.c and whoever compares pictures byte by byte.
 * Owner    pictures are the caller's (pixels_release).
 * Failure  fails the running test with a message.
 */
#ifndef GOLDEN_MAPS_H
#define GOLDEN_MAPS_H

#include "image/pixels.h"

void map_read(struct pixels *p, const char *folder, const char *name); /* folder/name.png */
/* The share of the pixels that differ by more than `most` in some channel. */
double map_off(const struct pixels *a, const struct pixels *b, int most);

#endif
