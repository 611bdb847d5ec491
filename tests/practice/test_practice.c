/*
 * The practice horde itself: the submit contract (reliability.md section 1), the faults (section 8), its
 * books. Starts the program given as the first argument, on a port of its own, and ends it.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <curl/curl.h>
#include <jansson.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/now.h"
#include "base/str.h"

#define WORKER "practice-worker-key-00"
#define CLIENT "practice-client-key-00"
#define OTHER "practice-other-key-000"

static const char *program;
static pid_t child;
static char base[64]; /* http://127.0.0.1:PORT */
static CURL *curl;
static char log_path[64];
static const char *host; /* another Host header than the address; NULL: the address */
static bool reuse; /* libcurl hides a broken connection by trying again when it was used before */

/* ---- starting and talking --------------------------------------------------------------- */

static void start(const char *const *extra)
{
    const char *args[40] = {program, "--log", log_path, "--seconds", "60", "--quiet"};
    int fds[2], n = 6;
    char line[200];
    while (*extra) args[n++] = *extra++;
    strcpy(log_path, "/tmp/kiln-practice-XXXXXX");
    close(mkstemp(log_path));
    assert_int_equal(pipe(fds), 0);
    child = fork();
    if (child == 0) {
        dup2(fds[1], 1);
        close(fds[0]);
        execv(program, (char *const *)args);
        _exit(127);
    }
    close(fds[1]);
    FILE *f = fdopen(fds[0], "r");
    if (!fgets(line, sizeof line, f)) fail_msg("%s did not start", program);
    assert_int_equal(sscanf(line, "practice horde on %63[^ ]", base), 1);
    *strstr(base, "/api/v2") = '\0';
    fclose(f);
    curl = curl_easy_init();
}

static struct rusage finish(void)
{
    int status;
    struct rusage used;
    curl_easy_cleanup(curl);
    kill(child, SIGTERM);
    assert_int_equal(wait4(child, &status, 0, &used), child);
    if (!WIFEXITED(status) || WEXITSTATUS(status))
        fail_msg("the practice horde ended with %d", status);
    return used;
}

static void end(void)
{
    finish();
    unlink(log_path);
}

static size_t receive(char *data, size_t size, size_t n, void *to)
{
    return buf_append(to, data, size * n, NULL) ? 0 : size * n;
}

struct got {
    int status; /* 0: no HTTP answer */
    CURLcode result;
    json_t *json;
    struct buf body;
    double seconds;
    long retry_after;
};

static void got_release(struct got *g)
{
    json_decref(g->json);
    buf_release(&g->body);
}

static struct got call_for(const char *method, const char *path, const char *key, const char *body,
                           long timeout_ms)
{
    struct got g = {0};
    long status = 0;
    curl_off_t retry = 0;
    char *url = path[0] == '/' ? alloc_printf("%s%s", base, path) : alloc_string(path);
    char *header = alloc_printf("apikey: %s", key);
    struct curl_slist *headers = curl_slist_append(NULL, header);
    headers = curl_slist_append(headers, "Content-Type: application/json");
    headers = curl_slist_append(headers, "Expect:");
    if (host) headers = curl_slist_append(headers, host);
    buf_init(&g.body, 32u << 20);
    curl_easy_reset(curl);
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, method);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, receive);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, &g.body);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, timeout_ms);
    curl_easy_setopt(curl, CURLOPT_PROXY, "");
    curl_easy_setopt(curl, CURLOPT_FRESH_CONNECT, reuse ? 0L : 1L);
    if (body) curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body);
    double before = now_seconds();
    g.result = curl_easy_perform(curl);
    g.seconds = now_seconds() - before;
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_getinfo(curl, CURLINFO_RETRY_AFTER, &retry);
    g.retry_after = (long)retry;
    g.status = (int)status;
    if (g.body.length)
        g.json = json_loadb((char *)g.body.data, g.body.length, JSON_REJECT_DUPLICATES, NULL);
    curl_slist_free_all(headers);
    free(header);
    free(url);
    return g;
}

static struct got call(const char *method, const char *path, const char *key, const char *body)
{
    return call_for(method, path, key, body, 20000);
}

