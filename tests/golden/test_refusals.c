/* What does not belong to a model: a sentence with both sides, and the Horde's code; the picture is
 * still drawn where the Horde draws it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "diffusion/preview.h"
#include "image/codec.h"
#include "tensor/safetensors.h"
#include "tests/golden/golden.h"

static struct golden golden;
static const char *data;

static json_t *case_of(const char *model)
{
    return json_pack("{s:s,s:s,s:s,s:i,s:i,s:i,s:f,s:s,s:i}", "id", "refusal", "model", model,
                     "prompt", "a red house", "width", 64, "height", 64, "steps", 1, "cfg", 1.0,
                     "sampler", "k_euler", "seed", 1);
}

/* Draws with one adapter; the only note must hold both words. */
static void expect_note(const char *model, const char *path, const char *code, const char *first,
                        const char *second)
{
    json_t *c = case_of(model);
    struct image_request r;
    struct pipeline_result result = {0};
    struct error err;
    golden_request(&golden, &r, c);
    r.loras[0] = (struct request_lora){alloc_string(path), alloc_string("name"), 1, 1};
    r.lora_count = 1;
    if (pipeline_run(golden_model(&golden, c), &r, NULL, &result, &err)) fail_msg("%s", err.text);
    assert_int_equal(result.count, 1);
    assert_int_equal(result.note_count, 1);
    char *start = alloc_printf("lora:%s:name\t", code);
    if (strncmp(result.notes[0], start, strlen(start)) != 0 || !strstr(result.notes[0], first) ||
        !strstr(result.notes[0], second))
        fail_msg("%s", result.notes[0]);
    free(start);
    pipeline_result_release(&result);
    image_request_release(&r);
    json_decref(c);
}

static void adapters_of_other_families_are_named(void **state)
{
    char *xl = alloc_printf("%s/lora/kohya-sdxl.safetensors", data);
    char *one = alloc_printf("%s/lora/kohya.safetensors", data);
    expect_note("sd1", xl, "baseline_mismatch", "SDXL", "SD 1.x");
    expect_note("sdxl", one, "baseline_mismatch", "SD 1.x", "SDXL");
    free(xl);
    free(one);
}

static const float numbers[64] = {1};

static char *write_file(const char *name, const struct safetensors_entry *e, size_t count)
{
    char *path = alloc_printf("/tmp/kiln-%d-%s.safetensors", (int)getpid(), name);
    struct error err;
    if (safetensors_write(path, e, count, NULL, 0, &err)) fail_msg("%s", err.text);
    return path;
}

static void odd_adapters_are_named(void **state)
{
    struct safetensors_entry flux[] = {
        {.name = "lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight",
         .dtype = DTYPE_F32,
         .rank = 2,
         .dim = {2, 4},
         .data = numbers,
         .bytes = 32}};
    char *path = write_file("flux", flux, 1);
    expect_note("sd1", path, "baseline_mismatch", "FLUX", "SD 1.x");
    unlink(path);
    free(path);

    struct safetensors_entry oft[] = {{.name = "unet.mid_block.attentions.0.proj_in.oft_R.weight",
                                       .dtype = DTYPE_F32,
                                       .rank = 2,
                                       .dim = {2, 4},
                                       .data = numbers,
                                       .bytes = 32}};
    path = write_file("oft", oft, 1); /* four numbers are no triangle */
    expect_note("sd1", path, "parse_failed", "unet.mid_block", "do not fit");
    unlink(path);
    free(path);

    struct safetensors_entry early[] = {{.name = "unet.mid_block.attentions.0.proj_in.oft_r",
                                         .dtype = DTYPE_F32,
                                         .rank = 3,
                                         .dim = {2, 2, 2},
                                         .data = numbers,
                                         .bytes = 32}};
    path = write_file("early", early, 1);
    expect_note("sd1", path, "parse_failed", "OFT", "unet.mid_block");
    unlink(path);
    free(path);

    struct safetensors_entry vera[] = {{.name = "unet.mid_block.attentions.0.proj_in.vera_lambda_b",
                                        .dtype = DTYPE_F32,
                                        .rank = 1,
                                        .dim = {8},
                                        .data = numbers,
                                        .bytes = 32},
                                       {.name = "unet.mid_block.attentions.0.proj_in.vera_lambda_d",
                                        .dtype = DTYPE_F32,
                                        .rank = 1,
                                        .dim = {2},
                                        .data = numbers,
                                        .bytes = 8}};
    path = write_file("vera", vera, 2);
    expect_note("sd1", path, "parse_failed", "VeRA", "save_projection");
    unlink(path);
    free(path);

    struct safetensors_entry other[] = {{.name = "weight",
                                         .dtype = DTYPE_F32,
                                         .rank = 1,
                                         .dim = {4},
                                         .data = numbers,
                                         .bytes = 16}};
    path = write_file("other", other, 1);
    expect_note("sd1", path, "parse_failed", "no adapter", path);
    unlink(path);
    free(path);

    /* right place, wrong inner shapes: half of it must not stay applied */
    struct safetensors_entry torn[] = {
        {.name = "lora_unet_mid_block_attentions_0_proj_in.hada_w1_a",
         .dtype = DTYPE_F32,
         .rank = 2,
         .dim = {16, 2},
         .data = numbers,
         .bytes = 128},
        {.name = "lora_unet_mid_block_attentions_0_proj_in.hada_w1_b",
         .dtype = DTYPE_F32,
         .rank = 2,
         .dim = {2, 15},
         .data = numbers,
         .bytes = 120},
    };
    path = write_file("torn", torn, 2);
    expect_note("sd1", path, "parse_failed", "proj_in", "do not fit");
    unlink(path);
    free(path);
    expect_note("sd1", "/nowhere/a.safetensors", "parse_failed", "/nowhere/a.safetensors",
                "No such");
}

