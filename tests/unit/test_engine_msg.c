/* proto/engine_msg: every kind there and back, and what is refused. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "proto/engine_msg.h"

static void round_trip(struct engine_msg *to, const struct engine_msg *from)
{
    struct buf b;
    struct error err = {0};
    const uint8_t *payload;
    size_t length;
    buf_init(&b, FRAME_ENGINE_MAX + 4);
    if (engine_msg_encode(from, &b, &err)) fail_msg("%s", err.text);
    assert_int_equal(frame_next(&b, FRAME_ENGINE_MAX, &payload, &length, &err), 1);
    if (engine_msg_decode(to, payload, length, &err)) fail_msg("%s", err.text);
    assert_int_equal(to->kind, from->kind);
    assert_int_equal(to->launch_id, from->launch_id);
    assert_string_equal(to->job_id, from->job_id);
    buf_release(&b);
}

static void hello_names_the_device(void **state)
{
    struct engine_msg a, b;
    engine_msg_init(&a, ENGINE_HELLO, UINT64_MAX, NULL);
    a.hello.version = "0.1.0";
    a.hello.pid = 4711;
    a.hello.kernels = "avx512-bf16";
    a.hello.devices[0] =
        (struct engine_device){"cpu", "Some \"CPU\"", NULL, 23LL << 30, 20LL << 30};
    a.hello.device_count = 1;
    a.hello.capabilities[0] = "img2img";
    a.hello.capabilities[1] = "lora";
    a.hello.capability_count = 2;
    a.hello.safety = true;
    round_trip(&b, &a);
    assert_int_equal(b.hello.protocol, ENGINE_PROTOCOL);
    assert_int_equal(b.hello.pid, 4711);
    assert_string_equal(b.hello.kernels, "avx512-bf16");
    assert_string_equal(b.hello.devices[0].title, "Some \"CPU\"");
    assert_string_equal(b.hello.devices[0].driver, "");
    assert_int_equal(b.hello.devices[0].memory_bytes, 23LL << 30);
    assert_int_equal(b.hello.capability_count, 2);
    assert_string_equal(b.hello.capabilities[1], "lora");
    assert_true(b.hello.safety);
    engine_msg_release(&b);
}

static void set(char **to, const char *text)
{
    free(*to);
    *to = alloc_string(text);
}

static void generate_keeps_every_field(void **state)
{
    struct engine_msg a, b;
    static uint8_t source[] = {1, 0, 2}, mask[] = {9}, control[] = {5, 5};
    engine_msg_init(&a, ENGINE_GENERATE, 7, "job-1");
    struct image_request *r = &a.generate.request, *got = &b.generate.request;
    set(&r->model, "Deliberate");
    set(&r->prompt, "ein \"Krug\"\n\xf0\x9f\x8f\xba");
    set(&r->negative, "blurry");
    r->width_px = 832;
    r->height_px = 1216;
    r->steps = 26;
    r->cfg = 6.55;
    r->sampler = SAMPLER_DDIM;
    r->schedule = SCHEDULE_BETA;
    r->seed = UINT64_MAX;
    r->count = 4;
    r->clip_skip = 2;
    r->noise = NOISE_CUDA;
    r->guidance_rescale = 0.7;
    r->variation_seed = 3;
    r->variation_strength = 0.25;
    r->tiling = r->hires_fix = true;
    r->hires_denoise = 0.5;
    r->source_use = SOURCE_INPAINTING;
    r->source = (struct blob){source, sizeof source};
    r->mask = (struct blob){mask, sizeof mask};
    r->denoise = 0.6;
    r->loras[0] = (struct request_lora){alloc_string("/l"), alloc_string("L"), 0.8, -0.5};
    r->lora_count = 1;
    r->embeddings[0] = (struct request_embedding){alloc_string("/e"), alloc_string("word"), 0.9};
    r->embedding_count = 1;
    set(&r->control_type, "canny");
    set(&r->control_path, "/c");
    r->control_image = (struct blob){control, sizeof control};
    r->control_strength = 0.75;
    r->image_is_control = true;
    r->more_controls[0] = (struct request_control){.strength = 0.25, .is_map = true};
    set(&r->more_controls[0].type, "depth");
    set(&r->more_controls[0].path, "/d");
    r->more_controls[0].image = (struct blob){control, sizeof control};
    r->more_control_count = 1;
    set(&r->qr.text, "a code");
    r->qr.drawer = QR_CIRCLE;
    r->qr.x_px = 128;
    a.generate.post_processing[0] = "RealESRGAN_x4plus";
    a.generate.post_processing[1] = "GFPGAN";
    a.generate.post_count = 2;
    a.generate.facefixer_strength = 0.5;
    a.generate.format = ENGINE_FORMAT_PNG;
    a.generate.quality = 90;
    a.generate.check_safety = a.generate.censor_nsfw = true;
    a.generate.preview_every_steps = 5;
    a.generate.deadline_seconds = 134.5;
    a.generate.parameters = "Steps: 26";
    round_trip(&b, &a);
    assert_string_equal(got->model, "Deliberate");
    assert_string_equal(got->prompt, r->prompt);
    assert_string_equal(got->negative, "blurry");
    assert_int_equal(got->width_px, 832);
    assert_int_equal(got->height_px, 1216);
    assert_int_equal(got->steps, 26);
    assert_true(got->cfg == 6.55);
    assert_int_equal(got->sampler, SAMPLER_DDIM);
    assert_int_equal(got->schedule, SCHEDULE_BETA);
    assert_true(got->seed == UINT64_MAX);
    assert_int_equal(got->count, 4);
    assert_int_equal(got->clip_skip, 2);
    assert_int_equal(got->noise, NOISE_CUDA);
    assert_true(isnan(got->eta));
    assert_true(got->guidance_rescale == 0.7);
    assert_int_equal(got->variation_seed, 3);
    assert_true(got->variation_strength == 0.25);
    assert_true(got->tiling && got->hires_fix && got->hires_denoise == 0.5);
    assert_int_equal(got->source_use, SOURCE_INPAINTING);
    assert_int_equal(got->source.length, 3);
    assert_memory_equal(got->source.data, source, 3);
    assert_int_equal(got->mask.length, 1);
    assert_true(got->denoise == 0.6);
    assert_int_equal(got->lora_count, 1);
    assert_string_equal(got->loras[0].path, "/l");
    assert_true(got->loras[0].model_strength == 0.8 && got->loras[0].clip_strength == -0.5);
    assert_string_equal(got->embeddings[0].name, "word");
    assert_true(got->embeddings[0].strength == 0.9);
    assert_string_equal(got->control_type, "canny");
    assert_memory_equal(got->control_image.data, control, 2);
    assert_true(got->control_strength == 0.75 && got->image_is_control);
    assert_false(got->return_control_map);
    assert_int_equal(got->more_control_count, 1);
    assert_string_equal(got->more_controls[0].type, "depth");
    assert_string_equal(got->more_controls[0].path, "/d");
    assert_memory_equal(got->more_controls[0].image.data, control, sizeof control);
    assert_true(got->more_controls[0].strength == 0.25 && got->more_controls[0].is_map);
    assert_string_equal(got->qr.text, "a code");
    assert_null(got->qr.prompt);
    assert_int_equal(got->qr.drawer, QR_CIRCLE);
    assert_int_equal(got->qr.x_px, 128);
    assert_int_equal(got->qr.y_px, -1);
    assert_int_equal(b.generate.post_count, 2);
    assert_string_equal(b.generate.post_processing[1], "GFPGAN");
    assert_int_equal(b.generate.format, ENGINE_FORMAT_PNG);
    assert_int_equal(b.generate.quality, 90);
    assert_true(b.generate.check_safety && b.generate.censor_nsfw);
    assert_true(b.generate.deadline_seconds == 134.5);
    assert_string_equal(b.generate.parameters, "Steps: 26");
    assert_null(b.generate.xmp);
    engine_msg_release(&b);
    r->source.data = r->mask.data = r->control_image.data = NULL;
    r->more_controls[0].image.data = NULL;
    image_request_release(r);
}

static void result_carries_images(void **state)
{
    struct engine_msg a, b;
    size_t bytes = 3u << 20;
    uint8_t *big = malloc(bytes);
    for (size_t i = 0; i < bytes; i++) big[i] = (uint8_t)(i * 31);
    engine_msg_init(&a, ENGINE_RESULT, 2, "job-2");
    for (int i = 0; i < 3; i++)
        a.result.images[i] =
            (struct engine_image){.bytes = {big, bytes - (size_t)i},
                                  .verdict = i == 2 ? ENGINE_VERDICT_FAILED : ENGINE_VERDICT_OK,
                                  .width_px = 512,
                                  .height_px = 768,
                                  .index = i};
    a.result.images[2].bytes.data = NULL;
    a.result.image_count = 3;
    a.result.notes[0] = "lora:download_failed:135867";
    a.result.note_count = 1;
    a.result.seconds[ENGINE_PHASE_SAMPLE] = 12.5;
    a.result.joules = 321.5;
    a.result.energy_source = "rapl";
    a.result.peak_bytes = 1LL << 33;
    a.result.model_sha256 = "abc";
    round_trip(&b, &a);
    assert_int_equal(b.result.image_count, 3);
    assert_int_equal(b.result.images[1].bytes.length, bytes - 1);
    assert_memory_equal(b.result.images[0].bytes.data, big, bytes);
    assert_null(b.result.images[2].bytes.data);
    assert_int_equal(b.result.images[2].verdict, ENGINE_VERDICT_FAILED);
    assert_string_equal(b.result.notes[0], "lora:download_failed:135867");
    assert_true(b.result.seconds[ENGINE_PHASE_SAMPLE] == 12.5);
    assert_true(b.result.joules == 321.5);
    assert_int_equal(b.result.peak_bytes, 1LL << 33);
    assert_string_equal(b.result.kernels, "");
    engine_msg_release(&b);
    free(big);
}

static void unknown_figures_stay_unknown(void **state)
{
    struct engine_msg a, b;
    engine_msg_init(&a, ENGINE_HEARTBEAT, 1, NULL);
    a.heartbeat.free_bytes = 5;
    round_trip(&b, &a);
    assert_true(isnan(b.heartbeat.watts) && isnan(b.heartbeat.foreign_use));
    assert_int_equal(b.heartbeat.free_bytes, 5);
    engine_msg_release(&b);
    engine_msg_init(&a, ENGINE_RESULT, 1, "j");
    round_trip(&b, &a);
    assert_true(isnan(b.result.joules));
    engine_msg_release(&b);
}

static void small_messages_round_trip(void **state)
{
    struct engine_msg a, b;
    engine_msg_init(&a, ENGINE_ERROR, 9, "j");
    a.error = (struct engine_failure){ERR_DEVICE, "the card fell off the bus", true};
    round_trip(&b, &a);
    assert_int_equal(b.error.code, ERR_DEVICE);
    assert_true(b.error.fatal);
    engine_msg_release(&b);

    engine_msg_init(&a, ENGINE_PROGRESS, 9, "j");
    a.progress.phase = ENGINE_PHASE_SAMPLE;
    a.progress.step = 3;
    a.progress.steps = 20;
    a.progress.preview = (struct blob){(uint8_t *)"JPEG", 4};
    round_trip(&b, &a);
    assert_int_equal(b.progress.phase, ENGINE_PHASE_SAMPLE);
    assert_int_equal(b.progress.step, 3);
    assert_memory_equal(b.progress.preview.data, "JPEG", 4);
    assert_true(isnan(b.progress.loss));
    engine_msg_release(&b);

    engine_msg_init(&a, ENGINE_ALCHEMY_RESULT, 9, "form");
    struct alchemy_word words[] = {{"tags", "pot", 0.5}, {"sites", "x", 0.25}};
    a.alchemy_result.form = ALCHEMY_INTERROGATION;
    a.alchemy_result.words = words;
    a.alchemy_result.word_count = 2;
    round_trip(&b, &a);
    assert_int_equal(b.alchemy_result.form, ALCHEMY_INTERROGATION);
    assert_int_equal(b.alchemy_result.word_count, 2);
    assert_string_equal(b.alchemy_result.words[1].group, "sites");
    assert_null(b.alchemy_result.image.bytes.data);
    engine_msg_release(&b);

    engine_msg_init(&a, ENGINE_TRAIN, 9, "t");
    a.train.options[0] = (struct engine_option){"rank", "8"};
    a.train.option_count = 1;
    round_trip(&b, &a);
    assert_string_equal(b.train.options[0].value, "8");
    engine_msg_release(&b);

    static const enum engine_kind bare[] = {ENGINE_LOAD,    ENGINE_LOADED,  ENGINE_UNLOAD,
                                            ENGINE_PREPARE, ENGINE_ALCHEMY, ENGINE_TRAINED,
                                            ENGINE_CANCEL,  ENGINE_SHUTDOWN};
    for (size_t i = 0; i < COUNT_OF(bare); i++) {
        engine_msg_init(&a, bare[i], i, "j");
        round_trip(&b, &a);
        engine_msg_release(&b);
    }
}

/* header JSON and blobs by hand */
static int decode(const char *header, const char *blobs, size_t blob_bytes, struct error *err)
{
    struct engine_msg m;
    struct buf b;
    buf_init(&b, 1 << 20);
    uint8_t n[4] = {(uint8_t)strlen(header), (uint8_t)(strlen(header) >> 8), 0, 0};
    assert_int_equal(buf_append(&b, n, 4, NULL), 0);
    assert_int_equal(buf_append_string(&b, header, NULL), 0);
    assert_int_equal(buf_append(&b, blobs, blob_bytes, NULL), 0);
    int rc = engine_msg_decode(&m, b.data, b.length, err);
    if (!rc) engine_msg_release(&m);
    buf_release(&b);
    return rc;
}

