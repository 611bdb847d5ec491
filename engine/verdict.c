#include "engine/verdict.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/data_path.h"
#include "base/log.h"
#include "base/str.h"
#include "diffusion/safety/notice.h"

static char *if_there(char *path)
{
    if (access(path, R_OK) == 0) return path;
    free(path);
    return NULL;
}

static char *beside(const char *file, const char *name)
{
    const char *slash = strrchr(file, '/');
    return if_there(alloc_printf("%.*s%s", slash ? (int)(slash - file) + 1 : 0, file, name));
}

static char *model_path(const char *model, const char *cache)
{
    if (str_equal(model, "none")) return NULL;
    if (model && !str_equal(model, "auto")) return alloc_string(model);
    char *own = cache ? NULL : data_path_cache();
    char *path = NULL;
    if (cache || own)
        path = if_there(alloc_printf("%s/safety/model.safetensors", cache ? cache : own));
    free(own);
    return path;
}

void verdict_open(struct engine *e, const char *model, const char *cache)
{
    char *path = model_path(model, cache);
    if (!path) return;
    struct error err = {0};
    char *rules = beside(path, "safety.tsv"), *vocab = beside(path, "tokenizer");
    if (!rules) rules = data_path_find("safety.tsv");
    if (!rules)
        error_set(&err, ERR_NOT_FOUND, "there is no safety.tsv beside it or among the data");
    else
        safety_open(&e->safety, e->device, path, rules, vocab, &err);
    if (!e->safety) log_error("engine.safety", "model=\"%s\" reason=\"%s\"", path, err.text);
    free(path);
    free(rules);
    free(vocab);
}

/* Prompt and negative prompt as the Horde writes them. */
static char *whole_prompt(const struct image_request *r)
{
    const char *prompt = r && r->prompt ? r->prompt : "";
    bool both = r && r->negative && *r->negative && !strstr(prompt, "###");
    return both ? alloc_printf("%s###%s", prompt, r->negative) : alloc_string(prompt);
}

int verdict_find(struct engine *e, const struct pixels *p, const struct image_request *request,
                 enum safety_verdict *verdict, struct error *err)
{
    *verdict = SAFETY_FAILED;
    if (!e->safety) return 0;
    char *prompt = whole_prompt(request);
    int rc = 0;
    for (int tries = 0; tries < 2 && *verdict == SAFETY_FAILED && rc != ERR_DEVICE; tries++) {
        struct error why = {0};
        rc = safety_check(e->safety, p, prompt, verdict, &why);
        if (rc) {
            *verdict = SAFETY_FAILED;
            log_error("engine.safety", "reason=\"%s\"", why.text);
            error_set(err, rc, "%s", why.text);
        }
        channel_alive(&e->channel);
    }
    explicit_bzero(prompt, strlen(prompt));
    free(prompt);
    return rc == ERR_DEVICE ? rc : 0;
}

int verdict_apply(struct engine *e, struct pixels *p, const struct image_request *request,
                  bool censor_nsfw, struct engine_image *image, struct error *err)
{
    static const struct {
        enum engine_verdict verdict;
        bool replace;
    } table[] = {
        [SAFETY_OK] = {ENGINE_VERDICT_OK, false},
        [SAFETY_NSFW] = {ENGINE_VERDICT_NSFW, false},
        [SAFETY_DOUBT] = {ENGINE_VERDICT_NSFW, true},
        [SAFETY_CSAM] = {ENGINE_VERDICT_CSAM, true},
        [SAFETY_FAILED] = {ENGINE_VERDICT_FAILED, true},
    };
    enum safety_verdict found;
    int rc = verdict_find(e, p, request, &found, err);
    image->verdict = table[found].verdict;
    image->censored = table[found].replace || (found == SAFETY_NSFW && censor_nsfw);
    if (image->censored) notice_replace(p);
    return rc;
}
