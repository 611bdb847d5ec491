#include "diffusion/face/restorer.h"

#include <math.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/free_memory.h"
#include "base/now.h"
#include "diffusion/face/align.h"
#include "diffusion/face/codeformer.h"
#include "diffusion/face/gfpgan.h"
#include "diffusion/face/parsenet.h"
#include "diffusion/face/retinaface.h"
#include "image/resize.h"

#define FINDER_LEAST_PX 640 /* the shorter side is enlarged to it */
#define FINDER_MOST_PX 1280 /* the longer side is shrunk to it */
#define SURE 0.8
#define EYES_LEAST_PX 5.0

const struct restorer_options restorer_defaults = {.strength = 1, .fidelity = 0.5};

struct restorer {
    struct device *device;
    struct weight_store *stores[3];
    struct retinaface finder;
    struct gfpgan gfpgan;
    struct codeformer codeformer;
    struct parsenet parser;
    bool is_gfpgan, has_parser;
    int size; /* of a face */
    struct pass_memory memory;
};

/* ---- files ---- */

static struct weight_visitor loader(struct weight_loading *l, struct weight_store *store,
                                    const char *prefix, const char *component, struct error *err)
{
    *l = (struct weight_loading){
        .store = store, .prefix = prefix, .component = component, .dialect = DIALECT_LDM};
    return (struct weight_visitor){.visit = weight_load, .context = l, .err = err};
}

static int load_finder(struct restorer *r, const char *path, struct error *err)
{
    struct weight_loading l;
    const char *prefix;
    int rc = weight_store_open(&r->stores[0], path, err);
    if (!rc) rc = retinaface_detect(&r->finder, r->stores[0], &prefix, err);
    if (rc) return rc;
    struct weight_visitor v = loader(&l, r->stores[0], prefix, "the RetinaFace", err);
    retinaface_visit(&v, &r->finder);
    rc = v.failed ? v.failed : weight_loading_check(&l, err);
    return rc ? rc : retinaface_fold(&r->finder, err);
}

static int load_gfpgan(struct restorer *r, struct error *err)
{
    struct weight_loading l;
    int rc = gfpgan_detect(&r->gfpgan, r->stores[1], err);
    if (rc) return rc;
    struct weight_visitor v = loader(&l, r->stores[1], "", "the GFPGAN", err);
    gfpgan_visit(&v, &r->gfpgan);
    rc = v.failed ? v.failed : weight_loading_check(&l, err);
    r->is_gfpgan = true;
    r->size = r->gfpgan.size;
    return rc ? rc : gfpgan_prepare(&r->gfpgan, err);
}

static int load_codeformer(struct restorer *r, struct error *err)
{
    struct weight_loading l;
    int rc = codeformer_detect(&r->codeformer, r->stores[1], err);
    if (rc) return rc;
    struct weight_visitor v = loader(&l, r->stores[1], "", "the CodeFormer", err);
    codeformer_visit(&v, &r->codeformer);
    r->size = r->codeformer.size;
    return v.failed ? v.failed : weight_loading_check(&l, err);
}

static int load_network(struct restorer *r, const char *path, struct error *err)
{
    int rc = weight_store_open(&r->stores[1], path, err);
    if (rc) return rc;
    if (gfpgan_is(r->stores[1])) return load_gfpgan(r, err);
    if (codeformer_is(r->stores[1])) return load_codeformer(r, err);
    return error_set(err, ERR_FORMAT, "%s holds no GFPGAN and no CodeFormer", path);
}

static int load_parser(struct restorer *r, const char *path, struct error *err)
{
    struct weight_loading l;
    int rc = weight_store_open(&r->stores[2], path, err);
    if (!rc) rc = parsenet_detect(&r->parser, r->stores[2], err);
    if (rc) return rc;
    struct weight_visitor v = loader(&l, r->stores[2], "", "the ParseNet", err);
    parsenet_visit(&v, &r->parser);
    rc = v.failed ? v.failed : weight_loading_check(&l, err);
    r->has_parser = !rc;
    return rc ? rc : parsenet_fold(&r->parser, err);
}

int restorer_open(struct restorer **restorer, struct device *device,
                  const struct restorer_files *files, struct error *err)
{
    struct restorer *r = alloc_zero(1, sizeof *r);
    r->device = device;
    pass_memory_init(&r->memory, device, 0);
    int rc = load_finder(r, files->finder, err);
    if (!rc) rc = load_network(r, files->network, err);
    if (!rc && files->parser) rc = load_parser(r, files->parser, err);
    if (rc) {
        restorer_close(r);
        return rc;
    }
    *restorer = r;
    return 0;
}

void restorer_close(struct restorer *r)
{
    if (!r) return;
    pass_memory_release(&r->memory);
    retinaface_release(&r->finder, r->device);
    gfpgan_release(&r->gfpgan, r->device);
    codeformer_release(&r->codeformer, r->device);
    parsenet_release(&r->parser, r->device);
    for (size_t i = 0; i < COUNT_OF(r->stores); i++) weight_store_close(r->stores[i]);
    free(r);
}

