/*
 * Soft edges, and scribbles thinned from them. Source: Xie & Tu 2015 (holistically nested edges)
 * in the form that lllyasviel/ControlNet trained (ControlNetHED): five VGG blocks, each with an
 * edge of its own, their mean.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "diffusion/control/annotator.h"
#include "diffusion/control/map.h"

#define BLOCKS 5
#define CONVS_MAX 4
/* cv2's Gaussian sums to a little more than 1: a plain of 127 is above 127 after it */
#define NEARLY_127 126.999f

struct hed {
    struct weight mean; /* [3] */
    struct conv_norm conv[BLOCKS][CONVS_MAX], edge[BLOCKS];
    int convs[BLOCKS];
    int64_t in[BLOCKS][CONVS_MAX], out[BLOCKS];
};

static int detect(struct hed *m, const struct annotator *a, struct error *err)
{
    char name[64];
    int64_t before = 3;
    for (int b = 0; b < BLOCKS; b++) {
        snprintf(name, sizeof name, "block%d.convs.0.weight", b + 1);
        m->out[b] = annotator_dim(a, name, 0);
        if (m->out[b] < 1 || m->out[b] > 4096)
            return error_set(err, ERR_FORMAT, "%s holds no HED network",
                             weight_store_path(a->store));
        for (int c = 0; c < CONVS_MAX; c++) {
            snprintf(name, sizeof name, "block%d.convs.%d.weight", b + 1, c);
            if (!annotator_dim(a, name, 0)) break;
            m->in[b][m->convs[b]++] = before;
            before = m->out[b];
        }
    }
    return 0;
}

static void visit(struct weight_visitor *v, void *net)
{
    struct hed *m = net;
    char name[64];
    visit_weight(v, &m->mean, "norm", "norm", 4, TENSOR_DIM(1, 3, 1, 1));
    for (int b = 0; b < BLOCKS; b++) {
        for (int c = 0; c < m->convs[b]; c++) {
            snprintf(name, sizeof name, "block%d.convs.%d", b + 1, c);
            visit_conv_norm(v, &m->conv[b][c], name, NULL, 0, m->out[b], m->in[b][c], 3, true);
        }
        snprintf(name, sizeof name, "block%d.projection", b + 1);
        visit_conv_norm(v, &m->edge[b], name, NULL, 0, 1, m->out[b], 1, true);
    }
}

/* The edges of every block, [h >> b, w >> b] each, one after the other. */
static void forward(struct pass *p, struct hed *m, struct tensor x, float *edges)
{
    for (int b = 0; b < BLOCKS; b++) {
        if (b) x = op_max_pool(p, x, 2, 2, 0, false);
        for (int c = 0; c < m->convs[b]; c++)
            x = conv_norm_run(p, &m->conv[b][c], x, 1, 1, ACT_RELU);
        struct tensor edge = conv_norm_run(p, &m->edge[b], x, 1, 1, ACT_NONE);
        pass_output(p, edges, edge);
        edges += tensor_count(edge);
    }
}

static int run(struct annotator *a, struct hed *m, float *sum, const struct pixels *from,
               struct error *err)
{
    int w = from->width, h = from->height;
    size_t n = (size_t)w * (size_t)h;
    float *rgb = alloc_try(n * 3, sizeof *rgb), *edges = alloc_zero(2 * n, sizeof *edges);
    float *sized = alloc_try(n, sizeof *sized);
    int rc = rgb && sized ? 0 : error_set(err, ERR_NO_MEMORY, "no memory for edges");
    for (size_t i = 0; !rc && i < n * 3; i++)
        rgb[i] = (float)(from->data[i] - dtype_get(m->mean.k.data, m->mean.k.dtype, i % 3));
    if (!rc) {
        struct pass p;
        pass_start(&p, &a->memory, DTYPE_F32, NULL);
        forward(&p, m, pass_input(&p, rgb, 4, TENSOR_DIM(1, h, w, 3)), edges);
        rc = pass_finish(&p, err);
    }
    const float *edge = edges;
    for (int b = 0; !rc && b < BLOCKS; edge += (w >> b) * (h >> b), b++) {
        plane_resize(sized, w, h, edge, w >> b, h >> b);
        for (size_t i = 0; i < n; i++) sum[i] += sized[i];
    }
    free(rgb);
    free(edges);
    free(sized);
    return rc;
}

