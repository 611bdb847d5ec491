#include "diffusion/control/body_pose.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

#define LIMBS 19
#define LIMBS_OF_A_BODY 17 /* the others only join what is there */
#define PEAKS_MAX 1024     /* of one joint: more is noise */
#define LEAST_HEAT 0.1
#define LEAST_FIELD 0.05
#define SAMPLES 10
#define RADIUS 12 /* four deviations of three pixels */

static const struct {
    int8_t from, to, field;
} limbs[LIMBS] = {
    {1, 2, 12},   {1, 5, 20},  {2, 3, 14},   {3, 4, 16},  {5, 6, 22},   {6, 7, 24}, {1, 8, 0},
    {8, 9, 2},    {9, 10, 4},  {1, 11, 6},   {11, 12, 8}, {12, 13, 10}, {1, 0, 28}, {0, 14, 30},
    {14, 16, 34}, {0, 15, 32}, {15, 17, 36}, {2, 16, 18}, {5, 17, 26},
};

struct connection {
    int from, to; /* peaks */
    double score;
    int order;
};

/* What one search works with. */
struct search {
    const struct pose_maps *maps;
    int width, height;
    float *small, *large, *cut; /* planes at the network's size and eight times that */
    float *plane[2];            /* at the picture's size */
    double *smooth, *half;      /* at the picture's size */
    struct poses *poses;
    int first[POSE_JOINTS + 1]; /* peak at which a joint's begin */
    int bodies_room;
};

/* Channel c of a map, at the picture's size. */
static bool enlarge(struct search *s, float *to, const float *map, int channels, int c)
{
    const struct pose_maps *m = s->maps;
    int w = m->columns * POSE_STRIDE, h = m->rows * POSE_STRIDE;
    for (int i = 0; i < m->columns * m->rows; i++) s->small[i] = map[i * channels + c];
    if (!plane_resample(s->large, w, h, s->small, m->columns, m->rows, PLANE_LANCZOS)) return false;
    for (int y = 0; y < m->height; y++)
        memcpy(s->cut + (size_t)y * (size_t)m->width, s->large + (size_t)y * (size_t)w,
               (size_t)m->width * sizeof *s->cut);
    bool shrink = s->width + s->height < m->width + m->height;
    return plane_resample(to, s->width, s->height, s->cut, m->width, m->height,
                          shrink ? PLANE_AREA : PLANE_LANCZOS);
}

static int mirrored(int i, int n)
{
    while (i < 0 || i >= n) i = i < 0 ? -1 - i : 2 * n - 1 - i;
    return i;
}

/* Gauss of three pixels along one axis; step: to the next along it, n of them, `lines` across. */
static void smooth_axis(double *to, const double *from, int n, int64_t step, int lines,
                        int64_t across)
{
    double weight[RADIUS + 1], sum = 0;
    for (int k = 0; k <= RADIUS; k++) sum += (k ? 2 : 1) * (weight[k] = exp(-k * k / 18.0));
    for (int k = 0; k <= RADIUS; k++) weight[k] /= sum;
    for (int i = 0; i < n; i++)
        for (int l = 0; l < lines; l++) {
            const double *line = from + l * across;
            double v = weight[0] * line[i * step];
            for (int k = 1; k <= RADIUS; k++) {
                int a = i - k, b = i + k;
                if (a < 0) a = mirrored(a, n);
                if (b >= n) b = mirrored(b, n);
                v += weight[k] * (line[a * step] + line[b * step]);
            }
            to[i * step + l * across] = v;
        }
}

static void smooth(struct search *s)
{
    int64_t n = (int64_t)s->width * s->height;
    for (int64_t i = 0; i < n; i++) s->smooth[i] = s->plane[0][i];
    smooth_axis(s->half, s->smooth, s->height, s->width, s->width, 1);
    smooth_axis(s->smooth, s->half, s->width, 1, s->height, s->width);
}

static bool is_peak(const struct search *s, int x, int y)
{
    const double *at = s->smooth + (int64_t)y * s->width + x;
    return *at > LEAST_HEAT && (x == 0 || *at >= at[-1]) && (x == s->width - 1 || *at >= at[1]) &&
           (y == 0 || *at >= at[-s->width]) && (y == s->height - 1 || *at >= at[s->width]);
}