/* ---- finding ---- */

static double finder_scale(const struct pixels *p)
{
    int shorter = p->width < p->height ? p->width : p->height;
    int longer = p->width < p->height ? p->height : p->width;
    double scale = fmax(1, (double)FINDER_LEAST_PX / shorter);
    return fmin(scale, (double)FINDER_MOST_PX / longer);
}

static int least_one(double px)
{
    return px < 1 ? 1 : (int)px;
}

/* Raw results of one level on the host. */
static float *fetch(struct pass *p, struct tensor t)
{
    float *values = alloc_try((size_t)tensor_count(t), sizeof *values);
    if (!values) pass_fail(p, ERR_NO_MEMORY, "faces", "no memory for what was found");
    if (values) pass_output(p, values, t);
    return values;
}

/* in: room for the picture as floats */
static int run_finder(struct restorer *r, struct found_face *faces, int *count,
                      const struct pixels *rgb, float *in, struct error *err)
{
    static const float mean[] = {104, 117, 123};
    float *raw[3][RETINAFACE_LEVELS] = {{NULL}};
    struct pass p;
    for (int i = 0; i < rgb->width * rgb->height; i++)
        for (int c = 0; c < 3; c++) in[i * 3 + c] = (float)rgb->data[i * 3 + 2 - c] - mean[c];
    pass_start(&p, &r->memory, DTYPE_F32, NULL);
    struct tensor x = pass_input(&p, in, 4, TENSOR_DIM(1, rgb->height, rgb->width, 3));
    struct retinaface_raw found = retinaface_forward(&p, &r->finder, x);
    for (int i = 0; i < RETINAFACE_LEVELS; i++) {
        raw[0][i] = fetch(&p, found.score[i]);
        raw[1][i] = fetch(&p, found.box[i]);
        raw[2][i] = fetch(&p, found.point[i]);
    }
    int rc = pass_finish(&p, err);
    if (!rc)
        *count = retinaface_decode(faces, raw[0], raw[1], raw[2], rgb->width, rgb->height, SURE);
    for (int k = 0; k < 3; k++)
        for (int i = 0; i < RETINAFACE_LEVELS; i++) free(raw[k][i]);
    return rc;
}

/* Points in the picture's own pixels; faces whose eyes are too close are left out. */
static int find_faces(struct restorer *r, struct found_face *faces, int *count,
                      const struct pixels *rgb, struct error *err)
{
    double scale = finder_scale(rgb);
    /* distances count in a picture of at least 512 a side */
    double enlarged = fmax(1, 512.0 / (rgb->width < rgb->height ? rgb->width : rgb->height));
    struct pixels scaled = {0};
    int found = 0, kept = 0;
    int width = least_one(rgb->width * scale), height = least_one(rgb->height * scale);
    int rc = pixels_resize(&scaled, rgb, width, height, RESIZE_BILINEAR, err);
    if (rc) return rc;
    float *in = alloc_try((size_t)width * (size_t)height * 3, sizeof *in);
    if (!in)
        rc = error_set(err, ERR_NO_MEMORY, "no memory to look for faces");
    else
        rc = run_finder(r, faces, &found, &scaled, in, err);
    for (int i = 0; i < found && !rc; i++) {
        struct found_face f = faces[i];
        double dx = f.point[0][0] - f.point[1][0], dy = f.point[0][1] - f.point[1][1];
        if (hypot(dx, dy) / scale * enlarged < EYES_LEAST_PX) continue;
        for (int k = 0; k < 5; k++) {
            f.point[k][0] = (float)(f.point[k][0] / scale);
            f.point[k][1] = (float)(f.point[k][1] / scale);
        }
        faces[kept++] = f;
    }
    *count = kept;
    free(in);
    pixels_release(&scaled);
    return rc;
}

/* ---- restoring ---- */

static uint8_t byte_of(float v)
{
    return (uint8_t)lrintf((fminf(fmaxf(v, -1), 1) + 1) / 2 * 255);
}

static int restore(struct restorer *r, struct pixels *face, double fidelity, struct error *err)
{
    int n = face->width * face->height * 3;
    float *values = alloc_try((size_t)n, sizeof *values);
    if (!values) return error_set(err, ERR_NO_MEMORY, "no memory for a face");
    for (int i = 0; i < n; i++) values[i] = (float)face->data[i] / 127.5f - 1;
    struct pass p;
    pass_start(&p, &r->memory, DTYPE_F32, NULL);
    struct tensor x = pass_input(&p, values, 4, TENSOR_DIM(1, face->height, face->width, 3));
    struct tensor y = r->is_gfpgan ? gfpgan_forward(&p, &r->gfpgan, x)
                                   : codeformer_forward(&p, &r->codeformer, x, fidelity);
    if (!p.failed && tensor_count(y) != n)
        pass_fail(&p, ERR_FORMAT, "faces", "a face of %d pixels became one of %lld values",
                  face->width, (long long)tensor_count(y));
    if (!p.failed) pass_output(&p, values, y);
    int rc = pass_finish(&p, err);
    for (int i = 0; i < n && !rc; i++)
        if (!isfinite(values[i]))
            rc = error_set(err, ERR_INTERNAL, "a restored face is not finite");
    for (int i = 0; i < n && !rc; i++) face->data[i] = byte_of(values[i]);
    free(values);
    return rc;
}

