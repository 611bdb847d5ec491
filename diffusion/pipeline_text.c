/* The text part of a request: prompt, adapters, conditioning. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/now.h"
#include "base/str.h"
#include "diffusion/lora/lora.h"
#include "diffusion/pipeline_run.h"
#include "diffusion/text/clip_text.h"
#include "diffusion/text/dynamic_prompt.h"
#include "diffusion/text/prompt.h"

static enum prompt_rules rules_of(const struct run *run)
{
    return run->r->expert_prompt ? PROMPT_LOCAL : PROMPT_HORDE;
}

/* --- <lora:NAME:0.8> --- */

/* NAME.safetensors in the loras folder of the data, beside the model, or here. */
static char *find_lora(const struct run *run, const char *name)
{
    if (strchr(name, '/') || *name == '.') return NULL;
    const char *state = getenv("STATE_DIRECTORY"), *data = getenv("XDG_DATA_HOME");
    const char *home = getenv("HOME"), *model = run->m->info.path, *slash = strrchr(model, '/');
    char *places[] = {
        state && *state ? alloc_printf("%s/loras/%s.safetensors", state, name) : NULL,
        data && *data ? alloc_printf("%s/kiln/loras/%s.safetensors", data, name) : NULL,
        home && *home ? alloc_printf("%s/.local/share/kiln/loras/%s.safetensors", home, name)
                      : NULL,
        alloc_printf("%.*s%s.safetensors", slash ? (int)(slash - model) + 1 : 0, model, name),
        alloc_printf("%s.safetensors", name),
    };
    char *found = NULL;
    for (size_t i = 0; i < COUNT_OF(places); i++) {
        if (!found && places[i] && access(places[i], R_OK) == 0)
            found = places[i];
        else
            free(places[i]);
    }
    return found;
}

/* A tag sets the strength of a LoRA that the request has, or brings one that is found by name. */
static void take_tag(struct run *run, const struct prompt_lora *tag)
{
    char shown[80];
    str_clean(shown, sizeof shown, tag->name);
    for (int i = 0; i < run->lora_count; i++) {
        struct request_lora *l = &run->loras[i];
        if (!str_equal(l->name, tag->name)) continue;
        l->model_strength = tag->model_strength;
        l->clip_strength = tag->clip_strength;
        return;
    }
    char *path = run->lora_count < REQUEST_LORAS_MAX ? find_lora(run, tag->name) : NULL;
    if (!path) {
        run_note(run, "lora:download_failed:%s\tthe prompt's <lora:%s> was found in no folder",
                 shown, shown);
        return;
    }
    int i = run->lora_count++;
    run->found[i] = path;
    run->loras[i] =
        (struct request_lora){.path = path,
                              .name = strrchr(path, '/') ? strrchr(path, '/') + 1 : path,
                              .model_strength = tag->model_strength,
                              .clip_strength = tag->clip_strength};
}

int run_prepare_prompt(struct run *run, struct error *err)
{
    const struct image_request *r = run->r;
    bool both = *r->negative && !strstr(r->prompt, "###");
    char *whole = both ? alloc_printf("%s###%s", r->prompt, r->negative) : alloc_string(r->prompt);
    char *chosen = dynamic_prompt_expand(whole, r->seed);
    prompt_split(chosen, &run->prompt, &run->negative_prompt);
    free(whole);
    free(chosen);
    if (!*run->negative_prompt && !both) {
        free(run->negative_prompt);
        run->negative_prompt = alloc_string(r->negative);
    }

    memcpy(run->loras, r->loras, sizeof r->loras);
    run->lora_count = r->lora_count;
    if (!r->expert_prompt) return 0;
    struct prompt p;
    int rc = prompt_parse(&p, run->prompt, PROMPT_LOCAL, err);
    if (rc) return rc;
    for (int i = 0; i < p.lora_count; i++) take_tag(run, &p.loras[i]);
    prompt_release(&p);
    return 0;
}

static void note_lora(void *context, const char *name, const char *code, const char *sentence)
{
    struct run *run = context;
    if (run->layered_change && run->loras[run->lora_count - 1].name == name) {
        error_set(&run->unlayered, ERR_INVALID, "%s", sentence);
        return;
    }
    if (!run->unusable.code) error_set(&run->unusable, ERR_INVALID, "LoRA %s: %s", name, sentence);
    run_note(run, "lora:%s:%s\t%s", code, name, sentence);
}

