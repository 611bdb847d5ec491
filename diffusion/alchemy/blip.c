#include "diffusion/alchemy/blip.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

static const double VISION_EPS = 1e-5, TEXT_EPS = 1e-12;

struct tensor blip_look(struct pass *p, struct blip *m, struct tensor x)
{
    const struct blip_config *c = &m->config;
    struct tensor rows = layer_linear(p, &m->patch, x, NULL); /* [1,G,D] */
    struct tensor h = op_concat_rows(p, op_weight(p, &m->class_row), rows);
    h = op_mix(p, 1, h, 1, op_weight(p, &m->position));
    for (int i = 0; i < c->vision_layers; i++) h = clip_layer_forward(p, &m->vision[i], h);
    return norm_layer(p, &m->vision_norm, h, VISION_EPS);
}

/* ---- writing ---- */

/* Floats of one layer's keys (or values) of the past. */
static size_t part_floats(const struct blip_writing *w, int rows, int length)
{
    return (size_t)rows * (size_t)length * (size_t)w->model->config.text_width;
}

int blip_start(struct blip_writing *w, struct blip *m, struct pass_memory *memory, enum dtype dtype,
               const float *patches, struct error *err)
{
    const struct blip_config *c = &m->config;
    int64_t values = 3 * c->patch * c->patch, cells = c->grid * c->grid;
    *w = (struct blip_writing){.model = m, .dtype = dtype};
    w->keys = alloc_zero((size_t)c->text_layers, sizeof *w->keys);
    w->values = alloc_zero((size_t)c->text_layers, sizeof *w->values);
    struct pass *p = &w->pass;
    pass_start(p, memory, dtype, NULL);
    for (int i = 0; i < c->text_layers; i++) { /* they outlive the look at the picture */
        int64_t dim[] = {1, 1 + cells, c->text_width};
        w->keys[i] = pass_tensor(p, dtype, 3, dim);
        w->values[i] = pass_tensor(p, dtype, 3, dim);
    }
    size_t mark = pass_open_scope(p);
    struct tensor seen = blip_look(p, m, pass_input(p, patches, 3, TENSOR_DIM(1, cells, values)));
    for (int i = 0; i < c->text_layers; i++) {
        layer_linear_into(p, &m->text[i].cross.k, &w->keys[i], seen, NULL);
        layer_linear_into(p, &m->text[i].cross.v, &w->values[i], seen, NULL);
    }
    pass_close_scope(p, mark);
    if (pass_ok(p)) return 0;
    int rc = pass_finish(p, err);
    free(w->keys);
    free(w->values);
    *w = (struct blip_writing){0};
    return rc;
}

void blip_stop(struct blip_writing *w)
{
    if (!w->model) return;
    pass_finish(&w->pass, NULL);
    free(w->keys);
    free(w->values);
    free(w->past);
    free(w->next);
    *w = (struct blip_writing){0};
}

/* One layer's keys or values of the rows that go on: the past of each row's parent, and room behind. */
static void take_past(struct blip_writing *w, int part, const int *parent, int count)
{
    size_t width = (size_t)w->model->config.text_width, old = (size_t)w->length * width;
    const float *from = w->past + (size_t)part * part_floats(w, w->rows, w->length);
    float *to = w->next + (size_t)part * part_floats(w, count, w->length + 1);
    for (int i = 0; i < count; i++)
        if (old)
            memcpy(to + (size_t)i * (old + width), from + (size_t)parent[i] * old,
                   old * sizeof *to);
}

static void put_new(struct blip_writing *w, int part, const float *row, int count)
{
    size_t width = (size_t)w->model->config.text_width, old = (size_t)w->length * width;
    float *to = w->next + (size_t)part * part_floats(w, count, w->length + 1);
    for (int i = 0; i < count; i++)
        memcpy(to + (size_t)i * (old + width) + old, row + (size_t)i * width, width * sizeof *to);
}

