/* Each network by itself against the Python reference: tokens exactly, tensors to 1e-5 of the norm. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "diffusion/text/chunks.h"
#include "diffusion/text/clip_text.h"
#include "diffusion/text/vocab.h"
#include "tensor/safetensors.h"
#include "tests/golden/golden.h"

#define RELATIVE 1e-5
#define PROMPT "a (photo:1.4) of the red house near a river"

static const char *data_folder;
static struct golden golden;
static struct safetensors stages;
static const char *const kinds[] = {"sd1", "sd2", "sd2v", "sdxl", "inpaint"};

static const struct safetensors_entry *stage(const char *kind, const char *name)
{
    char full[64];
    snprintf(full, sizeof full, "%s.%s", kind, name);
    const struct safetensors_entry *e = safetensors_find(&stages, full);
    if (!e) fail_msg("%s is missing", full);
    return e;
}

static void agree(const char *kind, const char *name, const float *have)
{
    const struct safetensors_entry *e = stage(kind, name);
    size_t n = e->bytes / 4;
    double off = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        double want = dtype_get(e->data, e->dtype, (int64_t)i);
        off += (have[i] - want) * (have[i] - want);
        norm += want * want;
    }
    double relative = sqrt(off / norm);
    printf("%s.%s: %.2g\n", kind, name, relative);
    if (!(relative <= RELATIVE))
        fail_msg("%s.%s differs by %.3g of its norm", kind, name, relative);
}

static struct model *model_of(const char *kind)
{
    json_t *c = json_pack("{s:s}", "model", kind);
    struct model *m = golden_model(&golden, c);
    json_decref(c);
    return m;
}

static struct tensor input(struct pass *p, const struct safetensors_entry *e)
{
    float *copy = alloc_zero(e->bytes / 4, 4);
    memcpy(copy, e->data, e->bytes);
    struct tensor t = op_to_channels_last(p, pass_input(p, copy, e->rank, e->dim));
    free(copy);
    return t;
}

static void output(struct pass *p, const char *kind, const char *name, struct tensor t)
{
    float *host = alloc_zero((size_t)tensor_count(t), sizeof *host);
    pass_output(p, host, op_to_channels_first(p, t));
    struct error err;
    if (pass_finish(p, &err)) fail_msg("%s", err.text);
    agree(kind, name, host);
    free(host);
}

static void text_of(struct model *m, struct conditioning *c)
{
    struct error err;
    struct text_request r = {.prompt = PROMPT, .rules = PROMPT_HORDE};
    if (conditioning_encode(c, &m->text, &r, m->memory, DTYPE_F32, &err)) fail_msg("%s", err.text);
}

static void conditioning_agrees(void **state)
{
    for (size_t i = 0; i < COUNT_OF(kinds); i++) {
        struct conditioning c;
        text_of(model_of(kinds[i]), &c);
        agree(kinds[i], "context", c.context);
        if (c.pooled) agree(kinds[i], "pooled", c.pooled);
        conditioning_release(&c);
    }
}

static void one_network_call_agrees(void **state)
{
    static const double times[] = {981, 37};
    for (size_t i = 0; i < 2 * COUNT_OF(kinds); i++) {
        const char *kind = kinds[i / 2];
        struct model *m = model_of(kind);
        struct conditioning c;
        struct unet_context context;
        struct pass p;
        text_of(m, &c);
        pass_start(&p, m->memory, DTYPE_F32, NULL);
        struct tensor text = pass_input(&p, c.context, 3, TENSOR_DIM(1, c.rows, c.width)), v = {0};
        if (m->unet.config.vector) {
            float row[24 + 6 * 8];
            memcpy(row, c.pooled, 24 * sizeof *row);
            unet_sinusoid(row + 24, (double[]){64, 128, 0, 0, 64, 128}, 6, 8);
            v = pass_input(&p, row, 2, TENSOR_DIM(1, 72));
        }
        assert_int_equal(unet_context_init(&context, &p, &m->unet, text, v), 0);
        struct tensor x = input(&p, stage(kind, "unet_in"));
        x = unet_forward(&p, &m->unet, x, &times[i % 2], &context, NULL);
        output(&p, kind, i % 2 ? "unet_37" : "unet_981", x);
        unet_context_release(&context);
        conditioning_release(&c);
    }
}

static void vae_agrees(void **state)
{
    for (size_t i = 0; i < COUNT_OF(kinds); i++) {
        struct model *m = model_of(kinds[i]);
        struct pass p;
        pass_start(&p, m->memory, DTYPE_F32, NULL);
        output(&p, kinds[i], "vae_out",
               vae_decode(&p, &m->vae, input(&p, stage(kinds[i], "vae_in"))));
        pass_start(&p, m->memory, DTYPE_F32, NULL);
        output(&p, kinds[i], "vae_moments",
               vae_encode(&p, &m->vae, input(&p, stage(kinds[i], "vae_picture"))));
    }
}

/* In tiles: the same as whole where one tile is enough, close to it and without seams where not. Group
 * norms see a tile instead of the picture, which is what the difference is. */
