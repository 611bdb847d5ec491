/* What we send to the Horde, and the small rules beside it: TTL, base64, swagger. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/alloc.h"
#include "base/str.h"
#include "proto/horde_async.h"
#include "proto/horde_interrogate.h"
#include "proto/horde_pop.h"
#include "proto/horde_sharedkey.h"
#include "proto/horde_status.h"
#include "proto/horde_style.h"
#include "proto/horde_submit.h"
#include "proto/horde_worker.h"

static struct buf body;
static struct error err;

static int begin(void **state)
{
    buf_init(&body, 1 << 20);
    err = (struct error){0};
    return 0;
}

static int end(void **state)
{
    buf_release(&body);
    return 0;
}

static json_t *sent(void)
{
    json_error_t wrong;
    json_t *o = json_loadb((char *)body.data, body.length, JSON_REJECT_DUPLICATES, &wrong);
    if (!o) fail_msg("%s in %s", wrong.text, body.data);
    return o;
}

static void pop_names_every_field(void **state)
{
    static const char *const all[] = {"name",
                                      "bridge_agent",
                                      "models",
                                      "threads",
                                      "amount",
                                      "max_pixels",
                                      "nsfw",
                                      "blacklist",
                                      "priority_usernames",
                                      "require_upfront_kudos",
                                      "extra_slow_worker",
                                      "limit_max_steps",
                                      "allow_img2img",
                                      "allow_painting",
                                      "allow_unsafe_ipaddr",
                                      "allow_post_processing",
                                      "allow_controlnet",
                                      "allow_sdxl_controlnet",
                                      "allow_lora"};
    struct horde_pop pop = {.name = "reading \"room\"",
                            .bridge_agent = "kiln:0.1.0:https://x",
                            .models = (const char *const[]){"Deliberate", "pocket"},
                            .model_count = 2,
                            .threads = 1,
                            .amount = 4,
                            .max_pixels = 1572864,
                            .allow_lora = true};
    assert_int_equal(horde_pop_format(&pop, &body, &err), 0);
    json_t *o = sent();
    assert_int_equal(json_object_size(o), COUNT_OF(all));
    for (size_t i = 0; i < COUNT_OF(all); i++)
        if (!json_object_get(o, all[i])) fail_msg("%s is missing", all[i]);
    assert_string_equal(json_string_value(json_object_get(o, "name")), "reading \"room\"");
    assert_int_equal(json_array_size(json_object_get(o, "models")), 2);
    assert_int_equal(json_integer_value(json_object_get(o, "max_pixels")), 1572864);
    assert_true(json_is_true(json_object_get(o, "allow_lora")));
    assert_true(json_is_false(json_object_get(o, "allow_controlnet")));
    json_decref(o);

    buf_clear(&body);
    pop.send_extended_controlnet = true;
    pop.sampler_contract = "1.0";
    assert_int_equal(horde_pop_format(&pop, &body, &err), 0);
    o = sent();
    assert_true(json_is_false(json_object_get(o, "allow_extended_controlnet")));
    assert_string_equal(json_string_value(json_object_get(o, "sampler_execution_contract_version")),
                        "1.0");
    json_decref(o);
}

static void submit_says_how_it_went(void **state)
{
    char long_ref[600];
    memset(long_ref, 'x', sizeof long_ref - 1);
    long_ref[sizeof long_ref - 1] = '\0';
    struct horde_metadata metadata[] = {
        {METADATA_BATCH_INDEX, METADATA_VALUE_SEE_REF, "1"},
        {METADATA_LORA, METADATA_VALUE_DOWNLOAD_FAILED, long_ref},
        {METADATA_INFORMATION, METADATA_VALUE_NSFW, NULL},
    };
    struct horde_submit s = {
        .id = "a-1", .seed = 3471920085, .metadata = metadata, .metadata_count = 3};
    assert_int_equal(horde_submit_format(&s, &body, &err), 0);
    json_t *o = sent(), *list = json_object_get(o, "gen_metadata");
    assert_string_equal(json_string_value(json_object_get(o, "generation")), "R2");
    assert_string_equal(json_string_value(json_object_get(o, "state")), "ok");
    assert_int_equal(json_integer_value(json_object_get(o, "seed")), 3471920085);
    assert_string_equal(json_string_value(json_object_get(json_array_get(list, 0), "type")),
                        "batch_index");
    assert_int_equal(json_string_length(json_object_get(json_array_get(list, 1), "ref")), 255);
    assert_null(json_object_get(json_array_get(list, 2), "ref"));
    json_decref(o);

    buf_clear(&body);
    s = (struct horde_submit){.id = "a-1", .state = SUBMIT_FAULTED};
    assert_int_equal(horde_submit_format(&s, &body, &err), 0);
    o = sent();
    assert_string_equal(json_string_value(json_object_get(o, "generation")), "faulted");
    assert_string_equal(json_string_value(json_object_get(o, "state")), "faulted");
    json_decref(o);

    buf_clear(&body);
    s.metadata_count = 51;
    assert_int_equal(horde_submit_format(&s, &body, &err), ERR_INVALID);
    assert_non_null(strstr(err.text, "51 metadata entries, the limit is 50"));
    s.metadata_count = 0;
    s.seed = UINT64_MAX;
    assert_int_equal(horde_submit_format(&s, &body, &err), ERR_INVALID);
    assert_int_equal(body.length, 0);
}

/* What we ask of the Horde, given back as a job, must be the same request. */
static void asked_and_popped_are_the_same(void **state)
{
    static uint8_t picture[] = {'R', 'I', 'F', 'F', 0, 1};
    struct image_request q;
    image_request_init(&q);
    free(q.prompt);
    free(q.negative);
    q.prompt = alloc_string("ein Krug");
    q.negative = alloc_string("unscharf");
    q.width_px = 640;
    q.steps = 12;
    q.cfg = 6.55;
    q.sampler = SAMPLER_DPMSOLVER;
    q.schedule = SCHEDULE_KARRAS;
    q.seed = 99120;
    q.clip_skip = 2;
    q.tiling = q.hires_fix = true;
    q.hires_denoise = 0.5;
    q.source_use = SOURCE_INPAINTING;
    q.source = (struct blob){picture, sizeof picture};
    q.mask = (struct blob){picture, 3};
    q.denoise = 0.6;
    q.qr = (struct request_qr){.text = alloc_string("https://haidra.net"),
                               .prompt = alloc_string("bricks"),
                               .drawer = QR_VERTICAL_BARS,
                               .x_px = 64,
                               .y_px = -1,
                               .border_modules = 2};
    q.loras[0] = (struct request_lora){NULL, alloc_string("Runes"), 0.8, 0.5};
    q.lora_count = 1;
    struct horde_async a = {.request = &q,
                            .slow_workers = true,
                            .r2 = false,
                            .models = (const char *const[]){"Deliberate"},
                            .model_count = 1,
                            .post_processing = (const char *const[]){"GFPGAN"},
                            .post_count = 1};
    assert_int_equal(horde_async_format(&a, &body, &err), 0);
    json_t *o = sent(), *p = json_deep_copy(json_object_get(o, "params"));
    assert_true(json_is_false(json_object_get(o, "r2")));
    json_object_set(p, "prompt", json_object_get(o, "prompt"));
    json_object_set(p, "ddim_steps", json_object_get(p, "steps"));
    json_object_set(p, "n_iter", json_object_get(p, "n"));
    json_object_del(p, "steps");
    json_object_del(p, "n");
    json_t *pop = json_pack("{s:s,s:[s],s:o,s:s,s:i,s:O,s:O,s:O,s:n}", "id", "a1", "ids", "a1",
                            "payload", p, "model", "Deliberate", "ttl", 150, "source_processing",
                            json_object_get(o, "source_processing"), "source_image",
                            json_object_get(o, "source_image"), "source_mask",
                            json_object_get(o, "source_mask"), "r2_uploads");
    char *text = json_dumps(pop, 0);
    struct horde_job job;
    struct blob source;
    if (horde_pop_parse(&job, text, strlen(text), &err)) fail_msg("%s", err.text);
    assert_string_equal(job.refusal.text, "");
    assert_null(job.unknown_fields);
    assert_string_equal(job.request.prompt, "ein Krug");
    assert_string_equal(job.request.negative, "unscharf");
    assert_int_equal(job.request.width_px, 640);
    assert_int_equal(job.request.steps, 12);
    assert_true(job.request.cfg == 6.55);
    assert_int_equal(job.request.sampler, SAMPLER_DPMSOLVER);
    assert_int_equal(job.request.schedule, SCHEDULE_KARRAS);
    assert_int_equal(job.request.seed, 99120);
    assert_int_equal(job.request.clip_skip, 2);
    assert_true(job.request.tiling && job.request.hires_fix && job.request.hires_denoise == 0.5);
    assert_int_equal(job.request.source_use, SOURCE_INPAINTING);
    assert_true(job.request.denoise == 0.6);
    assert_string_equal(job.request.qr.text, "https://haidra.net");
    assert_string_equal(job.request.qr.prompt, "bricks");
    assert_int_equal(job.request.qr.drawer, QR_VERTICAL_BARS);
    assert_int_equal(job.request.qr.x_px, 64);
    assert_int_equal(job.request.qr.y_px, -1);
    assert_int_equal(job.request.qr.border_modules, 2);
    assert_string_equal(job.loras[0].name, "Runes");
    assert_true(job.loras[0].model_strength == 0.8 && job.loras[0].clip_strength == 0.5);
    assert_string_equal(job.post_processing[0], "GFPGAN");
    assert_int_equal(horde_source_decode(&source, job.source_image, 1 << 20, &err), 0);
    assert_int_equal(source.length, sizeof picture);
    assert_memory_equal(source.data, picture, sizeof picture);
    free(source.data);
    horde_job_release(&job);
    free(text);
    json_decref(pop);
    json_decref(o);
    q.source.data = q.mask.data = NULL;
    image_request_release(&q);
}

