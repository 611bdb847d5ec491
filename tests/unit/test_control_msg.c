/* proto/control_msg: requests and documents there and back. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "proto/control_msg.h"
#include "proto/frame.h"

static void request_round_trip(void **state)
{
    struct control_request a = {.kind = CONTROL_PAUSE,
                                .now = true,
                                .for_seconds = 600,
                                .kudos_milli = -12345,
                                .text = "dinner \"guests\""},
                           b;
    struct buf out;
    struct error err = {0};
    const uint8_t *payload;
    size_t length;
    buf_init(&out, FRAME_CONTROL_MAX);
    assert_int_equal(control_request_encode(&a, &out, &err), 0);
    assert_int_equal(frame_next(&out, FRAME_CONTROL_MAX, &payload, &length, &err), 1);
    assert_int_equal(control_request_decode(&b, payload, length, &err), 0);
    assert_int_equal(b.kind, CONTROL_PAUSE);
    assert_true(b.now);
    assert_int_equal(b.for_seconds, 600);
    assert_int_equal(b.kudos_milli, -12345);
    assert_string_equal(b.text, "dinner \"guests\"");
    assert_null(b.job);
    control_request_release(&b);
    buf_release(&out);
}

static void bad_requests_are_named(void **state)
{
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"{}", "request is missing"},
        {"{\"request\":\"dance\"}", "request \"dance\" is not known"},
        {"{\"request\":5}", "request is a whole number, expected a text"},
        {"{\"request\":\"pause\",\"for_seconds\":-1}", "for_seconds is -1"},
        {"{\"request\":\"jobs\",\"limit\":99999999}", "limit is 99999999, expected 0 to 10000"},
        {"{\"request\":\"jobs\",\"request\":\"jobs\"}", "duplicate"},
        {"status", "not valid JSON"},
        {"[\"status\"]", "request is missing"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct control_request r;
        struct error err = {0};
        int rc =
            control_request_decode(&r, (const uint8_t *)cases[i].text, strlen(cases[i].text), &err);
        if (rc != ERR_FORMAT || !strstr(err.text, cases[i].says))
            fail_msg("%s gives %d: %s", cases[i].text, rc, err.text);
    }
}

static void decode(struct control_reply *to, const struct control_reply *from)
{
    struct buf out;
    struct error err = {0};
    const uint8_t *payload;
    size_t length;
    buf_init(&out, FRAME_CONTROL_MAX + 4);
    if (control_reply_encode(from, &out, &err)) fail_msg("%s", err.text);
    assert_int_equal(frame_next(&out, FRAME_CONTROL_MAX, &payload, &length, &err), 1);
    if (control_reply_decode(to, payload, length, &err)) fail_msg("%s", err.text);
    assert_int_equal(to->doc, from->doc);
    buf_release(&out);
}

static void documents_round_trip(void **state)
{
    struct control_reply a = {.doc = CONTROL_DOC_STATUS}, b;
    struct control_engine engine = {.device = "cpu",
                                    .state = "busy",
                                    .step = 3,
                                    .steps = 20,
                                    .temperature_c = NAN,
                                    .watts = 65.5};
    struct control_reason reason = {
        .gate = "schedule", .text = "outside its hours", .blocks = true};
    a.status.version = "0.1.0";
    a.status.state = "running";
    a.status.earned_milli = 123456789;
    a.status.device_busy = NAN;
    a.status.engines = &engine;
    a.status.engine_count = 1;
    a.status.reasons = &reason;
    a.status.reason_count = 1;
    decode(&b, &a);
    assert_string_equal(b.status.state, "running");
    assert_string_equal(b.status.user, "");
    assert_int_equal(b.status.earned_milli, 123456789);
    assert_true(isnan(b.status.device_busy));
    assert_int_equal(b.status.engine_count, 1);
    assert_true(isnan(b.status.engines[0].temperature_c) && b.status.engines[0].watts == 65.5);
    assert_true(b.status.reasons[0].blocks);
    control_reply_release(&b);

    struct control_job jobs[2] = {
        {.id = "a", .state = "SETTLED", .reward_milli = 6500, .joules = NAN},
        {.id = "b", .state = "FAULTED", .error = "no memory"}};
    a = (struct control_reply){.doc = CONTROL_DOC_JOBS, .jobs = {jobs, 2, 17}};
    decode(&b, &a);
    assert_int_equal(b.jobs.count, 2);
    assert_int_equal(b.jobs.total, 17);
    assert_string_equal(b.jobs.list[1].error, "no memory");
    assert_int_equal(b.jobs.list[0].reward_milli, 6500);
    control_reply_release(&b);

    struct control_posting postings[1] = {{1, 1795500000123, "spent", "x", -12070, "exact", ""}};
    struct control_sum sums[1] = {{"spent", -12070, 1}};
    a = (struct control_reply){.doc = CONTROL_DOC_LEDGER,
                               .ledger = {.list = postings,
                                          .count = 1,
                                          .sums = sums,
                                          .sum_count = 1,
                                          .unexplained_milli = -7,
                                          .verdict = "balanced"}};
    decode(&b, &a);
    assert_int_equal(b.ledger.list[0].kudos_milli, -12070);
    assert_int_equal(b.ledger.list[0].wall_ms, 1795500000123);
    assert_int_equal(b.ledger.unexplained_milli, -7);
    control_reply_release(&b);

    a = (struct control_reply){.doc = CONTROL_DOC_ERROR, .error = {"not found", "no job x"}};
    decode(&b, &a);
    assert_string_equal(b.error.text, "no job x");
    control_reply_release(&b);
    static const enum control_doc bare[] = {CONTROL_DOC_DONE, CONTROL_DOC_WORKERS,
                                            CONTROL_DOC_MODELS, CONTROL_DOC_WHY};
    for (size_t i = 0; i < COUNT_OF(bare); i++) {
        a = (struct control_reply){.doc = bare[i]};
        decode(&b, &a);
        control_reply_release(&b);
    }
}

static void printed_for_people_is_the_same_document(void **state)
{
    struct control_job job = {.id = "a", .state = "SETTLED", .seconds = NAN, .joules = 1.5};
    struct control_reply a = {.doc = CONTROL_DOC_JOBS, .jobs = {&job, 1, 1}}, b;
    struct buf out;
    struct error err = {0};
    buf_init(&out, FRAME_CONTROL_MAX);
    assert_int_equal(control_reply_print(&a, &out, &err), 0);
    assert_non_null(
        strstr((char *)out.data,
               "{\n  \"document\": \"jobs\",\n  \"jobs\": [\n    {\n      \"id\": \"a\""));
    assert_int_equal(control_reply_decode(&b, out.data, out.length, &err), 0);
    assert_true(isnan(b.jobs.list[0].seconds) && b.jobs.list[0].joules == 1.5);
    control_reply_release(&b);
    buf_release(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(request_round_trip),
        cmocka_unit_test(bad_requests_are_named),
        cmocka_unit_test(documents_round_trip),
        cmocka_unit_test(printed_for_people_is_the_same_document),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
