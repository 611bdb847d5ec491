/* offer.c - what this worker can do and which models it may name. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/now.h"
#include "base/str.h"
#include "daemon/choice.h"
#include "daemon/worker.h"
#include "proto/post_weights.h"
#include "store/store.h"

#define AHEAD_MS 400 /* of computing that should wait at an engine */

/* ---- models ---- */

bool worker_may_use(const struct worker *w, const char *path)
{
    return !access(path, R_OK) &&
           (w->config.horde_loopback || store_state_of(path) != STORE_UNVERIFIED);
}

bool worker_may_use_post(const struct worker *w, const char *name)
{
    const struct post_weights *post = post_weights_find(name);
    bool may = true;
    for (int part = 0; post && part < POST_PARTS; part++) {
        char file[POST_FILE_BYTES];
        bool found = false; /* the engine takes the first */
        for (int i = 0; !found && post_weights_file(file, post, part, i); i++) {
            char *path = alloc_printf("%s/post/%s", w->folders.cache, file);
            found = !access(path, R_OK);
            if (found) may = may && worker_may_use(w, path);
            free(path);
        }
    }
    return may;
}

/* "pocket" is the engine's own; anything else is a file or folder that must be there */
static char *find_path(const struct worker *w, const char *name, const char *given)
{
    static const char *const ends[] = {".safetensors", ".ckpt", ""};
    if (str_equal(name, "pocket") && !given) return alloc_string("pocket");
    if (given) return alloc_string(given);
    if (strchr(name, '/') || name[0] == '.') return NULL;
    for (unsigned i = 0; i < COUNT_OF(ends); i++) {
        char *path = alloc_printf("%s/%s%s", w->folders.cache, name, ends[i]);
        if (!access(path, R_OK)) return path;
        free(path);
        path = alloc_printf("%s/models/%s%s", w->folders.cache, name, ends[i]);
        if (!access(path, R_OK)) return path;
        free(path);
    }
    return NULL;
}

char *worker_model_path(const struct worker *w, const char *name)
{
    return find_path(w, name, NULL);
}

static const struct config_model *custom_of(const struct config *c, const char *name)
{
    for (unsigned i = 0; i < c->custom_model_count; i++)
        if (str_equal(c->custom_models[i].name, name)) return &c->custom_models[i];
    return NULL;
}

static void add_model(struct worker *w, const char *name)
{
    const struct config_model *custom = custom_of(&w->config, name);
    if (worker_find_model(w, name) || w->model_count == WORKER_MODELS_MAX) return;
    for (unsigned i = 0; i < w->config.models_to_skip.count; i++)
        if (str_equal(w->config.models_to_skip.items[i], name)) return;
    struct worker_model *m = &w->models[w->model_count++];
    m->name = alloc_string(name);
    m->path = find_path(w, name, custom ? custom->filepath : NULL);
    m->family = FAMILY_SD1; /* until the engine has looked into the file */
    if (custom) family_find(custom->baseline, &m->family);
    m->missing = !m->path || (strcmp(m->path, "pocket") != 0 && access(m->path, R_OK) != 0);
    if (m->missing)
        log_warn("model.missing", "model=\"%s\" text=\"no file here; not offered\"", name);
    else if (strcmp(m->path, "pocket") != 0 && !worker_may_use(w, m->path)) {
        m->missing = true;
        log_warn("model.unverified",
                 "model=\"%s\" text=\"fetched without a known SHA-256; not offered to strangers: "
                 "kiln models verify\"",
                 name);
    }
}

void worker_read_models(struct worker *w)
{
    for (int i = 0; i < w->model_count; i++) {
        free(w->models[i].name);
        free(w->models[i].path);
    }
    free(w->models);
    w->models = alloc_zero(WORKER_MODELS_MAX, sizeof *w->models);
    w->model_count = 0;
    /* a custom model is offered without being named twice */
    for (unsigned i = 0; i < w->config.custom_model_count; i++)
        add_model(w, w->config.custom_models[i].name);
    for (unsigned i = 0; i < w->config.models_to_load.count; i++)
        if (!choice_read(w, w->config.models_to_load.items[i], add_model))
            add_model(w, w->config.models_to_load.items[i]);
}

