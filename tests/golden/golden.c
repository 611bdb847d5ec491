#include "tests/golden/golden.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buf.h"

/* Cases of NAME beside `data` ("family", "mixed") are appended; their own files are there. */
static void add_cases(struct golden *g, const char *name);

static void stop(const char *what, const char *why)
{
    fprintf(stderr, "golden: %s: %s\n", what, why);
    exit(2);
}

void golden_open(struct golden *g, const char *data, enum precision precision)
{
    struct error err;
    json_error_t e;
    *g = (struct golden){.data = alloc_string(data), .precision = precision};
    char *path = alloc_printf("%s/cases.json", data);
    g->cases = json_load_file(path, 0, &e);
    if (!g->cases) stop(path, e.text);
    free(path);
    add_cases(g, "family");
    add_cases(g, "mixed");
    if (device_open(&g->device, "cpu", &err)) stop("cpu", err.text);
}

void golden_close(struct golden *g)
{
    for (int i = 0; i < g->model_count; i++) {
        model_close(g->models[i].model);
        free(g->models[i].key);
    }
    device_close(g->device);
    json_decref(g->cases);
    free(g->data);
}

const char *golden_string(const json_t *c, const char *key, const char *otherwise)
{
    const json_t *v = json_object_get(c, key);
    return json_is_string(v) ? json_string_value(v) : otherwise;
}

double golden_number(const json_t *c, const char *key, double otherwise)
{
    const json_t *v = json_object_get(c, key);
    return json_is_number(v) ? json_number_value(v) : otherwise;
}

static void add_cases(struct golden *g, const char *name)
{
    json_error_t e;
    char *path = alloc_printf("%s/../%s/cases.json", g->data, name);
    json_t *more = json_load_file(path, 0, &e), *c;
    size_t i;
    if (!more) stop(path, e.text);
    json_array_foreach(more, i, c) json_object_set_new(c, "folder", json_string(name));
    json_array_extend(g->cases, more);
    json_decref(more);
    free(path);
}

char *golden_path(const struct golden *g, const json_t *c, const char *name)
{
    const char *folder = golden_string(c, "folder", NULL);
    char *own = folder ? alloc_printf("%s/../%s/%s", g->data, folder, name) : NULL;
    if (own && access(own, F_OK) == 0) return own;
    free(own);
    return alloc_printf("%s/%s", g->data, name);
}

static bool said(const json_t *c, const char *key)
{
    return json_is_true(json_object_get(c, key));
}

struct model *golden_model(struct golden *g, const json_t *c)
{
    struct error err;
    char *name = alloc_printf("models/%s%s", golden_string(c, "model", "sd1"),
                              said(c, "single")    ? ".safetensors"
                              : said(c, "pickled") ? "-bin"
                                                   : "");
    char *path = golden_path(g, c, name);
    free(name);
    const char *other = golden_string(c, "vae", NULL);
    char *vae = other ? golden_path(g, c, other) : NULL;
    char *key = alloc_printf("%s %s", path, vae ? vae : "");
    struct model *m = NULL;
    for (int i = 0; i < g->model_count; i++)
        if (strcmp(g->models[i].key, key) == 0) m = g->models[i].model;
    if (m) {
        free(path);
        free(vae);
        free(key);
        return m;
    }
    KILN_ASSERT(g->model_count < (int)COUNT_OF(g->models), "too many models");
    if (model_open(&m, g->device, path, vae, g->precision, &err)) stop(path, err.text);
    free(path);
    free(vae);
    g->models[g->model_count].key = key;
    g->models[g->model_count++].model = m;
    return m;
}

static void read_blob(const struct golden *g, const json_t *c, struct blob *to, const char *name)
{
    struct buf b;
    struct error err;
    if (!name) return;
    char *path = golden_path(g, c, name);
    buf_init(&b, 16u << 20);
    if (buf_read_file(&b, path, &err)) stop(path, err.text);
    to->data = buf_take(&b, &to->length);
    free(path);
}

static void read_loras(const struct golden *g, struct image_request *r, const json_t *c)
{
    size_t i;
    const json_t *item;
    json_array_foreach(json_object_get(c, "loras"), i, item)
    {
        struct request_lora *l = &r->loras[r->lora_count++];
        l->name = alloc_string(json_string_value(json_array_get(item, 0)));
        char *file = alloc_printf("lora/%s.safetensors", l->name);
        l->path = golden_path(g, c, file);
        free(file);
        l->model_strength = json_number_value(json_array_get(item, 1));
        l->clip_strength = json_number_value(json_array_get(item, 2));
    }
}

