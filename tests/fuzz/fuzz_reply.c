/* Every other answer of the Horde: each parser sees each input. */
#include <stdlib.h>

#include "base/alloc.h"
#include "fuzz.h"
#include "proto/horde_async.h"
#include "proto/horde_error.h"
#include "proto/horde_interrogate.h"
#include "proto/horde_sharedkey.h"
#include "proto/horde_status.h"
#include "proto/horde_style.h"
#include "proto/horde_submit.h"
#include "proto/horde_worker.h"

static const struct fuzz_seed seeds[] = {
    FUZZ_TEXT("{\"reward\":11.469999999999999}"),
    FUZZ_TEXT("{\"message\":\"Input payload validation failed\",\"rc\":\"AbortedGen.\","
              "\"errors\":{\"seed\":\"'42' is not of type 'integer'\"}}"),
    FUZZ_TEXT("{\"id\":\"a-1\",\"kudos\":12.5,\"message\":\"m\",\"warnings\":[{\"code\":\"c\","
              "\"message\":\"m\"}]}"),
    FUZZ_TEXT(
        "{\"finished\":1,\"processing\":0,\"restarted\":0,\"waiting\":0,\"done\":true,\"faulted\":"
        "false,"
        "\"wait_time\":0,\"queue_position\":0,\"kudos\":10.4,\"is_possible\":true,\"shared\":false,"
        "\"generations\":[{\"img\":\"https://x\",\"seed\":\"99\",\"id\":\"77\",\"censored\":false,"
        "\"model\":\"D\",\"worker_id\":\"c\",\"worker_name\":\"r\",\"state\":\"ok\","
        "\"gen_metadata\":[{\"type\":\"lora\",\"value\":\"download_failed\",\"ref\":\"1\"}]}]}"),
    FUZZ_TEXT("{\"forms\":[{\"id\":\"0f6f\",\"form\":\"annotation\",\"payload\":{\"control_type\":"
              "\"hed\"},"
              "\"source_image\":\"https://x\",\"r2_upload\":null}],\"skipped\":{\"untrusted\":1}}"),
    FUZZ_TEXT("{\"tags\":[{\"text\":\"pot\",\"confidence\":0.5}],\"sites\":[],\"artists\":null}"),
    FUZZ_TEXT("{\"state\":\"done\",\"forms\":[{\"form\":\"caption\",\"state\":\"done\",\"result\":{"
              "\"caption\":"
              "\"a\"}},{\"form\":\"interrogation\",\"state\":\"done\",\"result\":{"
              "\"interrogation\":{\"tags\":[]}}}]}"),
    FUZZ_TEXT("{\"username\":\"a#1\",\"id\":1,\"kudos\":1.0,\"kudos_details\":{\"accumulated\":1},"
              "\"worker_ids\":[\"x\"],\"active_generations\":{\"image\":[\"y\"]}}"),
    FUZZ_TEXT("[{\"id\":\"1\",\"name\":\"w\",\"type\":\"image\",\"online\":true,\"uptime\":5,"
              "\"team\":{\"name\":null},"
              "\"kudos_details\":{\"generated\":1.5,\"uptime\":null},\"models\":[\"m\"],\"forms\":["
              "\"f\"],"
              "\"max_pixels\":5,\"post-processing\":true}]"),
    FUZZ_TEXT(
        "[{\"name\":\"m\",\"count\":1,\"performance\":1.5,\"queued\":2,\"jobs\":1,\"eta\":3}]"),
    FUZZ_TEXT(
        "{\"definitions\":{\"PopInputStable\":{\"allOf\":[{\"$ref\":\"#/definitions/A\"}]},\"A\":"
        "{\"properties\":{\"type\":{\"enum\":[\"a\"]}}}}}"),
    FUZZ_TEXT(
        "{\"id\":\"3f2504e0-4f89-41d3-9a0c-0305e82c3301\",\"username\":\"a#1\",\"name\":\"n\","
        "\"kudos\":5000,\"expiry\":\"Tue, 24 Nov 2026 11:00:00 -0000\",\"utilized\":5,"
        "\"max_image_pixels\":-1,\"max_image_steps\":20,\"max_text_tokens\":-1}"),
    FUZZ_TEXT(
        "[{\"id\":\"1\",\"name\":\"s\",\"prompt\":\"{p}\",\"creator\":\"a#1\",\"use_count\":3,"
        "\"tags\":[\"t\"],\"models\":[\"m\"],\"nsfw\":false,\"shared_key\":null}]"),
    FUZZ_TEXT("{\"month\":{\"m\":5},\"message\":\"OK\",\"version\":\"5.1.5\",\"transferred\":5}"),
};

const struct fuzz_seed *fuzz_seeds(size_t *count)
{
    *count = sizeof seeds / sizeof seeds[0];
    return seeds;
}

#define PARSE_AND_RELEASE(type, parse, release)                                                    \
    do {                                                                                           \
        struct type *v = alloc_zero(1, sizeof *v);                                                 \
        if (!parse(v, text, size, &err)) release(v);                                               \
        free(v);                                                                                   \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    struct error err = {0};
    struct horde_error e;
    struct horde_heartbeat heartbeat;
    struct horde_modes modes;
    struct horde_performance performance;
    struct horde_check check;
    int64_t milli = -1;
    double kudos;
    if (!horde_submit_parse(&milli, text, size, &err)) KILN_ASSERT(milli >= 0);
    for (int status = 0; status <= 500; status += 100) {
        horde_error_parse(&e, status, text, size);
        for (int call = 0; call < HORDE_CALL_COUNT; call++) {
            struct horde_reaction r = horde_error_react((enum horde_call)call, &e);
            KILN_ASSERT(r.advice && r.action < HORDE_ACTION_COUNT);
        }
    }
    PARSE_AND_RELEASE(horde_accepted, horde_accepted_parse, horde_accepted_release);
    PARSE_AND_RELEASE(horde_result, horde_result_parse, horde_result_release);
    PARSE_AND_RELEASE(horde_forms, horde_forms_parse, horde_forms_release);
    PARSE_AND_RELEASE(horde_alchemy_result, horde_alchemy_result_parse,
                      horde_alchemy_result_release);
    PARSE_AND_RELEASE(horde_words, horde_words_parse, horde_words_release);
    PARSE_AND_RELEASE(horde_user, horde_user_parse, horde_user_release);
    PARSE_AND_RELEASE(horde_sharedkey, horde_sharedkey_parse, horde_sharedkey_release);
    PARSE_AND_RELEASE(horde_styles, horde_styles_parse, horde_styles_release);
    PARSE_AND_RELEASE(horde_workers, horde_workers_parse, horde_workers_release);
    PARSE_AND_RELEASE(horde_models, horde_models_parse, horde_models_release);
    PARSE_AND_RELEASE(horde_models, horde_model_stats_parse, horde_models_release);
    PARSE_AND_RELEASE(horde_news, horde_news_parse, horde_news_release);
    PARSE_AND_RELEASE(horde_swagger, horde_swagger_parse, horde_swagger_release);
    horde_check_parse(&check, text, size, &err);
    horde_heartbeat_parse(&heartbeat, text, size, &err);
    horde_modes_parse(&modes, text, size, &err);
    horde_performance_parse(&performance, text, size, &err);
    horde_transfer_parse(&kudos, text, size, &err);
    return 0;
}
