/*
 * onnx.h - the convolutions of an ONNX file, read as data: names are given by their order.
 *
 * Place    beside pickle.h, behind weight_store.h. Exporters number their weights as they like, but
 *          write the graph in the order in which it runs; so the weights of the N-th Conv node are
 *          conv.N.weight and conv.N.bias here, those of a BatchNormalization after it norm.N.weight,
 *          .bias, .running_mean, .running_var. Nothing else of the graph is looked at.
 * Owner    open/close; entries borrow from the mapped file.
 * Failure  ERR_NOT_FOUND, ERR_IO; ERR_FORMAT for damage and limits (65,536 weights, 4,096
 *          convolutions); ERR_UNSUPPORTED for weights kept in another file.
 * Source   onnx/onnx onnx.proto (field numbers), protobuf encoding: developers.google.com
 *          "Encoding".
 */
#ifndef DIFFUSION_ONNX_H
#define DIFFUSION_ONNX_H

#include "tensor/safetensors.h"

struct onnx {
    char *path;
    const uint8_t *map;
    size_t map_bytes;
    struct safetensors_entry *entries; /* sorted by name */
    size_t count;
    struct arena *arena;
};

int onnx_open(struct onnx *file, const char *path, struct error *err);
/* The same over bytes that outlive the struct; for fuzzing. */
int onnx_parse(struct onnx *file, const char *name, const uint8_t *data, size_t length,
               struct error *err);
void onnx_close(struct onnx *file);

#endif