/* After adapters, and after failed ones, the model is what it was. */
static void adapters_leave_no_trace(void **state)
{
    json_t *c = case_of("sd1");
    struct model *m = golden_model(&golden, c);
    struct image_request plain, adapted;
    struct pipeline_result before = {0}, with = {0}, after = {0};
    static const char *const forms[] = {"kohya", "loha", "dora", "diff"};
    golden_request(&golden, &plain, c);
    golden_request(&golden, &adapted, c);
    for (size_t i = 0; i < COUNT_OF(forms); i++)
        adapted.loras[adapted.lora_count++] =
            (struct request_lora){alloc_printf("%s/lora/%s.safetensors", data, forms[i]),
                                  alloc_string(forms[i]), 0.5, 0.5};
    assert_int_equal(pipeline_run(m, &plain, NULL, &before, NULL), 0);
    assert_int_equal(pipeline_run(m, &adapted, NULL, &with, NULL), 0);
    assert_int_equal(pipeline_run(m, &plain, NULL, &after, NULL), 0);
    assert_int_equal(with.note_count, 0);
    size_t bytes = 64 * 64 * 3;
    assert_memory_equal(before.images[0].data, after.images[0].data, bytes);
    assert_memory_not_equal(before.images[0].data, with.images[0].data, bytes);
    pipeline_result_release(&before);
    pipeline_result_release(&with);
    pipeline_result_release(&after);
    image_request_release(&plain);
    image_request_release(&adapted);
    json_decref(c);
}

static void expect_failure(const char *model, void (*change)(struct image_request *), int code,
                           const char *first, const char *second)
{
    json_t *c = case_of(model);
    struct image_request r;
    struct pipeline_result result = {0};
    struct error err = {0};
    golden_request(&golden, &r, c);
    change(&r);
    int rc = pipeline_run(golden_model(&golden, c), &r, NULL, &result, &err);
    if (rc != code || !strstr(err.text, first) || !strstr(err.text, second))
        fail_msg("%d: %s", rc, err.text);
    image_request_release(&r);
    json_decref(c);
}

static void read_into(struct blob *b, const char *name)
{
    struct buf file;
    char *path = alloc_printf("%s/%s", data, name);
    buf_init(&file, 1u << 24);
    assert_int_equal(buf_read_file(&file, path, NULL), 0);
    b->data = buf_take(&file, &b->length);
    free(path);
}

static void give_control(struct image_request *r)
{
    r->control_type = alloc_string("canny");
    r->control_path = alloc_printf("%s/control/sd1", data);
    read_into(&r->control_image, "assets/init.png");
    r->control_strength = 1;
}

static void give_annotator(struct image_request *r)
{
    give_control(r);
    free(r->control_type);
    r->control_type = alloc_string("shuffle");
}

static void put_picture(struct blob *to, int width, int height)
{
    struct pixels p;
    struct buf b;
    assert_int_equal(pixels_new(&p, width, height, 3, NULL), 0);
    buf_init(&b, 1 << 20);
    assert_int_equal(codec_encode(&b, IMAGE_PNG, &p, 0, NULL, NULL), 0);
    to->data = buf_take(&b, &to->length);
    pixels_release(&p);
}

static void give_small_mask(struct image_request *r)
{
    r->source_use = SOURCE_INPAINTING;
    r->strict = true;
    read_into(&r->source, "assets/init.png");
    put_picture(&r->mask, 128, 8);
}

/* A stranger's job is drawn with the mask stretched, as the reference worker does, and told so. */
static void a_mask_of_another_size_is_noted(void **state)
{
    json_t *c = case_of("sd1");
    struct image_request r;
    struct pipeline_result result = {0};
    struct error err = {0};
    golden_request(&golden, &r, c);
    give_small_mask(&r);
    r.strict = false;
    r.steps = 1;
    if (pipeline_run(golden_model(&golden, c), &r, NULL, &result, &err)) fail_msg("%s", err.text);
    assert_int_equal(result.note_count, 1);
    assert_true(strncmp(result.notes[0], "source_mask:parse_failed:", 25) == 0);
    assert_non_null(strstr(result.notes[0], "128x8"));
    pipeline_result_release(&result);
    image_request_release(&r);
    json_decref(c);
}