static void read_embeddings(const struct golden *g, struct image_request *r, const json_t *c)
{
    size_t i;
    const json_t *item;
    json_array_foreach(json_object_get(c, "embeddings"), i, item)
    {
        struct request_embedding *e = &r->embeddings[r->embedding_count++];
        e->name = alloc_string(json_string_value(json_array_get(item, 1)));
        e->path =
            alloc_printf("%s/embedding/%s", g->data, json_string_value(json_array_get(item, 0)));
        e->strength = 1;
    }
}

static void read_controls(const struct golden *g, struct image_request *r, const json_t *c)
{
    size_t i;
    const json_t *item;
    json_array_foreach(json_object_get(c, "controls"), i, item)
    {
        struct request_control *to = &r->more_controls[r->more_control_count++];
        to->type = alloc_string("canny");
        to->path =
            alloc_printf("%s/control/%s", g->data, json_string_value(json_array_get(item, 0)));
        read_blob(g, c, &to->image, json_string_value(json_array_get(item, 1)));
        to->strength = json_number_value(json_array_get(item, 2));
        to->is_map = true;
    }
}

static void read_qr(struct image_request *r, const json_t *c)
{
    const json_t *qr = json_object_get(c, "qr");
    if (!qr) return;
    r->qr.text = alloc_string(golden_string(qr, "text", ""));
    if (golden_string(qr, "prompt", NULL))
        r->qr.prompt = alloc_string(golden_string(qr, "prompt", ""));
    r->qr.x_px = (int)golden_number(qr, "x", -1);
    r->qr.y_px = (int)golden_number(qr, "y", -1);
}

static void read_control(const struct golden *g, struct image_request *r, const json_t *c)
{
    const json_t *control = json_object_get(c, "control");
    if (!control) return;
    r->control_type = alloc_string("canny");
    r->control_path =
        alloc_printf("%s/control/%s", g->data, json_string_value(json_array_get(control, 0)));
    r->control_strength = json_number_value(json_array_get(control, 1));
    r->image_is_control = true;
    read_blob(g, c, &r->control_image, "assets/init.png");
}

void golden_request(const struct golden *g, struct image_request *r, const json_t *c)
{
    image_request_init(r);
    free(r->prompt);
    free(r->negative);
    r->prompt = alloc_string(golden_string(c, "prompt", ""));
    r->negative = alloc_string(golden_string(c, "negative", ""));
    r->width_px = (int)golden_number(c, "width", 64);
    r->height_px = (int)golden_number(c, "height", 64);
    r->steps = (int)golden_number(c, "steps", 8);
    r->cfg = golden_number(c, "cfg", 7.5);
    r->seed = (uint64_t)golden_number(c, "seed", 0);
    r->count = (int)golden_number(c, "count", 1);
    r->clip_skip = (int)golden_number(c, "clip_skip", 0);
    r->denoise = golden_number(c, "denoise", 1);
    r->guidance_rescale = golden_number(c, "guidance_rescale", 0);
    r->variation_seed = (uint64_t)golden_number(c, "variation_seed", 0);
    r->variation_strength = golden_number(c, "variation_strength", 0);
    r->tiling = said(c, "tiling");
    r->hires_fix = json_object_get(c, "hires") != NULL;
    r->noise = NOISE_CPU;
    if (!sampler_find(golden_string(c, "sampler", ""), &r->sampler) ||
        !schedule_find(golden_string(c, "schedule", "normal"), &r->schedule))
        stop(golden_string(c, "id", "?"), "unknown sampler or schedule");
    const char *use = golden_string(c, "use", NULL);
    if (json_object_get(c, "init")) r->source_use = SOURCE_IMG2IMG;
    if (use)
        r->source_use = strcmp(use, "inpainting") == 0 ? SOURCE_INPAINTING : SOURCE_OUTPAINTING;
    read_blob(g, c, &r->source, golden_string(c, "init", NULL));
    read_blob(g, c, &r->mask, golden_string(c, "mask", NULL));
    read_loras(g, r, c);
    read_embeddings(g, r, c);
    read_control(g, r, c);
    read_controls(g, r, c);
    read_qr(r, c);
}
