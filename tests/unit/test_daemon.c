/* daemon/: backoff, budget, gates, alarms, addresses. */
#include <arpa/inet.h>
#include <math.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/now.h"
#include "daemon/alarm.h"
#include "daemon/backoff.h"
#include "daemon/budget.h"
#include "daemon/fault_point.h"
#include "daemon/gate.h"
#include "daemon/outage.h"
#include "net/address.h"

static void waits_double_with_jitter_up_to_the_most(void **state)
{
    struct backoff b = BACKOFF_INIT(500, 30000);
    int64_t whole = 500;
    for (int i = 0; i < 20; i++) {
        int64_t wait = backoff_next_ms(&b, 0);
        assert_true(wait >= 500 && wait >= whole / 2 && wait <= whole);
        whole = whole * 2 > 30000 ? 30000 : whole * 2;
    }
    assert_int_equal(b.failures, 20);
    assert_true(backoff_next_ms(&b, 90000) == 90000); /* the server's wish */
    backoff_reset(&b);
    assert_int_equal(b.failing_since, 0);
    assert_true(backoff_next_ms(&b, 0) == 500);
}

static void jitter_is_spread(void **state)
{
    int seen[8] = {0};
    for (int i = 0; i < 400; i++) {
        uint64_t r = backoff_random(8);
        assert_true(r < 8);
        seen[r]++;
    }
    for (int i = 0; i < 8; i++) assert_true(seen[i] > 10);
}

static void fifteen_faults_an_hour_are_enough(void **state)
{
    struct budget b = {0};
    for (int i = 0; i < BUDGET_FAULTS_MAX; i++) {
        assert_false(budget_is_spent(&b));
        budget_fault(&b);
        now_turn_ms(1000);
    }
    assert_true(budget_is_spent(&b));
    int64_t free_ms = budget_free_ms(&b);
    assert_true(free_ms > now_ms());
    now_turn_ms(free_ms - now_ms() + 1);
    assert_false(budget_is_spent(&b));
    assert_int_equal(budget_free_ms(&b), 0);
    now_turn_ms(BUDGET_WINDOW_MS);
    assert_int_equal(budget_faults_hour(&b), 0);
}

static void speed_stays_below_suspicion(void **state)
{
    int64_t popped = now_ms();
    int64_t wait = budget_wait_ms(popped, 512, 512, 30, false);
    assert_in_range(wait, 430, 440); /* 512 x 512 x 30 / 18e6 */
    assert_int_equal(budget_wait_ms(popped, 512, 512, 30, true), 0);
    assert_int_equal(budget_wait_ms(popped - 1000, 512, 512, 30, false), 0);
}

static void kudos_per_hour_counts_the_last_hour(void **state)
{
    struct budget b = {0};
    budget_end(&b, 50000);
    now_turn_ms(BUDGET_WINDOW_MS + 1);
    assert_true(budget_kudos_hour(&b) == 0);
    for (int i = 0; i < 10; i++) budget_end(&b, 1500);
    assert_int_equal(budget_jobs_hour(&b), 10);
    assert_true(fabs(budget_kudos_hour(&b) - 15) < 1e-9);
}

