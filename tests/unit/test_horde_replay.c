/*
 * What the Horde says, read as a worker and a client read it. Our own exchanges in tests/data/horde, one
 * expectation each; and, when KILN_TRANSCRIPTS names a folder of recordings of a real server, all of
 * those.
 */
#include <dirent.h>
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
#include "base/buf.h"
#include "base/str.h"
#include "proto/capability.h"
#include "proto/horde_async.h"
#include "proto/horde_error.h"
#include "proto/horde_interrogate.h"
#include "proto/horde_pop.h"
#include "proto/horde_status.h"
#include "proto/horde_submit.h"
#include "proto/horde_worker.h"

struct exchange {
    const char *name, *method, *path;
    char *text; /* of the answer */
    size_t length;
    int status;
    const json_t *expect; /* of our own; NULL for recordings */
    const json_t *body;   /* the answer as JSON, or NULL */
};

struct tally {
    int exchanges, parsed, refused, skipped;
};

/* ---- comparing with what is expected ---------------------------------------------------- */

static const char *want_text(const struct exchange *x, const char *key)
{
    return json_string_value(json_object_get(x->expect, key));
}

static void want_equal(const struct exchange *x, const char *key, const char *got)
{
    const char *want = want_text(x, key);
    if (want && !str_equal(want, got))
        fail_msg("%s: %s is \"%s\", expected \"%s\"", x->name, key, got ? got : "NULL", want);
}

static void want_number(const struct exchange *x, const char *key, double got)
{
    const json_t *want = json_object_get(x->expect, key);
    if (want && json_number_value(want) != got)
        fail_msg("%s: %s is %g, expected %g", x->name, key, got, json_number_value(want));
}

/* A parse that failed must be one that was to fail, with the sentence that was expected. */
static bool want_parse(const struct exchange *x, int rc, const struct error *err)
{
    const char *want = want_text(x, "error");
    if (!rc && want) fail_msg("%s: parsed, expected \"%s\"", x->name, want);
    if (rc && !want) fail_msg("%s: %s", x->name, err->text);
    if (rc && !strstr(err->text, want))
        fail_msg("%s: \"%s\", expected \"%s\"", x->name, err->text, want);
    return !rc;
}

static void want_skipped(const struct exchange *x, const struct horde_skipped *list, int count)
{
    const json_t *want = json_object_get(x->body, "skipped");
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)want, key, v)
    {
        bool found = false;
        for (int i = 0; i < count; i++)
            if (str_equal(list[i].name, key)) found = list[i].count == json_integer_value(v);
        if (!found) fail_msg("%s: skipped.%s was not read", x->name, key);
    }
}

/* ---- one answer ------------------------------------------------------------------------- */

/* A recording says by itself what it gave; everything it gave must be runnable by our table. */
static void compare_job(const struct exchange *x, const struct horde_job *job)
{
    struct error err = {0};
    struct capability_set built = capability_built();
    const json_t *ids = json_object_get(x->body, "ids");
    const json_t *p = json_object_get(x->body, "payload");
    if (x->expect) return;
    if ((size_t)job->count != json_array_size(ids))
        fail_msg("%s: %d ids of %zu", x->name, job->count, json_array_size(ids));
    if (!job->count) return;
    if (capability_refuse(&built, job, FAMILY_SD1, &err)) fail_msg("%s: %s", x->name, err.text);
    assert_int_equal(job->request.width_px, json_integer_value(json_object_get(p, "width")));
    assert_int_equal(job->request.steps, json_integer_value(json_object_get(p, "ddim_steps")));
    assert_string_equal(job->seed_text, json_string_value(json_object_get(p, "seed")));
    assert_string_equal(sampler_name(job->request.sampler),
                        json_string_value(json_object_get(p, "sampler_name")));
    assert_int_equal(job->lora_count, (int)json_array_size(json_object_get(p, "loras")));
    assert_int_equal(job->post_count, (int)json_array_size(json_object_get(p, "post_processing")));
    assert_int_equal(job->ttl_seconds, json_integer_value(json_object_get(x->body, "ttl")));
    assert_null(job->unknown_fields);
    for (int i = 0; i < job->count; i++) assert_true(horde_source_is_url(job->upload_urls[i]));
}