static void lies_are_refused(void **state)
{
    static const char none[4], two[] = "\x01\0\0\0\x02\0\0\0ab", cut[] = "\x01\0\0\0\x03\0\0\0ab",
                               long_tail[] = "\0\0\0\0a", many[] = "\xff\xff\xff\xff";
    static const struct {
        const char *header, *blobs;
        size_t blob_bytes;
        const char *says;
    } cases[] = {
        {"{\"kind\":\"cancel\",\"launch\":\"1\",\"job\":\"j\",\"body\":{}}", cut, 10,
         "blob 0 has 3"},
        {"{\"kind\":\"cancel\",\"launch\":\"1\",\"job\":\"j\",\"body\":{}}", long_tail, 5,
         "1 bytes too many"},
        {"{\"kind\":\"cancel\",\"launch\":\"1\",\"job\":\"j\",\"body\":{}}", many, 4,
         "blobs, the limit"},
        {"{\"kind\":\"dance\",\"launch\":\"1\",\"job\":\"j\",\"body\":{}}", none, 4,
         "\"dance\" is not known"},
        {"{\"kind\":\"cancel\",\"launch\":\"x\",\"job\":\"j\",\"body\":{}}", none, 4, "launch"},
        {"{\"kind\":\"cancel\",\"launch\":\"1\",\"job\":\"j\"}", none, 4, "body is missing"},
        {"{\"kind\":\"cancel\",\"kind\":\"load\"}", none, 4, "duplicate"},
        {"{\"kind\":\"cancel\",\"launch\":\"1\",\"job\":"
         "\"0123456789012345678901234567890123456789012345678901234567890123456789\"}",
         none, 4, "job has 70 bytes"},
        {"{\"kind\":\"progress\",\"launch\":\"1\",\"body\":{\"phase\":\"nap\"}}", none, 4,
         "phase \"nap\""},
        {"{\"kind\":\"progress\",\"launch\":\"1\",\"body\":{\"step\":1.5}}", none, 4,
         "step is a number"},
        {"{\"kind\":\"progress\",\"launch\":\"1\",\"body\":{\"preview\":1}}", two, 10,
         "preview is 1"},
        {"{\"kind\":\"result\",\"launch\":\"1\",\"body\":{\"images\":[{\"bytes\":0},{\"bytes\":7}]}"
         "}",
         two, 10, "bytes is 7"},
        {"{\"kind\":\"generate\",\"launch\":\"1\",\"body\":{\"request\":{\"sampler\":\"plms\"}}}",
         none, 4, "sampler \"plms\""},
        {"{\"kind\":\"generate\",\"launch\":\"1\",\"body\":{\"request\":{\"seed\":5}}}", none, 4,
         "seed is a whole number"},
        {"{\"kind\":\"generate\",\"launch\":\"1\",\"body\":{\"request\":{\"loras\":[{\"path\":"
         "\"a\"},3]}}}",
         none, 4, "loras has an entry"},
        {"[]", none, 4, "kind"},
        {"{", none, 4, "cut off"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct error err = {0};
        int rc = decode(cases[i].header, cases[i].blobs, cases[i].blob_bytes, &err);
        if (rc != ERR_FORMAT || !strstr(err.text, cases[i].says))
            fail_msg("case %zu gives %d: %s", i, rc, err.text);
    }
    struct error err = {0};
    struct engine_msg m;
    assert_int_equal(engine_msg_decode(&m, (const uint8_t *)"abc", 3, &err), ERR_FORMAT);
    assert_int_equal(engine_msg_decode(&m, (const uint8_t *)"\xff\xff\xff\xff\0\0\0\0", 8, &err),
                     ERR_FORMAT);
}

static void a_message_above_the_cap_is_not_sent(void **state)
{
    struct engine_msg m;
    struct buf b;
    struct error err = {0};
    uint8_t *huge = calloc(FRAME_ENGINE_MAX, 1);
    buf_init(&b, 2 * (size_t)FRAME_ENGINE_MAX);
    engine_msg_init(&m, ENGINE_PROGRESS, 1, "j");
    m.progress.preview = (struct blob){huge, FRAME_ENGINE_MAX};
    assert_int_equal(engine_msg_encode(&m, &b, &err), ERR_INVALID);
    assert_non_null(strstr(err.text, "a progress message: a frame of"));
    assert_int_equal(b.length, 0);
    buf_release(&b);
    free(huge);
}

static struct engine_msg made(uint64_t seed)
{
    struct engine_msg m;
    engine_msg_init(&m, ENGINE_GENERATE, 1, seed == 1 ? "one" : "another");
    free(m.generate.request.prompt);
    m.generate.request.prompt = alloc_string("a red pot");
    m.generate.request.model = alloc_string("m");
    m.generate.request.seed = seed;
    m.generate.deadline_seconds = (double)seed;
    return m;
}

/* Which difference is left between two; true: equal but for the seed. */
static bool equal_after(void (*change)(struct engine_msg *m))
{
    struct engine_msg a = made(1), b = made(2);
    change(&b);
    bool equal = engine_msg_equal_but_seed(&a, &b);
    engine_msg_release(&a);
    engine_msg_release(&b);
    return equal;
}

static void nothing(struct engine_msg *m)
{
}
static void other_prompt(struct engine_msg *m)
{
    m->generate.request.prompt[0] = 'A';
}
static void other_negative(struct engine_msg *m)
{
    free(m->generate.request.negative);
    m->generate.request.negative = alloc_string("blurry");
}
static void other_cfg(struct engine_msg *m)
{
    m->generate.request.cfg = 7.25;
}
static void other_clip_skip(struct engine_msg *m)
{
    m->generate.request.clip_skip = 2;
}
static void other_post(struct engine_msg *m)
{
    m->generate.post_processing[m->generate.post_count++] = "GFPGAN";
}
static void other_censor(struct engine_msg *m)
{
    m->generate.censor_nsfw = true;
}
static void other_source(struct engine_msg *m)
{
    m->generate.request.source.data = alloc_zero(3, 1);
    m->generate.request.source.length = 3;
}
static void other_embedding(struct engine_msg *m)
{
    m->generate.request.embeddings[m->generate.request.embedding_count++] =
        (struct request_embedding){alloc_string("/e"), alloc_string("e"), 1};
}

static void test_equal_but_seed(void **state)
{
    assert_true(equal_after(nothing));
    void (*const changes[])(struct engine_msg * m) = {other_prompt,    other_negative, other_cfg,
                                                      other_clip_skip, other_post,     other_censor,
                                                      other_source,    other_embedding};
    for (size_t i = 0; i < COUNT_OF(changes); i++) assert_false(equal_after(changes[i]));

    struct engine_msg a = made(1), b = made(2), load;
    engine_msg_init(&load, ENGINE_LOAD, 1, "");
    assert_false(engine_msg_equal_but_seed(&a, &load));
    /* where the seed does more than make noise */
    a.generate.request.sampler = b.generate.request.sampler = SAMPLER_K_DPM_ADAPTIVE;
    assert_false(engine_msg_equal_but_seed(&a, &b));
    a.generate.request.sampler = b.generate.request.sampler = SAMPLER_K_EULER;
    assert_true(engine_msg_equal_but_seed(&a, &b));
    a.generate.request.return_control_map = b.generate.request.return_control_map = true;
    assert_false(engine_msg_equal_but_seed(&a, &b));
    a.generate.request.return_control_map = b.generate.request.return_control_map = false;
    memcpy(a.generate.request.prompt, "a {b|c}d!", 9);
    memcpy(b.generate.request.prompt, "a {b|c}d!", 9);
    assert_false(engine_msg_equal_but_seed(&a, &b));
    engine_msg_release(&a);
    engine_msg_release(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equal_but_seed),
        cmocka_unit_test(hello_names_the_device),
        cmocka_unit_test(generate_keeps_every_field),
        cmocka_unit_test(result_carries_images),
        cmocka_unit_test(unknown_figures_stay_unknown),
        cmocka_unit_test(small_messages_round_trip),
        cmocka_unit_test(lies_are_refused),
        cmocka_unit_test(a_message_above_the_cap_is_not_sent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