static const char *text(const struct got *g, const char *key)
{
    const char *t = json_string_value(json_object_get(g->json, key));
    return t ? t : "";
}

static void expect(const char *method, const char *path, const char *key, const char *body,
                   int status, const char *rc)
{
    struct got g = call(method, path, key, body);
    if (g.status != status || !str_equal(text(&g, "rc"), rc))
        fail_msg("%s %s: %d %s (%s), expected %d %s", method, path, g.status,
                 g.body.data ? (char *)g.body.data : "", curl_easy_strerror(g.result), status, rc);
    got_release(&g);
}

/* ---- one job ---------------------------------------------------------------------------- */

static void ask(const char *extra)
{
    char *body = alloc_printf(
        "{\"prompt\":\"a jug\",\"nsfw\":false,\"params\":{\"width\":512,\"height\":512,"
        "\"steps\":30,\"sampler_name\":\"k_euler\"%s}}",
        extra);
    expect("POST", "/api/v2/generate/async", CLIENT, body, 202, "");
    free(body);
}

static struct got pop_as(const char *key, const char *name, const char *extra)
{
    char *body = alloc_printf("{\"name\":\"%s\",\"models\":[\"stable_diffusion\"],\"amount\":1,"
                              "\"max_pixels\":1048576,\"bridge_agent\":\"kiln:0.1.0:https://x\"%s}",
                              name, extra);
    struct got g = call("POST", "/api/v2/generate/pop", key, body);
    free(body);
    return g;
}

static char *pop(void)
{
    struct got g = pop_as(WORKER, "w", "");
    char *id = alloc_string(text(&g, "id"));
    if (!*id) fail_msg("nothing given: %s", g.body.data);
    got_release(&g);
    return id;
}

static struct got submit(const char *key, const char *id, const char *state)
{
    char *body = alloc_printf("{\"id\":\"%s\",\"generation\":\"R2\",\"state\":\"%s\",\"seed\":1}",
                              id, state);
    struct got g = call("POST", "/api/v2/generate/submit", key, body);
    free(body);
    return g;
}

static void expect_submit(const char *key, const char *id, const char *state, int status,
                          const char *rc, double reward)
{
    struct got g = submit(key, id, state);
    double told = json_number_value(json_object_get(g.json, "reward"));
    if (g.status != status || !str_equal(text(&g, "rc"), rc) || told != reward)
        fail_msg("submit %s: %d %s", state, g.status, g.body.data);
    got_release(&g);
}

static double balance(void)
{
    struct got g = call("GET", "/api/v2/find_user", WORKER, NULL);
    double kudos = json_number_value(json_object_get(g.json, "kudos"));
    got_release(&g);
    return kudos;
}

static void control(const char *path, const char *body)
{
    struct got g = call("POST", path, WORKER, body);
    if (g.status != 200) fail_msg("%s: %s", path, g.body.data);
    got_release(&g);
}

/* price of ask(): 0.1232 x 30 steps, r = ((512x512 - 4096) / (1024x1024 - 4096))^1.75 */
#define REWARD 6.5

/* ---- tests ------------------------------------------------------------------------------ */