int run_use_loras(struct run *run, struct error *err)
{
    struct model *m = run->m;
    if (!m->loras) {
        m->loras = alloc_zero(1, sizeof *m->loras);
        lora_set_init(m->loras, m);
    }
    int rc = run_use_layered(run, err);
    if (!rc) rc = lora_set_use(m->loras, run->loras, run->lora_count, note_lora, run, err);
    if (!rc && run->unlayered.code)
        rc = error_set(err, run->unlayered.code, "%s", run->unlayered.text);
    if (!rc && run->r->strict && run->unusable.code)
        rc = error_set(err, run->unusable.code, "%s", run->unusable.text);
    return rc;
}

/* --- conditioning --- */

/* Each encoder needs its part; "768 and 1280" for messages. */
static bool fits(const struct run *run, const struct embedding *e, int *wanted)
{
    for (int i = 0; i < run->m->text.encoders; i++) {
        *wanted = (int)run->m->text.encoder[i]->config.width;
        if (!embedding_for_width(e, *wanted)) return false;
    }
    return true;
}

/* ERR_INVALID when the request is strict and one cannot be used. */
static int open_embeddings(struct run *run, struct error *refusal)
{
    for (int i = 0; i < run->r->embedding_count; i++) {
        const struct request_embedding *want = &run->r->embeddings[i];
        struct embedding *e = &run->embeddings[run->embedding_count];
        struct error err = {0};
        char shown[80];
        int wanted = 0, rc = embedding_open(e, want->path, want->name, &err);
        str_clean(shown, sizeof shown, want->name ? want->name : want->path);
        if (rc && run->r->strict)
            return error_set(refusal, ERR_INVALID, "embedding %s: %s", shown, err.text);
        if (rc) {
            run_note(run, "ti:parse_failed:%s\t%s", shown, err.text);
            continue;
        }
        if (!fits(run, e, &wanted)) {
            run_note(run,
                     "ti:baseline_mismatch:%s\tembedding '%s' is %d wide, made for another family; "
                     "this model's text encoder is %d wide",
                     shown, shown, e->part[0].width, wanted);
            if (run->r->strict)
                error_set(refusal, ERR_INVALID,
                          "embedding %s is %d wide, made for another family; this model's text "
                          "encoder is %d wide",
                          shown, e->part[0].width, wanted);
            embedding_release(e);
            if (run->r->strict) return ERR_INVALID;
            continue;
        }
        e->strength = want->strength;
        run->embedding_count++;
    }
    return 0;
}

int run_encode_side(struct run *run, struct conditioning *c, const char *prompt, struct error *err)
{
    struct text_request t = {.prompt = prompt,
                             .rules = rules_of(run),
                             .clip_skip = run->r->clip_skip,
                             .embeddings = run->embeddings,
                             .embedding_count = run->embedding_count};
    int rc = conditioning_encode(c, &run->m->text, &t, run->m->memory, run->m->dtype, err);
    if (!rc && c->unknown_embeddings)
        run_note(run, "ti:download_failed:%s\tno embedding of this name was given", c->unknown);
    return rc;
}

int run_encode_text(struct run *run, struct error *err)
{
    double from = now_seconds();
    run_progress(run, PHASE_TEXT, 0, 0);
    int rc = open_embeddings(run, err);
    if (!rc) rc = run_encode_side(run, &run->positive, run->prompt, err);
    if (!rc && run->guided) rc = run_encode_side(run, &run->negative, run->negative_prompt, err);
    if (!rc && run->guided) rc = conditioning_match(&run->positive, &run->negative, err);
    run->result->text_seconds = now_seconds() - from;
    if (rc) return error_wrap(err, rc, "encoding the prompt");
    return run_canceled(run) ? run_stopped(err) : 0;
}

void run_release_text(struct run *run)
{
    conditioning_release(&run->positive);
    conditioning_release(&run->negative);
    for (int i = 0; i < run->embedding_count; i++) embedding_release(&run->embeddings[i]);
    for (int i = 0; i < REQUEST_LORAS_MAX; i++) free(run->found[i]);
    free(run->layered_change);
    free(run->prompt);
    free(run->negative_prompt);
}
