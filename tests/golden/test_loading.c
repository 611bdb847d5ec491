/* The same weights by every way in: other element types, shards, a VAE of its own, a tiny decoder. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "diffusion/weight_store.h"
#include "tensor/safetensors.h"
#include "tests/golden/golden.h"

static struct golden golden;
static const char *data;
static char *folder; /* absolute data folder, for links */
static char scratch[64];

static char *under(const char *name)
{
    return alloc_printf("%s/%s", scratch, name);
}

/* One small picture; released by the caller. */
static void draw(struct model *m, struct pixels *picture)
{
    struct image_request r;
    struct pipeline_result result = {0};
    struct error err;
    image_request_init(&r);
    free(r.prompt);
    r.prompt = alloc_string("a photo of the red house near a river");
    r.width_px = r.height_px = 64;
    r.steps = 4;
    r.cfg = 3;
    r.sampler = SAMPLER_K_EULER;
    r.seed = 5;
    if (pipeline_run(m, &r, NULL, &result, &err)) fail_msg("%s", err.text);
    *picture = result.images[0];
    result.images[0] = (struct pixels){0};
    pipeline_result_release(&result);
    image_request_release(&r);
}

static void draw_from(const char *path, const char *vae, struct pixels *picture)
{
    struct model *m;
    struct error err;
    if (model_open(&m, golden.device, path, vae, PRECISION_FP32, &err)) fail_msg("%s", err.text);
    draw(m, picture);
    model_close(m);
}

static double psnr(const struct pixels *a, const struct pixels *b)
{
    double squares = 0;
    size_t n = (size_t)a->width * (size_t)a->height * 3;
    for (size_t i = 0; i < n; i++) squares += pow((double)a->data[i] - b->data[i], 2);
    return squares == 0 ? 120 : 10 * log10(65025.0 * (double)n / squares);
}

static void reference(struct pixels *picture)
{
    char *path = alloc_printf("%s/models/sd1.safetensors", data);
    draw_from(path, NULL, picture);
    free(path);
}

/* Rounds a value to a type by trying its neighbours: there is no writer for 8-bit floats elsewhere. */
static uint8_t to_f8_e4m3(double value)
{
    int best = 0;
    for (int b = 0; b < 256; b++) {
        float at = f8_e4m3_to_f32((uint8_t)b), now = f8_e4m3_to_f32((uint8_t)best);
        if (isfinite(at) && fabs((double)at - value) < fabs((double)now - value)) best = b;
    }
    return (uint8_t)best;
}

/* The single file with its F16 tensors as `to`, one tensor moved to an odd address by a byte. */
static char *retyped(enum dtype to, const char *name)
{
    struct weight_store *s;
    struct error err;
    char *from = alloc_printf("%s/models/sd1.safetensors", data), *path = under(name);
    if (weight_store_open(&s, from, &err)) fail_msg("%s", err.text);
    size_t n = weight_store_count(s);
    struct safetensors_entry *e = alloc_zero(n + 1, sizeof *e);
    void **owned = alloc_zero(n + 1, sizeof *owned);
    uint8_t table[65536];
    for (int i = 0; to == DTYPE_F8_E4M3 && i < 65536; i++)
        table[i] = to_f8_e4m3((double)f16_to_f32((uint16_t)i));
    /* unaligned data: writers did not always pad */
    e[0] = (struct safetensors_entry){
        .name = "a", .dtype = DTYPE_U8, .rank = 1, .dim = {1}, .data = "x", .bytes = 1};
    for (size_t i = 0; i < n; i++) {
        e[i + 1] = *weight_store_at(s, i);
        struct safetensors_entry *t = &e[i + 1];
        if (t->dtype != DTYPE_F16) continue;
        int64_t count = (int64_t)(t->bytes / 2);
        uint8_t *copy = alloc_zero((size_t)count + 1, 8);
        for (int64_t k = 0; to == DTYPE_F8_E4M3 && k < count; k++) {
            uint16_t half;
            memcpy(&half, (const uint8_t *)t->data + 2 * k, 2);
            copy[k] = table[half];
        }
        if (to != DTYPE_F8_E4M3) dtype_convert(copy, to, t->data, DTYPE_F16, count);
        owned[i] = copy;
        t->data = copy;
        t->dtype = to;
        t->bytes = (size_t)count * dtype_bytes(to);
    }
    static const struct safetensors_meta meta[] = {
        {"kiln.norm_groups", "8"}, {"kiln.heads", "4"}, {"kiln.text_heads", "2"}};
    if (safetensors_write(path, e, n + 1, meta, 3, &err)) fail_msg("%s", err.text);
    for (size_t i = 0; i < n; i++) free(owned[i]);
    free(owned);
    free(e);
    free(from);
    weight_store_close(s);
    return path;
}