static int find_peaks(struct search *s, int joint, struct error *err)
{
    struct poses *p = s->poses;
    if (!enlarge(s, s->plane[0], s->maps->heats, POSE_HEATS, joint))
        return error_set(err, ERR_NO_MEMORY, "no memory for poses");
    smooth(s);
    s->first[joint] = p->peak_count;
    for (int y = 0; y < s->height; y++)
        for (int x = 0; x < s->width; x++) {
            if (!is_peak(s, x, y)) continue;
            if (p->peak_count - s->first[joint] == PEAKS_MAX)
                return error_set(err, ERR_UNSUPPORTED,
                                 "the body network sees more than %d of one joint", PEAKS_MAX);
            p->peaks[p->peak_count++] =
                (struct pose_peak){x, y, s->plane[0][(int64_t)y * s->width + x]};
        }
    s->first[joint + 1] = p->peak_count;
    return 0;
}

/* How well the field between two peaks points from one to the other: equation 11 of the paper as a
 * mean of ten samples, less what is longer than half the picture. 0 or less: not at all. */
static double agreement(const struct search *s, const struct pose_peak *a,
                        const struct pose_peak *b)
{
    double dx = b->x - a->x, dy = b->y - a->y;
    double length = fmax(sqrt(dx * dx + dy * dy), 0.001), sum = 0;
    int good = 0;
    for (int i = 0; i < SAMPLES; i++) {
        bool last = i == SAMPLES - 1;
        int x = last ? b->x : (int)rint(a->x + i * (dx / (SAMPLES - 1)));
        int y = last ? b->y : (int)rint(a->y + i * (dy / (SAMPLES - 1)));
        int64_t at = (int64_t)y * s->width + x;
        double along = s->plane[0][at] * (dx / length) + s->plane[1][at] * (dy / length);
        sum += along;
        good += along > LEAST_FIELD;
    }
    if (good <= SAMPLES * 8 / 10) return 0;
    return sum / SAMPLES + fmin(0.5 * s->height / length - 1, 0);
}

static int by_score(const void *a, const void *b)
{
    const struct connection *x = a, *y = b;
    return x->score != y->score ? (x->score < y->score ? 1 : -1) : x->order - y->order;
}

/* The pairs of two joints, each peak in one at most, best first; count through *n. */
static int connect(struct search *s, int limb, struct connection **list, int *n, struct error *err)
{
    int a = limbs[limb].from, b = limbs[limb].to, count = 0, kept = 0;
    int as = s->first[a + 1] - s->first[a], bs = s->first[b + 1] - s->first[b];
    bool used[2][PEAKS_MAX] = {{false}};
    *list = NULL;
    *n = 0;
    if (!as || !bs) return 0;
    struct connection *made = alloc_try((size_t)as * (size_t)bs, sizeof *made);
    int field = limbs[limb].field;
    if (!made || !enlarge(s, s->plane[0], s->maps->fields, POSE_FIELDS, field) ||
        !enlarge(s, s->plane[1], s->maps->fields, POSE_FIELDS, field + 1)) {
        free(made);
        return error_set(err, ERR_NO_MEMORY, "no memory for poses");
    }
    const struct pose_peak *peaks = s->poses->peaks;
    for (int i = s->first[a]; i < s->first[a + 1]; i++)
        for (int k = s->first[b]; k < s->first[b + 1]; k++) {
            double score = agreement(s, &peaks[i], &peaks[k]);
            if (score > 0) {
                made[count] = (struct connection){i, k, score, count};
                count++;
            }
        }
    qsort(made, (size_t)count, sizeof *made, by_score);
    for (int i = 0; i < count; i++) {
        bool *one = &used[0][made[i].from - s->first[a]], *two = &used[1][made[i].to - s->first[b]];
        if (*one || *two) continue;
        *one = *two = true;
        made[kept++] = made[i];
    }
    *list = made;
    *n = kept;
    return 0;
}

static void put(struct search *s, struct body *body, int joint, const struct connection *c)
{
    body->joint[joint] = c->to;
    body->parts++;
    body->score += s->poses->peaks[c->to].score + c->score;
}

static bool apart(const struct body *a, const struct body *b)
{
    for (int i = 0; i < POSE_JOINTS; i++)
        if (a->joint[i] >= 0 && b->joint[i] >= 0) return false;
    return true;
}

static void merge(struct poses *p, struct body *a, struct body *b, double score)
{
    for (int i = 0; i < POSE_JOINTS; i++)
        if (b->joint[i] >= 0) a->joint[i] = b->joint[i];
    a->parts += b->parts;
    a->score += b->score + score;
    p->body_count--;
    memmove(b, b + 1, (size_t)(p->bodies + p->body_count - b) * sizeof *b);
}

