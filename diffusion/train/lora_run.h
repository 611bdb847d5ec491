/*
 * lora_run.h - one LoRA training while it runs; shared by the files lora_*.c of this folder.
 *
 * Place    nobody else includes it.
 * Owner    lora_train's stack. One thread.
 * Failure  as lora_train.h says.
 */
#ifndef TRAIN_LORA_RUN_H
#define TRAIN_LORA_RUN_H

#include "diffusion/train/lora_train.h"
#include "diffusion/train/objective.h"
#include "tensor/tape.h"

struct lora_run {
    struct model *model;
    const struct dataset *data;
    const struct lora_train_options *o;
    const struct lora_train_hooks *hooks;
    struct params params;
    struct branches branches;
    struct cache cache, prior;
    struct objective objective;
    struct tape *tape;
    float *losses; /* of every step, [o->steps]; what a resumed run did not see is NAN */
    int64_t done;  /* steps of this process */
    int64_t saved; /* the step of the last checkpoint; 0: none yet */
    int resolution;
    double started, average, average_sum, average_share;
    size_t peak_bytes;
    char (*digest)[65]; /* SHA-256 of each picture, in the dataset's order */
    int digest_count;
    char annotations_sha256[65]; /* "": none, or a folder */
};

/* "OUT-000250.safetensors": OUT without its extension, then a suffix. The caller frees. */
char *lora_run_path(const struct lora_run *r, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void lora_run_note(const struct lora_run *r, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
int lora_run_tell(struct lora_run *r, const char *phase, int64_t step, int64_t steps,
                  struct error *err);

/* Hashes of the pictures and of the annotations, for the metadata (lora_digest.c). */
void lora_run_digests(struct lora_run *r);
/* whole: SHA-256 of the file (CivitAI's AutoV2 are its first ten digits); data: of what follows the
 * header (AutoV3: twelve digits; kohya's sshs_model_hash); legacy: eight digits of 64 KiB at 1 MiB. */
struct lora_file_hash {
    char whole[65], data[65], legacy[9];
};
int lora_file_hashes(struct lora_file_hash *h, const char *path, struct error *err);

/* The file with its metadata (lora_meta.c). */
int lora_run_save(struct lora_run *r, const char *path, int64_t step, struct error *err);

/* OUT.md (lora_card.c); sheet may be NULL. */
int lora_run_card(const struct lora_run *r, const char *sheet, double seconds, struct error *err);

/* Pictures of the model as it is now (lora_sheet.c). */
int lora_run_draw(struct lora_run *r, struct pixels *picture, const char *prompt, uint64_t seed,
                  double strength, struct error *err);
int lora_run_preview(struct lora_run *r, int64_t step, struct error *err);
int lora_run_sheet(struct lora_run *r, char **path, struct error *err);
int lora_run_curve(struct lora_run *r, char **path, struct error *err);

#endif
