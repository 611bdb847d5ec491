/*
 * budget.h - how many faults and how much speed the Horde bears from us.
 *
 * Place    job counts its ends here; pop asks before it takes more; submit asks how long to wait.
 * Owner    the worker embeds one. Loop thread.
 * Failure  cannot fail. Source: horde-api 10.3 (20 aborted or faulted jobs an hour force
 *          maintenance; we stop at 15) and 10.5 (20 MPS/s is suspicious; we stay below 18).
 */
#ifndef DAEMON_BUDGET_H
#define DAEMON_BUDGET_H

#include <stdbool.h>
#include <stdint.h>

#define BUDGET_FAULTS_MAX 15
#define BUDGET_WINDOW_MS (60 * 60 * 1000)
#define BUDGET_PIXELSTEPS_PER_S 18e6
#define BUDGET_EVENTS_KEPT 256

struct budget {
    int64_t faults_ms[BUDGET_EVENTS_KEPT];
    int64_t ends_ms[BUDGET_EVENTS_KEPT]; /* settled images, for kudos per hour */
    int64_t ends_milli[BUDGET_EVENTS_KEPT];
    unsigned fault_count, end_count; /* written so far */
};

void budget_fault(struct budget *b);
void budget_end(struct budget *b, int64_t reward_milli);
int budget_faults_hour(const struct budget *b);
int budget_jobs_hour(const struct budget *b);
double budget_kudos_hour(const struct budget *b);
bool budget_is_spent(const struct budget *b);
/* now_ms at which it may pop again; 0 now. */
int64_t budget_free_ms(const struct budget *b);

/* How long a submit must still wait, when the image was popped at `popped_ms`. */
int64_t budget_wait_ms(int64_t popped_ms, int width_px, int height_px, int work_steps,
                       bool trusted);

#endif