static void mark_face(struct pixels *mask, const float *scores, int64_t classes)
{
    for (int i = 0; i < mask->width * mask->height; i++) {
        int best = 0;
        for (int c = 1; c < classes; c++)
            if (scores[i * classes + c] > scores[i * classes + best]) best = c;
        mask->data[i] = parsenet_is_face(best) ? 255 : 0;
    }
}

/* Which pixels of the restored face are face, softened; at the face's own size. */
static int parse(struct restorer *r, struct pixels *mask, const struct pixels *face,
                 struct error *err)
{
    struct pixels large = {0}, found = {0};
    int side = PARSENET_SIZE_PX, n = side * side;
    int64_t classes = r->parser.classes;
    size_t room = (size_t)n * (size_t)(classes > 3 ? classes : 3);
    float *values = alloc_try(room, sizeof *values);
    if (!values) return error_set(err, ERR_NO_MEMORY, "no memory to parse a face");
    int rc = pixels_resize(&large, face, side, side, RESIZE_BILINEAR, err);
    if (!rc) rc = pixels_new(&found, side, side, 1, err);
    if (!rc) {
        struct pass p;
        for (int i = 0; i < n * 3; i++) values[i] = (float)large.data[i] / 127.5f - 1;
        pass_start(&p, &r->memory, DTYPE_F32, NULL);
        struct tensor x = pass_input(&p, values, 4, TENSOR_DIM(1, side, side, 3));
        pass_output(&p, values, parsenet_forward(&p, &r->parser, x));
        rc = pass_finish(&p, err);
    }
    if (!rc) mark_face(&found, values, classes);
    if (!rc) rc = align_soften(&found, err);
    if (!rc) rc = pixels_resize(mask, &found, face->width, face->height, RESIZE_BILINEAR, err);
    free(values);
    pixels_release(&large);
    pixels_release(&found);
    return rc;
}

static int fix_one(struct restorer *r, struct pixels *picture, const struct pixels *from,
                   struct found_face *f, const struct restorer_options *o, struct error *err)
{
    struct similarity s;
    struct pixels face = {0}, mask = {0};
    if (!align_find(&s, f->point, r->size)) return 0;
    int rc = align_cut(&face, from, s, r->size, err);
    if (!rc) rc = restore(r, &face, o->fidelity, err);
    if (!rc && r->has_parser) rc = parse(r, &mask, &face, err);
    if (!rc) rc = align_paste(picture, &face, s, r->has_parser ? &mask : NULL, o->strength, err);
    pixels_release(&face);
    pixels_release(&mask);
    return rc;
}

static int step(const struct pipeline_hooks *hooks, int done, int steps, double start,
                struct error *err)
{
    if (hooks && hooks->canceled && hooks->canceled(hooks->context))
        return error_set(err, ERR_CANCELED, "stopped on request");
    struct pipeline_progress now = {PHASE_DECODE, done, steps, now_seconds() - start};
    if (done && hooks && hooks->progress) hooks->progress(hooks->context, &now);
    return 0;
}

int restorer_run(struct restorer *r, struct pixels *to, const struct pixels *from,
                 const struct restorer_options *options, const struct pipeline_hooks *hooks,
                 int *faces, struct error *err)
{
    struct restorer_options o = options ? *options : restorer_defaults;
    struct pixels rgb = {0}, made = {0};
    struct found_face list[FACES_MAX];
    int count = 0;
    double start = now_seconds();
    if (!(o.strength >= 0 && o.strength <= 1 && o.fidelity >= 0 && o.fidelity <= 1))
        return error_set(err, ERR_INVALID, "strength %g and fidelity %g: each is 0 to 1",
                         o.strength, o.fidelity);
    if (r->device->host_memory) r->memory.limit_bytes = free_memory_bytes();
    int rc = step(hooks, 0, 1, start, err);
    if (!rc) rc = pixels_convert(&rgb, from, 3, err);
    if (!rc) rc = pixels_convert(&made, from, from->channels == 4 ? 4 : 3, err);
    if (!rc && o.strength > 0) rc = find_faces(r, list, &count, &rgb, err);
    for (int i = 0; i < count && !rc; i++) {
        rc = step(hooks, i + 1, count + 1, start, err);
        if (!rc) rc = fix_one(r, &made, &rgb, &list[i], &o, err);
    }
    if (!rc) rc = step(hooks, count + 1, count + 1, start, err);
    pixels_release(&rgb);
    if (rc) {
        pixels_release(&made);
        return rc;
    }
    if (faces) *faces = count;
    *to = made;
    return 0;
}