static void what_the_horde_would_refuse_is_not_sent(void **state)
{
    struct image_request q;
    image_request_init(&q);
    struct horde_async a = {.request = &q};
    assert_int_equal(horde_async_format(&a, &body, &err), ERR_INVALID);
    assert_string_equal(err.text, "the prompt is empty");
    free(q.prompt);
    q.prompt = alloc_string("x");
    q.cfg = 7.555;
    assert_int_equal(horde_async_format(&a, &body, &err), ERR_INVALID);
    assert_non_null(strstr(err.text, "two decimals"));
    q.cfg = 7.5;
    q.width_px = 500;
    assert_int_equal(horde_async_format(&a, &body, &err), ERR_INVALID);
    q.width_px = 512;
    a.worker_count = 6;
    assert_int_equal(horde_async_format(&a, &body, &err), ERR_INVALID);
    assert_non_null(strstr(err.text, "6 workers named"));
    a.worker_count = 0;
    q.lora_count = 6;
    assert_int_equal(horde_async_format(&a, &body, &err), ERR_INVALID);
    q.lora_count = 0;
    assert_int_equal(horde_async_format(&a, &body, &err), 0);
    image_request_release(&q);
}

static void a_style_leaves_the_rest_to_the_server(void **state)
{
    struct image_request q;
    image_request_init(&q);
    free(q.prompt);
    q.prompt = alloc_string("x");
    struct horde_async a = {
        .request = &q, .models = (const char *const[]){"m"}, .model_count = 1, .style = "ink"};
    assert_int_equal(horde_async_format(&a, &body, &err), 0);
    json_t *o = sent();
    assert_string_equal(json_string_value(json_object_get(o, "style")), "ink");
    assert_null(json_object_get(o, "models"));
    assert_int_equal(json_object_size(json_object_get(o, "params")), 3);
    json_decref(o);
    a.style = "xy";
    assert_int_equal(horde_async_format(&a, &body, &err), ERR_INVALID);
    assert_non_null(strstr(err.text, "3 to 1024"));
    image_request_release(&q);
}