static void read_pop(const struct exchange *x)
{
    struct horde_job job;
    struct error err = {0};
    if (!want_parse(x, horde_pop_parse(&job, x->text, x->length, &err), &err)) return;
    const char *refused = want_text(x, "refused");
    want_number(x, "count", job.count);
    want_number(x, "messages", job.message_count);
    want_number(x, "loras", job.lora_count);
    want_number(x, "tis", job.ti_count);
    want_number(x, "posts", job.post_count);
    if (!refused && job.refusal.code) fail_msg("%s: refused: %s", x->name, job.refusal.text);
    if (refused && !strstr(job.refusal.text, refused))
        fail_msg("%s: refusal \"%s\", expected \"%s\"", x->name, job.refusal.text, refused);
    want_equal(x, "prompt", job.request.prompt);
    want_equal(x, "negative", job.request.negative);
    want_equal(x, "seed", job.seed_text);
    want_equal(x, "unknown", job.unknown_fields);
    want_equal(x, "sampler", sampler_name(job.request.sampler));
    want_equal(x, "schedule", schedule_name(job.request.schedule));
    want_skipped(x, job.skipped, job.skipped_count);
    compare_job(x, &job);
    horde_job_release(&job);
}

static void read_submit(const struct exchange *x)
{
    int64_t milli = 0;
    struct error err = {0};
    if (!want_parse(x, horde_submit_parse(&milli, x->text, x->length, &err), &err)) return;
    want_number(x, "reward_milli", (double)milli);
    if (!x->expect)
        assert_int_equal(milli,
                         llround(json_number_value(json_object_get(x->body, "reward")) * 1000));
}

static void read_forms(const struct exchange *x)
{
    struct horde_forms *f = alloc_zero(1, sizeof *f);
    struct error err = {0};
    if (want_parse(x, horde_forms_parse(f, x->text, x->length, &err), &err)) {
        want_number(x, "count", f->count);
        want_skipped(x, f->skipped, f->skipped_count);
        for (int i = 0; i < f->count; i++) {
            bool image = alchemy_form_result(f->list[i].form) == ALCHEMY_IMAGE;
            assert_true(image == (f->list[i].r2_upload != NULL));
            assert_true(horde_source_is_url(f->list[i].source_image));
        }
        horde_forms_release(f);
    }
    free(f);
}

static void read_alchemy(const struct exchange *x)
{
    struct horde_alchemy_result r;
    struct error err = {0};
    if (!want_parse(x, horde_alchemy_result_parse(&r, x->text, x->length, &err), &err)) return;
    want_number(x, "count", r.count);
    const json_t *results = json_object_get(x->expect, "results");
    for (size_t i = 0; i < json_array_size(results); i++)
        assert_string_equal(r.list[i].result, json_string_value(json_array_get(results, i)));
    for (int i = 0; i < r.count; i++) {
        struct horde_words words;
        if (!str_equal(r.list[i].form, "interrogation") || !r.list[i].result) continue;
        if (horde_words_parse(&words, r.list[i].result, strlen(r.list[i].result), &err))
            fail_msg("%s", err.text);
        assert_string_equal(words.list[0].text, "kiln");
        assert_int_equal(words.count, 1);
        horde_words_release(&words);
    }
    horde_alchemy_result_release(&r);
}

static void read_user(const struct exchange *x)
{
    struct horde_user u;
    struct error err = {0};
    if (!want_parse(x, horde_user_parse(&u, x->text, x->length, &err), &err)) return;
    want_number(x, "kudos", u.kudos);
    if (!x->expect) assert_true(u.kudos == json_number_value(json_object_get(x->body, "kudos")));
    horde_user_release(&u);
}