struct worker_model *worker_find_model(struct worker *w, const char *name)
{
    for (int i = 0; i < w->model_count; i++)
        if (str_equal(w->models[i].name, name)) return &w->models[i];
    return NULL;
}

/* ---- abilities ---- */

static bool named(const char *const *names, int count, const char *name)
{
    for (int i = 0; i < count; i++)
        if (str_equal(names[i], name)) return true;
    return false;
}

static struct capability_set of_engine(const struct engine_hello *h)
{
    struct capability_set s = capability_built();
    for (int c = 0; c < CAPABILITY_COUNT; c++)
        if (!named(h->capabilities, h->capability_count, capability_name((enum capability)c)))
            capability_remove(&s, (enum capability)c);
    for (int i = 0; i < SAMPLER_COUNT; i++)
        if (!named(h->samplers, h->sampler_count, sampler_name((enum sampler)i))) {
            s.samplers &= ~(1ull << i);
            s.karras_samplers &= ~(1ull << i);
        }
    for (int f = 0; f < ALCHEMY_COUNT; f++)
        if (!named(h->forms, h->form_count, alchemy_form_name((enum alchemy_form)f)))
            s.forms &= ~(1u << f);
    return s;
}

/* a ControlNet needs its file */
static bool has_control(const struct worker *w, const char *name)
{
    char *path = alloc_printf("%s/controlnet/%s.safetensors", w->folders.cache, name);
    bool may = worker_may_use(w, path);
    free(path);
    return may;
}

/* the engine takes the first that is there */
static bool has_annotator(const struct worker *w, const char *type)
{
    char file[ANNOTATOR_FILE_BYTES];
    bool found = false, may = false;
    for (int i = 0; !found && annotator_choice(file, NULL, type, i); i++) {
        char *path = alloc_printf("%s/annotators/%s", w->folders.cache, file);
        found = !access(path, R_OK);
        may = found && worker_may_use(w, path);
        free(path);
    }
    return may;
}

static bool has_layered(const struct worker *w, enum family f)
{
    struct layered_files files;
    if (!layered_files_of(f, &files)) return false;
    char *change = alloc_printf("%s/layered/%s.safetensors", w->folders.cache, files.change);
    char *decoder = alloc_printf("%s/layered/%s.safetensors", w->folders.cache, files.decoder);
    bool may = worker_may_use(w, change) && worker_may_use(w, decoder);
    free(change);
    free(decoder);
    return may;
}

/* The server does not ask which family: transparent jobs of every model offered must be possible. */
static void keep_layered(const struct worker *w, struct capability_set *able)
{
    for (int f = 0; f < FAMILY_COUNT; f++)
        if (!has_layered(w, (enum family)f)) able->layered &= ~(1u << f);
    struct layered_files files;
    bool all = able->layered != 0;
    for (int i = 0; i < w->model_count; i++)
        if (!w->models[i].missing && layered_files_of(w->models[i].family, &files))
            all = all && (able->layered >> w->models[i].family & 1);
    if (!all) capability_remove(able, CAPABILITY_LAYER_DIFFUSE);
}

/* The engine says that a form's weights are there; strangers' pictures want weights that are known. */
static bool may_use_form(const struct worker *w, enum alchemy_form f)
{
    static const char *const captioners[] = {"BLIP_Large.safetensors", "BLIP_Large.pth",
                                             "BLIP.safetensors", "BLIP.pth"};
    bool may = true;
    if (alchemy_form_result(f) == ALCHEMY_IMAGE)
        return worker_may_use_post(w, alchemy_form_name(f));
    for (size_t i = 0; f == ALCHEMY_CAPTION && i < COUNT_OF(captioners); i++) {
        char *path = alloc_printf("%s/caption/%s", w->folders.cache, captioners[i]);
        if (access(path, F_OK) == 0) may = may && worker_may_use(w, path);
        free(path);
    }
    return may;
}