static void gates_open_and_shut(void **state)
{
    struct gate g = {0};
    struct config c = {.disk_floor_mb = 100, .pause_when_gpu_busy = true};
    struct gate_facts facts = {
        .disk_free_bytes = 200 << 20, .foreign_use = NAN, .temperature_c = NAN, .user_idle_s = NAN};
    gate_look(&g, &c, &facts);
    assert_true(gate_is_open(&g));
    facts.disk_free_bytes = 99 << 20;
    assert_true(gate_look(&g, &c, &facts));
    assert_true(gate_is_shut(&g, GATE_DISK));
    facts.disk_free_bytes = -1; /* unknown does not block */
    gate_look(&g, &c, &facts);
    assert_true(gate_is_open(&g));

    facts.foreign_use = 0.5; /* ten seconds in, two minutes out */
    assert_false(gate_look(&g, &c, &facts));
    now_turn_ms(9000);
    assert_false(gate_look(&g, &c, &facts));
    now_turn_ms(1001);
    assert_true(gate_look(&g, &c, &facts));
    assert_true(gate_is_shut(&g, GATE_FOREIGN_USE));
    facts.foreign_use = 0;
    gate_look(&g, &c, &facts);
    now_turn_ms(119000);
    assert_false(gate_look(&g, &c, &facts));
    now_turn_ms(1001);
    assert_true(gate_look(&g, &c, &facts));
    assert_true(gate_is_open(&g));

    c.max_temperature_c = 80;
    facts.temperature_c = 81;
    gate_look(&g, &c, &facts);
    now_turn_ms(10001);
    assert_true(gate_look(&g, &c, &facts));
    assert_true(gate_is_shut(&g, GATE_TEMPERATURE) && gate_is_urgent(GATE_TEMPERATURE));
    facts.temperature_c = 78; /* not yet five degrees cooler */
    gate_look(&g, &c, &facts);
    now_turn_ms(120001);
    assert_false(gate_look(&g, &c, &facts));
    facts.temperature_c = 74;
    gate_look(&g, &c, &facts);
    now_turn_ms(120001);
    assert_true(gate_look(&g, &c, &facts));
    facts.temperature_c = NAN;

    c.user_idle_min = 10;
    facts.user_idle_s = 599;
    assert_true(gate_look(&g, &c, &facts));
    assert_true(gate_is_shut(&g, GATE_USER));
    facts.user_idle_s = 601;
    assert_true(gate_look(&g, &c, &facts));
    facts.user_idle_s = NAN; /* nobody knows: it does not block */
    gate_look(&g, &c, &facts);
    assert_true(gate_is_open(&g));
    assert_true(isnan(gate_user_idle_s("/nowhere")));

    gate_pause(&g, 60000, "lunch\n");
    char text[200];
    gate_tell(text, sizeof text, &g, GATE_PAUSED, &c);
    assert_string_equal(text, "paused by you: lunch");
    gate_look(&g, &c, &facts);
    assert_false(gate_is_open(&g));
    now_turn_ms(60000);
    assert_true(gate_look(&g, &c, &facts));
    assert_true(gate_is_open(&g));
    gate_pause(&g, 0, NULL);
    now_turn_ms(1000000);
    gate_look(&g, &c, &facts);
    assert_false(gate_is_open(&g)); /* until resume */
    gate_resume(&g);
    assert_true(gate_is_open(&g));
}

/* an hour of silence: one try at a time, at most 70 of them (G10) */
static void an_outage_is_one_outage(void **state)
{
    struct outage o = {0};
    int tries = 0;
    int64_t end = now_ms() + 3600000;
    while (now_ms() < end) {
        int64_t wait = outage_ask_ms(&o);
        if (wait) {
            assert_true(wait <= 60000);
            now_turn_ms(wait);
            continue;
        }
        if (outage_is_on(&o)) assert_int_equal(outage_ask_ms(&o), 1000); /* one is out already */
        tries++;
        assert_int_equal(outage_silent(&o), tries == 3);
    }
    assert_in_range(tries, 55, 70);
    assert_true(outage_answered(&o));
    assert_int_equal(outage_ask_ms(&o), 0);
    assert_false(outage_answered(&o));
}

struct rings {
    int order[8], count;
};

static struct ring {
    struct rings *rings;
    int number;
} ring_of[5];

static void note_ring(void *data)
{
    const struct ring *r = data;
    r->rings->order[r->rings->count++] = r->number;
}