static void read_workers(const struct exchange *x)
{
    struct horde_workers w;
    struct error err = {0};
    if (!want_parse(x, horde_workers_parse(&w, x->text, x->length, &err), &err)) return;
    want_number(x, "count", w.count);
    if (!x->expect) assert_true(w.count > 0 && w.list[0].id[0]);
    horde_workers_release(&w);
}

static void read_models(const struct exchange *x)
{
    struct horde_models m;
    struct error err = {0};
    if (!want_parse(x, horde_models_parse(&m, x->text, x->length, &err), &err)) return;
    want_number(x, "count", m.count);
    horde_models_release(&m);
}

static void read_news(const struct exchange *x)
{
    struct horde_news n;
    struct error err = {0};
    if (!want_parse(x, horde_news_parse(&n, x->text, x->length, &err), &err)) return;
    want_number(x, "count", n.count);
    horde_news_release(&n);
}

static void read_accepted(const struct exchange *x)
{
    struct horde_accepted a;
    struct error err = {0};
    if (!want_parse(x, horde_accepted_parse(&a, x->text, x->length, &err), &err)) return;
    want_number(x, "warnings", a.warning_count);
    if (!x->expect) assert_true(a.id[0] || a.kudos > 0);
    horde_accepted_release(&a);
}

static void read_result(const struct exchange *x)
{
    struct horde_result r;
    struct error err = {0};
    if (!want_parse(x, horde_result_parse(&r, x->text, x->length, &err), &err)) return;
    want_number(x, "count", r.generation_count);
    if (!x->expect)
        assert_int_equal(r.generation_count,
                         (int)json_array_size(json_object_get(x->body, "generations")));
    horde_result_release(&r);
}

static void read_check(const struct exchange *x)
{
    struct horde_check c;
    struct error err = {0};
    want_parse(x, horde_check_parse(&c, x->text, x->length, &err), &err);
}

static void read_heartbeat(const struct exchange *x)
{
    struct horde_heartbeat h;
    struct error err = {0};
    want_parse(x, horde_heartbeat_parse(&h, x->text, x->length, &err), &err);
}

static void read_modes(const struct exchange *x)
{
    struct horde_modes m;
    struct error err = {0};
    want_parse(x, horde_modes_parse(&m, x->text, x->length, &err), &err);
}

static void read_performance(const struct exchange *x)
{
    struct horde_performance p;
    struct error err = {0};
    want_parse(x, horde_performance_parse(&p, x->text, x->length, &err), &err);
}

static void read_transfer(const struct exchange *x)
{
    double kudos;
    struct error err = {0};
    want_parse(x, horde_transfer_parse(&kudos, x->text, x->length, &err), &err);
}

static const struct {
    const char *path; /* beginning */
    enum horde_call call;
    void (*read)(const struct exchange *x);
} readers[] = {
    {"/api/v2/generate/pop", HORDE_CALL_POP, read_pop},
    {"/api/v2/generate/submit", HORDE_CALL_SUBMIT, read_submit},
    {"/api/v2/generate/async", HORDE_CALL_CLIENT, read_accepted},
    {"/api/v2/generate/check/", HORDE_CALL_CLIENT, read_check},
    {"/api/v2/generate/status/", HORDE_CALL_CLIENT, read_result},
    {"/api/v2/interrogate/pop", HORDE_CALL_POP, read_forms},
    {"/api/v2/interrogate/submit", HORDE_CALL_SUBMIT, read_submit},
    {"/api/v2/interrogate/async", HORDE_CALL_CLIENT, read_accepted},
    {"/api/v2/interrogate/status/", HORDE_CALL_CLIENT, read_alchemy},
    {"/api/v2/find_user", HORDE_CALL_READ, read_user},
    {"/api/v2/users/", HORDE_CALL_READ, read_user},
    {"/api/v2/workers", HORDE_CALL_READ, read_workers},
    {"/api/v2/kudos/transfer", HORDE_CALL_CLIENT, read_transfer},
    {"/api/v2/status/heartbeat", HORDE_CALL_READ, read_heartbeat},
    {"/api/v2/status/modes", HORDE_CALL_READ, read_modes},
    {"/api/v2/status/performance", HORDE_CALL_READ, read_performance},
    {"/api/v2/status/models", HORDE_CALL_READ, read_models},
    {"/api/v2/status/news", HORDE_CALL_READ, read_news},
};

