/*
 * pot_reader.h - what a picture shows, in the painter's own measurements.
 *
 * Place    judges the pocket model: form, glaze, pattern and ground are read back from pixels alone
 *          and compared with the caption. No network is involved.
 * Owner    new/free; read-only after new, so any thread may read.
 * Failure  cannot fail; an attribute that cannot be read is -1.
 *
 * The silhouette is what differs from the wall beside it in the same row (a mere darkening, the
 * shadow, does not count). Ground and glaze are the nearest colours once the light on a round body
 * (pot_shade) is divided out. Form and pattern are the most likely class of a Gaussian with diagonal
 * covariance over a dozen measures each, calibrated by pot_reader_new on the painter's own pictures,
 * slightly blurred and noisy.
 */
#ifndef PAINTER_POT_READER_H
#define PAINTER_POT_READER_H

#include "painter/pot.h"

struct pot_reader;

struct pot_reader *pot_reader_new(void);
void pot_reader_free(struct pot_reader *reader);

/* attribute[POT_PATTERN] may be PATTERN_SUN. */
void pot_reader_read(const struct pot_reader *reader, const uint8_t *rgb, int side,
                     int attribute[POT_ATTRIBUTE_COUNT]);

/* Blurs (3x3 box, mixed in by `blur` 0..1) and adds Gaussian noise: what tests and calibration do. */
void pot_weather(uint8_t *rgb, int side, double blur, double noise, struct pot_random *r);

#endif
