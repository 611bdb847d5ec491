#include "diffusion/source_picture.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "image/apart.h"
#include "image/resize.h"

/* size: the picture's own, before it is brought to width x height */
static int decode_sized(struct pixels *out, int size[2], const char *name, const struct blob *blob,
                        int width, int height, struct error *err)
{
    struct pixels raw = {0};
    int rc = apart_decode(&raw, name, blob->data, blob->length, err);
    if (rc) return rc;
    size[0] = raw.width;
    size[1] = raw.height;
    if (raw.width == width && raw.height == height) {
        *out = raw;
        return 0;
    }
    rc = pixels_resize(out, &raw, width, height, RESIZE_LANCZOS, err);
    pixels_release(&raw);
    return rc;
}

static int read_mask(struct source_picture *s, const struct blob *blob, struct error *err)
{
    struct pixels sized = {0}, grey = {0};
    int rc = decode_sized(&sized, s->mask_size, "the mask", blob, s->width, s->height, err);
    if (!rc) rc = pixels_convert(&grey, &sized, 1, err);
    for (int i = 0; !rc && i < s->width * s->height; i++) s->mask[i] = (float)grey.data[i] / 255.0f;
    pixels_release(&sized);
    pixels_release(&grey);
    return rc;
}

static int read_source(struct source_picture *s, const struct image_request *r, bool masked,
                       struct error *err)
{
    struct pixels p = {0};
    int rc = decode_sized(&p, s->size, "the source image", &r->source, s->width, s->height, err);
    if (rc) return rc;
    int n = s->width * s->height, c = p.channels;
    bool alpha = c == 4;
    for (int i = 0; i < n; i++)
        for (int k = 0; k < 3; k++) s->rgb[i * 3 + k] = (float)p.data[i * c + k] / 127.5f - 1.0f;
    for (int i = 0; masked && alpha && i < n; i++)
        s->mask[i] = 1.0f - (float)p.data[i * c + 3] / 255.0f;
    pixels_release(&p);
    if (!masked || r->mask.data) return 0;
    return alpha ? 0
                 : error_set(err, ERR_INVALID,
                             "inpainting needs a mask, or a source image whose alpha "
                             "shows what to repaint");
}

bool source_picture_differs(const struct source_picture *s, struct error *sentence)
{
    const int *mask = s->mask_size, *source = s->size;
    if (!mask[0] || (mask[0] == source[0] && mask[1] == source[1])) return false;
    error_set(sentence, ERR_INVALID,
              "the mask is %dx%d pixels, the source image %dx%d: they must be of one size", mask[0],
              mask[1], source[0], source[1]);
    return true;
}

int source_picture_open(struct source_picture *s, const struct image_request *r, int width,
                        int height, struct error *err)
{
    bool masked = r->source_use == SOURCE_INPAINTING || r->source_use == SOURCE_OUTPAINTING;
    struct error difference;
    struct source_picture made = {.width = width, .height = height};
    size_t n = (size_t)width * (size_t)height;
    if (!r->source.data) return error_set(err, ERR_INVALID, "there is no source image");
    made.rgb = alloc_try(n * 3, sizeof *made.rgb);
    made.mask = masked ? alloc_try(n, sizeof *made.mask) : NULL;
    int rc = made.rgb && (made.mask || !masked)
                 ? read_source(&made, r, masked, err)
                 : error_set(err, ERR_NO_MEMORY, "no memory for a source of %dx%d", width, height);
    if (!rc && masked && r->mask.data) rc = read_mask(&made, &r->mask, err);
    if (!rc && r->strict && source_picture_differs(&made, &difference))
        rc = error_set(err, ERR_INVALID, "%s", difference.text);
    if (rc) {
        source_picture_release(&made);
        return rc;
    }
    *s = made;
    return 0;
}

void source_picture_release(struct source_picture *s)
{
    free(s->rgb);
    free(s->mask);
    memset(s, 0, sizeof *s);
}

void source_picture_latent_mask(const struct source_picture *s, int factor, float *mask)
{
    int lh = s->height / factor, lw = s->width / factor;
    int before = factor / 2 - 1, after = factor / 2;
    for (int y = 0; y < lh; y++)
        for (int x = 0; x < lw; x++) {
            /* a latent's centre lies between the two middle pixels of its square */
            const float *a = s->mask + (size_t)(y * factor + before) * (size_t)s->width;
            const float *b = s->mask + (size_t)(y * factor + after) * (size_t)s->width;
            int left = x * factor + before, right = x * factor + after;
            mask[y * lw + x] = (a[left] + a[right] + b[left] + b[right]) / 4 >= 0.5f ? 1 : 0;
        }
}

float *source_picture_masked(const struct source_picture *s)
{
    size_t n = (size_t)s->width * (size_t)s->height;
    float *copy = alloc_try(n * 3, sizeof *copy);
    for (size_t i = 0; copy && i < n; i++)
        for (size_t k = 0; k < 3; k++) copy[i * 3 + k] = s->mask[i] >= 0.5f ? 0 : s->rgb[i * 3 + k];
    return copy;
}