static void the_submit_contract(void **state)
{
    start((const char *const[]){"--sweep", "0.1", NULL});
    ask("");
    char *id = pop();
    double before = balance();
    expect_submit(WORKER, "00000000-0000-0000-0000-000000000000", "ok", 404, "InvalidJobID", 0);
    expect_submit(WORKER, "nonsense", "ok", 404, "InvalidJobID", 0);
    expect_submit(OTHER, id, "ok", 403, "WrongCredentials", 0);
    expect_submit("nosuchkey", id, "ok", 401, "InvalidAPIKey", 0);
    expect_submit(WORKER, id, "splendid", 400, "", 0);
    expect_submit(WORKER, id, "ok", 200, "", REWARD);
    expect_submit(WORKER, id, "ok", 400, "DuplicateGen", 0);
    control("/practice/worker", "{\"name\":\"w\",\"maintenance\":true}");
    expect_submit(WORKER, id, "ok", 200, "", 0); /* reward 0 never means earned 0 */
    struct got g = pop_as(WORKER, "w", "");
    assert_int_equal(g.status, 403);
    assert_string_equal(text(&g, "rc"), "WorkerMaintenance");
    got_release(&g);
    control("/practice/worker", "{\"name\":\"w\",\"maintenance\":false}");
    assert_true(balance() - before > 0.75 * REWARD - 0.002 &&
                balance() - before < 0.75 * REWARD + 0.002);
    free(id);

    ask(""); /* given up: back in the queue, and an ok comes too late */
    id = pop();
    expect_submit(WORKER, id, "faulted", 200, "", 0);
    expect_submit(WORKER, id, "faulted", 200, "", 0);
    expect_submit(WORKER, id, "ok", 400, "AbortedGen", 0);
    free(id);
    id = pop();
    control("/practice/clock", "{\"turn_ms\":151000}"); /* past the TTL of 150 s: swept */
    nanosleep(&(struct timespec){0, 300000000}, NULL);
    expect_submit(WORKER, id, "ok", 400, "AbortedGen", 0);
    free(id);
    end();
}

static void what_a_pop_is_refused_for(void **state)
{
    static const char path[] = "/api/v2/generate/pop";
    start((const char *const[]){NULL});
    expect("POST", path, "nosuchkey", "{\"name\":\"w\",\"models\":[\"x\"]}", 401, "InvalidAPIKey");
    expect("POST", path, "0000000000", "{\"name\":\"w\",\"models\":[\"x\"]}", 403,
           "AnonForbiddenWorker");
    expect("POST", path, WORKER, "{\"models\":[\"x\"]}", 400, "");
    expect("POST", path, WORKER, "{\"name\":\"w\",\"models\":[]}", 400, "BadRequest");
    expect("POST", path, WORKER, "{\"name\":\"w\",\"models\":[\"x\"],\"threads\":0}", 400, "");
    expect("POST", path, WORKER, "{\"name\":\"w\",\"models\":[\"x\"],\"max_pixels\":\"1\"}", 400,
           "");
    expect("POST", path, WORKER,
           "{\"name\":\"w\",\"models\":[\"x\"],\"priority_usernames\":[\"db0\"]}", 400,
           "InvalidPriorityUsername");
    expect("POST", path, WORKER, "{\"name\":", 400, "");
    expect("POST", path, WORKER, "{\"name\":\"w\",\"models\":[\"x\"]}", 200, "");
    expect("POST", path, OTHER, "{\"name\":\"w\",\"models\":[\"x\"]}", 403, "WrongCredentials");
    expect("POST", "/api/v2/interrogate/pop", WORKER, "{\"name\":\"w\",\"forms\":[\"caption\"]}",
           400, "PolymorphicNameConflict");
    expect("GET", path, WORKER, NULL, 405, "");
    expect("GET", "/api/v2/nothing", WORKER, NULL, 404, "");
    host = "Host: 127.0.0.1.example.org";
    expect("GET", "/api/v2/status/heartbeat", WORKER, NULL, 403, "BadHost");
    host = "Host: localhost:80";
    expect("GET", "/api/v2/status/heartbeat", WORKER, NULL, 200, "");
    host = NULL;
    expect("POST", "/api/v2/generate/async", CLIENT, "{\"prompt\":\"\"}", 400, "MissingPrompt");
    expect("POST", "/api/v2/generate/async", CLIENT,
           "{\"prompt\":\"a\",\"params\":{\"width\":500}}", 400, "");
    expect("PUT", "/api/v2/status/modes", WORKER, "{\"invite_only_mode\":true}", 200, "");
    expect("POST", path, WORKER, "{\"name\":\"new\",\"models\":[\"x\"]}", 403, "WorkerInviteOnly");
    end();
}