/* Keys or values up to now: what this layer makes of x is kept, then all of it goes to the device. */
static struct tensor remember(struct pass *p, struct blip_writing *w, int part, struct layer *m,
                              struct tensor x, const int *parent, float *row)
{
    int64_t count = x.dim[0], width = w->model->config.text_width;
    pass_output(p, row, layer_linear(p, m, x, NULL));
    take_past(w, part, parent, (int)count);
    if (pass_ok(p)) put_new(w, part, row, (int)count);
    const float *all = w->next + (size_t)part * part_floats(w, (int)count, w->length + 1);
    return pass_input(p, all, 3, TENSOR_DIM(count, w->length + 1, width));
}

/* LayerNorm(x + dense(attention)) */
static struct tensor after_attention(struct pass *p, struct blip_attention *a, struct tensor x,
                                     struct tensor seen)
{
    struct tensor sum = layer_linear(p, &a->out, seen, &(struct fuse){.add = x});
    return norm_layer(p, &a->norm, sum, TEXT_EPS);
}

/* x [count,1,D] */
static struct tensor run_layer(struct pass *p, struct blip_writing *w, int i, struct tensor x,
                               const int *parent, float *row)
{
    struct blip_layer *m = &w->model->text[i];
    int64_t heads = w->model->config.text_heads, count = x.dim[0], width = tensor_last(x);
    struct tensor k = remember(p, w, 2 * i, &m->self.k, x, parent, row);
    struct tensor v = remember(p, w, 2 * i + 1, &m->self.v, x, parent, row);
    struct tensor q = layer_linear(p, &m->self.q, x, NULL);
    struct tensor h = after_attention(p, &m->self, x, op_attention(p, q, k, v, heads, false));
    /* all rows look at one picture, so they are rows of one query */
    q = tensor_view_3d(layer_linear(p, &m->cross.q, h, NULL), 1, count, width);
    struct tensor seen = op_attention(p, q, w->keys[i], w->values[i], heads, false);
    h = after_attention(p, &m->cross, h, tensor_view_3d(seen, count, 1, width));
    struct tensor up = layer_linear(p, &m->up, h, &(struct fuse){.act = ACT_GELU});
    struct tensor sum = layer_linear(p, &m->down, up, &(struct fuse){.add = h});
    return norm_layer(p, &m->norm, sum, TEXT_EPS);
}

static int make_room(struct blip_writing *w, int count, float **row, struct error *err)
{
    const struct blip_config *c = &w->model->config;
    size_t floats = 2 * (size_t)c->text_layers * part_floats(w, count, w->length + 1);
    w->next = alloc_try(floats, sizeof *w->next);
    *row = alloc_try(part_floats(w, count, 1), sizeof **row);
    if (w->next && *row) return 0;
    free(*row);
    return error_set(err, ERR_NO_MEMORY, "no memory for %d texts of %d words", count, w->length);
}

int blip_step(void *context, float *logits, const int32_t *token, const int *parent, int count,
              struct error *err)
{
    struct blip_writing *w = context;
    struct blip *m = w->model;
    const struct blip_config *c = &m->config;
    float *row;
    if (count > BLIP_ROWS_MAX || w->length >= c->positions)
        return error_set(err, ERR_INVALID, "the captioner writes %lld words at most",
                         (long long)c->positions);
    int rc = make_room(w, count, &row, err);
    if (rc) return rc;
    struct pass p;
    pass_start(&p, w->pass.memory, w->dtype, NULL);
    struct tensor x = op_embedding(&p, &m->word, token, count, 1); /* [count,1,D] */
    x = op_mix(&p, 1, x, 1, op_embedding(&p, &m->place, &(int32_t){w->length}, 1, 1));
    x = norm_layer(&p, &m->text_norm, x, TEXT_EPS);
    for (int i = 0; i < c->text_layers; i++) x = run_layer(&p, w, i, x, parent, row);
    x = layer_linear(&p, &m->head, x, &(struct fuse){.act = ACT_GELU});
    x = norm_layer(&p, &m->head_norm, x, TEXT_EPS);
    pass_output(&p, logits, layer_linear(&p, &m->words, x, NULL)); /* [count,1,vocab] */
    rc = pass_finish(&p, err);
    free(row);
    free(w->past);
    w->past = w->next;
    w->next = NULL;
    w->rows = count;
    w->length++;
    return rc;
}