/* What the recordings' README says of the refusals a worker meets: beginning of the name, action. */
static const struct {
    const char *name, *action;
} recorded[] = {
    {"005", "report"},     {"025", "settled"},       {"026", "forfeit"},    {"027", "forfeit"},
    {"028", "keep"},       {"029", "retry"},         {"030", "stop"},       {"031", "schema"},
    {"032", "stop"},       {"033", "stop"},          {"034", "schema"},     {"035", "fix models"},
    {"036", "fix models"}, {"038", "schema"},        {"040", "schema"},     {"041", "schema"},
    {"042", "schema"},     {"043", "drop priority"}, {"045", "fix models"}, {"046", "schema"},
    {"047", "schema"},     {"048", "schema"},        {"257", "schema"},     {"258", "schema"},
    {"280", "forfeit"},    {"304", "forfeit"},       {"305", "forfeit"},    {"408", "settled"},
    {"409", "forfeit"},    {"410", "retry"},         {"411", "schema"},     {"412", "stop"},
    {"413", "stop"},       {"420", "settled"},       {"502", "slow"},       {"532", "wait"},
    {"536", "wait"},       {"541", "stop"},          {"545", "retry"},      {"546", "retry"},
    {"550-3", "stop"},     {"632", "report"},        {"633", "report"},
};

static void compare_reaction(const struct exchange *x, enum horde_call call)
{
    struct horde_error e;
    horde_error_parse(&e, x->status, x->text, x->length);
    const char *action = horde_action_word(horde_error_react(call, &e).action);
    want_equal(x, "action", action);
    want_equal(x, "rc", e.rc);
    if (x->expect) return;
    for (size_t i = 0; i < COUNT_OF(recorded); i++)
        if (str_starts(x->name, recorded[i].name) && !str_equal(recorded[i].action, action))
            fail_msg("%s: %s, expected %s", x->name, action, recorded[i].action);
    const char *rc = json_string_value(json_object_get(x->body, "rc"));
    if (rc) assert_true(str_starts(rc, e.rc) && e.rc[0]);
    assert_true(e.message[0] || x->body == NULL);
}

static void replay(const struct exchange *x, struct tally *t)
{
    t->exchanges++;
    for (size_t i = 0; i < COUNT_OF(readers); i++) {
        if (!str_starts(x->path, readers[i].path)) continue;
        bool good = x->status >= 200 && x->status < 300;
        if (good && (str_equal(x->method, "PUT") || strstr(x->path, "/messages")))
            break; /* the echo of a change: nobody needs it */
        if (good) {
            readers[i].read(x);
            t->parsed++;
        } else {
            compare_reaction(x, readers[i].call);
            t->refused++;
        }
        return;
    }
    t->skipped++; /* pictures, and what neither worker nor client calls */
}

/* ---- our own exchanges ------------------------------------------------------------------ */

static json_t *load(const char *folder, const char *file)
{
    json_error_t wrong;
    char *path = alloc_printf("%s/%s", folder, file);
    json_t *v = json_load_file(path, 0, &wrong);
    if (!v) fail_msg("%s: %s", path, wrong.text);
    free(path);
    return v;
}

