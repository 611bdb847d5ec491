/*
 * contact.h - all samples of a dataset on one picture, numbered, with what was marked in them.
 *
 * Place    `kiln dataset check`; the numbers are those of its list.
 * Owner    the caller releases the picture. Any thread.
 * Failure  ERR_NO_MEMORY; a sample that cannot be read any more stays an empty frame.
 */
#ifndef DATASET_CONTACT_H
#define DATASET_CONTACT_H

#include "dataset/dataset.h"

#define CONTACT_SAMPLES_MAX 200

int contact_sheet(struct pixels *sheet, const struct dataset *d, struct error *err);

#endif
