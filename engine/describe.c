#include "engine/describe.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/data_path.h"
#include "base/log.h"

void describe_init(struct describe *d, struct device *device, enum precision precision,
                   const char *cache)
{
    *d = (struct describe){.device = device, .precision = precision};
    d->cache = cache ? alloc_string(cache) : data_path_cache();
}

void describe_release(struct describe *d)
{
    interrogator_close(d->words);
    clip_pair_close(d->pair);
    caption_close(d->caption);
    free(d->cache);
    *d = (struct describe){0};
}

/* ---- where things lie ---- */

static char *in_cache(const struct describe *d, const char *name)
{
    if (!d->cache) return NULL;
    char *path = alloc_printf("%s/%s", d->cache, name);
    if (access(path, R_OK) == 0) return path;
    free(path);
    return NULL;
}

/* The larger one when both are there: it is what the Horde's reference worker has. */
static char *captioner(const struct describe *d)
{
    static const char *const names[] = {"caption/BLIP_Large.safetensors", "caption/BLIP_Large.pth",
                                        "caption/BLIP.safetensors", "caption/BLIP.pth"};
    char *path = NULL;
    for (size_t i = 0; i < COUNT_OF(names) && !path; i++) path = in_cache(d, names[i]);
    return path;
}

/* A file of weights that reads as one, and holds what `detect` looks for. */
static bool holds(char *path, bool (*detect)(const struct weight_store *store, struct error *err))
{
    struct weight_store *store = NULL;
    struct error err = {0};
    bool good = path && weight_store_open(&store, path, &err) == 0 && detect(store, &err);
    if (path && !good) log_error("engine.weights", "file=\"%s\" reason=\"%s\"", path, err.text);
    weight_store_close(store);
    free(path);
    return good;
}

static bool is_blip(const struct weight_store *store, struct error *err)
{
    struct blip_config c;
    enum dialect dialect;
    return blip_detect(&c, store, &dialect, err) == 0;
}

static bool is_clip(const struct weight_store *store, struct error *err)
{
    struct clip_text_config c;
    enum dialect dialect;
    return clip_text_detect(&c, store, "", &dialect, err) == 0;
}

static bool has_lists(const struct describe *d)
{
    char *folder = in_cache(d, "words");
    bool any = folder && interrogator_present(folder);
    free(folder);
    return any;
}

bool describe_can(const struct describe *d, enum alchemy_form form, const struct safety *safety)
{
    if (form == ALCHEMY_CAPTION) {
        char *vocab = in_cache(d, "caption/vocab.txt");
        bool good = vocab && holds(captioner(d), is_blip);
        free(vocab);
        return good;
    }
    return form == ALCHEMY_INTERROGATION && has_lists(d) &&
           (safety || holds(in_cache(d, "safety/model.safetensors"), is_clip));
}

/* ---- caption ---- */

static int open_caption(struct describe *d, struct error *err)
{
    if (d->caption) return 0;
    char *path = captioner(d), *vocab = in_cache(d, "caption/vocab.txt");
    int rc = path && vocab ? caption_open(&d->caption, d->device, path, vocab, d->precision, err)
                           : error_set(err, ERR_UNSUPPORTED,
                                       "caption: there is no %s in %s/caption; kiln models get "
                                       "caption fetches it",
                                       path ? "vocab.txt" : "BLIP_Large or BLIP",
                                       d->cache ? d->cache : "the cache folder");
    free(path);
    free(vocab);
    return rc;
}

int describe_caption(struct describe *d, char **text, const struct pixels *picture,
                     const struct pipeline_hooks *hooks, struct error *err)
{
    int rc = open_caption(d, err);
    if (rc) return rc;
    struct search_options o = caption_options(d->caption);
    return caption_run(d->caption, text, picture, &o, CAPTION_PROMPT, hooks, err);
}

/* ---- words ---- */

static int open_pair(struct describe *d, struct error *err)
{
    if (d->pair) return 0;
    char *path = in_cache(d, "safety/model.safetensors");
    int rc = path ? clip_pair_open(&d->pair, d->device, path, err)
                  : error_set(err, ERR_UNSUPPORTED,
                              "interrogation: there is no safety/model.safetensors (CLIP ViT-L/14) "
                              "in %s; kiln models get interrogation fetches it",
                              d->cache ? d->cache : "the cache folder");
    free(path);
    return rc;
}

static int open_words(struct describe *d, struct safety *safety, struct error *err)
{
    if (d->words) return 0;
    int rc = safety ? 0 : open_pair(d, err);
    if (rc) return rc;
    char *folder = in_cache(d, "words"), *vocab = in_cache(d, "safety/tokenizer");
    rc = folder ? interrogator_open(&d->words, safety ? safety_pair(safety) : d->pair, folder,
                                    vocab, err)
                : error_set(err, ERR_UNSUPPORTED,
                            "interrogation: there are no lists in %s/words; kiln models get "
                            "interrogation fetches them",
                            d->cache ? d->cache : "the cache folder");
    free(folder);
    free(vocab);
    return rc;
}

int describe_words(struct describe *d, struct alchemy_word **words, int *count,
                   const struct pixels *picture, struct safety *safety,
                   const struct pipeline_hooks *hooks, struct error *err)
{
    struct error unkept;
    int rc = open_words(d, safety, err);
    if (!rc) rc = interrogator_prepare(d->words, hooks, &unkept, err);
    if (rc) return rc;
    if (unkept.code)
        log_warn("engine.words", "reason=\"%s\" text=\"read again at the next start\"",
                 unkept.text);
    return interrogator_run(d->words, words, count, picture, INTERROGATOR_TOP, hooks, err);
}
