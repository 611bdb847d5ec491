/*
 * layout.h - a model that is open, written as a checkpoint again: one file in the names of the
 *            original code, or a folder as diffusers reads it.
 *
 * Place    above model.h; `kiln convert` opens a model, may apply adapters, and writes it here.
 * Owner    the call. What is written borrows from the model's files until it is on the disk. The
 *          model must hold its weights as they lie in the files: opened on the plain back end in fp32.
 * Failure  ERR_IO; ERR_UNSUPPORTED for what the layout has no way to say, with the fact;
 *          ERR_INVALID for numbers that the precision cannot hold. A folder that failed has no
 *          model_index.json.
 * Source   names and configurations of CompVis, Stability AI and diffusers checkpoints.
 *
 * SD 2's single files have one text layer more than its folders, which nothing reads: it is left out
 * on the way to a folder, and on the way back a copy of the last one stands for it.
 */
#ifndef DIFFUSION_LAYOUT_LAYOUT_H
#define DIFFUSION_LAYOUT_LAYOUT_H

#include "diffusion/model.h"
#include "tensor/safetensors.h"

struct layout_options {
    bool keep; /* each tensor's own precision */
    enum dtype dtype;
    const struct safetensors_meta *meta; /* of the file that it came from, for a single file */
    size_t meta_count;
};

int layout_write_single(struct model *m, const char *path, const struct layout_options *o,
                        struct error *err);
/* The folder must not exist yet. */
int layout_write_folder(struct model *m, const char *folder, const struct layout_options *o,
                        struct error *err);

/* An adapter file under the names of kohya-ss/sd-scripts and LyCORIS, or of diffusers' PEFT with the scales
 * in its metadata (layout_lora.c): there LoRA, and DoRA by row. ERR_UNSUPPORTED, by name, for forms that
 * the dialect has no names for. */
int layout_rename_lora(const char *from, const char *to, bool peft, struct error *err);

/* One tensor's numbers in another precision, in memory that the caller frees (*made; NULL when
 * nothing had to change). ERR_INVALID for numbers beyond fp16's. */
int layout_cast(struct safetensors_entry *e, void **made, enum dtype to, struct error *err);

/* ---- between the files of this folder ---- */

/* Text layers of the encoder as a folder holds them, and whether it has the projection there. */
int layout_text_layers(const struct model *m, int encoder);
bool layout_text_projects(const struct model *m, int encoder);
/* FOLDER/config files of every component but the weights, model_index.json last (layout_config.c). */
int layout_write_configs(const struct model *m, const char *folder, struct error *err);
int layout_write_index(const struct model *m, const char *folder, struct error *err);
/* vocab.json and merges.txt (layout_tokenizer.c); `pad` is the token that fills. */
int layout_write_tokenizer(const struct model *m, const char *folder, const char *pad,
                           struct error *err);
int layout_make_folder(const char *path, struct error *err);
/* "down_blocks_0_attentions_1_proj_in" with dots, in place; and the UNet's names, the original code's too
 * (layout_lora_names.c): NULL for no place of a UNet. The caller frees. */
void layout_dot(char *path);
char *layout_dotted_unet(const char *name);

#endif
