/*
 * lora_file.h - an adapter file sorted by the places that it names.
 *
 * Place    between weight_store.h and lora.c: knows every dialect of names, no arithmetic.
 * Owner    lora_file_open / lora_file_close; tensors borrow from the file.
 * Failure  ERR_NOT_FOUND, ERR_IO, ERR_FORMAT, ERR_UNSUPPORTED with the file and what is wrong.
 * Source   kohya-ss/sd-scripts, LyCORIS, diffusers (old and new), peft: suffixes of their keys.
 */
#ifndef DIFFUSION_LORA_LORA_FILE_H
#define DIFFUSION_LORA_LORA_FILE_H

#include "diffusion/lora/lora_table.h"

/* What a tensor of a module is. */
enum lora_tensor {
    LORA_DOWN,
    LORA_UP,
    LORA_MID,
    LORA_ALPHA,
    LORA_MAGNITUDE, /* DoRA */
    LORA_DIFF,
    LORA_DIFF_B,
    LORA_W1,   /* LoKr; hada uses the a/b forms only */
    LORA_W1_A, /* LoHa and LoKr */
    LORA_W1_B,
    LORA_W2,
    LORA_W2_A,
    LORA_W2_B,
    LORA_T1,
    LORA_T2,
    LORA_A1, /* GLoRA */
    LORA_A2,
    LORA_B1,
    LORA_B2,
    LORA_BM,
    LORA_SCALE, /* (IA)^3 of LyCORIS, with ON_INPUT */
    LORA_ON_INPUT,
    LORA_IA3,    /* of PEFT */
    LORA_BLOCKS, /* OFT [k,n,n], BOFT [m,k,n,n]; alpha is a bound then */
    LORA_RESCALE,
    LORA_OFT_R,  /* PEFT's OFT: upper triangles of blocks, [k,n(n-1)/2] */
    LORA_BOFT_R, /* PEFT's BOFT [m,k,n,n], and the outputs' factors */
    LORA_BOFT_S,
    LORA_VERA_OUT, /* VeRA: factors of the outputs and of the rank .. */
    LORA_VERA_RANK,
    LORA_VERA_A, /* .. between two projections that all modules of a file share */
    LORA_VERA_B,
    LORA_FOREIGN, /* known by name, not implemented: OFT of PEFT before 0.16 */
    LORA_TENSOR_COUNT
};

struct lora_module {
    char *base; /* the file's name for the place, for messages */
    enum lora_part part;
    char *name;         /* with underscores, for lora_table_find */
    bool kron;          /* LoKr, otherwise LoHa */
    bool row_magnitude; /* PEFT's DoRA: one number a row */
    const struct safetensors_entry *tensor[LORA_TENSOR_COUNT];
    double alpha;      /* 0: equal to the rank */
    int64_t said_rank; /* what the file's configuration says; 0: nothing */
    bool root_rank;    /* scale is alpha / sqrt(rank) */
    int series_terms;  /* PEFT's OFT: of Cayley's turn as a series; 0: exact */
    double turn_bound; /* PEFT's COFT: eps; 0: none */
};

struct lora_file {
    struct weight_store *store;
    struct lora_module *modules; /* sorted by part and name */
    size_t count;
    const char *made_for; /* a family that no Stable Diffusion is, by its names; NULL: none */
};

int lora_file_open(struct lora_file *f, const char *path, struct error *err);
void lora_file_close(struct lora_file *f);

/* What the file says or shows that it was made for ("SDXL", "SD 1.x" ...); NULL when unknown. */
const char *lora_file_family(const struct lora_file *f);

#endif