static int begin(struct search *s, int limb, const struct connection *c, struct error *err)
{
    struct poses *p = s->poses;
    if (p->body_count == s->bodies_room) {
        int room = s->bodies_room * 2 + 16;
        struct body *more = alloc_try((size_t)room, sizeof *more);
        if (!more) return error_set(err, ERR_NO_MEMORY, "no memory for poses");
        if (p->bodies) memcpy(more, p->bodies, (size_t)p->body_count * sizeof *more);
        free(p->bodies);
        p->bodies = more;
        s->bodies_room = room;
    }
    struct body *body = &p->bodies[p->body_count++];
    for (int i = 0; i < POSE_JOINTS; i++) body->joint[i] = -1;
    body->joint[limbs[limb].from] = c->from;
    body->joint[limbs[limb].to] = c->to;
    body->parts = 2;
    body->score = p->peaks[c->from].score + p->peaks[c->to].score + c->score;
    return 0;
}

/* A connection goes to the body that has one of its ends, joins two bodies, or begins one. */
static int add(struct search *s, int limb, const struct connection *c, struct error *err)
{
    struct poses *p = s->poses;
    struct body *having[2];
    int found = 0, from = limbs[limb].from, to = limbs[limb].to;
    for (int i = 0; i < p->body_count && found < 2; i++)
        if (p->bodies[i].joint[from] == c->from || p->bodies[i].joint[to] == c->to)
            having[found++] = &p->bodies[i];
    if (!found) return limb < LIMBS_OF_A_BODY ? begin(s, limb, c, err) : 0;
    if (found == 2 && apart(having[0], having[1]))
        merge(p, having[0], having[1], c->score);
    else if (found == 2 || having[0]->joint[to] != c->to)
        put(s, having[0], to, c);
    return 0;
}

static void drop_fragments(struct poses *p)
{
    int kept = 0;
    for (int i = 0; i < p->body_count; i++) {
        const struct body *b = &p->bodies[i];
        if (b->parts >= 4 && !(b->score / b->parts < 0.4)) p->bodies[kept++] = *b;
    }
    p->body_count = kept;
}

static int search(struct search *s, struct error *err)
{
    int rc = 0;
    for (int j = 0; j < POSE_JOINTS && !rc; j++) rc = find_peaks(s, j, err);
    for (int l = 0; l < LIMBS && !rc; l++) {
        struct connection *list;
        int n;
        rc = connect(s, l, &list, &n, err);
        for (int i = 0; i < n && !rc; i++) rc = add(s, l, &list[i], err);
        free(list);
    }
    if (!rc) drop_fragments(s->poses);
    return rc;
}

int poses_find(struct poses *p, const struct pose_maps *maps, int width, int height,
               struct error *err)
{
    struct poses made = {0};
    struct search s = {.maps = maps, .width = width, .height = height, .poses = &made};
    size_t n = (size_t)width * (size_t)height, cells = (size_t)maps->columns * (size_t)maps->rows;
    size_t large = cells * POSE_STRIDE * POSE_STRIDE;
    s.small = alloc_try(cells, sizeof *s.small);
    s.large = alloc_try(large, sizeof *s.large);
    s.cut = alloc_try(large, sizeof *s.cut);
    for (int i = 0; i < 2; i++) s.plane[i] = alloc_try(n, sizeof *s.plane[i]);
    s.smooth = alloc_try(n, sizeof *s.smooth);
    s.half = alloc_try(n, sizeof *s.half);
    made.peaks = alloc_try(POSE_JOINTS * PEAKS_MAX, sizeof *made.peaks);
    bool ok =
        s.small && s.large && s.cut && s.plane[0] && s.plane[1] && s.smooth && s.half && made.peaks;
    int rc = ok ? search(&s, err) : error_set(err, ERR_NO_MEMORY, "no memory for poses");
    free(s.small);
    free(s.large);
    free(s.cut);
    for (int i = 0; i < 2; i++) free(s.plane[i]);
    free(s.smooth);
    free(s.half);
    if (rc)
        poses_release(&made);
    else
        *p = made;
    return rc;
}

void poses_release(struct poses *p)
{
    free(p->peaks);
    free(p->bodies);
    memset(p, 0, sizeof *p);
}
