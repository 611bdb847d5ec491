#include "diffusion/control/annotator.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/str.h"
#include "proto/terms.h"

static annotator_function *const functions[ANNOTATOR_COUNT] = {
    [ANNOTATOR_HED] = annotate_hed,
    [ANNOTATOR_SOFTEDGE] = annotate_softedge,
    [ANNOTATOR_FAKESCRIBBLES] = annotate_fakescribbles,
    [ANNOTATOR_HOUGH] = annotate_mlsd,
    [ANNOTATOR_MLSD] = annotate_mlsd,
    [ANNOTATOR_DEPTH] = annotate_leres,
    [ANNOTATOR_DEPTH_MIDAS] = annotate_depth,
    [ANNOTATOR_MIDAS_DEPTH] = annotate_depth,
    [ANNOTATOR_NORMAL] = annotate_normal,
    [ANNOTATOR_OPENPOSE] = annotate_openpose,
    [ANNOTATOR_SEG] = annotate_seg,
};

/* The first choice of the type whose checkpoint is there; *kind is the type's first otherwise. */
static char *find_file(const char *folder, const char *type, enum annotator_kind *kind)
{
    char file[ANNOTATOR_FILE_BYTES];
    for (int i = 0; folder && annotator_choice(file, kind, type, i); i++) {
        char *path = alloc_printf("%s/%s", folder, file);
        if (access(path, R_OK) == 0) return path;
        free(path);
    }
    annotator_find(type, kind);
    return NULL;
}

bool annotator_available(const char *type, const char *folder)
{
    enum annotator_kind kind;
    char *file = find_file(folder, type, &kind);
    free(file);
    return file != NULL;
}

int annotator_map(struct pixels *to, const struct pixels *from, const char *type,
                  struct device *device, const char *folder, struct error *err)
{
    struct annotator a = {.device = device};
    struct pixels made = {0};
    enum annotator_kind kind;
    char shown[64];
    str_clean(shown, sizeof shown, type);
    if (!annotator_find(type, &kind))
        return error_set(err, ERR_UNSUPPORTED,
                         "control type \"%s\" has no annotator here, finished maps are taken only: "
                         "send one (image_is_control), or use canny, scribble, fakescribbles, "
                         "lineart, tile, color, hough, hed, depth, normal, openpose or seg",
                         shown);
    char *file = find_file(folder, type, &kind);
    if (!file)
        return error_set(err, ERR_NOT_FOUND,
                         "control type \"%s\" needs the annotator %s.pth in %s, or the finished "
                         "map (image_is_control)",
                         shown, annotator_file(kind), folder ? folder : "the cache's annotators");
    pass_memory_init(&a.memory, device, 0);
    int rc = weight_store_open(&a.store, file, err);
    if (!rc) rc = functions[kind](&a, &made, from, err);
    if (rc) error_wrap(err, rc, "control type %s", shown);
    weight_store_close(a.store);
    pass_memory_release(&a.memory);
    free(file);
    if (!rc) *to = made;
    return rc;
}

int annotator_load(struct annotator *a, void (*visit)(struct weight_visitor *v, void *net),
                   void *net, const char *component, struct error *err)
{
    struct weight_loading loading = {
        .store = a->store, .prefix = a->prefix, .component = component, .dialect = DIALECT_LDM};
    struct weight_visitor v = {.visit = weight_load, .context = &loading, .err = err};
    visit(&v, net);
    return v.failed ? v.failed : weight_loading_check(&loading, err);
}

int64_t annotator_dim(const struct annotator *a, const char *name, int axis)
{
    const struct safetensors_entry *e = weight_store_find_in(a->store, a->prefix, name);
    return e && axis < e->rank ? e->dim[axis] : 0;
}

void annotator_find_prefix(struct annotator *a, const char *name)
{
    for (size_t i = 0; i < weight_store_count(a->store); i++) {
        const char *full = weight_store_at(a->store, i)->name;
        size_t length = strlen(full), tail = strlen(name);
        if (!str_ends(full, name) || length - tail >= sizeof a->prefix) continue;
        if (length > tail && full[length - tail - 1] != '.') continue;
        memcpy(a->prefix, full, length - tail);
        a->prefix[length - tail] = 0;
        return;
    }
}

