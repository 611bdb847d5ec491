/*
 * People as dots and sticks: the network. Source: Cao et al. 2017 (realtime multi-person pose
 * estimation by part affinity fields): ten layers of VGG-19 and two more, then six stages of two
 * branches, each looking at the features and at the stage before. Names, sizes and the ReLU behind
 * the last heat maps as in the checkpoint of lllyasviel/ControlNet (body_pose_model.pth).
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "diffusion/control/body_pose.h"
#include "image/pixels.h"

#define FRONT 12
#define STAGES 6
#define BRANCHES 2 /* fields, heats */
#define CONVS_MAX 7
#define BOX_PX 368
#define PADDING 128

static const char *const front_names[FRONT] = {"conv1_1", "conv1_2", "conv2_1",     "conv2_2",
                                               "conv3_1", "conv3_2", "conv3_3",     "conv3_4",
                                               "conv4_1", "conv4_2", "conv4_3_CPM", "conv4_4_CPM"};
/* kernels of the first stage and of the others */
static const int first_kernels[] = {3, 3, 3, 1, 1}, later_kernels[] = {7, 7, 7, 7, 7, 1, 1};
static const int branch_out[BRANCHES] = {POSE_FIELDS, POSE_HEATS};

struct step {
    struct conv_norm conv;
    int64_t in, out;
};
struct body_net {
    bool nested; /* names begin with the module's, as torch's own state has them */
    struct step front[FRONT], stage[STAGES][BRANCHES][CONVS_MAX];
};

static int convs_of(int stage)
{
    return stage ? COUNT_OF(later_kernels) : COUNT_OF(first_kernels);
}

static void front_name(char *name, size_t room, const struct body_net *m, int i)
{
    snprintf(name, room, "%s%s", m->nested ? "model0." : "", front_names[i]);
}

static void stage_name(char *name, size_t room, const struct body_net *m, int s, int b, int i)
{
    char module[32] = "";
    if (m->nested) snprintf(module, sizeof module, "model%d_%d.", s + 1, b + 1);
    if (s)
        snprintf(name, room, "%sMconv%d_stage%d_L%d", module, i + 1, s + 1, b + 1);
    else
        snprintf(name, room, "%sconv5_%d_CPM_L%d", module, i + 1, b + 1);
}

/* Outputs of one convolution, 0 where there is none of a sane width. */
static int64_t width_of(const struct annotator *a, const char *name)
{
    char weight[80];
    snprintf(weight, sizeof weight, "%s.weight", name);
    int64_t out = annotator_dim(a, weight, 0);
    return out > 0 && out <= 4096 ? out : 0;
}

static int detect(struct body_net *m, const struct annotator *a, struct error *err)
{
    char name[64];
    int64_t before = 3;
    bool ok = true;
    m->nested = annotator_dim(a, "model0.conv1_1.weight", 0) > 0;
    for (int i = 0; i < FRONT; i++) {
        front_name(name, sizeof name, m, i);
        m->front[i].in = before;
        before = m->front[i].out = width_of(a, name);
        ok = ok && before;
    }
    for (int s = 0; s < STAGES; s++)
        for (int b = 0; b < BRANCHES; b++) {
            before = m->front[FRONT - 1].out + (s ? POSE_FIELDS + POSE_HEATS : 0);
            for (int i = 0; i < convs_of(s); i++) {
                struct step *c = &m->stage[s][b][i];
                stage_name(name, sizeof name, m, s, b, i);
                c->in = before;
                before = c->out = width_of(a, name);
                ok = ok && before;
            }
            ok = ok && before == branch_out[b];
        }
    if (ok) return 0;
    return error_set(err, ERR_FORMAT, "%s holds no body network", weight_store_path(a->store));
}

static void visit(struct weight_visitor *v, void *net)
{
    struct body_net *m = net;
    char name[64];
    for (int i = 0; i < FRONT; i++) {
        struct step *c = &m->front[i];
        front_name(name, sizeof name, m, i);
        visit_conv_norm(v, &c->conv, name, NULL, 0, c->out, c->in, 3, true);
    }
    for (int s = 0; s < STAGES; s++)
        for (int b = 0; b < BRANCHES; b++)
            for (int i = 0; i < convs_of(s); i++) {
                struct step *c = &m->stage[s][b][i];
                int kernel = s ? later_kernels[i] : first_kernels[i];
                stage_name(name, sizeof name, m, s, b, i);
                visit_conv_norm(v, &c->conv, name, NULL, 0, c->out, c->in, kernel, true);
            }
}

static void release(struct body_net *m, struct device *d)
{
    for (int i = 0; i < FRONT; i++) conv_norm_release(&m->front[i].conv, d);
    for (int s = 0; s < STAGES; s++)
        for (int b = 0; b < BRANCHES; b++)
            for (int i = 0; i < CONVS_MAX; i++) conv_norm_release(&m->stage[s][b][i].conv, d);
}

