#include "diffusion/alchemy/caption.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/now.h"
#include "base/str.h"
#include "diffusion/alchemy/wordpiece.h"
#include "diffusion/safety/clip_vision.h"
#include "image/resize.h"

enum { PROMPT_MAX = 32 };

struct caption {
    struct device *device;
    struct weight_store *store;
    struct wordpiece *words;
    struct blip net;
    enum dtype dtype;
    struct pass_memory memory;
    int32_t start, end;
};

/* ---- opening ---- */

static int load(struct caption *c, const char *path, struct error *err)
{
    struct blip_config config;
    enum dialect dialect;
    int rc = weight_store_open(&c->store, path, err);
    if (!rc) rc = blip_detect(&config, c->store, &dialect, err);
    if (!rc) rc = blip_init(&c->net, &config, err);
    if (rc) return rc;
    struct weight_loading loading = {
        .store = c->store, .prefix = "", .component = "the captioner", .dialect = dialect};
    struct weight_visitor v = {.visit = weight_load, .context = &loading, .err = err};
    blip_visit(&v, &c->net);
    rc = v.failed ? v.failed : weight_loading_check(&loading, err);
    if (rc) return rc;
    blip_prepare(&c->net);
    struct weight_packing packing = {c->device, c->store, c->dtype};
    v = (struct weight_visitor){.visit = weight_pack, .context = &packing, .err = err};
    blip_visit(&v, &c->net);
    return v.failed;
}

/* [DEC] begins a text; BERT's file ends before it, and BLIP counts on. */
static int find_marks(struct caption *c, const char *vocab_path, struct error *err)
{
    int64_t vocab = c->net.config.vocab;
    int32_t count = wordpiece_count(c->words), dec = wordpiece_find(c->words, "[DEC]");
    c->start = dec >= 0 ? dec : count;
    c->end = wordpiece_find(c->words, "[SEP]");
    if (c->end < 0)
        return error_set(err, ERR_FORMAT, "%s has no [SEP]: no vocabulary of BERT", vocab_path);
    if (count > vocab || c->start >= vocab)
        return error_set(err, ERR_FORMAT, "%s has %d words, %s knows %lld", vocab_path, count,
                         weight_store_path(c->store), (long long)vocab);
    return 0;
}

int caption_open(struct caption **caption, struct device *device, const char *model_path,
                 const char *vocab_path, enum precision precision, struct error *err)
{
    struct caption *c = alloc_zero(1, sizeof *c);
    c->device = device;
    c->dtype = precision == PRECISION_FP32   ? DTYPE_F32
               : precision == PRECISION_BF16 ? DTYPE_BF16
               : precision == PRECISION_FP16 ? DTYPE_F16
                                             : device->default_dtype;
    pass_memory_init(&c->memory, device, 0);
    int rc = wordpiece_open(&c->words, vocab_path, err);
    if (!rc) rc = load(c, model_path, err);
    if (!rc) rc = find_marks(c, vocab_path, err);
    if (rc)
        caption_close(c);
    else
        *caption = c;
    return rc;
}

void caption_close(struct caption *c)
{
    if (!c) return;
    pass_memory_release(&c->memory);
    blip_release(&c->net, c->device);
    weight_store_close(c->store);
    wordpiece_close(c->words);
    free(c);
}

struct search_options caption_options(const struct caption *c)
{
    return (struct search_options){.beams = 7,
                                   .min_length = 20,
                                   .max_length = 50,
                                   .repetition_penalty = 1.1,
                                   .length_penalty = 1,
                                   .end = c->end};
}

/* ---- looking ---- */

int caption_patches(float *patches, const struct blip_config *config, const struct pixels *picture,
                    struct error *err)
{
    struct pixels rgb = {0}, square = {0};
    int side = (int)(config->grid * config->patch);
    int rc = pixels_convert(&rgb, picture, 3, err);
    if (!rc) rc = pixels_resize(&square, &rgb, side, side, RESIZE_BICUBIC, err);
    if (!rc) clip_cut_patches(patches, &square, config->grid, config->patch);
    pixels_release(&rgb);
    pixels_release(&square);
    return rc;
}