struct tensor annotator_depthwise(struct pass *p, const struct layer *m, struct tensor x)
{
    const struct kernel_weight *k = &m->w.k;
    int64_t h = x.dim[1], w = x.dim[2], c = x.dim[3], side = k->dim[3], half = side / 2;
    size_t n = (size_t)(h * w * c);
    float *in = alloc_zero(n, sizeof *in), *out = alloc_zero(n, sizeof *out);
    float *tap = alloc_zero((size_t)(side * side * c), sizeof *tap); /* [k,k,C] */
    pass_output(p, in, x);
    for (int64_t i = 0; pass_ok(p) && i < c; i++)
        for (int64_t t = 0; t < side * side; t++)
            tap[t * c + i] = (float)dtype_get(k->data, k->dtype, i * side * side + t);
    for (int64_t y = 0; pass_ok(p) && y < h; y++)
        for (int64_t at = 0; at < w; at++) {
            float *to = out + (y * w + at) * c;
            if (weight_present(&m->b)) dtype_convert(to, DTYPE_F32, m->b.k.data, m->b.k.dtype, c);
            for (int64_t t = 0; t < side * side; t++) {
                int64_t iy = y + t / side - half, ix = at + t % side - half;
                if (iy < 0 || ix < 0 || iy >= h || ix >= w) continue;
                const float *from = in + (iy * w + ix) * c, *f = tap + t * c;
                for (int64_t i = 0; i < c; i++) to[i] += f[i] * from[i];
            }
        }
    struct tensor y = pass_input(p, out, 4, TENSOR_DIM(1, h, w, c));
    free(in);
    free(out);
    free(tap);
    return y;
}

/* Where output i of n looks into m inputs: two neighbours and the second one's share. */
static float between(int i, int n, int m, int *low, int *high)
{
    float at = ((float)i + 0.5f) * ((float)m / (float)n) - 0.5f;
    if (at < 0) at = 0;
    *low = (int)at < m - 1 ? (int)at : m - 1;
    *high = *low + 1 < m ? *low + 1 : *low;
    return fminf(at - (float)*low, 1);
}

void plane_resize(float *to, int ow, int oh, const float *from, int w, int h)
{
    for (int y = 0; y < oh; y++) {
        int top, bottom;
        float v = between(y, oh, h, &top, &bottom);
        for (int x = 0; x < ow; x++) {
            int left, right;
            float u = between(x, ow, w, &left, &right);
            float above = from[top * w + left] * (1 - u) + from[top * w + right] * u;
            float below = from[bottom * w + left] * (1 - u) + from[bottom * w + right] * u;
            to[y * ow + x] = above * (1 - v) + below * v;
        }
    }
}

struct tensor annotator_enlarge(struct pass *p, struct tensor x)
{
    int64_t h = x.dim[1], w = x.dim[2], c = x.dim[3];
    float *in = alloc_zero((size_t)(h * w * c), sizeof *in);
    float *out = alloc_zero((size_t)(4 * h * w * c), sizeof *out);
    pass_output(p, in, x);
    for (int64_t y = 0; y < 2 * h; y++)
        for (int64_t k = 0; k < 2 * w; k++) {
            float fy = (float)(y * (h - 1)) / (float)(2 * h - 1);
            float fx = (float)(k * (w - 1)) / (float)(2 * w - 1);
            int64_t y0 = (int64_t)fy, x0 = (int64_t)fx, y1 = y0 + (y0 < h - 1),
                    x1 = x0 + (x0 < w - 1);
            float v = fy - (float)y0, u = fx - (float)x0;
            for (int64_t i = 0; i < c; i++)
                out[(y * 2 * w + k) * c + i] =
                    (1 - v) *
                        ((1 - u) * in[(y0 * w + x0) * c + i] + u * in[(y0 * w + x1) * c + i]) +
                    v * ((1 - u) * in[(y1 * w + x0) * c + i] + u * in[(y1 * w + x1) * c + i]);
        }
    struct tensor y = pass_input(p, out, 4, TENSOR_DIM(1, 2 * h, 2 * w, c));
    free(in);
    free(out);
    return y;
}
