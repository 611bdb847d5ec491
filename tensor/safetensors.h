/*
 * safetensors.h - reading and writing the file format of checkpoints.
 *
 * Place    between files and weights: diffusion/ loads through it, diffusion/train writes through
 *          it.
 * Owner    open/close; data is mapped read-only (unaligned: never cast below the element size) and
 *          borrowed until close.
 * Failure  ERR_NOT_FOUND, ERR_IO, ERR_FORMAT with the file, the tensor and the rule that is broken
 *          (reliability F3: header <= 16 MiB, <= 20,000 tensors, rank <= 5, checked products, shape
 *          x dtype = span, one contiguous chain from 0 to the end of the file, no duplicates).
 * Source   model-formats of the huggingface/safetensors README, format section.
 */
#ifndef TENSOR_SAFETENSORS_H
#define TENSOR_SAFETENSORS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "kernels/dtype.h"

#define SAFETENSORS_RANK_MAX 5

struct safetensors_entry {
    const char *name;
    enum dtype dtype;
    int rank;
    int64_t dim[SAFETENSORS_RANK_MAX];
    const void *data; /* in the mapped file */
    size_t bytes;
};

struct safetensors_meta {
    const char *key, *value;
};

struct safetensors {
    char *path;
    const uint8_t *map;
    size_t map_bytes;
    struct safetensors_entry *entries; /* sorted by name */
    size_t count;
    struct safetensors_meta *meta; /* __metadata__, in file order */
    size_t meta_count;
    struct arena *arena; /* names and entries */
};

int safetensors_open(struct safetensors *file, const char *path, struct error *err);
void safetensors_close(struct safetensors *file);
const struct safetensors_entry *safetensors_find(const struct safetensors *file, const char *name);
const char *safetensors_meta_find(const struct safetensors *file, const char *key);

/* Parses header bytes alone (what safetensors_open does after mapping); for fuzzing and for
 * sizes before a download ends. `data_bytes` is the size of the data part. */
int safetensors_parse(struct safetensors *file, const uint8_t *header, size_t header_bytes,
                      const uint8_t *data, size_t data_bytes, struct error *err);

/* Writes entries in the given order with metadata in the given order, aligned to 8, through a
 * temporary file, fsync and rename. Names must be unique. */
int safetensors_write(const char *path, const struct safetensors_entry *entries, size_t count,
                      const struct safetensors_meta *meta, size_t meta_count, struct error *err);

#endif
