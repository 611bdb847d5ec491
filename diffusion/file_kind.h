/*
 * file_kind.h - what a model file is, by its first bytes; extensions lie.
 *
 * Place    before any parser of diffusion/ opens a stranger's file.
 * Owner    none. Any thread.
 * Failure  ERR_NOT_FOUND, ERR_IO; ERR_UNSUPPORTED with a sentence that says what the file is and
 *          what to do about it (GGUF, SQLite, Git LFS pointer, web page, tar).
 * Source   first bytes of the formats themselves.
 */
#ifndef DIFFUSION_FILE_KIND_H
#define DIFFUSION_FILE_KIND_H

#include "base/error.h"

enum file_kind {
    FILE_SAFETENSORS,
    FILE_SHARDS, /* NAME.safetensors.index.json */
    FILE_ZIP_PICKLE,
    FILE_LEGACY_PICKLE,
    FILE_ONNX,
    FILE_FOLDER
};

int file_kind_of(enum file_kind *kind, const char *path, struct error *err);

#endif
