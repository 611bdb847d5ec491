/*
 * cache.h - everything a LoRA training reads at every step, computed once: latents and text states.
 *
 * Place    between dataset/ and lora_train.c. After it is made the pictures are not needed any
 *          more.
 * Owner    cache_init / cache_release around the caller's struct; host memory. One thread.
 * Failure  ERR_NO_MEMORY, ERR_DEVICE, and what reading a picture gives.
 * Source   latents are the encoder's mean (its deviation is tiny), as model-formats section 6
 *          advises.
 */
#ifndef TRAIN_CACHE_H
#define TRAIN_CACHE_H

#include "dataset/dataset.h"
#include "diffusion/model.h"

struct example {
    float *latent, *flipped; /* [h,w,c]; flipped NULL when flips are off */
    int h, w;                /* of the latent */
    int text;                /* index into the texts */
    double sizes[6];         /* SDXL: height, width, top, left, target height, target width */
    double weight;           /* of its loss */
    float *mask;             /* [h,w] factors of it, from marked regions; NULL: all 1 */
};

struct cached_text {
    char *caption;
    struct conditioning states;
    int32_t ids[2][CHUNK_TOKENS]; /* of its first 75 tokens per encoder, for training them */
    bool cut;                     /* there are more */
};

struct cache {
    struct model *model;
    int channels;
    struct example *example;
    int count;
    struct cached_text *text; /* 0 is the empty caption */
    int text_count;
};

struct cache_options {
    int resolution;
    bool buckets, flip;
    double weight;
    int cuts;       /* so many random cuts of each picture; 0, 1: the middle one */
    double zoom;    /* a random cut is enlarged by 1 .. zoom; 0: as 1 */
    double outside; /* weight of the loss outside marked regions (region_mask.h); 1: all the same */
    uint64_t seed;  /* of the cuts */
};

int cache_init(struct cache *c, struct model *model, struct error *err);
void cache_release(struct cache *c);

/* Adds all samples of d; a sample's repeats are further cuts where cuts are random. */
int cache_add(struct cache *c, const struct dataset *d, const struct cache_options *options,
              struct error *err);
/* One picture (RGB) with its caption. */
int cache_add_picture(struct cache *c, const struct pixels *picture, const char *caption,
                      const struct cache_options *options, struct error *err);

#endif