static int cut(struct caption *c, float **patches, const struct pixels *picture, struct error *err)
{
    size_t side = (size_t)(c->net.config.grid * c->net.config.patch);
    *patches = alloc_try(side * side * 3, sizeof **patches);
    if (!*patches) return error_set(err, ERR_NO_MEMORY, "no memory for a picture");
    int rc = caption_patches(*patches, &c->net.config, picture, err);
    if (!rc) return 0;
    free(*patches);
    *patches = NULL;
    return rc;
}

int caption_look(struct caption *c, float *rows, size_t room, const struct pixels *picture,
                 struct error *err)
{
    const struct blip_config *b = &c->net.config;
    int64_t cells = b->grid * b->grid, values = 3 * b->patch * b->patch;
    float *patches;
    if (room < (size_t)((1 + cells) * b->vision_width))
        return error_set(err, ERR_INVALID, "no room for %lld rows", (long long)(1 + cells));
    int rc = cut(c, &patches, picture, err);
    if (rc) return rc;
    struct pass p;
    pass_start(&p, &c->memory, c->dtype, NULL);
    struct tensor x = pass_input(&p, patches, 3, TENSOR_DIM(1, cells, values));
    pass_output(&p, rows, blip_look(&p, &c->net, x));
    rc = pass_finish(&p, err);
    free(patches);
    return rc;
}

/* ---- writing ---- */

struct writer {
    struct blip_writing writing;
    const struct pipeline_hooks *hooks;
    int length_max;
    double started;
};

static int step(void *context, float *logits, const int32_t *token, const int *parent, int count,
                struct error *err)
{
    struct writer *w = context;
    const struct pipeline_hooks *h = w->hooks;
    if (h && h->canceled && h->canceled(h->context))
        return error_set(err, ERR_CANCELED, "stopped on request");
    int rc = blip_step(&w->writing, logits, token, parent, count, err);
    struct pipeline_progress now = {PHASE_TEXT, w->writing.length, w->length_max,
                                    now_seconds() - w->started};
    if (!rc && h && h->progress) h->progress(h->context, &now);
    return rc;
}

int caption_tokens(struct caption *c, int32_t token[SEARCH_LENGTH_MAX], int *count,
                   const struct pixels *picture, const struct search_options *o, const char *prompt,
                   const struct pipeline_hooks *hooks, struct error *err)
{
    struct writer w = {.hooks = hooks, .length_max = o->max_length, .started = now_seconds()};
    int32_t first[1 + PROMPT_MAX] = {c->start};
    int more = 0;
    float *patches;
    if (o->max_length > c->net.config.positions)
        return error_set(err, ERR_INVALID, "the captioner writes %lld words at most",
                         (long long)c->net.config.positions);
    int rc = wordpiece_encode(c->words, first + 1, &more, PROMPT_MAX, prompt, err);
    if (!rc) rc = cut(c, &patches, picture, err);
    if (rc) return rc;
    rc = blip_start(&w.writing, &c->net, &c->memory, c->dtype, patches, err);
    free(patches);
    if (!rc)
        rc = search_run(token, count, o, (int)c->net.config.vocab, first, 1 + more, step, &w, err);
    blip_stop(&w.writing);
    return rc;
}

int caption_run(struct caption *c, char **text, const struct pixels *picture,
                const struct search_options *o, const char *prompt,
                const struct pipeline_hooks *hooks, struct error *err)
{
    int32_t token[SEARCH_LENGTH_MAX];
    int count;
    int rc = caption_tokens(c, token, &count, picture, o, prompt, hooks, err);
    if (rc) return rc;
    char *whole = wordpiece_decode(c->words, token, count);
    const char *rest = str_starts(whole, prompt) ? whole + strlen(prompt) : whole;
    *text = alloc_string(rest + (*rest == ' '));
    free(whole);
    return 0;
}