/* grey [h,w]: the mean edge through the logistic, in bytes. safe: in three levels only, as the
 * Horde's worker has it (comfyui_controlnet_aux's default: no picture hides in soft edges). */
static int edges_of(struct annotator *a, uint8_t **grey, const struct pixels *from, bool safe,
                    struct error *err)
{
    struct hed m = {0};
    size_t n = (size_t)from->width * (size_t)from->height;
    float *sum = alloc_zero(n, sizeof *sum);
    uint8_t *made = alloc_zero(n, 1);
    int rc = detect(&m, a, err);
    if (!rc && (from->width < 16 || from->height < 16))
        rc = error_set(err, ERR_INVALID, "HED looks at no picture below 16x16");
    if (!rc) rc = annotator_load(a, visit, &m, "the HED network", err);
    if (!rc) rc = run(a, &m, sum, from, err);
    for (size_t i = 0; !rc && i < n; i++) {
        double edge = 1 / (1 + exp(-(double)sum[i] / BLOCKS));
        if (safe) edge = (int)((float)edge * 3) / 2.0;
        made[i] = (uint8_t)fmin(fmax(255 * edge, 0), 255);
    }
    for (int b = 0; b < BLOCKS; b++) {
        conv_norm_release(&m.edge[b], a->device);
        for (int c = 0; c < CONVS_MAX; c++) conv_norm_release(&m.conv[b][c], a->device);
    }
    free(sum);
    if (rc)
        free(made);
    else
        *grey = made;
    return rc;
}

static int draw_edges(struct annotator *a, struct pixels *to, const struct pixels *from, bool safe,
                      struct error *err)
{
    uint8_t *grey;
    int rc = edges_of(a, &grey, from, safe, err);
    if (rc) return rc;
    rc = map_from_bytes(to, from, grey, err);
    free(grey);
    return rc;
}

int annotate_hed(struct annotator *a, struct pixels *to, const struct pixels *from,
                 struct error *err)
{
    return draw_edges(a, to, from, true, err);
}

int annotate_softedge(struct annotator *a, struct pixels *to, const struct pixels *from,
                      struct error *err)
{
    return draw_edges(a, to, from, false, err);
}

/* Whether x[at] is the largest of itself and its two neighbours along one direction at least. */
static bool is_ridge(const float *x, int w, int h, int column, int row)
{
    static const int way[4][2] = {{1, 0}, {0, 1}, {1, 1}, {1, -1}};
    float here = x[row * w + column];
    for (int i = 0; i < 4; i++) {
        bool most = true;
        for (int side = -1; side <= 1; side += 2) {
            int cx = column + side * way[i][0], cy = row + side * way[i][1];
            if (cx < 0 || cy < 0 || cx >= w || cy >= h) continue;
            most = most && x[cy * w + cx] <= here;
        }
        if (most) return true;
    }
    return false;
}

int annotate_fakescribbles(struct annotator *a, struct pixels *to, const struct pixels *from,
                           struct error *err)
{
    int w = from->width, h = from->height, n = w * h;
    uint8_t *grey;
    int rc = edges_of(a, &grey, from, true, err);
    if (rc) return rc;
    float *x = alloc_zero((size_t)n, sizeof *x);
    for (int i = 0; i < n; i++) x[i] = grey[i];
    if (!map_blur(x, w, h, 1, 3, 4)) rc = error_set(err, ERR_NO_MEMORY, "no memory for scribbles");
    for (int i = 0; i < n; i++)
        grey[i] = x[i] > NEARLY_127 && is_ridge(x, w, h, i % w, i / w) ? 255 : 0;
    for (int i = 0; i < n; i++) x[i] = grey[i];
    if (!rc && !map_blur(x, w, h, 1, 3, 3))
        rc = error_set(err, ERR_NO_MEMORY, "no memory for scribbles");
    for (int i = 0; i < n; i++) grey[i] = lrintf(x[i]) > 4 ? 255 : 0;
    if (!rc) rc = map_from_bytes(to, from, grey, err);
    free(x);
    free(grey);
    return rc;
}
