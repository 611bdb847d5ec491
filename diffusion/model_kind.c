/* What kind of model it is: family and prediction, by shapes first, then by what is said beside them. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/str.h"
#include "diffusion/model.h"
#include "diffusion/model_json.h"

static bool exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0;
}

#define SIDECAR_BYTES_MAX (64u << 10)

/* Vector inputs belong to SDXL and its refiner; with SD 2 they mean image prompts (unCLIP). */
static int check_vector(const struct model *m, const struct unet_config *c, const char *path,
                        struct error *err)
{
    bool xl = m->info.family == FAMILY_SDXL || m->info.family == FAMILY_SDXL_REFINER;
    if (xl == (c->vector > 0)) return 0;
    return error_set(err, ERR_UNSUPPORTED,
                     "%s: text states %lld wide with%s a vector input: a relative "
                     "(unCLIP?) of %s that Kiln does not know",
                     path, (long long)c->context, c->vector ? "" : "out",
                     family_people(m->info.family));
}

/* The refiner reads prompts with SDXL's second encoder alone. */
static bool one_encoder(const struct model *m, const char *folder)
{
    if (!folder)
        return weight_store_find(m->stores[0],
                                 "conditioner.embedders.0.model.token_embedding.weight") != NULL;
    char *first = alloc_printf("%s/text_encoder", folder);
    char *second = alloc_printf("%s/text_encoder_2", folder);
    bool one = !exists(first) && exists(second);
    free(first);
    free(second);
    return one;
}

int model_find_family(struct model *m, const struct unet_config *c, const char *folder,
                      struct error *err)
{
    const char *path = m->info.path;
    static const struct {
        int64_t context;
        enum family family;
    } known[] = {{768, FAMILY_SD1},
                 {1024, FAMILY_SD2_512},
                 {2048, FAMILY_SDXL},
                 {1280, FAMILY_SDXL_REFINER}};
    if (c->in_channels != 4 && c->in_channels != 9)
        return error_set(err, ERR_UNSUPPORTED,
                         "%s: a UNet with %lld input channels (4, and 9 for "
                         "inpainting, are known)",
                         path, (long long)c->in_channels);
    m->info.inpainting = c->in_channels == 9;
    for (size_t i = 0; i < COUNT_OF(known); i++)
        if (c->context == known[i].context) {
            m->info.family = known[i].family;
            return check_vector(m, c, path, err);
        }
    /* another width: a small model of the same make, told by its structure */
    m->info.family = !c->vector               ? c->conv_proj ? FAMILY_SD1 : FAMILY_SD2_512
                     : one_encoder(m, folder) ? FAMILY_SDXL_REFINER
                                              : FAMILY_SDXL;
    return 0;
}

/* SD2: a rule of thumb known from ComfyUI: with v-prediction the biases of this norm spread wider. */
static bool looks_like_v(const struct model *m)
{
    const struct unet_level *top = &m->unet.level[0];
    const struct unet_step *last = &top->up[m->unet.config.blocks[0]];
    if (!last->transformer.depth) return false;
    const struct weight *w = &last->transformer.blocks[0].norm1.b;
    int64_t n = weight_count(w);
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < n; i++) {
        double x = dtype_get(w->k.data, w->k.dtype, i);
        sum += x;
        squares += x * x;
    }
    double mean = sum / (double)n;
    return sqrt(squares / (double)n - mean * mean) > 0.09;
}

/* NAME.yaml beside NAME.ckpt, as the original code wants it: `parameterization: "v"`, or "eps".
 * False when it is not there or does not say. */
static bool sidecar_says(const char *path, bool *v)
{
    const char *slash = strrchr(path, '/'), *dot = strrchr(path, '.');
    int stem = dot && (!slash || dot > slash) ? (int)(dot - path) : (int)strlen(path);
    char *beside = alloc_printf("%.*s.yaml", stem, path);
    struct buf b;
    buf_init(&b, SIDECAR_BYTES_MAX);
    bool said = false;
    if (buf_read_file(&b, beside, NULL) == 0 && buf_append(&b, "", 1, NULL) == 0) {
        const char *at = strstr((const char *)b.data, "parameterization:");
        at = at ? at + strlen("parameterization:") : "";
        at += strspn(at, " \t\"'");
        said = *at == 'v' || str_starts(at, "eps");
        if (said) *v = *at == 'v';
    }
    buf_release(&b);
    free(beside);
    return said;
}

int model_find_prediction(struct model *m, const char *folder, struct error *err)
{
    const struct weight_store *s = m->unet_store;
    bool sd2 = m->info.family == FAMILY_SD2_512 || m->info.family == FAMILY_SD2_768;
    bool v =
        sd2 && m->unet.config.in_channels == 4 && m->unet.config.context == 1024 && looks_like_v(m);
    if (!folder) sidecar_says(m->info.path, &v);
    const char *meta = weight_store_meta(s, "modelspec.prediction_type");
    if (meta) v = str_equal(meta, "v") || str_equal(meta, "v_prediction");
    if (weight_store_find(s, "v_pred")) v = true;
    m->zero_snr = weight_store_find(s, "ztsnr") != NULL;
    if (weight_store_find(s, "edm_mean") && weight_store_find(s, "edm_std"))
        return error_set(err, ERR_UNSUPPORTED,
                         "%s is a Playground EDM model, which Kiln does not know", m->info.path);
    if (folder) {
        struct scheduler_json j = {0};
        char *path = alloc_printf("%s/scheduler/scheduler_config.json", folder);
        int rc = exists(path) ? model_json_scheduler(&j, path, err) : 0;
        free(path);
        if (rc) return rc;
        if (j.prediction_said) v = j.v_prediction;
        if (j.zero_snr) m->zero_snr = true;
    }
    m->info.v_prediction = v;
    if (sd2) m->info.family = v ? FAMILY_SD2_768 : FAMILY_SD2_512;
    return 0;
}
