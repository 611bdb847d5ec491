/*
 * map_file.h - a whole file, read-only, in memory.
 *
 * Place    readers that walk a file of weights without copying it: pickles, ONNX.
 * Owner    the mapping is the caller's, who gives it back with munmap. Any thread.
 * Failure  ERR_NOT_FOUND, ERR_IO (also for an empty file); the sentence names the path.
 */
#ifndef BASE_MAP_FILE_H
#define BASE_MAP_FILE_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

int map_file(const char *path, const uint8_t **map, size_t *bytes, struct error *err);

#endif