static void every_element_type_loads(void **state)
{
    static const struct {
        enum dtype dtype;
        double least;
    } cases[] = {{DTYPE_F32, 120}, {DTYPE_F64, 120}, {DTYPE_BF16, 25}, {DTYPE_F8_E4M3, 10}};
    struct pixels want, have;
    reference(&want);
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        char *path = retyped(cases[i].dtype, "retyped.safetensors");
        draw_from(path, NULL, &have);
        double db = psnr(&want, &have);
        printf("%s: %.1f dB\n", dtype_name(cases[i].dtype), db);
        assert_true(db >= cases[i].least);
        pixels_release(&have);
        unlink(path);
        free(path);
    }
    pixels_release(&want);
}

static void link_component(const char *to, const char *name)
{
    char *from = alloc_printf("%s/models/sd1/%s", folder, name),
         *link = alloc_printf("%s/%s", to, name);
    if (symlink(from, link)) fail_msg("linking %s", link);
    free(from);
    free(link);
}

static void shards_make_the_same_model(void **state)
{
    struct weight_store *s;
    struct error err;
    char *from = alloc_printf("%s/models/sd1/unet/diffusion_pytorch_model.safetensors", data);
    char *model = under("sharded"), *unet = under("sharded/unet");
    if (weight_store_open(&s, from, &err)) fail_msg("%s", err.text);
    mkdir(model, 0700);
    mkdir(unet, 0700);
    size_t n = weight_store_count(s), half = n / 2;
    struct safetensors_entry *e = alloc_zero(n, sizeof *e);
    struct buf index;
    buf_init(&index, 1u << 20);
    buf_append_string(&index, "{\"metadata\":{},\"weight_map\":{", NULL);
    for (size_t i = 0; i < n; i++) {
        e[i] = *weight_store_at(s, i);
        buf_printf(&index, NULL, "%s\"%s\":\"part-%d.safetensors\"", i ? "," : "", e[i].name,
                   i >= half);
    }
    buf_append_string(&index, "}}", NULL);
    for (int part = 0; part < 2; part++) {
        char *path = alloc_printf("%s/part-%d.safetensors", unet, part);
        if (safetensors_write(path, e + (part ? half : 0), part ? n - half : half, NULL, 0, &err))
            fail_msg("%s", err.text);
        free(path);
    }
    char *path = alloc_printf("%s/diffusion_pytorch_model.safetensors.index.json", unet);
    assert_int_equal(buf_write_file(&index, path, 0600, NULL), 0);
    free(path);
    path = alloc_printf("%s/unet/config.json", folder);
    char *link = alloc_printf("%s/config.json", unet);
    char *config = alloc_printf("%s/models/sd1/unet/config.json", folder);
    assert_int_equal(symlink(config, link), 0);
    link_component(model, "vae");
    link_component(model, "text_encoder");
    link_component(model, "scheduler");
    char *words = alloc_printf("%s/models/tokenizer", folder),
         *to = alloc_printf("%s/tokenizer", model);
    assert_int_equal(symlink(words, to), 0);

    struct pixels want, have;
    reference(&want);
    draw_from(model, NULL, &have);
    printf("sharded: %.1f dB\n", psnr(&want, &have));
    assert_true(psnr(&want, &have) == 120);
    pixels_release(&want);
    pixels_release(&have);
    buf_release(&index);
    weight_store_close(s);
    char *all[] = {path, link, config, words, to, from, model, unet};
    for (size_t i = 0; i < COUNT_OF(all); i++) free(all[i]);
    free(e);
}

