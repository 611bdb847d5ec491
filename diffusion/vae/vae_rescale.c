/* The residual stream of SDXL's VAE passes F16's range. All that writes it is multiplied by 2^-e here,
 * and the eps of all that reads it by 4^-e (vae.c): the norms undo the factor, and powers of two
 * change no bit of a result that neither overflows nor underflows. Convolutions that read the raw
 * stream have a scaled input already: of them only the bias. */
#include <math.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "diffusion/vae/vae.h"

static int rescale(struct vae *m, struct weight *w, struct error *err)
{
    if (!weight_present(w)) return 0;
    int64_t n = weight_count(w);
    /* F16 would lose bits of small weights */
    float *scaled = alloc_try_aligned(64, (size_t)n * sizeof *scaled);
    if (!scaled)
        return error_set(err, ERR_NO_MEMORY, "no memory for the VAE's %lld weights", (long long)n);
    dtype_convert(scaled, DTYPE_F32, w->k.data, w->k.dtype, n);
    for (int64_t i = 0; i < n; i++) scaled[i] = ldexpf(scaled[i], -m->exponent);
    m->owned = alloc_grow(m->owned, m->owned_count + 1, sizeof *m->owned);
    m->owned[m->owned_count++] = scaled;
    w->k.data = scaled;
    w->k.dtype = DTYPE_F32;
    return 0;
}

static int rescale_layer(struct vae *m, struct layer *l, struct error *err)
{
    int rc = rescale(m, &l->w, err);
    return rc ? rc : rescale(m, &l->b, err);
}

static int rescale_res(struct vae *m, struct vae_res *r, struct error *err)
{
    int rc = rescale_layer(m, &r->conv1, err);
    if (!rc) rc = rescale_layer(m, &r->conv2, err);
    return rc ? rc : rescale(m, &r->skip.b, err);
}

static int rescale_half(struct vae *m, struct vae_half *h, struct error *err)
{
    int rc = rescale_layer(m, &h->conv_in, err);
    for (int i = 0; i < m->config.levels; i++) {
        for (int j = 0; !rc && j <= m->config.blocks; j++)
            rc = rescale_res(m, &h->block[i][j], err); /* an absent one has no weights */
        if (!rc) rc = rescale(m, &h->resample[i].b, err);
    }
    if (!rc) rc = rescale_res(m, &h->mid1, err);
    if (!rc) rc = rescale_layer(m, &h->attention.out, err);
    return rc ? rc : rescale_res(m, &h->mid2, err);
}

int vae_rescale(struct vae *m, int exponent, struct error *err)
{
    KILN_ASSERT(m->exponent == 0, "rescaled twice");
    m->exponent = exponent;
    int rc = m->config.encoder ? rescale_half(m, &m->encoder, err) : 0;
    return !rc && m->config.decoder ? rescale_half(m, &m->decoder, err) : rc;
}

void vae_rescale_release(struct vae *m)
{
    for (size_t i = 0; i < m->owned_count; i++) free(m->owned[i]);
    free(m->owned);
    m->owned = NULL;
    m->owned_count = 0;
    m->exponent = 0;
}
