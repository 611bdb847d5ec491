/*
 * What a prompt asks for beside words, through the whole pipeline: tags, choices, the negative part,
 * embeddings. Two ways of asking for the same must draw the same picture.
 *
 * usage: test_prompt_words DATA
 */
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
#include "diffusion/pipeline.h"
#include "diffusion/text/dynamic_prompt.h"
#include "tensor/safetensors.h"

enum { WIDTH = 16 }; /* of the tiny model's text encoder */

static const char *data;
static struct device *device;
static struct model *model;
static char home[] = "/tmp/kiln-words-XXXXXX"; /* XDG_DATA_HOME of this test */

static int open_model(void **state)
{
    struct error err = {0};
    char *path = alloc_printf("%s/models/sd1.safetensors", data);
    char *lora = alloc_printf("%s/lora/kohya.safetensors", data), *full = realpath(lora, NULL);
    assert_non_null(mkdtemp(home));
    char *folder = alloc_printf("%s/kiln/loras", home),
         *link = alloc_printf("%s/own.safetensors", folder);
    char *above = alloc_printf("%s/kiln", home);
    assert_int_equal(mkdir(above, 0700) | mkdir(folder, 0700) | symlink(full, link), 0);
    setenv("XDG_DATA_HOME", home, 1);
    unsetenv("STATE_DIRECTORY");
    free(above);
    free(folder);
    free(link);
    free(lora);
    free(full);
    assert_int_equal(device_open(&device, "cpu", &err), 0);
    if (model_open(&model, device, path, NULL, PRECISION_FP32, &err)) fail_msg("%s", err.text);
    free(path);
    return 0;
}

static int close_model(void **state)
{
    char *command = alloc_printf("rm -r %s", home);
    model_close(model);
    device_close(device);
    assert_int_equal(system(command), 0);
    free(command);
    return 0;
}

struct picture {
    uint8_t rgb[64 * 64 * 3];
    int notes;
    char note[256];
};

static struct image_request make_request(const char *prompt)
{
    struct image_request r;
    image_request_init(&r);
    free(r.prompt);
    r.prompt = alloc_string(prompt);
    r.model = alloc_string("sd1");
    r.width_px = r.height_px = 64;
    r.steps = 3;
    r.sampler = SAMPLER_K_EULER;
    r.seed = 5;
    r.expert_prompt = true;
    return r;
}

static void add_lora(struct image_request *r, double strength)
{
    r->loras[r->lora_count++] = (struct request_lora){
        .path = alloc_printf("%s/lora/kohya.safetensors", data),
        .name = alloc_string("own"),
        .model_strength = strength,
        .clip_strength = strength,
    };
}

static struct picture draw(struct image_request *r)
{
    struct picture p = {.note = ""};
    struct pipeline_result result;
    struct error err = {0};
    if (pipeline_run(model, r, NULL, &result, &err)) fail_msg("%s", err.text);
    memcpy(p.rgb, result.images[0].data, sizeof p.rgb);
    p.notes = result.note_count;
    if (p.notes) snprintf(p.note, sizeof p.note, "%s", result.notes[0]);
    pipeline_result_release(&result);
    image_request_release(r);
    return p;
}

static struct picture draw_prompt(const char *prompt)
{
    struct image_request r = make_request(prompt);
    return draw(&r);
}

static bool same(const struct picture *a, const struct picture *b)
{
    return !memcmp(a->rgb, b->rgb, sizeof a->rgb);
}

static void tags_ask_for_loras(void **state)
{
    struct picture plain = draw_prompt("a photo of the house");
    struct image_request r = make_request("a photo of the house");
    add_lora(&r, 0.7);
    struct picture given = draw(&r), tagged = draw_prompt("a photo <lora:own:0.7>of the house");
    assert_true(same(&given, &tagged));
    assert_false(same(&given, &plain));
    assert_int_equal(tagged.notes, 0);
    r = make_request("a photo of the house<lora:own:0.7>"); /* the tag sets the strength */
    add_lora(&r, 0.1);
    struct picture set = draw(&r);
    assert_true(same(&given, &set));
    struct picture without = draw_prompt("a photo of the house");
    assert_true(same(&without, &plain));

    struct picture none = draw_prompt("a photo of the house<lora:none:1><lora:../own:1>");
    assert_true(same(&none, &plain));
    assert_int_equal(none.notes, 2);
    assert_non_null(strstr(none.note, "lora:download_failed:none"));
}

/* A stranger's prompt names no file here: the tag is text. */
static void jobs_take_no_tags(void **state)
{
    struct image_request r = make_request("a photo of the house <lora:own:0.7>");
    r.expert_prompt = false;
    struct picture job = draw(&r), plain = draw_prompt("a photo of the house");
    assert_int_equal(job.notes, 0);
    assert_false(same(&job, &plain));
    r = make_request("a photo of the house \\<lora:own:0.7>");
    r.expert_prompt = false;
    struct picture other = draw(&r);
    assert_false(same(&other, &job));
}

static void choices_and_negatives(void **state)
{
    char *chosen = dynamic_prompt_expand("a {red|green|blue|black} house###{ugly|dark|bad}", 5);
    char *cut = strstr(chosen, "###");
    *cut = 0;
    struct image_request r = make_request(chosen);
    free(r.negative);
    r.negative = alloc_string(cut + 3);
    struct picture plain = draw(&r);
    struct picture one = draw_prompt("a {red|green|blue|black} house###{ugly|dark|bad}");
    r = make_request("a {red|green|blue|black} house");
    free(r.negative);
    r.negative = alloc_string("{ugly|dark|bad}");
    struct picture two = draw(&r);
    assert_true(same(&plain, &one));
    assert_true(same(&plain, &two));
    free(chosen);
}

static void add_embedding(struct image_request *r, int width)
{
    static float v[2 * 4096];
    char *path = alloc_printf("%s/word-%d.safetensors", home, width);
    struct safetensors_entry e = {.name = "emb_params",
                                  .dtype = DTYPE_F32,
                                  .rank = 2,
                                  .dim = {2, width},
                                  .data = v,
                                  .bytes = (size_t)width * 8};
    for (int i = 0; i < 2 * width; i++) v[i] = (float)(i % 7) - 3;
    assert_int_equal(safetensors_write(path, &e, 1, NULL, 0, NULL), 0);
    r->embeddings[r->embedding_count++] =
        (struct request_embedding){.path = path, .name = alloc_string("word"), .strength = 1};
}

static void embeddings_fit_or_are_named(void **state)
{
    struct picture plain = draw_prompt("a photo of the house");
    struct image_request r = make_request("a photo of the house word");
    add_embedding(&r, WIDTH);
    struct picture bare = draw(&r);
    r = make_request("a photo of the house embedding:word");
    add_embedding(&r, WIDTH);
    struct picture named = draw(&r);
    assert_true(same(&bare, &named));
    assert_false(same(&bare, &plain));
    r = make_request("a photo of the house embedding:word");
    add_embedding(&r, WIDTH + 1);
    struct picture wrong = draw(&r);
    assert_true(same(&wrong, &plain));
    char wanted[64];
    snprintf(wanted, sizeof wanted, "is %d wide", WIDTH + 1);
    assert_non_null(strstr(wrong.note, "ti:baseline_mismatch:word"));
    assert_non_null(strstr(wrong.note, wanted));
}

int main(int argc, char **argv)
{
    data = argc > 1 ? argv[1] : ".";
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tags_ask_for_loras),
        cmocka_unit_test(jobs_take_no_tags),
        cmocka_unit_test(choices_and_negatives),
        cmocka_unit_test(embeddings_fit_or_are_named),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
