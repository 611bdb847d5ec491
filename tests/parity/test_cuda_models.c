/*
 * Models on the emulated GPU: what comes when it is first used, what a second thread brought, and what
 * was fetched at once are the same bytes in the same form; closing one leaves the recordings and the
 * memory of the other alone.
 *
 * usage: test_cuda_models MODEL      KILN_CUDA_PLUGIN names the emulated plug-in.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "diffusion/model.h"
#include "diffusion/text/clip_text.h"
#include "kernels/cuda/cuda.h"
#include "kernels/weight_pool.h"

static int failed;

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            printf("%s:%d: %s\n", __FILE__, __LINE__, #condition);                                 \
            failed++;                                                                              \
        }                                                                                          \
    } while (0)

static void must(int rc, const struct error *err)
{
    if (!rc) return;
    printf("%s\n", err->text);
    exit(1);
}

/* ---- all weights of a model in one list ---- */

struct list {
    struct weight *w[4096];
    int count;
};

static int collect(struct weight_visitor *v, struct weight *w, const struct weight_site *site,
                   struct error *err)
{
    struct list *l = v->context;
    if (weight_present(w)) l->w[l->count++] = w;
    return 0;
}

static void list_of(struct list *l, struct model *m)
{
    struct weight_visitor v = {.visit = collect, .context = l};
    l->count = 0;
    for (int i = 0; i < m->text.encoders; i++) clip_text_visit(&v, m->text.encoder[i]);
    unet_visit(&v, &m->unet);
    vae_visit(&v, &m->vae);
}

static void *packed_bytes(struct device *d, const struct weight *w, size_t *bytes)
{
    struct error err;
    const struct cuda_weight *p = w->k.packed;
    const void *from = w->k.rank < 2 ? w->k.packed : p->data;
    *bytes = (size_t)weight_count(w) * dtype_bytes(w->k.rank < 2 ? w->k.dtype : p->dtype);
    void *copy = alloc_zero(*bytes, 1);
    must(d->kernels->download(d, copy, from, *bytes, &err), &err);
    return copy;
}

static void same_weights(struct device *d, struct model *a, struct model *b)
{
    static struct list of[2];
    list_of(&of[0], a);
    list_of(&of[1], b);
    CHECK(of[0].count == of[1].count && of[0].count > 100);
    int different = 0, absent = 0, gated = 0;
    for (int i = 0; i < of[0].count; i++) {
        size_t bytes[2];
        if (!of[0].w[i]->k.packed || !of[1].w[i]->k.packed) {
            absent++;
            continue;
        }
        gated += of[0].w[i]->k.gated;
        void *one = packed_bytes(d, of[0].w[i], &bytes[0]),
             *two = packed_bytes(d, of[1].w[i], &bytes[1]);
        different += bytes[0] != bytes[1] || memcmp(one, two, bytes[0]) != 0;
        free(one);
        free(two);
    }
    CHECK(!different && !absent && gated);
    printf("%d weights, %d of them gated\n", of[0].count, gated);
}

/* ---- beside the work ---- */

struct beside {
    struct device *first, *twin;
    const char *path;
    struct model *model;
    struct error err;
    int rc;
};

static void *load(void *context)
{
    struct beside *b = context;
    b->rc = device_twin(b->first, &b->twin, &b->err);
    if (!b->rc) b->rc = model_open(&b->model, b->twin, b->path, NULL, PRECISION_AUTO, &b->err);
    if (!b->rc) b->rc = model_fetch(b->model, &b->err);
    return NULL;
}

static void encode(struct model *m, struct conditioning *c)
{
    struct error err;
    struct text_request t = {.prompt = "a photo of the red house"};
    memset(c, 0, sizeof *c);
    must(conditioning_encode(c, &m->text, &t, m->memory, m->dtype, &err), &err);
}

static size_t free_bytes(struct device *d)
{
    size_t left = 0;
    CHECK(d->free_bytes(d, &left, NULL) == 0);
    return left;
}

int main(int argc, char **argv)
{
    struct device *d;
    struct error err = {0};
    struct conditioning lazy, fetched;
    if (argc != 2) return 2;
    must(device_open(&d, "cuda", &err), &err);
    const struct cuda_sending *sending = &cuda_state(d)->sending;

    struct model *first;
    must(model_open(&first, d, argv[1], NULL, PRECISION_AUTO, &err), &err);
    CHECK(sending->bytes == 0); /* nothing is uploaded before it is used */
    CHECK(weight_pool_used(first->pool) == 0 && weight_pool_bytes(first->pool) > 0);
    size_t reserved = weight_pool_bytes(first->pool);
    encode(first, &lazy);
    uint64_t text_bytes = sending->bytes;
    CHECK(text_bytes > 0);

    struct beside b = {.first = d, .path = argv[1]};
    pthread_t thread;
    size_t before = free_bytes(d);
    CHECK(pthread_create(&thread, NULL, load, &b) == 0);
    must(model_fetch(first, &err), &err);
    pthread_join(thread, NULL);
    must(b.rc, &b.err);
    model_move(b.model, d);
    device_close(b.twin);
    CHECK(sending->bytes > text_bytes);
    CHECK(weight_pool_bytes(first->pool) == reserved && weight_pool_used(first->pool) == reserved);
    same_weights(d, first, b.model);
    encode(b.model, &fetched);
    CHECK(lazy.rows == fetched.rows && lazy.width == fetched.width);
    CHECK(memcmp(lazy.context, fetched.context,
                 (size_t)(lazy.rows * lazy.width) * sizeof *lazy.context) == 0);
    CHECK(first->memory == b.model->memory); /* one arena */

    uint64_t moves = d->moves, sent = sending->bytes;
    model_close(b.model);
    CHECK(d->moves == moves); /* what the first one recorded is still good */
    CHECK(free_bytes(d) + 2 * LANDING_BYTES >= before); /* landing places came meanwhile */
    conditioning_release(&fetched);
    encode(first, &fetched);
    CHECK(memcmp(lazy.context, fetched.context,
                 (size_t)(lazy.rows * lazy.width) * sizeof *lazy.context) == 0);
    CHECK(sending->bytes == sent);
    conditioning_release(&lazy);
    conditioning_release(&fetched);
    model_close(first);
    CHECK(!d->shared[PASS_STEPS] && !d->shared[PASS_CONTEXT]);
    device_close(d);
    if (!failed) printf("ok\n");
    return failed > 0;
}