static void the_real_gate(void **state)
{
    static const char regen[] =
        ",\"bridge_agent\":\"AI Horde Worker reGen:10.1.1:https://x\",\"allow_lora\":true";
    start((const char *const[]){"--gate", "real", NULL});
    ask("");
    struct got g = pop_as(WORKER, "w", "");
    const json_t *skipped = json_object_get(g.json, "skipped");
    assert_string_equal(text(&g, "id"), ""); /* r2 bars it, and no counter says so */
    assert_int_equal(json_integer_value(json_object_get(skipped, "bridge_version")), 0);
    got_release(&g);
    char *body = alloc_printf(
        "{\"name\":\"r\",\"models\":[\"stable_diffusion\"],\"max_pixels\":262144%s}", regen);
    g = call("POST", "/api/v2/generate/pop", WORKER, body);
    assert_true(*text(&g, "id"));
    got_release(&g);
    expect("POST", "/api/v2/generate/async", CLIENT,
           "{\"prompt\":\"a\",\"r2\":false,\"nsfw\":false,\"params\":{\"sampler_name\":\"lcm\"}}",
           202, "");
    g = pop_as(WORKER, "w", "");
    skipped = json_object_get(g.json, "skipped");
    assert_string_equal(text(&g, "id"), "");
    assert_int_equal(json_integer_value(json_object_get(skipped, "bridge_version")), 1);
    got_release(&g);
    expect("POST", "/api/v2/generate/async", CLIENT,
           "{\"prompt\":\"a\",\"r2\":false,\"nsfw\":false}", 202, "");
    g = pop_as(WORKER, "w", "");
    assert_true(*text(&g, "id"));
    got_release(&g);
    free(body);
    end();
}

static void faults_before_and_after(void **state)
{
    static const char beat[] = "/api/v2/status/heartbeat";
    struct got g;
    start((const char *const[]){NULL});
#define FAULT(json) control("/practice/fault", "{\"on\":\"heartbeat\"," json "}")
    FAULT("\"kind\":\"status\",\"status\":429,\"retry_after\":7");
    g = call("GET", beat, WORKER, NULL);
    assert_int_equal(g.status, 429);
    assert_int_equal(g.retry_after, 7);
    got_release(&g);
    FAULT("\"kind\":\"status\",\"status\":403,\"rc\":\"TimeoutIP\",\"count\":2");
    expect("GET", beat, WORKER, NULL, 403, "TimeoutIP");
    expect("GET", beat, WORKER, NULL, 403, "TimeoutIP");
    expect("GET", beat, WORKER, NULL, 200, "");
    FAULT("\"kind\":\"status\",\"status\":502,\"nth\":2");
    expect("GET", beat, WORKER, NULL, 200, "");
    expect("GET", beat, WORKER, NULL, 502, "");
    FAULT("\"kind\":\"reset\"");
    g = call("GET", beat, WORKER, NULL);
    assert_int_equal(g.status, 0);
    got_release(&g);
    FAULT("\"kind\":\"hang\"");
    g = call_for("GET", beat, WORKER, NULL, 300);
    assert_int_equal(g.result, CURLE_OPERATION_TIMEDOUT);
    got_release(&g);
    FAULT("\"kind\":\"drop\"");
    g = call("GET", beat, WORKER, NULL);
    assert_int_equal(g.status, 0);
    got_release(&g);
    FAULT("\"kind\":\"cut\"");
    g = call("GET", beat, WORKER, NULL);
    assert_int_equal(g.result, CURLE_PARTIAL_FILE);
    got_release(&g);
    FAULT("\"kind\":\"delay\",\"ms\":200");
    g = call("GET", beat, WORKER, NULL);
    assert_true(g.status == 200 && g.seconds > 0.19);
    got_release(&g);
    FAULT("\"kind\":\"slow_body\",\"ms\":300");
    g = call("GET", beat, WORKER, NULL);
    assert_true(g.status == 200 && g.seconds > 0.15 && g.json);
    got_release(&g);
    FAULT("\"kind\":\"slow_headers\",\"ms\":300");
    g = call("GET", beat, WORKER, NULL);
    assert_true(g.status == 200 && g.seconds > 0.15 && g.json);
    got_release(&g);
    FAULT("\"kind\":\"twice\"");
    g = call("GET", beat, WORKER, NULL);
    assert_true(g.status == 200 && g.json);
    got_release(&g);
    FAULT("\"kind\":\"redirect\"");
    g = call("GET", beat, WORKER, NULL);
    assert_int_equal(g.status, 307);
    got_release(&g);
    control("/practice/fault", "{\"kind\":\"refuse\",\"ms\":400}");
    nanosleep(&(struct timespec){0, 200000000}, NULL);
    g = call("GET", beat, WORKER, NULL);
    assert_int_equal(g.result, CURLE_COULDNT_CONNECT);
    got_release(&g);
    nanosleep(&(struct timespec){0, 600000000}, NULL);
    expect("GET", beat, WORKER, NULL, 200, "");
    g = call("POST", "/practice/fault", WORKER, "{\"kind\":\"sneeze\"}");
    assert_int_equal(g.status, 400);
    got_release(&g);
    end();
}