static void tiles_agree_with_the_whole(void **state)
{
    struct model *m = model_of("sd1");
    enum { H = 40, W = 24 };
    size_t latents = 4 * H * W, pixels = 3 * 64 * H * W;
    float *z = alloc_zero(latents, sizeof *z), *back = alloc_zero(latents, sizeof *z);
    float *again = alloc_zero(latents, sizeof *z);
    float *whole = alloc_zero(pixels, sizeof *z), *tiled = alloc_zero(pixels, sizeof *z);
    for (int c = 0; c < 4; c++)
        for (int y = 0; y < H; y++)
            for (int x = 0; x < W; x++)
                z[(c * H + y) * W + x] = (float)(sin(0.9 * y + c) + cos(0.7 * x - c));
    static const int tiles[] = {0, 31, 16};
    for (int i = 0; i < 3; i++) {
        struct error err;
        double off = 0, norm = 0;
        if (vae_decode_picture(&m->vae, m->memory, DTYPE_F32, tiles[i], z, 1, H, W,
                               i ? tiled : whole, NULL, &err) ||
            vae_encode_picture(&m->vae, m->memory, DTYPE_F32, tiles[i], whole, 1, 8 * H, 8 * W,
                               i ? again : back, NULL, &err))
            fail_msg("%s", err.text);
        if (!i) continue;
        for (size_t k = 0; k < pixels; k++) {
            off += pow((double)(tiled[k] - whole[k]), 2);
            norm += pow((double)whole[k], 2);
        }
        double decoded = sqrt(off / norm);
        off = norm = 0;
        for (size_t k = 0; k < latents; k++) {
            off += pow((double)(again[k] - back[k]), 2);
            norm += pow((double)back[k], 2);
        }
        printf("tiles of %d: decoded %.3g, encoded %.3g\n", tiles[i], decoded, sqrt(off / norm));
        /* measured 0.093 and 0.167 with these random weights; a misplaced tile gives 1.4 */
        assert_true(decoded <= (tiles[i] == 31 ? 0 : 0.12));
        assert_true(sqrt(off / norm) <= (tiles[i] == 31 ? 0 : 0.2));
    }
    float *all[] = {z, back, again, whole, tiled};
    for (size_t i = 0; i < COUNT_OF(all); i++) free(all[i]);
}

/* chunks of one encoder against the ids of the reference */
static void check_tokens(struct model *m, const char *prompt, const json_t *chunks, int32_t pad,
                         int width)
{
    struct prompt parsed;
    struct chunks made;
    assert_int_equal(prompt_parse(&parsed, prompt, PROMPT_HORDE, NULL), 0);
    assert_int_equal(chunks_build(&made, &parsed, m->vocab, pad, width, NULL, 0, NULL), 0);
    assert_int_equal(made.count, json_array_size(chunks));
    for (size_t i = 0; i < json_array_size(chunks); i++)
        for (size_t k = 0; k < CHUNK_TOKENS; k++) {
            json_int_t want = json_integer_value(json_array_get(json_array_get(chunks, i), k));
            if (made.id[i * CHUNK_TOKENS + k] != want)
                fail_msg("%s: token %zu of chunk %zu is %d, not %lld", prompt, k, i,
                         made.id[i * CHUNK_TOKENS + k], (long long)want);
        }
    chunks_release(&made);
    prompt_release(&parsed);
}

static void tokens_are_exact(void **state)
{
    size_t i;
    const json_t *c;
    json_array_foreach(golden.cases, i, c)
    {
        if (json_object_get(c, "embeddings")) continue; /* words that mean vectors have no ids */
        struct model *m = golden_model(&golden, c);
        const json_t *tokens = json_object_get(c, "tokens");
        static const char *const sides[] = {"positive", "negative"};
        for (int s = 0; s < 2; s++) {
            const json_t *encoders = json_object_get(tokens, sides[s]);
            for (size_t k = 0; k < json_array_size(encoders); k++) {
                bool zero =
                    k == 1 || m->info.family == FAMILY_SD2_512 || m->info.family == FAMILY_SD2_768;
                check_tokens(m, golden_string(c, s ? "negative" : "prompt", ""),
                             json_array_get(encoders, k), zero ? 0 : vocab_end(m->vocab),
                             (int)m->encoders[k]->config.width);
            }
        }
    }
}

static void kinds_are_detected(void **state)
{
    static const enum family families[] = {FAMILY_SD1, FAMILY_SD2_512, FAMILY_SD2_768, FAMILY_SDXL,
                                           FAMILY_SD1};
    for (size_t i = 0; i < COUNT_OF(kinds); i++) {
        const struct model_info *info = model_info(model_of(kinds[i]));
        assert_int_equal(info->family, families[i]);
        assert_int_equal(info->v_prediction, strcmp(kinds[i], "sd2v") == 0);
        assert_int_equal(info->inpainting, strcmp(kinds[i], "inpaint") == 0);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kinds_are_detected),  cmocka_unit_test(tokens_are_exact),
        cmocka_unit_test(conditioning_agrees), cmocka_unit_test(one_network_call_agrees),
        cmocka_unit_test(vae_agrees),          cmocka_unit_test(tiles_agree_with_the_whole),
    };
    if (argc < 2) {
        fprintf(stderr, "usage: test_stages DATA\n");
        return 2;
    }
    data_folder = argv[1];
    golden_open(&golden, data_folder, PRECISION_FP32);
    struct error err;
    char *path = alloc_printf("%s/stages.safetensors", data_folder);
    if (safetensors_open(&stages, path, &err)) {
        fprintf(stderr, "%s\n", err.text);
        return 2;
    }
    free(path);
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    safetensors_close(&stages);
    golden_close(&golden);
    return rc;
}
