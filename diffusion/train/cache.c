#include "diffusion/train/cache.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/str.h"
#include "dataset/bucket.h"
#include "dataset/region_mask.h"
#include "diffusion/train/objective.h"
#include "image/resize.h"

static int take_ids(const struct cache *c, struct cached_text *text, struct error *err)
{
    const struct text_side *side = &c->model->text;
    struct prompt prompt;
    int rc = prompt_parse(&prompt, text->caption, PROMPT_HORDE, err);
    if (rc) return rc;
    for (int i = 0; i < side->encoders && !rc; i++) {
        struct chunks chunks = {0};
        rc =
            chunks_build(&chunks, &prompt, side->vocab, conditioning_pad(side, i), 0, NULL, 0, err);
        if (rc) break;
        memcpy(text->ids[i], chunks.id, sizeof text->ids[i]);
        text->cut = chunks.count > 1;
        chunks_release(&chunks);
    }
    prompt_release(&prompt);
    return rc;
}

static int text_of(struct cache *c, const char *caption, int *index, struct error *err)
{
    for (int i = 0; i < c->text_count; i++)
        if (!strcmp(c->text[i].caption, caption)) {
            *index = i;
            return 0;
        }
    struct text_request request = {.prompt = caption, .rules = PROMPT_HORDE};
    struct cached_text text = {.caption = alloc_string(caption)};
    int rc = take_ids(c, &text, err);
    if (!rc)
        rc = conditioning_encode(&text.states, &c->model->text, &request, c->model->memory,
                                 c->model->dtype, err);
    if (rc) {
        free(text.caption);
        return error_wrap(err, rc, "encoding a caption");
    }
    c->text = alloc_grow(c->text, (size_t)c->text_count + 1, sizeof *c->text);
    *index = c->text_count;
    c->text[c->text_count++] = text;
    return 0;
}

int cache_init(struct cache *c, struct model *model, struct error *err)
{
    int first;
    *c = (struct cache){.model = model, .channels = (int)model->vae.config.latent_channels};
    return text_of(c, "", &first, err);
}

void cache_release(struct cache *c)
{
    for (int i = 0; i < c->count; i++) {
        free(c->example[i].latent);
        free(c->example[i].flipped);
        free(c->example[i].mask);
    }
    for (int i = 0; i < c->text_count; i++) {
        conditioning_release(&c->text[i].states);
        free(c->text[i].caption);
    }
    free(c->example);
    free(c->text);
    *c = (struct cache){0};
}

/* [C,h,w] as the VAE hands it out to [h,w,C] as passes want it. */
static float *encode(struct cache *c, const struct pixels *p, bool flip, struct error *err)
{
    struct model *m = c->model;
    size_t count = (size_t)p->width * (size_t)p->height * 3;
    int factor = vae_factor(&m->vae), h = p->height / factor, w = p->width / factor;
    size_t area = (size_t)h * (size_t)w, channels = (size_t)c->channels;
    float *picture = alloc_try(count, sizeof *picture);
    float *planes = alloc_try(area * channels, sizeof *planes);
    float *latent = alloc_try(area * channels, sizeof *latent);
    int rc = picture && planes && latent ? 0 : error_set(err, ERR_NO_MEMORY, "no memory to encode");
    for (int y = 0; y < p->height && !rc; y++)
        for (int x = 0; x < p->width; x++)
            for (int k = 0; k < 3; k++) {
                int from = flip ? p->width - 1 - x : x;
                picture[((size_t)y * (size_t)p->width + (size_t)x) * 3 + (size_t)k] =
                    (float)p->data[((size_t)y * (size_t)p->width + (size_t)from) * 3 + (size_t)k] /
                        127.5f -
                    1;
            }
    if (!rc)
        rc = vae_encode_picture(&m->vae, m->memory, m->vae_dtype, VAE_TILE_AUTO, picture, 1,
                                p->height, p->width, planes, NULL, err);
    for (size_t i = 0; i < area && !rc; i++)
        for (size_t k = 0; k < channels; k++) latent[i * channels + k] = planes[k * area + i];
    free(picture);
    free(planes);
    if (!rc) return latent;
    free(latent);
    return NULL;
}

static int fit(struct pixels *out, const struct pixels *in, struct bucket b,
               const struct cover *cover, struct error *err)
{
    struct pixels resized;
    bool shrinks = cover->width < in->width;
    int rc = pixels_resize(&resized, in, cover->width, cover->height,
                           shrinks ? RESIZE_BOX : RESIZE_BICUBIC, err);
    if (rc) return rc;
    rc = pixels_crop(out, &resized, cover->left, cover->top, b.width, b.height, err);
    pixels_release(&resized);
    return rc;
}