static void faults_in_the_answer(void **state)
{
    static const char beat[] = "/api/v2/status/heartbeat";
    static const char *const kinds[] = {"html", "truncated", "duplicate_keys", "nul", "flood"};
    struct got g;
    start((const char *const[]){NULL});
    for (size_t i = 0; i < COUNT_OF(kinds); i++) {
        char *fault = alloc_printf("{\"on\":\"heartbeat\",\"kind\":\"%s\"}", kinds[i]);
        control("/practice/fault", fault);
        free(fault);
        g = call("GET", beat, WORKER, NULL);
        assert_int_equal(g.status, 200);
        if (str_equal(kinds[i], "flood"))
            assert_true(g.body.length == 20u << 20);
        else if (g.json)
            fail_msg("%s is still valid JSON", kinds[i]);
        got_release(&g);
    }
    FAULT("\"kind\":\"wrong_types\"");
    g = call("GET", beat, WORKER, NULL);
    assert_true(json_is_integer(json_object_get(g.json, "version")));
    got_release(&g);
    ask("");
    ask("");
    control("/practice/fault", "{\"on\":\"pop\",\"kind\":\"mismatch\"}");
    g = pop_as(WORKER, "w", "");
    assert_int_equal(json_array_size(json_object_get(g.json, "ids")), 1);
    assert_int_equal(json_array_size(json_object_get(g.json, "r2_uploads")), 0);
    got_release(&g);
    control("/practice/fault", "{\"on\":\"pop\",\"kind\":\"ttl\"}");
    g = pop_as(WORKER, "w", "");
    assert_int_equal(json_integer_value(json_object_get(g.json, "ttl")), 1);
    got_release(&g);
    end();
}

static void storage_and_its_faults(void **state)
{
    start((const char *const[]){NULL});
    ask("");
    struct got g = pop_as(WORKER, "w", ""), q;
    const char *url = text(&g, "r2_upload");
    control("/practice/fault", "{\"on\":\"upload\",\"kind\":\"status\",\"status\":403}");
    q = call("PUT", url, WORKER, "RIFF0000WEBPVP8 and more than thirty bytes");
    assert_int_equal(q.status, 403);
    got_release(&q);
    control("/practice/fault", "{\"on\":\"upload\",\"kind\":\"lost\"}");
    q = call("PUT", url, WORKER, "RIFF0000WEBPVP8 and more than thirty bytes");
    assert_int_equal(q.status, 200);
    got_release(&q);
    q = call("GET", url, WORKER, NULL);
    assert_int_equal(q.status, 404);
    got_release(&q);
    q = call("PUT", url, WORKER, "RIFF0000WEBPVP8 and more than thirty bytes");
    assert_int_equal(q.status, 200);
    got_release(&q);
    q = call("GET", url, WORKER, NULL);
    assert_int_equal(q.status, 200);
    assert_memory_equal(q.body.data, "RIFF0000WEBPVP8 and", 19);
    got_release(&q);
    char *outside = alloc_printf("%s/practice-store/transient/../../x.webp", base);
    curl_easy_setopt(curl, CURLOPT_PATH_AS_IS, 1L);
    q = call("PUT", outside, WORKER, "x");
    assert_true(q.status == 403 || q.status == 404);
    got_release(&q);
    free(outside);
    got_release(&g);
    end();
}

