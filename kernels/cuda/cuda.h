/*
 * cuda.h - the CUDA back end's device: what its host files share.
 *
 * Place    cuda_device.c owns it; cuda_weight.c, cuda_linear.c and the others are the table's
 *          entries and put one or a few launches into the stream.
 * Owner    device->state of a device opened by cuda_device_open. One thread, one stream.
 * Failure  as kernels.h; a CUDA error number goes through runtime_check.
 */
#ifndef KERNELS_CUDA_CUDA_H
#define KERNELS_CUDA_CUDA_H

#include "kernels/cuda/cuda_library.h"
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/runtime.h"
#include "kernels/cuda/tuner.h"
#include "kernels/device.h"

/* cuda_send.c: weights on their way */
#define SENDING_BYTES ((size_t)8 << 20)  /* of each pinned buffer */
#define LANDING_BYTES ((size_t)16 << 20) /* of each landing place, while weights fit by pieces */
struct cuda_sending {
    char *buffer[2]; /* pinned; made with the first weight */
    int turn;
    size_t filled; /* of the buffer whose turn it is */
    struct cuda_landing {
        void *memory;
        size_t bytes;
    } landing[2];
    int landing_turn;
    uint64_t bytes; /* sent so far */
};

struct cuda_state {
    struct runtime runtime;
    void *scratch; /* of the call in flight; grows */
    size_t scratch_bytes;
    char *staging[2]; /* pinned, for uploads and downloads */
    int staging_turn;
    struct cuda_sending sending;
    struct tuner *tuner; /* NULL: shipped rules only */
    struct cuda_library library[TUNER_KIND_COUNT];
    bool libraries_asked;
    void *workspace; /* of libraries */
    bool wgmma;      /* the products of gemm_wgmma.h are there and right */
    bool half_sums;  /* fp16 products add up in fp16, slice by slice: KILN_CUDA_HALF_SUMS */
    bool recording, recording_spoilt;
    int forced_tile;   /* -1, or one tile for every product: tests */
    int forced_splits; /* 0, or so many: tests */
};

/* The plug-in's one entry: options is NULL or a number. */
int cuda_device_open(struct device **device, const char *options, struct error *err);

static inline struct cuda_state *cuda_state(struct device *d)
{
    return (struct cuda_state *)d->state;
}

/* ERR_UNSUPPORTED while a recording runs: `what` needs the host. The recording is given up. */
int cuda_refuse_recording(struct device *d, const char *what, struct error *err);
extern const struct device_recorder cuda_recorder; /* cuda_record.c */

/* Device memory until the next call that asks for scratch. */
int cuda_scratch(struct device *d, void **memory, size_t bytes, struct error *err);
int cuda_upload(struct device *d, void *to, const void *from_host, size_t bytes, struct error *err);

/* Beside the work; `to` is memory that nothing on the device uses. The caller's bytes are free again at the
 * return. What is asked of the device after cuda_sent finds them there. ERR_CANCELED when the device is
 * told to stop. */
int cuda_send(struct device *d, void *to, const void *from_host, size_t bytes, struct error *err);
int cuda_sent(struct device *d, struct error *err);
/* Sent to a place that is good for what is asked of the device before cuda_landed. */
int cuda_land(struct device *d, const void **at, const void *from_host, size_t bytes,
              struct error *err);
int cuda_landed(struct device *d, struct error *err);
bool cuda_sending_trim(
    struct device *d); /* gives the landing places back; false: there were none */
void cuda_sending_close(struct device *d);

/* A packed weight of rank 2 or 4: [out][kh][kw][c] in the activation dtype, and on demand the four
 * phases of an enlarging 3x3 convolution. */
struct cuda_weight {
    void *data, *phases;
    struct cuda_joint *joint; /* data lies in it; NULL: data is the weight's own */
    enum dtype dtype;
    bool geglu; /* rows in blocks of 8 values and 8 gates */
};
int cuda_pack(struct device *d, struct kernel_weight *w, enum dtype dtype, struct error *err);
void cuda_unpack(struct device *d, struct kernel_weight *w);
/* The packed form, made when it is not there or out of date. */
int cuda_weight_get(struct device *d, struct kernel_weight *w, enum dtype dtype,
                    struct cuda_weight **packed, struct error *err);
/* The same with rows interleaved for the GEGLU epilogue. */
int cuda_weight_get_geglu(struct device *d, struct kernel_weight *w, enum dtype dtype,
                          struct cuda_weight **packed, struct error *err);