static void forward(struct pass *p, struct body_net *m, struct tensor x, struct tensor *out)
{
    for (int i = 0; i < FRONT; i++) {
        x = conv_norm_run(p, &m->front[i].conv, x, 1, 1, ACT_RELU);
        if (i == 1 || i == 3 || i == 7) x = op_max_pool(p, x, 2, 2, 0, false);
    }
    struct tensor seen = x;
    for (int s = 0; s < STAGES; s++) {
        if (s) seen = op_concat(p, op_concat(p, out[0], out[1]), x);
        for (int b = 0; b < BRANCHES; b++) {
            struct tensor h = seen;
            for (int i = 0; i < convs_of(s); i++) {
                /* the last heat maps: the published network has a ReLU there, and only there */
                bool last = i == convs_of(s) - 1 && !(s == STAGES - 1 && b == 1);
                h = conv_norm_run(p, &m->stage[s][b][i].conv, h, 1, 1, last ? ACT_NONE : ACT_RELU);
            }
            out[b] = h;
        }
    }
}

int pose_network(struct annotator *a, float *fields, float *heats, const float *in, int columns,
                 int rows, struct error *err)
{
    struct body_net *m = alloc_zero(1, sizeof *m);
    int rc = detect(m, a, err);
    if (!rc) rc = annotator_load(a, visit, m, "the body network", err);
    if (!rc) {
        struct pass p;
        struct tensor out[BRANCHES];
        pass_start(&p, &a->memory, DTYPE_F32, NULL);
        forward(&p, m, pass_input(&p, in, 4, TENSOR_DIM(1, rows, columns, 3)), out);
        pass_output(&p, fields, out[0]);
        pass_output(&p, heats, out[1]);
        rc = pass_finish(&p, err);
    }
    release(m, a->device);
    free(m);
    return rc;
}

static int padded(int n)
{
    return (n + POSE_STRIDE - 1) / POSE_STRIDE * POSE_STRIDE;
}

float *pose_input(const struct pixels *from, int *columns, int *rows, int *width, int *height)
{
    /* rounded down in this order, as the reference does: 183 rows happen */
    double scale = 0.5 * BOX_PX / from->height;
    int w = (int)fmax(from->width * scale, 1), h = (int)(from->height * scale);
    int pw = padded(w), ph = padded(h);
    size_t n = (size_t)from->width * (size_t)from->height;
    float *in = alloc_try((size_t)pw * (size_t)ph * 3, sizeof *in);
    float *plane = alloc_try(n, sizeof *plane);
    float *sized = alloc_try((size_t)w * (size_t)h, sizeof *sized);
    bool ok = in && plane && sized;
    for (int c = 0; ok && c < 3; c++) {
        for (size_t i = 0; i < n; i++) plane[i] = from->data[i * 3 + (size_t)(2 - c)];
        ok = plane_resample(sized, w, h, plane, from->width, from->height,
                            scale < 1 ? PLANE_AREA : PLANE_LANCZOS);
        for (int i = 0; ok && i < pw * ph; i++) {
            int x = i % pw, y = i / pw;
            float v = x < w && y < h ? fminf(fmaxf(rintf(sized[y * w + x]), 0), 255) : PADDING;
            in[(size_t)i * 3 + (size_t)c] = v / 256 - 0.5f;
        }
    }
    free(plane);
    free(sized);
    if (!ok) {
        free(in);
        return NULL;
    }
    *columns = pw;
    *rows = ph;
    *width = w;
    *height = h;
    return in;
}

int annotate_openpose(struct annotator *a, struct pixels *to, const struct pixels *from,
                      struct error *err)
{
    struct pose_maps maps = {0};
    struct poses poses = {0};
    int columns, rows;
    float *in = pose_input(from, &columns, &rows, &maps.width, &maps.height);
    if (!in) return error_set(err, ERR_NO_MEMORY, "no memory for poses");
    maps.columns = columns / POSE_STRIDE;
    maps.rows = rows / POSE_STRIDE;
    size_t cells = (size_t)maps.columns * (size_t)maps.rows;
    maps.fields = alloc_zero(cells * POSE_FIELDS, sizeof *maps.fields);
    maps.heats = alloc_zero(cells * POSE_HEATS, sizeof *maps.heats);
    int rc = pose_network(a, maps.fields, maps.heats, in, columns, rows, err);
    free(in);
    if (!rc) rc = poses_find(&poses, &maps, from->width, from->height, err);
    if (!rc) rc = poses_draw(to, &poses, from->width, from->height, err);
    poses_release(&poses);
    free(maps.fields);
    free(maps.heats);
    return rc;
}