struct capability_set worker_able(const struct worker *w)
{
    struct capability_set able = capability_built();
    const struct config *c = &w->config;
    /* a name that the server knows gets all that it promises there: then all or none is offered */
    struct capability_set promised = {0};
    if (capability_agent_known(c->bridge_agent)) promised = capability_agent_set(c->bridge_agent);
    bool any_post = false, all_posts = true;
    for (int i = 0; i < w->engine_count; i++) {
        if (engine_process_state(w->engines[i]) != ENGINE_READY) continue;
        struct capability_set s = of_engine(engine_process_hello(w->engines[i]));
        able = capability_intersect(&able, &s);
    }
    for (int i = 0; capability_control_names[i]; i++) /* networks that draw maps, too */
        if (has_annotator(w, capability_control_names[i])) able.detectors |= 1u << i;
    for (int i = 0; capability_control_names[i]; i++)
        if (!has_control(w, capability_control_names[i])) able.controls &= ~(1u << i);
    keep_layered(w, &able);
    if (!c->allow_controlnet || !has_control(w, "control_qr")) {
        bool xl = c->allow_controlnet && c->allow_sdxl_controlnet;
        if (!xl || !has_control(w, "control_qr_sdxl")) capability_remove(&able, CAPABILITY_QR_CODE);
    }
    for (int p = 0; p < CAPABILITY_COUNT; p++) { /* and a post-processor one that may be used */
        enum capability post;
        const char *name = capability_name((enum capability)p);
        if (!capability_find_post(name, &post)) continue;
        if (!worker_may_use_post(w, name)) capability_remove(&able, post);
        any_post = any_post || capability_has(&able, post);
        all_posts = all_posts && (capability_has(&able, post) || !capability_has(&promised, post));
    }
    for (int f = 0; f < ALCHEMY_COUNT; f++)
        if (!may_use_form(w, (enum alchemy_form)f)) able.forms &= ~(1u << f);
    if (!any_post || !all_posts) capability_remove(&able, CAPABILITY_POST_PROCESSING);
    static const enum capability of_feature[] = {CAPABILITY_LORA, CAPABILITY_CONTROLNET,
                                                 CAPABILITY_POST_PROCESSING, CAPABILITY_IMG2IMG};
    for (int f = 0; f < FEATURE_COUNT; f++)
        if (w->features[f].broken_until_ms > now_ms()) capability_remove(&able, of_feature[f]);
    if (!c->allow_img2img) capability_remove(&able, CAPABILITY_IMG2IMG);
    if (!c->allow_painting) capability_remove(&able, CAPABILITY_INPAINTING);
    if (!c->allow_post_processing) capability_remove(&able, CAPABILITY_POST_PROCESSING);
    if (!c->allow_controlnet) capability_remove(&able, CAPABILITY_CONTROLNET);
    if (!c->allow_lora) capability_remove(&able, CAPABILITY_LORA);
    return able;
}

bool worker_has_safety(const struct worker *w)
{
    for (int i = 0; i < w->engine_count; i++)
        if (engine_process_state(w->engines[i]) == ENGINE_READY)
            return engine_process_hello(w->engines[i])->safety;
    return false;
}

struct engine_process *worker_any_engine(const struct worker *w)
{
    for (int i = 0; i < w->engine_count; i++)
        if (engine_process_state(w->engines[i]) == ENGINE_READY) return w->engines[i];
    return NULL;
}

int worker_engine_index(const struct worker *w, const struct engine_process *e)
{
    int i = 0;
    while (i < w->engine_count - 1 && w->engines[i] != e) i++;
    return i;
}

int worker_ahead(const struct worker *w, int engine)
{
    int ahead = (int)w->config.queue_size;
    double pace_ms = w->pace_ms[engine];
    if (!ahead || pace_ms <= 0) return ahead;
    /* leads scatter, and the disk takes its time now and then: a gap is never made up */
    double cover_ms = 2 * w->lead_ms > AHEAD_MS ? 2 * w->lead_ms : AHEAD_MS;
    double needed = ceil(cover_ms / pace_ms);
    int more = needed > WORKER_AHEAD_MAX ? WORKER_AHEAD_MAX : (int)needed;
    return more > ahead ? more : ahead;
}

int worker_capacity(const struct worker *w)
{
    int capacity = 0;
    for (int i = 0; i < w->engine_count; i++)
        if (engine_process_state(w->engines[i]) != ENGINE_BROKEN)
            capacity += (int)w->config.max_threads + worker_ahead(w, i);
    return capacity;
}
