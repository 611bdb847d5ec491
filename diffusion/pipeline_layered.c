/* Pictures without background (LayerDiffuse): the change of the UNet and the decoder of alpha. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/alloc.h"
#include "diffusion/layered/alpha_decoder.h"
#include "diffusion/pipeline_run.h"

/* ERR_NOT_FOUND with what to fetch. */
static int layered_file(const struct run *run, const char *name, char **path, struct error *err)
{
    const char *folder = run->hooks ? run->hooks->layered : NULL;
    *path = alloc_printf("%s/%s.safetensors", folder ? folder : "", name);
    if (folder && access(*path, R_OK) == 0) return 0;
    free(*path);
    *path = NULL;
    return error_set(err, ERR_NOT_FOUND,
                     "a transparent picture of %s needs %s.safetensors in %s: kiln models get "
                     "layer_diffuse",
                     family_people(run->m->info.family), name,
                     folder ? folder : "the cache's folder layered");
}

int run_use_layered(struct run *run, struct error *err)
{
    struct layered_files files;
    char *decoder = NULL;
    if (!run->r->transparent) return 0;
    if (!layered_files_of(run->m->info.family, &files))
        return error_set(err, ERR_UNSUPPORTED,
                         "transparent pictures are for SD 1.x and SDXL, not %s",
                         family_people(run->m->info.family));
    int rc = layered_file(run, files.decoder, &decoder, err);
    if (!rc) rc = layered_file(run, files.change, &run->layered_change, err);
    if (!rc && !run->m->alpha)
        rc = alpha_decoder_open(&run->m->alpha, run->m->device, decoder, err);
    free(decoder);
    if (rc) return rc;
    int multiple = alpha_decoder_multiple(run->m->alpha);
    if (run->r->width_px % multiple || run->r->height_px % multiple)
        return error_set(err, ERR_INVALID,
                         "a transparent picture's sides are multiples of %d, not %d x %d", multiple,
                         run->r->width_px, run->r->height_px);
    run->loras[run->lora_count++] = (struct request_lora){
        .path = run->layered_change, .name = (char *)(uintptr_t)files.change, .model_strength = 1, .clip_strength = 1};
    return 0;
}

int run_decode_alpha(struct run *run, const float *rgb, const float *latent, struct pixels *picture,
                     struct error *err)
{
    struct model *m = run->m;
    const int64_t w = run->r->width_px, h = run->r->height_px, f = vae_factor(&m->vae);
    const size_t count = (size_t)(w * h), z_count = (size_t)((w / f) * (h / f)) * 4;
    float *x = alloc_try(count, 3 * sizeof *x), *z = alloc_try(z_count, sizeof *z);
    float *rgba = alloc_try(count, 4 * sizeof *rgba);
    int rc = x && z && rgba ? 0 : error_set(err, ERR_NO_MEMORY, "no memory for a picture");
    for (size_t i = 0; !rc && i < 3 * count; i++) x[i] = fminf(fmaxf(rgb[i] * 0.5f + 0.5f, 0), 1);
    for (size_t i = 0; !rc && i < z_count; i++) z[i] = (float)(latent[i] / m->vae.config.scale);
    if (!rc)
        rc = alpha_decode_picture(m->alpha, m->memory, m->vae_dtype, x, z, h, w, rgba,
                                  run_canceled, run, err);
    if (!rc) rc = pixels_new(picture, (int)w, (int)h, 4, err);
    for (size_t i = 0; !rc && i < 4 * count; i++) picture->data[i] = (uint8_t)lrintf(rgba[i] * 255);
    free(x);
    free(z);
    free(rgba);
    return rc;
}
