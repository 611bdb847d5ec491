/*
 * vae.h - pictures to latents and back.
 *
 * Place    the first and the last network of a job. AutoencoderKL of SD1, SD2, SDXL; and TAESD.
 * Owner    the model embeds it and never moves it: vae_detect, vae_init, weights by vae_visit,
 *          vae_release. One thread.
 * Failure  through the pass; detection: ERR_FORMAT.
 * Source   Rombach et al. 2022, CompVis model.py; diffusers AutoencoderKL (names).
 */
#ifndef DIFFUSION_VAE_VAE_H
#define DIFFUSION_VAE_VAE_H

#include "diffusion/layers.h"
#include "diffusion/weight_store.h"

#define VAE_LEVELS_MAX 5
#define VAE_BLOCKS_MAX 4

struct vae_config {
    int levels;
    int blocks; /* residual blocks a level in the encoder; the decoder has one more */
    int64_t channels[VAE_LEVELS_MAX];
    int64_t latent_channels, groups;
    bool encoder, decoder; /* present in the file */
    bool quant;            /* quant_conv and post_quant_conv present */
    bool old_names;        /* HF files before 2023: query, key, value, proj_attn */
    double scale;          /* latents of the UNet = mean * scale */
};

int vae_detect(struct vae_config *config, const struct weight_store *store, const char *prefix,
               enum dialect *dialect, struct error *err);

struct vae_res {
    struct norm norm1, norm2;
    struct layer conv1, conv2, skip;
    int64_t in, out, groups;
    const struct vae *vae;
};

struct vae_attention {
    struct norm norm;
    struct layer q, k, v, out;
};

struct vae_half { /* encoder or decoder */
    struct layer conv_in, conv_out;
    struct vae_res block[VAE_LEVELS_MAX][VAE_BLOCKS_MAX + 1], mid1, mid2;
    struct vae_attention attention;
    struct layer resample[VAE_LEVELS_MAX];
    struct norm norm_out;
};

struct vae {
    struct vae_config config;
    struct vae_half encoder, decoder;
    struct layer quant, post_quant;
    bool circular;

    /* vae_rescale's: the residual stream is 2^-exponent of what the weights say */
    int exponent;
    void **owned; /* rescaled weights */
    size_t owned_count;
};

/* After loading, before packing: keeps F16 activations of SDXL's VAE in range, with the same results.
 * ERR_NO_MEMORY. vae_release undoes it. */
int vae_rescale(struct vae *m, int exponent, struct error *err);
void vae_rescale_release(struct vae *m);

int vae_init(struct vae *m, const struct vae_config *config, struct error *err);
void vae_visit(struct weight_visitor *v, struct vae *m);
void vae_visit_encoder(struct weight_visitor *v, struct vae *m);
void vae_visit_decoder(struct weight_visitor *v, struct vae *m);
void vae_release(struct vae *m, struct device *d);
int vae_factor(const struct vae *m); /* pixels a latent: 8 */

/* z [N,h,w,latent] as the network has it (already divided by scale) -> [N,8h,8w,3] in [-1,1]. */
struct tensor vae_decode(struct pass *p, struct vae *m, struct tensor z);
/* x [N,H,W,3] in [-1,1] -> moments [N,H/8,W/8,2 latent], mean first. */
struct tensor vae_encode(struct pass *p, struct vae *m, struct tensor x);

/*
 * Host to host, with bounded memory: pictures of more than tile x tile latents are cut into
 * tiles that overlap by a quarter and are blended linearly, with norms of their own; tile 0: never.
 * VAE_TILE_AUTO: whole where memory allows it (three or four maps of full size), else tiles of 128. Latents are NCHW floats on the
 * UNet's scale, pictures NHWC floats in [-1,1]. `memory` is the caller's and is used for passes of
 * `dtype`.
 */
#define VAE_TILE_AUTO (-1)
int vae_decode_picture(struct vae *m, struct pass_memory *memory, enum dtype dtype, int tile,
                       const float *latent, int64_t n, int64_t h, int64_t w, float *picture,
                       size_t *peak_bytes, struct error *err);
int vae_encode_picture(struct vae *m, struct pass_memory *memory, enum dtype dtype, int tile,
                       const float *picture, int64_t n, int64_t h, int64_t w, float *latent,
                       size_t *peak_bytes, struct error *err);

#endif