static void own_exchanges(const char *file)
{
    struct tally t = {0};
    json_t *list = load(TEST_DATA "/horde", file), *o;
    size_t i;
    json_array_foreach(list, i, o)
    {
        struct exchange x = {.expect = json_object_get(o, "expect"),
                             .body = json_object_get(o, "body"),
                             .name = json_string_value(json_object_get(o, "name")),
                             .method = json_string_value(json_object_get(o, "method")),
                             .path = json_string_value(json_object_get(o, "path")),
                             .status = (int)json_integer_value(json_object_get(o, "status"))};
        const char *text = json_string_value(json_object_get(o, "text"));
        x.text = text ? alloc_string(text) : json_dumps(x.body, JSON_COMPACT);
        x.length = strlen(x.text);
        replay(&x, &t);
        free(x.text);
    }
    assert_int_equal(t.skipped, 0);
    assert_true(t.exchanges >= 10);
    json_decref(list);
}

static void pops(void **state)
{
    own_exchanges("pops.json");
}

static void refusals(void **state)
{
    own_exchanges("refusals.json");
}

static void alchemy(void **state)
{
    own_exchanges("alchemy.json");
}

static void records(void **state)
{
    own_exchanges("records.json");
}

/* ---- recordings ------------------------------------------------------------------------- */

/* Some recordings keep only the raw bytes of the prompt member. */
static bool wrap_prompt(const json_t *response, struct exchange *x)
{
    const char *raw = json_string_value(json_object_get(response, "prompt_raw"));
    if (!raw || strstr(raw, "<cut")) return false;
    x->text =
        alloc_printf("{\"id\":\"a1\",\"ids\":[\"a1\"],\"model\":\"m\",\"ttl\":150,\"payload\":{%s,"
                     "\"seed\":\"1\",\"ddim_steps\":20,\"width\":512,\"sampler_name\":\"k_euler\"},"
                     "\"r2_uploads\":[\"https://r2\"]}",
                     raw);
    return true;
}

static void replay_recording(const char *folder, const char *file, struct tally *t)
{
    json_t *o = load(folder, file);
    const json_t *request = json_object_get(o, "request"),
                 *response = json_object_get(o, "response");
    struct exchange x = {.name = json_string_value(json_object_get(o, "name")),
                         .method = json_string_value(json_object_get(request, "method")),
                         .path = json_string_value(json_object_get(request, "path")),
                         .status = (int)json_integer_value(json_object_get(response, "status")),
                         .body = json_object_get(response, "json")};
    const char *text = json_string_value(json_object_get(response, "text"));
    json_t *wrapped = NULL;
    if (x.body)
        x.text = json_dumps(x.body, JSON_COMPACT);
    else if (wrap_prompt(response, &x))
        x.body = wrapped = json_loads(x.text, 0, NULL);
    else
        x.text = alloc_string(text ? text : "");
    x.length = strlen(x.text);
    bool cut = str_starts(x.path, "/api/v2/generate/pop") && !x.body && x.status == 200;
    if (cut)
        t->exchanges++, t->skipped++;
    else
        replay(&x, t);
    free(x.text);
    json_decref(wrapped);
    json_decref(o);
}

static void recordings(void **state)
{
    const char *folder = getenv("KILN_TRANSCRIPTS");
    if (!folder) {
        print_message("KILN_TRANSCRIPTS is not set: no recordings to replay\n");
        skip();
    }
    struct dirent **names;
    struct tally t = {0};
    int n = scandir(folder, &names, NULL, alphasort);
    if (n < 0) fail_msg("%s cannot be read", folder);
    for (int i = 0; i < n; i++) {
        bool numbered = names[i]->d_name[0] >= '0' && names[i]->d_name[0] <= '9';
        if (numbered && str_ends(names[i]->d_name, ".json"))
            replay_recording(folder, names[i]->d_name, &t);
        free(names[i]);
    }
    free(names);
    print_message("%d recordings: %d parsed, %d refused, %d not for a worker or client\n",
                  t.exchanges, t.parsed, t.refused, t.skipped);
    assert_true(t.parsed > 0 && t.refused > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pops),    cmocka_unit_test(refusals),   cmocka_unit_test(alchemy),
        cmocka_unit_test(records), cmocka_unit_test(recordings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
