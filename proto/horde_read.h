/*
 * horde_read.h - what several of the Horde's answers have in common.
 *
 * Place    inside proto/, between reader.h and the horde_* parsers.
 * Owner    everything read lives in the arena given.
 * Failure  sticky in the reader.
 */
#ifndef PROTO_HORDE_READ_H
#define PROTO_HORDE_READ_H

#include "proto/horde_pop.h"
#include "proto/reader.h"

bool horde_read_id(struct reader *r, const json_t *v, char to[HORDE_ID_BYTES]);
void horde_read_skipped(struct reader *r, const json_t *o, struct arena *memory,
                        struct horde_skipped **list, int *count);

#endif
