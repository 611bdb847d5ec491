/*
 * weight_store.h - the tensors of one model, wherever its files put them, and the visitors that
 *                  load, count, pack and drop weights.
 *
 * Place    between tensor/safetensors.h, pickle.h and the models. A store is one file, or the
 *          shards of one component; a model opens one or several.
 * Owner    weight_store_open / weight_store_close; every weight loaded from a store borrows from
 *          it.
 * Failure  ERR_NOT_FOUND, ERR_IO, ERR_FORMAT (with the file and the rule, or both shapes),
 *          ERR_UNSUPPORTED for what is no model file (a GGUF, a Git LFS pointer, a web page, an
 *          SQLite database).
 * Source   the checkpoint layouts of CompVis, Stability AI and diffusers.
 */
#ifndef DIFFUSION_WEIGHT_STORE_H
#define DIFFUSION_WEIGHT_STORE_H

#include "diffusion/layers.h"
#include "tensor/safetensors.h"

struct weight_store;

/* A .safetensors file, its .index.json (shards beside it), a pickle checkpoint (.ckpt .pth .pt
 * .bin, read as data only), or the convolutions of an ONNX file. Decided by content. */
int weight_store_open(struct weight_store **store, const char *path, struct error *err);
void weight_store_close(struct weight_store *store);

const char *weight_store_path(const struct weight_store *store);
size_t weight_store_count(const struct weight_store *store);
const struct safetensors_entry *weight_store_at(const struct weight_store *store, size_t index);
const struct safetensors_entry *weight_store_find(const struct weight_store *store,
                                                  const char *name);
/* prefix and name put together; NULL when absent. */
const struct safetensors_entry *weight_store_find_in(const struct weight_store *store,
                                                     const char *prefix, const char *name);
bool weight_store_has_prefix(const struct weight_store *store, const char *prefix);
const char *weight_store_meta(const struct weight_store *store, const char *key);

/* A weight of its own out of an entry, as a matrix or convolution of `rank`: F16 and BF16 stay, all else
 * becomes F32. What it returns is w's data, the caller's (free); NULL without memory. */
void *weight_copy(struct weight *w, const struct safetensors_entry *e, int rank);

/* Loading: visit a model with weight_loader and each weight takes its tensor from the store. */
struct weight_loading {
    struct weight_store *store;
    const char *prefix;    /* of the component in the file, "" for none */
    const char *component; /* for messages: "the UNet" */
    enum dialect dialect;
    int missing; /* weights that the file lacks */
    char missing_names[5][WEIGHT_NAME_BYTES];
    size_t bytes; /* loaded, in the file's dtype */
    size_t count;
};
/* For weight_visitor.visit; context is a struct weight_loading. Absent tensors are counted. */
int weight_load(struct weight_visitor *v, struct weight *w, const struct weight_site *site,
                struct error *err);
/* ERR_FORMAT with the first five missing names when any is. */
int weight_loading_check(const struct weight_loading *l, struct error *err);

/* Tensors that nothing has loaded, beside those known to be without use (model_ema, betas ...). */
size_t weight_store_ignored(const struct weight_store *store, const char **example);

/* For weight_visitor.visit, context struct weight_packing: makes the device's form of each weight
 * at once and gives the mapped pages of big ones back to the kernel. */
struct weight_packing {
    struct device *device;
    const struct weight_store *store;
    enum dtype activation;
};
int weight_pack(struct weight_visitor *v, struct weight *w, const struct weight_site *site,
                struct error *err);
/* Reads the mapped files into the page cache and this process's tables, piece by piece; false: it was told
 * to stop. `canceled` may be NULL. */
bool weight_store_warm(const struct weight_store *store, bool (*canceled)(void *context),
                       void *context);
/* Tells the kernel that these bytes of a mapped file will not be read soon (no effect on copies). */
void weight_store_forget_pages(const struct weight_store *store, const void *data, size_t bytes);
/* The reverse of packing: context is the struct device; packed forms go, the weights stay. */
int weight_drop(struct weight_visitor *v, struct weight *w, const struct weight_site *site,
                struct error *err);

#endif