static void give_no_mask(struct image_request *r)
{
    r->source_use = SOURCE_INPAINTING;
    read_into(&r->source, "assets/init.png");
}

static void give_garbage(struct image_request *r)
{
    r->source_use = SOURCE_IMG2IMG;
    r->source.data = (uint8_t *)alloc_string("this is no picture at all");
    r->source.length = 25;
}

static void wrong_sides_are_named(void **state)
{
    expect_failure("sdxl", give_control, ERR_INVALID, "control/sd1", "the model is SDXL");
    expect_failure("sd1", give_annotator, ERR_UNSUPPORTED, "shuffle",
                   "finished maps are taken only");
    expect_failure("sd1", give_no_mask, ERR_INVALID, "mask", "alpha");
    expect_failure("sd1", give_small_mask, ERR_INVALID, "mask is 128x8", "source image 64x64");
    expect_failure("sd1", give_garbage, ERR_FORMAT, "source image", "");
}

static bool stop_at_once(void *context)
{
    return ++*(int *)context > 3;
}

static void a_run_can_be_stopped(void **state)
{
    json_t *c = case_of("sd1");
    struct image_request r;
    struct pipeline_result result = {0};
    struct error err = {0};
    int asked = 0;
    struct pipeline_hooks hooks = {.context = &asked, .canceled = stop_at_once};
    golden_request(&golden, &r, c);
    assert_int_equal(pipeline_run(golden_model(&golden, c), &r, &hooks, &result, &err),
                     ERR_CANCELED);
    image_request_release(&r);
    json_decref(c);
}

/* ---- previews ---- */

struct looked {
    int count, width, height;
    uint8_t last[8 * 8 * 3];
};

static void look(void *context, const struct pixels *picture)
{
    struct looked *l = context;
    l->count++;
    l->width = picture->width;
    l->height = picture->height;
    if (picture->width == 8 && picture->height == 8) memcpy(l->last, picture->data, sizeof l->last);
}

static void previews_come_after_steps(void **state)
{
    json_t *c = case_of("sd1");
    struct image_request r;
    struct pipeline_result result = {0};
    struct error err = {0};
    struct looked looked = {0};
    struct pipeline_hooks hooks = {.context = &looked, .preview_every = 2, .preview = look};
    golden_request(&golden, &r, c);
    r.steps = 7;
    if (pipeline_run(golden_model(&golden, c), &r, &hooks, &result, &err)) fail_msg("%s", err.text);
    assert_int_equal(looked.count, 3);
    assert_int_equal(looked.width, r.width_px / 8);
    assert_int_equal(looked.height, r.height_px / 8);
    pipeline_result_release(&result);
    image_request_release(&r);
    json_decref(c);
}

/* ComfyUI's own numbers for one latent: ((x . factors + bias + 1) / 2) in bytes. */
static void previews_are_the_linear_fit(void **state)
{
    static const float latent[4] = {0.5f, -0.25f, 1, 0.125f};
    static const struct {
        enum family family;
        uint8_t rgb[3];
    } rows[] = {{FAMILY_SD1, {100, 144, 163}}, {FAMILY_SDXL, {181, 162, 143}}};
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct pixels p;
        assert_int_equal(preview_linear(&p, rows[i].family, latent, 1, 1, NULL), 0);
        assert_memory_equal(p.data, rows[i].rgb, 3);
        pixels_release(&p);
    }
}

/* 8 bits are the CPU's; another device says so, with its name. */
static void eight_bits_are_refused_elsewhere(void **state)
{
    struct device *plain;
    struct model *m = NULL;
    struct error err;
    assert_int_equal(device_open(&plain, "plain", &err), 0);
    char *path = alloc_printf("%s/models/sd1", data);
    assert_int_equal(model_open(&m, plain, path, NULL, PRECISION_INT8, &err), ERR_UNSUPPORTED);
    assert_null(m);
    if (!strstr(err.text, "int8") || !strstr(err.text, "device plain")) fail_msg("%s", err.text);
    free(path);
    device_close(plain);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(adapters_of_other_families_are_named),
        cmocka_unit_test(odd_adapters_are_named),
        cmocka_unit_test(adapters_leave_no_trace),
        cmocka_unit_test(wrong_sides_are_named),
        cmocka_unit_test(a_mask_of_another_size_is_noted),
        cmocka_unit_test(a_run_can_be_stopped),
        cmocka_unit_test(previews_come_after_steps),
        cmocka_unit_test(previews_are_the_linear_fit),
        cmocka_unit_test(eight_bits_are_refused_elsewhere),
    };
    if (argc < 2) {
        fprintf(stderr, "usage: test_refusals DATA\n");
        return 2;
    }
    data = argv[1];
    golden_open(&golden, data, PRECISION_FP32);
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    golden_close(&golden);
    return rc;
}
