#include "diffusion/text/clip_text.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "tensor/tape.h"

static const double EPS = 1e-5;

/* x [n,L,D]: x + attention(norm1 x), then + mlp(norm2 ...) */
struct tensor clip_layer_forward(struct pass *p, struct clip_layer *m, struct tensor x)
{
    struct tensor y = pass_tensor_like(p, x); /* outlives the scope */
    size_t mark = pass_open_scope(p);
    struct tensor h = norm_layer(p, &m->norm1, x, EPS);
    struct tensor q = layer_linear(p, &m->q, h, NULL);
    struct tensor k = layer_linear(p, &m->k, h, NULL);
    struct tensor v = layer_linear(p, &m->v, h, NULL);
    struct tensor a = op_attention(p, q, k, v, m->heads, m->causal);
    struct tensor mid = layer_linear(p, &m->out, a, &(struct fuse){.add = x});
    h = norm_layer(p, &m->norm2, mid, EPS);
    h = layer_linear(p, &m->up, h, &(struct fuse){.act = m->act}); /* [n,L,mlp] */
    layer_linear_into(p, &m->down, &y, h, &(struct fuse){.add = mid});
    pass_close_scope(p, mark);
    return y;
}

static struct tensor run_layer(struct pass *p, const void *context, const struct tensor *in,
                               int count)
{
    KILN_ASSERT(count == 1, "%d inputs", count);
    return clip_layer_forward(p, (struct clip_layer *)(uintptr_t)context, in[0]);
}

/* Rows of x where a vector stands become the vector: x * mask + vectors. */
static struct tensor put_vectors(struct pass *p, struct tensor x, const struct clip_input *in)
{
    int64_t rows = tensor_rows(x), width = tensor_last(x);
    float *mask = alloc_try((size_t)(rows * width), sizeof *mask);
    float *given = alloc_try((size_t)(rows * width), sizeof *given);
    if (!mask || !given) {
        pass_fail(p, ERR_NO_MEMORY, "embedding vectors", "no memory for %lld rows",
                  (long long)rows);
    } else {
        for (int64_t r = 0; r < rows; r++) {
            if (in->vector[r])
                memcpy(given + r * width, in->vector[r], (size_t)width * sizeof *given);
            for (int64_t i = 0; i < width; i++) mask[r * width + i] = in->vector[r] ? 0 : 1;
        }
        struct tensor keep = pass_input(p, mask, x.rank, x.dim);
        struct tensor add = pass_input(p, given, x.rank, x.dim);
        x = op_add(p, op_mul(p, x, keep), add);
    }
    free(mask);
    free(given);
    return x;
}

static bool has_vectors(const struct clip_input *in, int64_t count)
{
    for (int64_t i = 0; in->vector && i < count; i++)
        if (in->vector[i]) return true;
    return false;
}

/* states [n,L,D], normed -> [n,projection] (or [n,D] without a projection): the row of the end. */
static struct tensor pool(struct pass *p, struct clip_text *m, struct tensor states,
                          const struct clip_input *in)
{
    int64_t positions = m->config.positions, width = m->config.width;
    struct tensor pooled = {0};
    for (int64_t i = 0; i < in->n; i++) {
        int64_t at = 0;
        while (at < positions - 1 && in->id[i * positions + at] != in->end_id) at++;
        struct tensor one = op_slice_batch(p, states, i, 1);
        struct tensor row = op_slice_rows(p, one, at, 1); /* [1,1,D] */
        row = tensor_view(row, 2, TENSOR_DIM(1, width));
        pooled = i ? op_concat_batch(p, pooled, row) : row; /* [i+1,D] */
    }
    return m->config.projection ? op_linear(p, pooled, &m->projection, NULL, NULL) : pooled;
}

struct clip_states clip_text_forward(struct pass *p, struct clip_text *m,
                                     const struct clip_input *in)
{
    const struct clip_text_config *c = &m->config;
    int skip = in->skip < 1 ? 1 : in->skip > c->layers ? c->layers : in->skip;
    bool pooled = in->end_id >= 0;
    int wanted = c->layers - skip + 1; /* layers before the context is taken */
    struct clip_states out = {0};

    struct tensor x = op_embedding(p, &m->token, in->id, in->n, c->positions);
    if (has_vectors(in, in->n * c->positions)) x = put_vectors(p, x, in);
    x = op_mix(p, 1, x, 1, op_weight(p, &m->position));
    for (int i = 0; i < (pooled ? c->layers : wanted); i++) {
        x = tape_checkpoint(p, run_layer, &m->layers[i], &x, 1);
        if (i + 1 == wanted) out.context = x;
    }
    struct tensor normed = {0};
    if (pooled || (in->final_norm && skip == 1)) normed = norm_layer(p, &m->final_norm, x, EPS);
    if (in->final_norm)
        out.context = skip == 1 ? normed : norm_layer(p, &m->final_norm, out.context, EPS);
    if (pooled) out.pooled = pool(p, m, normed, in);
    return out;
}
