/* engine_equal.c - may two requests be drawn by one run? */
#include <string.h>

#include "base/str.h"
#include "proto/engine_msg.h"

static bool seed_only_makes_noise(const struct engine_generate *g)
{
    const struct image_request *r = &g->request;
    return !strchr(r->prompt, '{') && !strchr(r->negative, '{') &&
           r->sampler != SAMPLER_K_DPM_ADAPTIVE && !r->return_control_map;
}

/* What differs between any two is cheap to see; the rest is judged below. */
static bool may_be_equal(const struct image_request *a, const struct image_request *b)
{
    return a->width_px == b->width_px && a->height_px == b->height_px && a->steps == b->steps &&
           a->count == b->count && a->sampler == b->sampler && str_equal(a->model, b->model) &&
           str_equal(a->prompt, b->prompt) && a->source.length == b->source.length;
}

/* Equal is what looks equal on the pipe: no field can be forgotten here. */
static int encode_without_seed(const struct engine_msg *m, struct buf *out)
{
    struct engine_msg same = *m; /* borrows everything */
    same.job_id[0] = 0;
    same.generate.request.seed = 0;
    same.generate.deadline_seconds = 0;
    buf_init(out, FRAME_ENGINE_MAX + FRAME_HEAD_BYTES);
    return engine_msg_encode(&same, out, NULL);
}

bool engine_msg_equal_but_seed(const struct engine_msg *a, const struct engine_msg *b)
{
    if (a->kind != ENGINE_GENERATE || b->kind != ENGINE_GENERATE) return false;
    if (!seed_only_makes_noise(&a->generate) ||
        !may_be_equal(&a->generate.request, &b->generate.request))
        return false;
    struct buf x, y;
    int rc = encode_without_seed(a, &x);
    rc = encode_without_seed(b, &y) || rc;
    bool equal = !rc && x.length == y.length && memcmp(x.data, y.data, x.length) == 0;
    buf_release(&x);
    buf_release(&y);
    return equal;
}