static void a_vae_of_its_own_is_used(void **state)
{
    struct pixels own, same, other, tiny;
    char *model = alloc_printf("%s/models/sd1.safetensors", data);
    char *vae = alloc_printf("%s/models/sd1/vae", data);
    char *strange = alloc_printf("%s/models/inpaint/vae", data);
    char *taesd = alloc_printf("%s/../taesd/taesd_decoder.pth", data);
    reference(&own);
    draw_from(model, vae, &same);
    draw_from(model, strange, &other);
    draw_from(model, taesd, &tiny);
    assert_true(psnr(&own, &same) == 120);
    assert_true(psnr(&own, &other) < 40);
    assert_true(psnr(&own, &tiny) < 40);
    struct model *m;
    struct error err = {0};
    char *none = alloc_printf("%s/models/sd1/unet", data);
    assert_int_not_equal(model_open(&m, golden.device, model, none, PRECISION_FP32, &err), 0);
    assert_non_null(strstr(err.text, "holds no VAE"));
    pixels_release(&own);
    pixels_release(&same);
    pixels_release(&other);
    pixels_release(&tiny);
    char *all[] = {model, vae, strange, taesd, none};
    for (size_t i = 0; i < COUNT_OF(all); i++) free(all[i]);
}

/* A header with changed digits and names is refused with a sentence, or is another model that works. */
static void changed_headers_are_survived(void **state)
{
    static const char digits[] = "0123456789";
    struct buf b;
    struct error err = {0};
    char *from = alloc_printf("%s/models/sdxl.safetensors", data),
         *path = under("changed.safetensors");
    unsigned seed = 20261124, opened = 0;
    printf("seed %u\n", seed);
    buf_init(&b, 16u << 20);
    assert_int_equal(buf_read_file(&b, from, NULL), 0);
    uint64_t header;
    memcpy(&header, b.data, 8);
    for (int i = 0; i < 300; i++) {
        size_t at = 8 + (size_t)rand_r(&seed) % header;
        uint8_t before = b.data[at];
        /* digits become digits, so that most changes reach the model and not only the parser */
        b.data[at] = before >= '0' && before <= '9' ? (uint8_t)digits[rand_r(&seed) % 10]
                                                    : (uint8_t)("_.a1["[rand_r(&seed) % 5]);
        assert_int_equal(buf_write_file(&b, path, 0600, NULL), 0);
        struct model *m;
        err.text[0] = 0;
        if (model_open(&m, golden.device, path, NULL, PRECISION_FP32, &err) == 0) {
            struct pixels picture;
            draw(m, &picture);
            pixels_release(&picture);
            model_close(m);
            opened++;
        } else if (!err.text[0]) {
            fail_msg("change %d at %zu: no sentence", i, at);
        }
        b.data[at] = before;
    }
    printf("%u of 300 opened\n", opened);
    unlink(path);
    buf_release(&b);
    free(from);
    free(path);
}

/* One picture with one adapter of the SD 1 model. */
static void draw_adapted(const char *path, double strength, struct pixels *picture)
{
    json_t *c = json_pack("{s:s}", "model", "sd1");
    struct image_request r;
    struct pipeline_result result = {0};
    struct error err;
    image_request_init(&r);
    r.width_px = r.height_px = 64;
    r.steps = 2;
    r.cfg = 1;
    r.sampler = SAMPLER_K_EULER;
    r.loras[r.lora_count++] =
        (struct request_lora){alloc_string(path), alloc_string("x"), strength, strength};
    if (pipeline_run(golden_model(&golden, c), &r, NULL, &result, &err)) fail_msg("%s", err.text);
    if (result.note_count) fail_msg("%s", result.notes[0]);
    *picture = result.images[0];
    result.images[0] = (struct pixels){0};
    pipeline_result_release(&result);
    image_request_release(&r);
    json_decref(c);
}

/* Scales that stand beside the tensors: PEFT's adapter_config.json, diffusers' metadata. */
static void scales_beside_the_tensors_count(void **state)
{
    static const char config[] = "{\"r\":2,\"lora_alpha\":4,\"alpha_pattern\":{}}";
    struct weight_store *s;
    struct error err;
    char *from = alloc_printf("%s/lora/peft.safetensors", data);
    char *bare = under("adapter_model.safetensors"), *beside = under("adapter_config.json");
    char *meta_path = under("meta.safetensors");
    if (weight_store_open(&s, from, &err)) fail_msg("%s", err.text);
    size_t n = weight_store_count(s);
    struct safetensors_entry *e = alloc_zero(n, sizeof *e);
    char **names = alloc_zero(n, sizeof *names);
    for (size_t i = 0; i < n; i++) e[i] = *weight_store_at(s, i);
    struct safetensors_meta meta = {"lora_adapter_metadata",
                                    "{\"unet.r\":2,\"unet.lora_alpha\":4}"};
    if (safetensors_write(meta_path, e, n, &meta, 1, &err)) fail_msg("%s", err.text);
    for (size_t i = 0; i < n; i++)
        e[i].name = names[i] = alloc_printf("base_model.model.%s", e[i].name + strlen("unet."));
    if (safetensors_write(bare, e, n, NULL, 0, &err)) fail_msg("%s", err.text);
    struct buf b;
    buf_init(&b, 1024);
    buf_append_string(&b, config, NULL);
    assert_int_equal(buf_write_file(&b, beside, 0600, NULL), 0);

    struct pixels want, folder_form, metadata_form;
    draw_adapted(from, 1.2, &want); /* alpha = rank there */
    draw_adapted(bare, 0.6, &folder_form);
    draw_adapted(meta_path, 0.6, &metadata_form);
    assert_true(psnr(&want, &folder_form) >= 80);
    assert_true(psnr(&want, &metadata_form) >= 80);
    pixels_release(&want);
    pixels_release(&folder_form);
    pixels_release(&metadata_form);
    buf_release(&b);
    weight_store_close(s);
    for (size_t i = 0; i < n; i++) free(names[i]);
    char *all[] = {from, bare, beside, meta_path};
    for (size_t i = 0; i < COUNT_OF(all); i++) free(all[i]);
    free(names);
    free(e);
}

