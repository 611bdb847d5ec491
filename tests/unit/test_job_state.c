/* daemon/job_state: the table of states and events, walked whole (reliability L1, G15). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/job_state.h"

/* What the design says, written a second time and differently: for each event, the states in which
 * it may come and where it leads. */
struct rule {
    enum job_event event;
    const char *from; /* names, blank-separated */
    enum job_state to;
};
static const struct rule rules[] = {
    {JOB_EVENT_PREPARED, " POPPED ", JOB_READY},
    {JOB_EVENT_STARTED, " READY ", JOB_GENERATING},
    {JOB_EVENT_RETURNED, " GENERATING ", JOB_READY},
    {JOB_EVENT_PASSED, " GENERATING ", JOB_CHECKED},
    {JOB_EVENT_STORED, " CHECKED ", JOB_UPLOADED},
    {JOB_EVENT_SENT, " UPLOADED SUBMITTING ", JOB_SUBMITTING},
    {JOB_EVENT_FAULT_SENT, " POPPED READY GENERATING CHECKED UPLOADED SUBMITTING ", JOB_SUBMITTING},
    {JOB_EVENT_PAID, " SUBMITTING ", JOB_SETTLED},
    {JOB_EVENT_FAULT_TAKEN, " SUBMITTING ", JOB_FAULTED},
    {JOB_EVENT_UNPAYABLE, " SUBMITTING ", JOB_FORFEITED},
    {JOB_EVENT_EXPIRED, " POPPED READY GENERATING CHECKED UPLOADED SUBMITTING ", JOB_FORFEITED},
    {JOB_EVENT_GIVEN_AGAIN, " FAULTED ", JOB_POPPED},
};

static void every_pair_is_a_transition_or_a_refusal(void **state)
{
    assert_int_equal(sizeof rules / sizeof rules[0], JOB_EVENT_COUNT);
    int moves = 0, refusals = 0;
    for (int s = 0; s < JOB_STATE_COUNT; s++)
        for (unsigned r = 0; r < JOB_EVENT_COUNT; r++) {
            enum job_state next = JOB_STATE_COUNT;
            struct error err = {0};
            char name[32] = " ";
            strcat(strcat(name, job_state_name((enum job_state)s)), " ");
            int rc = job_state_next(&next, (enum job_state)s, rules[r].event, &err);
            if (strstr(rules[r].from, name)) {
                assert_int_equal(rc, 0);
                assert_int_equal(next, rules[r].to);
                moves++;
            } else {
                assert_int_equal(rc, ERR_INTERNAL);
                assert_int_equal(next, JOB_STATE_COUNT);
                assert_non_null(strstr(err.text, job_event_name(rules[r].event)));
                refusals++;
            }
        }
    assert_int_equal(moves + refusals, JOB_STATE_COUNT * JOB_EVENT_COUNT);
    assert_int_equal(moves, 23);
}

static void an_end_is_an_end(void **state)
{
    for (int s = 0; s < JOB_STATE_COUNT; s++)
        for (int e = 0; e < JOB_EVENT_COUNT; e++) {
            enum job_state next;
            bool back = s == JOB_FAULTED && e == JOB_EVENT_GIVEN_AGAIN;
            if (job_state_is_final((enum job_state)s) && !back)
                assert_int_equal(job_state_next(&next, (enum job_state)s, (enum job_event)e, NULL),
                                 ERR_INTERNAL);
        }
}

static void every_open_state_has_a_way_out(void **state)
{
    for (int s = 0; s < JOB_SETTLED; s++) {
        enum job_state next;
        assert_int_equal(job_state_next(&next, (enum job_state)s, JOB_EVENT_EXPIRED, NULL), 0);
        assert_int_equal(job_state_next(&next, (enum job_state)s, JOB_EVENT_FAULT_SENT, NULL), 0);
    }
}

static void names_are_found(void **state)
{
    enum job_state s;
    for (int i = 0; i < JOB_STATE_COUNT; i++) {
        assert_true(job_state_find(job_state_name((enum job_state)i), &s));
        assert_int_equal(s, i);
    }
    assert_false(job_state_find("PENDING", &s));
    assert_string_equal(job_state_name((enum job_state)99), "?");
    assert_int_equal(job_state_next(&s, (enum job_state)99, JOB_EVENT_PAID, NULL), ERR_INTERNAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_pair_is_a_transition_or_a_refusal),
        cmocka_unit_test(an_end_is_an_end),
        cmocka_unit_test(every_open_state_has_a_way_out),
        cmocka_unit_test(names_are_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