static void silent_pause_and_books(void **state)
{
    start((const char *const[]){"--integer-balances", "--fold", "0.1", "--cache", "0.5", NULL});
    double before = balance();
    ask("");
    char *id = pop();
    expect_submit(WORKER, id, "ok", 200, "", REWARD);
    assert_true(balance() == before); /* the page is cached */
    nanosleep(&(struct timespec){0, 700000000}, NULL);
    assert_true(balance() == before + 5); /* 6.5 x 0.75 = 4.875, whole */
    free(id);
    control("/practice/worker", "{\"name\":\"w\",\"paused\":true}");
    ask("");
    id = pop();
    expect_submit(WORKER, id, "ok", 200, "", REWARD); /* told, never credited */
    free(id);
    nanosleep(&(struct timespec){0, 700000000}, NULL);
    assert_true(balance() == before + 5);
    struct got g = call("GET", "/practice/state", WORKER, NULL);
    assert_int_equal(json_integer_value(json_object_get(g.json, "told_milli")), 13000);
    assert_int_equal(json_integer_value(json_object_get(g.json, "credited_milli")), 4875);
    assert_int_equal(json_integer_value(json_object_get(g.json, "fakes")), 1);
    got_release(&g);
    end();
}

/* The log alone gives the same sums as the summary: it can be the oracle. Also how fast it is. */
static void the_log_is_the_oracle(void **state)
{
    int64_t told = 0, summary_told = -1;
    int images = 0, jobs_done = 0;
    start(
        (const char *const[]){"--jobs", "300", "--kinds", "txt2img,batch,img2img,post,lora", NULL});
    double before = now_seconds();
    for (;;) {
        struct got g = pop_as(WORKER, "w", ",\"allow_lora\":true,\"amount\":4");
        size_t i;
        json_t *v;
        bool none = json_array_size(json_object_get(g.json, "ids")) == 0;
        json_array_foreach(json_object_get(g.json, "ids"), i, v)
        {
            struct got s = submit(WORKER, json_string_value(v), "ok");
            assert_int_equal(s.status, 200);
            got_release(&s);
            images++;
        }
        got_release(&g);
        if (none) break;
    }
    double seconds = now_seconds() - before;
    struct rusage used = finish();
    double cpu = (double)used.ru_utime.tv_sec + (double)used.ru_utime.tv_usec / 1e6 +
                 (double)used.ru_stime.tv_sec + (double)used.ru_stime.tv_usec / 1e6;
    FILE *f = fopen(log_path, "r");
    char *line = NULL;
    size_t room = 0;
    while (getline(&line, &room, f) > 0) {
        json_t *o = json_loads(line, JSON_REJECT_DUPLICATES, NULL);
        if (!o) fail_msg("no JSON: %s", line);
        if (str_equal(json_string_value(json_object_get(o, "posting")), "earned"))
            told += json_integer_value(json_object_get(o, "told_milli"));
        jobs_done += json_object_get(o, "job") && !json_object_get(o, "posting") &&
                     str_equal(json_string_value(json_object_get(o, "state")), "done");
        json_t *summary = json_object_get(o, "summary");
        if (summary) summary_told = json_integer_value(json_object_get(summary, "told_milli"));
        if (strstr(line, WORKER) || strstr(line, CLIENT)) fail_msg("a key is in the log: %s", line);
        json_decref(o);
    }
    fclose(f);
    free(line);
    unlink(log_path);
    assert_int_equal(told, summary_told);
    assert_int_equal(jobs_done, images);
    assert_true(images >= 300);
    print_message("%d images: %.0f a second, %.2f ms of its CPU each\n", images,
                  (double)images / seconds, cpu * 1000 / images);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_submit_contract),    cmocka_unit_test(what_a_pop_is_refused_for),
        cmocka_unit_test(the_real_gate),          cmocka_unit_test(faults_before_and_after),
        cmocka_unit_test(faults_in_the_answer),   cmocka_unit_test(storage_and_its_faults),
        cmocka_unit_test(silent_pause_and_books), cmocka_unit_test(the_log_is_the_oracle),
    };
    program = argc > 1 ? argv[1] : "kiln-practice-horde";
    curl_global_init(CURL_GLOBAL_DEFAULT);
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