/* No real time: the clock is turned, and how soon the loop looks again is what it says it will sleep. */
static void alarms_ring_in_order_and_follow_the_clock(void **state)
{
    enum { HOUR_MS = 3600000 };
    uv_loop_t loop;
    struct rings rings = {0};
    struct alarm soon = {0}, later = {0}, dropped = {0}, far = {0}, farther = {0};
    for (int i = 0; i < 5; i++) ring_of[i] = (struct ring){&rings, i};
    uv_loop_init(&loop);
    struct alarms *a = alarms_start(&loop);
    alarm_set(a, &later, 2 * HOUR_MS, note_ring, &ring_of[1]);
    alarm_set(a, &soon, HOUR_MS, note_ring, &ring_of[0]);
    alarm_set(a, &dropped, 1, note_ring, &ring_of[2]);
    alarm_set(a, &farther, 9 * HOUR_MS, note_ring, &ring_of[4]);
    alarm_set(a, &far, 8 * HOUR_MS, note_ring, &ring_of[3]);
    alarm_drop(&dropped);
    alarm_drop(&dropped);
    assert_int_equal(rings.count, 0);                    /* never from inside alarm_set */
    assert_in_range(uv_backend_timeout(&loop), 0, 1000); /* a suspend is noticed within a second */
    now_turn_ms(HOUR_MS);
    while (!rings.count) uv_run(&loop, UV_RUN_ONCE);
    assert_int_equal(rings.count, 1);
    assert_in_range(uv_backend_timeout(&loop), 0, 1000);
    now_turn_ms(9 * HOUR_MS); /* all that were due meanwhile, in their order */
    while (rings.count < 4) uv_run(&loop, UV_RUN_ONCE);
    const int wanted[] = {0, 1, 3, 4};
    assert_memory_equal(rings.order, wanted, sizeof wanted);
    assert_int_equal(rings.count, 4);
    alarms_stop(a);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
}

static bool is_public(const char *text)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
    if (inet_pton(AF_INET, text, &v4.sin_addr) == 1)
        return address_is_public((struct sockaddr *)&v4);
    assert_int_equal(inet_pton(AF_INET6, text, &v6.sin6_addr), 1);
    return address_is_public((struct sockaddr *)&v6);
}

static void inside_addresses_are_known(void **state)
{
    static const char *const inside[] = {"0.0.0.0",
                                         "0.1.2.3",
                                         "10.0.0.1",
                                         "10.255.255.255",
                                         "100.64.0.1",
                                         "100.127.255.254",
                                         "127.0.0.1",
                                         "127.255.255.254",
                                         "169.254.0.1",
                                         "169.254.169.254",
                                         "172.16.0.1",
                                         "172.31.255.255",
                                         "192.0.0.1",
                                         "192.0.2.1",
                                         "192.88.99.1",
                                         "192.168.0.1",
                                         "192.168.255.255",
                                         "198.18.0.1",
                                         "198.19.255.255",
                                         "198.51.100.7",
                                         "203.0.113.9",
                                         "224.0.0.1",
                                         "239.255.255.255",
                                         "240.0.0.1",
                                         "255.255.255.255",
                                         "::",
                                         "::1",
                                         "::7f00:1",
                                         "::ffff:127.0.0.1",
                                         "::ffff:10.1.2.3",
                                         "::ffff:169.254.169.254",
                                         "::ffff:192.168.1.1",
                                         "::ffff:100.64.0.1",
                                         "64:ff9b::7f00:1",
                                         "64:ff9b::a00:1",
                                         "64:ff9b:1::a00:1",
                                         "100::1",
                                         "2001::1",
                                         "2001:1::1",
                                         "2001:db8::1",
                                         "2002:7f00:1::1",
                                         "2002:a00:1::1",
                                         "2002:c0a8:101::1",
                                         "fc00::1",
                                         "fd12:3456:789a::1",
                                         "fe80::1",
                                         "febf::1",
                                         "fec0::1",
                                         "ff02::1",
                                         "ff0e::1",
                                         "5f00::1",
                                         "4000::1",
                                         "::ffff:0.0.0.0",
                                         "::ffff:224.0.0.1"};
    static const char *const outside[] = {"1.1.1.1",         "8.8.8.8",          "100.63.255.255",
                                          "100.128.0.1",     "126.255.255.255",  "128.0.0.1",
                                          "172.15.255.255",  "172.32.0.1",       "192.167.255.255",
                                          "192.169.0.1",     "198.17.255.255",   "198.20.0.1",
                                          "223.255.255.255", "2606:4700::1111",  "2a00:1450::1",
                                          "::ffff:8.8.8.8",  "64:ff9b::808:808", "2002:808:808::1"};
    for (unsigned i = 0; i < COUNT_OF(inside); i++)
        if (is_public(inside[i])) fail_msg("%s is inside", inside[i]);
    for (unsigned i = 0; i < COUNT_OF(outside); i++)
        if (!is_public(outside[i])) fail_msg("%s is outside", outside[i]);
}