/* The weights of the example's latent: the grid lies on the cut, the cut on the picture. */
static float *mask_of(const struct sample *s, const struct example *e, struct bucket b,
                      const struct cover *cover, const struct pixels *picture, double outside)
{
    double fx = (double)picture->width / cover->width, fy = (double)picture->height / cover->height;
    struct mask_part part = {cover->left * fx, cover->top * fy, b.width * fx, b.height * fy};
    if (s->is_crop) {
        part.left += s->x;
        part.top += s->y;
    }
    return region_mask(s->annotated, &part, e->w, e->h, outside);
}

/* Number `cut` of a picture; sample NULL: a picture that no file holds. */
static int add_cut(struct cache *c, const struct pixels *picture, const struct sample *sample,
                   const char *caption, const struct cache_options *o, int cut, struct error *err)
{
    struct bucket b = bucket_of(picture->width, picture->height, o->resolution, o->buckets);
    struct cover cover = bucket_cover(b, picture->width, picture->height);
    struct pixels fitted;
    int factor = vae_factor(&c->model->vae);
    struct example e = {.h = b.height / factor, .w = b.width / factor, .weight = o->weight};
    if (o->cuts > 1) {
        struct noise_cpu g;
        float u[3];
        objective_seed(&g, o->seed, c->count, 0x300 + (uint64_t)cut);
        noise_cpu_uniform(&g, u, 3);
        double zoom = o->zoom > 1 ? 1 + (o->zoom - 1) * (double)u[2] : 1;
        cover = bucket_cut(b, picture->width, picture->height, zoom, (double)u[0], (double)u[1]);
    }
    int rc = text_of(c, caption, &e.text, err);
    if (!rc) rc = fit(&fitted, picture, b, &cover, err);
    if (rc) return rc;
    const double sizes[6] = {picture->height, picture->width, cover.top,
                             cover.left,      b.height,       b.width};
    memcpy(e.sizes, sizes, sizeof sizes);
    if (sample && sample->is_crop) { /* SDXL is told where in the picture the crop lies */
        e.sizes[2] += sample->y;
        e.sizes[3] += sample->x;
    }
    e.latent = encode(c, &fitted, false, err);
    if (e.latent && o->flip) e.flipped = encode(c, &fitted, true, err);
    pixels_release(&fitted);
    if (!e.latent || (o->flip && !e.flipped)) {
        free(e.latent);
        return err && err->code ? err->code : ERR_NO_MEMORY;
    }
    if (sample) e.mask = mask_of(sample, &e, b, &cover, picture, o->outside);
    c->example = alloc_grow(c->example, (size_t)c->count + 1, sizeof *c->example);
    c->example[c->count++] = e;
    return 0;
}

int cache_add_picture(struct cache *c, const struct pixels *picture, const char *caption,
                      const struct cache_options *o, struct error *err)
{
    return add_cut(c, picture, NULL, caption, o, 0, err);
}

static float *copy_of(const float *values, size_t count)
{
    if (!values) return NULL;
    float *copy = alloc_zero(count, sizeof *copy);
    memcpy(copy, values, count * sizeof *copy);
    return copy;
}

static void add_again(struct cache *c, int index)
{
    struct example again = c->example[index];
    size_t area = (size_t)again.h * (size_t)again.w, count = area * (size_t)c->channels;
    again.latent = copy_of(again.latent, count);
    again.flipped = copy_of(again.flipped, count);
    again.mask = copy_of(again.mask, area);
    c->example = alloc_grow(c->example, (size_t)c->count + 1, sizeof *c->example);
    c->example[c->count++] = again;
}

int cache_add(struct cache *c, const struct dataset *d, const struct cache_options *options,
              struct error *err)
{
    for (int i = 0; i < d->count; i++) {
        const struct sample *s = &d->sample[i];
        struct pixels picture;
        int rc = sample_pixels(&picture, s, err), first = c->count;
        if (rc) return error_wrap(err, rc, "reading %s again", s->name);
        int cuts = options->cuts > 1 ? options->cuts * s->repeats : 1;
        for (int cut = 0; cut < cuts && !rc; cut++)
            rc = add_cut(c, &picture, s, s->caption, options, cut, err);
        pixels_release(&picture);
        if (rc) return error_wrap(err, rc, "preparing %s", s->name);
        for (int k = 1; k < s->repeats && cuts == 1; k++) add_again(c, first);
    }
    return 0;
}
