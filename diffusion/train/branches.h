/*
 * branches.h - the low-rank branches that a LoRA training adds to a model.
 *
 * Place    attached to the layers of a loaded model before training, written to a file after it.
 * Owner    branches_attach / branches_release; the branches' memory belongs to the params, the
 *          branches hang on the layers until release. One thread.
 * Failure  ERR_INVALID (rank, nothing to train), those of params.h and of safetensors_write.
 * Source   Hu et al. 2021. Starting values as in kohya-ss/sd-scripts and PEFT: A Kaiming-uniform
 *          with a = sqrt 5, which is uniform within 1/sqrt(fan in); B zero. Names: model-formats
 *          12.1.
 */
#ifndef TRAIN_BRANCHES_H
#define TRAIN_BRANCHES_H

#include "diffusion/model.h"
#include "diffusion/train/params.h"

enum lora_cover {
    LORA_ATTENTION, /* q, k, v and out of every attention (diffusers' usual set) */
    LORA_BLOCKS,    /* and proj_in, proj_out and feed-forward: kohya's set */
    LORA_ALL,       /* every linear and convolution layer */
    LORA_COVER_COUNT
};

const char *lora_cover_name(enum lora_cover cover); /* "attention", "blocks", "all" */
bool lora_cover_find(const char *name, enum lora_cover *cover);

struct branch_target {
    char *kohya; /* "lora_unet_down_blocks_0_..._to_q" */
    char *peft;  /* "unet.down_blocks.0....to_q" */
    struct layer *layer;
    struct adapter *adapter;
    int64_t in, out; /* fan in of the layer, rows of its weight */
    int down, up;    /* indices of its parameters */
};

struct branches {
    struct params *params;
    struct branch_target *item;
    int count, rank;
    double alpha;
};

struct lora_options {
    enum lora_cover cover;
    int rank;
    double alpha;
    bool text; /* the text encoders too */
    uint64_t seed;
};

/* `start` fills down (A) for a target by name; NULL: drawn from the seed and the name. */
typedef void (*lora_start)(float *down, int64_t count, int64_t fan_in, const char *kohya);
int branches_attach(struct branches *set, struct params *params, struct model *model,
                    const struct lora_options *options, lora_start start, struct error *err);
/* The same for a UNet alone; LDM names (SDXL) or HF names in kohya's words. */
int branches_attach_unet(struct branches *set, struct params *params, struct unet *unet,
                         enum dialect kohya_dialect, const struct lora_options *options,
                         lora_start start, struct error *err);
void branches_release(struct branches *set, struct device *device);
void branches_strength(struct branches *set, double strength); /* 0: the unchanged model */

/* ERR_INVALID when a weight is no number or too large for the F16 of the file. */
int branches_check(const struct branches *set, struct error *err);

/* F16, kohya names with .alpha, or PEFT names; metadata as given. */
enum lora_format { LORA_KOHYA, LORA_PEFT };
int branches_save(const struct branches *set, const char *path, enum lora_format format,
                  const struct safetensors_meta *meta, size_t meta_count, struct error *err);

#endif