static void urls_of_strangers_are_judged(void **state)
{
    static const char *const more[] = {"cdn.example.org", "*.store.example", NULL};
    const struct address_rule away = {.horde_host = "aihorde.net", .hosts = more};
    const struct address_rule here = {.loopback = true, .horde_host = "127.0.0.1"};
    static const char *const good[] = {"https://a.r2.cloudflarestorage.com/x?sig=1",
                                       "https://x.y.r2.cloudflarestorage.com/",
                                       "https://aihorde.net/api/source",
                                       "https://AIHORDE.net/",
                                       "https://cdn.example.org:8443/a",
                                       "https://eu.store.example/b"};
    static const char *const bad[] = {"http://a.r2.cloudflarestorage.com/x",
                                      "ftp://aihorde.net/",
                                      "file:///etc/passwd",
                                      "https://127.0.0.1/",
                                      "https://localhost/",
                                      "https://[::1]/",
                                      "https://0x7f.1/",
                                      "https://2130706433/",
                                      "https://0177.0.0.1/",
                                      "https://evil.example/",
                                      "https://r2.cloudflarestorage.com.evil.example/",
                                      "https://evilr2.cloudflarestorage.com/",
                                      "https://store.example/",
                                      "https://aihorde.net@evil.example/",
                                      "https://user:word@aihorde.net/",
                                      "https://aihorde.net.evil.example/",
                                      "//aihorde.net/",
                                      "aihorde.net",
                                      "gopher://aihorde.net/",
                                      "https://",
                                      "https://aihorde.net:99999/",
                                      "javascript:alert(1)",
                                      "https://%00/",
                                      "https://10.0.0.1/",
                                      "https://169.254.169.254/latest/meta-data",
                                      "https://[::ffff:127.0.0.1]/"};
    for (unsigned i = 0; i < COUNT_OF(good); i++) {
        struct error err = {0};
        if (address_check_url(&away, good[i], &err)) fail_msg("%s: %s", good[i], err.text);
    }
    for (unsigned i = 0; i < COUNT_OF(bad); i++) {
        struct error err = {0};
        if (address_check_url(&away, bad[i], &err) != ERR_REFUSED)
            fail_msg("%s was accepted", bad[i]);
        assert_null(strstr(err.text, "word"));
    }
    assert_int_equal(address_check_url(&here, "http://127.0.0.1:7001/practice-store/x?s=1", NULL),
                     0);
    assert_int_equal(address_check_url(&here, "http://localhost:7001/x", NULL), 0);
    assert_int_equal(address_check_url(&here, "http://192.168.0.1/x", NULL), ERR_REFUSED);
    assert_int_equal(address_check_url(&here, "http://evil.example/x", NULL), ERR_REFUSED);
}

static void shown_urls_have_no_query(void **state)
{
    char shown[64];
    address_show(shown, sizeof shown, "https://a.example:8443/path?X-Amz-Signature=secret");
    assert_string_equal(shown, "https://a.example:8443");
    address_show(shown, sizeof shown, "https://a.example?x=secret");
    assert_string_equal(shown, "https://a.example");
}

static void fault_points_have_names(void **state)
{
    for (int i = 0; i < FAULT_POINT_COUNT; i++) {
        const char *name = fault_point_name((enum fault_point)i);
        assert_non_null(strchr(name, '.'));
        print_message("%s ", name);
        for (int k = 0; k < i; k++)
            assert_string_not_equal(name, fault_point_name((enum fault_point)k));
    }
    print_message("\n");
    assert_null(fault_point_name(FAULT_POINT_COUNT));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(waits_double_with_jitter_up_to_the_most),
        cmocka_unit_test(jitter_is_spread),
        cmocka_unit_test(fifteen_faults_an_hour_are_enough),
        cmocka_unit_test(speed_stays_below_suspicion),
        cmocka_unit_test(kudos_per_hour_counts_the_last_hour),
        cmocka_unit_test(gates_open_and_shut),
        cmocka_unit_test(an_outage_is_one_outage),
        cmocka_unit_test(alarms_ring_in_order_and_follow_the_clock),
        cmocka_unit_test(inside_addresses_are_known),
        cmocka_unit_test(urls_of_strangers_are_judged),
        cmocka_unit_test(shown_urls_have_no_query),
        cmocka_unit_test(fault_points_have_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
