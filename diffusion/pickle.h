/*
 * pickle.h - torch checkpoints (.ckpt .pth .pt .bin) read as data; nothing in them is ever called.
 *
 * Place    beside tensor/safetensors.h, behind weight_store.h.
 * Owner    open/close; entries borrow from the mapped file, or from copies for strided views.
 * Failure  ERR_NOT_FOUND, ERR_IO; ERR_FORMAT for damage and for limits; ERR_UNSUPPORTED with the
 *          name of the opcode or global that is no data.
 * Source   CPython Lib/pickletools.py (opcodes), pytorch serialization.py (containers); APPNOTE.TXT
 *          (ZIP64).
 *
 * Names are those of the state dict (the root dict, or its state_dict, params_ema, params, model, g_ema):
 * nested dicts join with dots. Values that are no tensors are left out.
 */
#ifndef DIFFUSION_PICKLE_H
#define DIFFUSION_PICKLE_H

#include "tensor/safetensors.h"

struct pickle {
    char *path;
    const uint8_t *map;
    size_t map_bytes;
    struct safetensors_entry *entries; /* sorted by name */
    size_t count;
    struct pickle_reader *reader; /* what entries borrow from */
};

int pickle_open(struct pickle *file, const char *path, struct error *err);
/* The same over bytes that outlive the struct; for fuzzing. `name` is what messages call it. */
int pickle_parse(struct pickle *file, const char *name, const uint8_t *data, size_t length,
                 struct error *err);
void pickle_close(struct pickle *file);

#endif