/* Several of the same shape, one after the other in memory; *packed is the first. They stay so. */
int cuda_weight_join(struct device *d, struct kernel_weight *const *w, int count, enum dtype dtype,
                     struct cuda_weight **packed, struct error *err);
int cuda_weight_phases(struct device *d, struct kernel_weight *w, struct cuda_weight *packed,
                       struct error *err);

/* Runs a product: on tensor cores in the tile and split that cuda_tile_choose takes, or the simple
 * kernel where the shape does not fit. */
int cuda_gemm(struct device *d, struct gemm_args *g, bool transposed, enum dtype dtype,
              const char *what, struct error *err);
/* A part of a product's rows, without a tuner in the tile and split of the whole: the same bits. */
int cuda_gemm_part(struct device *d, struct gemm_args *g, const struct gemm_args *whole,
                   enum dtype dtype, const char *what, struct error *err);
/* The convolution of some lines of `whole`; of the latter only sizes count. */
int cuda_conv2d_part(struct device *d, const struct conv2d_args *a, const struct conv2d_args *whole,
                     struct error *err);
bool cuda_gemm_fits(struct device *d, const struct gemm_args *g, bool transposed, enum dtype dtype);
int cuda_gemm_dw(struct device *d, struct gemm_dw_args *g, enum dtype dtype, const char *what,
                 struct error *err);
void cuda_epilogue(struct gemm_epilogue *to, const struct epilogue_args *from, int64_t out);

/* Every word of wrap.h on small numbers, as selftest.h says. ERR_DEVICE when one computes wrongly. */
int cuda_selftest(struct device *d, struct error *err);

/* Sets state.wgmma; ERR_* only when the device fails. KILN_CUDA_WGMMA=0: not. */
int cuda_wgmma_open(struct device *d, struct error *err);
/* cuda_wgmma.c: a product that its tensor maps can describe? And the product, split as g says. */
bool cuda_wgmma_takes(const struct cuda_state *s, const struct gemm_args *g, bool transposed);
int cuda_wgmma_run(const struct cuda_state *s, const struct gemm_args *g, enum dtype dtype,
                   enum gemm_tile tile);

struct attention_args;
bool cuda_wgmma_attention_takes(const struct cuda_state *s, const struct attention_args *a);
int cuda_wgmma_attention_run(const struct cuda_state *s, const struct attention_args *a);

/* device.peak: the best of some runs of the loops in peak.h */
int cuda_peak(struct device *d, double *tflops, double *gigabytes, struct error *err);

/* cuda_tile.c: which tile and how many splits, from a cost model of the card */
struct cuda_tile {
    enum gemm_tile tile;
    int splits, k_per_split;
};
struct cuda_tile cuda_tile_choose(const struct cuda_state *s, const struct gemm_args *g,
                                  bool transposed);

/* Own tile and split, if this shape takes them. */
bool cuda_tile_make(struct cuda_tile *tile, const struct cuda_state *s, const struct gemm_args *g,
                    bool transposed, int kind, int splits);
/* The most promising ones by the cost model, best first. Returns how many. */
int cuda_tile_list(struct tuner_choice *list, int most, const struct cuda_state *s,
                   const struct gemm_args *g, bool transposed);

/* cuda_tune.c: which way a product is done */
struct cuda_way {
    enum tuner_kind kind;
    struct cuda_tile tile; /* of TUNER_OWN */
};
struct cuda_way cuda_tune_choose(struct device *d, const struct gemm_args *g, bool transposed,
                                 enum dtype dtype);
void cuda_tune_open(struct device *d);
void cuda_tune_save(struct device *d);
void cuda_tune_close(struct device *d);
/* The product that way; g->splits and the like are set here. */
int cuda_gemm_run(struct device *d, struct gemm_args *g, bool transposed, enum dtype dtype,
                  const struct cuda_way *way, const char *what, struct error *err);

/* group_norm's two halves: mean and rstd, which are the caller's, are written; y from x with them. */
int cuda_group_measure(struct device *d, const struct group_norm_args *a, struct error *err);
int cuda_group_apply(struct device *d, const struct group_norm_args *a, struct error *err);

bool cuda_dtype_ok(enum dtype dtype); /* F32, F16, BF16 */
int cuda_dtype_refuse(const char *what, enum dtype dtype, struct error *err);

#define X(name, args) int cuda_##name(struct device *d, const struct args *a, struct error *err);
KERNEL_TABLE(X)
KERNEL_FUSED_TABLE(X)
KERNEL_BANDED_TABLE(X)
#undef X

#endif