static void shared_keys_are_written_and_read(void **state)
{
    static const struct {
        struct horde_sharedkey_change change;
        bool create;
        const char *sent; /* or part of the complaint */
    } cases[] = {
        {{.name = "class"}, true, "{\"name\":\"class\"}"},
        {{.set_days = true, .days = 0}, false, "{\"expiry\":0}"},
        {{.name = "abc",
          .set_kudos = true,
          .kudos = -1,
          .set_days = true,
          .days = 30,
          .set_pixels = true,
          .pixels = 4194304,
          .set_steps = true,
          .steps = 0},
         true,
         "{\"name\":\"abc\",\"kudos\":-1,\"expiry\":30,\"max_image_pixels\":4194304,"
         "\"max_image_steps\":0}"},
        {{.name = "\xc3\xa4\xc3\xb6"}, true, "2 characters"},
        {{.set_days = true, .days = 0}, true, "at least 1 day"},
        {{.set_kudos = true, .kudos = 50000001}, true, "50000001 kudos"},
        {{.set_steps = true, .steps = 501}, false, "501 steps"},
        {{.set_pixels = true, .pixels = -2}, false, "-2 pixels"},
        {{0}, false, "nothing to change"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        buf_clear(&body);
        int rc = horde_sharedkey_change_format(&cases[i].change, cases[i].create, &body, &err);
        bool ok = cases[i].sent[0] == '{';
        assert_int_equal(rc, ok ? 0 : ERR_INVALID);
        if (ok)
            assert_string_equal((char *)body.data, cases[i].sent);
        else if (!strstr(err.text, cases[i].sent))
            fail_msg("%s: %s", cases[i].sent, err.text);
    }
    struct horde_sharedkey k;
    const char *full =
        "{\"id\":\"3f2504e0-4f89-41d3-9a0c-0305e82c3301\",\"kudos\":7,\"name\":null}";
    assert_int_equal(horde_sharedkey_parse(&k, full, strlen(full), &err), 0);
    assert_true(k.kudos == 7 && k.max_image_steps == -1 && !k.expiry[0] && !k.name[0]);
    horde_sharedkey_release(&k);
    static const char *const broken[] = {
        "{}", "[]", "{\"id\":5}", "{\"id\":\"../../users\"}",
        "{\"id\":\"3f2504e0-4f89-41d3-9a0c-0305e82c3301\",\"kudos\":-2}"};
    for (size_t i = 0; i < COUNT_OF(broken); i++)
        if (horde_sharedkey_parse(&k, broken[i], strlen(broken[i]), &err) != ERR_FORMAT)
            fail_msg("%s is read", broken[i]);
}

static void alchemy_results_have_their_shape(void **state)
{
    struct alchemy_word words[] = {
        {"tags", "pot", 0.5}, {"sites", "shop", 0.25}, {"tags", "jug", 0.4}};
    struct horde_alchemy_submit s = {.id = "f1",
                                     .form = "interrogation",
                                     .kind = ALCHEMY_WORDS,
                                     .words = words,
                                     .word_count = 3};
    assert_int_equal(horde_alchemy_submit_format(&s, &body, &err), 0);
    assert_string_equal(
        (char *)body.data,
        "{\"id\":\"f1\",\"state\":\"ok\",\"result\":{\"interrogation\":{\"tags\":["
        "{\"text\":\"pot\",\"confidence\":0.5},{\"text\":\"jug\",\"confidence\":0.4}],"
        "\"sites\":[{\"text\":\"shop\",\"confidence\":0.25}],\"artists\":[],\"flavors\":[],"
        "\"mediums\":[],\"movements\":[],\"techniques\":[]}}}");
    struct horde_words back;
    char *value = strstr((char *)body.data, "{\"tags\"");
    assert_int_equal(horde_words_parse(&back, value, strlen(value) - 2, &err), 0);
    assert_int_equal(back.count, 3);
    assert_string_equal(back.list[1].text, "jug");
    assert_string_equal(back.list[2].group, "sites");
    assert_true(back.list[2].confidence == 0.25);
    horde_words_release(&back);
    static const char *const broken[] = {"[]",
                                         "{\"tags\":1}",
                                         "{\"tags\":[{\"confidence\":1}]}",
                                         "{\"tags\":[7]}",
                                         "{\"tags\":[{\"text\":5}]}",
                                         "\"tags\""};
    for (size_t i = 0; i < COUNT_OF(broken); i++)
        if (horde_words_parse(&back, broken[i], strlen(broken[i]), &err) != ERR_FORMAT)
            fail_msg("%s is read", broken[i]);
    assert_int_equal(horde_words_parse(&back, "{\"tags\":null}", 13, &err), 0);
    assert_int_equal(back.count, 0);
    horde_words_release(&back);
    assert_int_equal(alchemy_price_milli(ALCHEMY_CAPTION, 9, true), 3000);
    assert_int_equal(alchemy_price_milli(ALCHEMY_INTERROGATION, 9, false), 4000);
    assert_int_equal(alchemy_price_milli(ALCHEMY_GFPGAN, 4, true), 14000);
    buf_clear(&body);
    s = (struct horde_alchemy_submit){
        .id = "f1", .form = "nsfw", .kind = ALCHEMY_FLAG, .flag = true};
    assert_int_equal(horde_alchemy_submit_format(&s, &body, &err), 0);
    assert_string_equal((char *)body.data,
                        "{\"id\":\"f1\",\"state\":\"ok\",\"result\":{\"nsfw\":true}}");
    buf_clear(&body);
    s = (struct horde_alchemy_submit){.id = "f1", .form = "GFPGAN", .kind = ALCHEMY_IMAGE};
    assert_int_equal(horde_alchemy_submit_format(&s, &body, &err), 0);
    assert_string_equal((char *)body.data,
                        "{\"id\":\"f1\",\"state\":\"ok\",\"result\":{\"GFPGAN\":\"R2\"}}");
    buf_clear(&body);
    s.faulted = true;
    assert_int_equal(horde_alchemy_submit_format(&s, &body, &err), 0);
    assert_string_equal((char *)body.data, "{\"id\":\"f1\",\"state\":\"faulted\",\"result\":{}}");
    assert_int_equal(alchemy_form_find("4x_AnimeSharp"), ALCHEMY_ANIME_SHARP);
    assert_int_equal(alchemy_form_find("divination"), ALCHEMY_UNKNOWN);
    buf_clear(&body);
    struct horde_alchemy_async a = {.forms = (const char *const[]){"caption"}, .form_count = 1};
    assert_int_equal(horde_alchemy_async_format(&a, &body, &err), ERR_INVALID);
    a.source_image = "https://x/y.png";
    assert_int_equal(horde_alchemy_async_format(&a, &body, &err), 0);
    buf_clear(&body);
    struct horde_alchemy_pop pop = {
        .name = "a", .bridge_agent = "kiln:1:x", .amount = 2, .threads = 1, .max_tiles = 16};
    assert_int_equal(horde_alchemy_pop_format(&pop, &body, &err), 0);
    json_decref(sent());
}

static void changes_and_transfers(void **state)
{
    struct horde_worker_change c = {0};
    assert_int_equal(horde_worker_change_format(&c, &body, &err), ERR_INVALID);
    c.set_maintenance = true;
    c.maintenance_msg = "dust";
    assert_int_equal(horde_worker_change_format(&c, &body, &err), 0);
    assert_string_equal((char *)body.data, "{\"maintenance\":false,\"maintenance_msg\":\"dust\"}");
    buf_clear(&body);
    assert_int_equal(horde_transfer_format("a#1", 0, &body, &err), ERR_INVALID);
    assert_int_equal(horde_transfer_format("a#1", 5, &body, &err), 0);
    assert_string_equal((char *)body.data, "{\"username\":\"a#1\",\"amount\":5}");
}

static void ttl_is_the_servers(void **state)
{
    struct image_request q;
    image_request_init(&q);
    assert_int_equal(horde_ttl_seconds(&q, false, false), 150); /* 512x512x30 */
    q.width_px = q.height_px = 1024;
    assert_int_equal(horde_ttl_seconds(&q, false, false), 270);
    assert_int_equal(horde_ttl_seconds(&q, false, true), 810);
    q.steps = 50;
    q.sampler = SAMPLER_K_DPMPP_SDE;
    assert_int_equal(horde_ttl_seconds(&q, false, false), 830);
    q.sampler = SAMPLER_K_EULER;
    q.steps = 4;
    assert_int_equal(horde_ttl_seconds(&q, true, false), 186);
    q.steps = 90;
    q.sampler = SAMPLER_K_HEUN;
    assert_int_equal(horde_ttl_seconds(&q, false, false), 1470); /* recorded */
    image_request_release(&q);
}

static void base64_is_strict_about_rubbish(void **state)
{
    struct blob b;
    assert_int_equal(horde_source_decode(&b, "a2lsbg==", 100, &err), 0);
    assert_int_equal(b.length, 4);
    assert_memory_equal(b.data, "kiln", 4);
    free(b.data);
    assert_int_equal(horde_source_decode(&b, "data:image/png;base64,a2ls\nbg", 100, &err), 0);
    assert_int_equal(b.length, 4);
    free(b.data);
    static const char *const bad[] = {"", "a", "a2*s", "====", "a2ls=x", "a2lsb"};
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        if (!horde_source_decode(&b, bad[i], 100, &err)) fail_msg("\"%s\" was taken", bad[i]);
    assert_int_equal(horde_source_decode(&b, "a2lsbmtpbG5raWxuYTJsc2JtdHBiRzVyYVd4dQ==", 10, &err),
                     ERR_NO_MEMORY);
}

static void swagger_enums_are_found(void **state)
{
    static const char text[] =
        "{\"definitions\":{\"PopInputStable\":{\"allOf\":[{\"$ref\":\"#/definitions/PopInput\"},"
        "{\"properties\":{\"allow_extended_controlnet\":{\"type\":\"boolean\"}}}]},"
        "\"PopInput\":{\"properties\":{\"name\":{}}},"
        "\"GenerationMetadataStable\":{\"properties\":{\"type\":{\"enum\":[\"lora\",\"ti\"]},"
        "\"value\":{\"enum\":[\"nsfw\"]}}},"
        "\"ModelPayloadRootStable\":{\"properties\":{\"sampler_name\":{\"enum\":[\"k_euler\"]},"
        "\"post_processing\":{\"type\":\"array\",\"items\":{\"enum\":[\"GFPGAN\"]}}}},"
        "\"ModelGenerationInputStable\":{\"allOf\":[{\"$ref\":\"#/definitions/"
        "ModelPayloadRootStable\"}]}}}";
    struct horde_swagger s;
    if (horde_swagger_parse(&s, text, sizeof text - 1, &err)) fail_msg("%s", err.text);
    assert_true(s.probed && s.pop_extended_controlnet && !s.pop_sampler_contract);
    assert_int_equal(s.metadata_type_count, 2);
    assert_string_equal(s.metadata_types[1], "ti");
    assert_string_equal(s.samplers[0], "k_euler");
    assert_string_equal(s.post_processors[0], "GFPGAN");
    assert_int_equal(s.scheduler_count, 0);
    horde_swagger_release(&s);
    static const char loop[] = "{\"definitions\":{\"PopInputStable\":{\"allOf\":[{\"$ref\":"
                               "\"#/definitions/PopInputStable\"}]}}}";
    assert_int_equal(horde_swagger_parse(&s, loop, sizeof loop - 1, &err), 0);
    horde_swagger_release(&s);
    assert_int_equal(horde_swagger_parse(&s, "{}", 2, &err), ERR_FORMAT);
}

static void longest_prompts(void **state)
{
    struct horde_job job;
    for (int over = 0; over < 2; over++) {
        size_t n = REQUEST_PROMPT_BYTES_MAX + (size_t)over;
        char *prompt = alloc_zero(n + 1, 1);
        memset(prompt, 'k', n);
        char *text =
            alloc_printf("{\"id\":\"a\",\"ids\":[\"a\"],\"model\":\"m\",\"ttl\":150,\"payload\":"
                         "{\"prompt\":\"%s\",\"seed\":\"1\"}}",
                         prompt);
        if (horde_pop_parse(&job, text, strlen(text), &err)) fail_msg("%s", err.text);
        if (over)
            assert_string_equal(job.refusal.text, "the prompt has 65537 bytes, the limit is 65536");
        else
            assert_string_equal(job.refusal.text, "");
        horde_job_release(&job);
        free(text);
        free(prompt);
    }
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, begin, end)
    const struct CMUnitTest tests[] = {
        TEST(pop_names_every_field),
        TEST(submit_says_how_it_went),
        TEST(asked_and_popped_are_the_same),
        TEST(what_the_horde_would_refuse_is_not_sent),
        TEST(a_style_leaves_the_rest_to_the_server),
        TEST(shared_keys_are_written_and_read),
        TEST(alchemy_results_have_their_shape),
        TEST(changes_and_transfers),
        TEST(ttl_is_the_servers),
        TEST(base64_is_strict_about_rubbish),
        TEST(swagger_enums_are_found),
        TEST(longest_prompts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