/* NAME.yaml beside NAME, as the original code reads it. */
static void a_yaml_beside_the_file_says_v(void **state)
{
    static const struct {
        const char *words;
        bool v;
    } cases[] = {{"model:\n  params:\n    parameterization: \"v\"\n", true},
                 {"    parameterization: eps", false},
                 {"parameterization:", false},
                 {"", false}};
    char *file = alloc_printf("%s/models/sd2.safetensors", folder);
    char *link = under("sidecar.safetensors"), *yaml = under("sidecar.yaml");
    char *words = alloc_printf("%s/models/tokenizer", folder), *to = under("sidecar.tokenizer");
    assert_int_equal(symlink(file, link), 0);
    assert_int_equal(symlink(words, to), 0);
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct model *m;
        struct error err;
        FILE *f = fopen(yaml, "w");
        fputs(cases[i].words, f);
        fclose(f);
        if (model_open(&m, golden.device, link, NULL, PRECISION_FP32, &err))
            fail_msg("%s", err.text);
        assert_int_equal(model_info(m)->v_prediction, cases[i].v);
        model_close(m);
    }
    unlink(link);
    unlink(yaml);
    unlink(to);
    free(file);
    free(link);
    free(yaml);
    free(words);
    free(to);
}

static void what_is_no_model_says_what_it_is(void **state)
{
    static const struct {
        const char *file, *word;
    } cases[] = {
        {"lora/kohya.safetensors", "holds no UNet"},
        {"models/sd1/text_encoder", "unet holds no diffusion_pytorch_model"},
        {"assets/init.png", "no model file"},
        {"models/absent", "No such file"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct model *m;
        struct error err = {0};
        char *path = alloc_printf("%s/%s", data, cases[i].file);
        int rc = model_open(&m, golden.device, path, NULL, PRECISION_FP32, &err);
        if (!rc || !strstr(err.text, cases[i].word)) fail_msg("%s: %d %s", path, rc, err.text);
        free(path);
    }
}

static int make_scratch(void **state)
{
    strcpy(scratch, "/tmp/kiln-loading-XXXXXX");
    folder = realpath(data, NULL);
    char *words = alloc_printf("%s/models/tokenizer", folder);
    int rc = mkdtemp(scratch) ? 0 : -1;
    char *link = under("tokenizer");
    if (!rc) rc = symlink(words, link);
    free(words);
    free(link);
    return rc;
}

static int drop_scratch(void **state)
{
    char *command = alloc_printf("rm -r '%s'", scratch);
    int rc = system(command);
    free(command);
    free(folder);
    return rc;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_element_type_loads),
        cmocka_unit_test(shards_make_the_same_model),
        cmocka_unit_test(a_vae_of_its_own_is_used),
        cmocka_unit_test(changed_headers_are_survived),
        cmocka_unit_test(scales_beside_the_tensors_count),
        cmocka_unit_test(a_yaml_beside_the_file_says_v),
        cmocka_unit_test(what_is_no_model_says_what_it_is),
    };
    if (argc < 2) {
        fprintf(stderr, "usage: test_loading DATA\n");
        return 2;
    }
    data = argv[1];
    golden_open(&golden, data, PRECISION_FP32);
    int rc = cmocka_run_group_tests(tests, make_scratch, drop_scratch);
    golden_close(&golden);
    return rc;
}
