/*
 * model.h - one checkpoint on one device: what pipeline.h calls struct model, seen from inside.
 *
 * Place    opened by pipeline's callers through model_open; used by pipeline.c, lora/ and train/.
 * Owner    model_open / model_close. One thread.
 * Failure  pipeline.h's.
 * Source   layouts of CompVis, Stability AI and diffusers checkpoints.
 */
#ifndef DIFFUSION_MODEL_H
#define DIFFUSION_MODEL_H

#include "diffusion/pipeline.h"
#include "diffusion/sample/noise_levels.h"
#include "diffusion/text/conditioning.h"
#include "diffusion/unet/unet.h"
#include "diffusion/vae/vae.h"
#include "tensor/record.h"

#define MODEL_STORES_MAX 6

struct model {
    struct model_info info;
    struct device *device;
    enum dtype dtype; /* of activations in text and UNet */
    enum dtype vae_dtype;
    bool eight_bits; /* the UNet's weights are rounded to 8 bits (PRECISION_INT8) */
    struct weight_store *stores[MODEL_STORES_MAX];
    int store_count;

    struct text_side text;
    struct vocab *vocab;
    struct clip_text *encoders[2]; /* what text.encoder points to */
    enum dialect text_dialect[2];

    struct unet unet;
    enum dialect unet_dialect;
    const char *unet_prefix; /* of its names in the file, for saving */
    const struct weight_store *unet_store;
    int64_t size_width; /* SDXL: width of each of the six size embeddings */

    struct vae vae;
    const struct weight_store *vae_store;
    struct taesd *taesd; /* decodes instead of the VAE when it was named as such; or NULL */

    struct alpha_decoder *alpha; /* of transparent pictures, once one was drawn; or NULL */

    struct lora_set *loras; /* adapters applied now (lora/lora.h); NULL: never any */

    struct control_net *controls[REQUEST_CONTROLS_MAX]; /* those used last, by their paths */
    char *control_paths[REQUEST_CONTROLS_MAX];          /* NULL: none here */

    uint64_t layers_changed; /* rises when adapters come or go: a part of what a step depends on */
    struct record_cache steps; /* network calls that the device has recorded */

    bool zero_snr;
    struct noise_levels levels;
    struct pass_memory *memory;  /* of the network passes: the device's, reused from job to job */
    struct pass_memory *context; /* of what lives through one job: the device's too */
    struct weight_pool *pool;    /* of the weights, on a device that fetches them; or NULL */
};

/* The vocabulary and the text encoders (model_text.c). `folder` is the diffusers folder, or NULL for
 * the single file in stores[0]. */
int model_open_text(struct model *m, const char *folder, struct error *err);
void model_close_text(struct model *m);

/* What kind of model a UNet makes (model_kind.c): before its weights are loaded, and after. `folder` NULL:
 * a single file. */
int model_find_family(struct model *m, const struct unet_config *c, const char *folder,
                      struct error *err);
int model_find_prediction(struct model *m, const char *folder, struct error *err);

/* Where a component is in a single file: the first of `prefixes` (NULL-terminated) below which
 * `name` exists; NULL when none. */
const char *model_find_prefix(const struct weight_store *store, const char *const *prefixes,
                              const char *name);
/* DIR/NAME of the weights of a diffusers component: NAME.safetensors, NAME.fp16.safetensors, their
 * index, or a .bin; NULL when there is none. The caller frees. */
char *model_component_file(const char *folder, const char *component, const char *name);
/* Gives back what only drawing needs: packed text encoders and VAE, and the passes' idle memory. All comes
 * again when it is used; training calls this once its latents and text states are cached. */
void model_rest(struct model *m);
/* model_fetch.c, once all parts are loaded: on a device that fetches weights, one reservation for all. */
int model_reserve(struct model *m, struct error *err);
/* Opens a store and keeps it until model_close. */
int model_add_store(struct model *m, struct weight_store **store, const char *path,
                    struct error *err);
/* Loads by visitor, checks for missing tensors. */
typedef void (*model_visit)(struct weight_visitor *v, void *part);
int model_load_weights(struct model *m, void *part, model_visit visit, struct weight_store *store,
                       const char *prefix, enum dialect dialect, const char *component,
                       struct error *err);
int model_pack_weights(struct model *m, void *part, model_visit visit,
                       const struct weight_store *store, enum dtype activation, struct error *err);
/* Both. */
int model_load_part(struct model *m, void *part, model_visit visit, struct weight_store *store,
                    const char *prefix, enum dialect dialect, const char *component,
                    enum dtype activation, struct error *err);

#endif
