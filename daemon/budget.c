#include "daemon/budget.h"

#include "base/now.h"

static int count_since(const int64_t *times, unsigned written, int64_t since)
{
    int count = 0;
    unsigned kept = written < BUDGET_EVENTS_KEPT ? written : BUDGET_EVENTS_KEPT;
    for (unsigned i = 0; i < kept; i++) count += times[i] > since;
    return count;
}

void budget_fault(struct budget *b)
{
    b->faults_ms[b->fault_count++ % BUDGET_EVENTS_KEPT] = now_ms();
}

void budget_end(struct budget *b, int64_t reward_milli)
{
    b->ends_milli[b->end_count % BUDGET_EVENTS_KEPT] = reward_milli > 0 ? reward_milli : 0;
    b->ends_ms[b->end_count++ % BUDGET_EVENTS_KEPT] = now_ms();
}

int budget_faults_hour(const struct budget *b)
{
    return count_since(b->faults_ms, b->fault_count, now_ms() - BUDGET_WINDOW_MS);
}

int budget_jobs_hour(const struct budget *b)
{
    return count_since(b->ends_ms, b->end_count, now_ms() - BUDGET_WINDOW_MS);
}

/* over the time that the kept ends cover, at most an hour */
double budget_kudos_hour(const struct budget *b)
{
    unsigned kept = b->end_count < BUDGET_EVENTS_KEPT ? b->end_count : BUDGET_EVENTS_KEPT;
    int64_t now = now_ms(), oldest = now, sum = 0;
    for (unsigned i = 0; i < kept; i++) {
        if (b->ends_ms[i] <= now - BUDGET_WINDOW_MS) continue;
        sum += b->ends_milli[i];
        if (b->ends_ms[i] < oldest) oldest = b->ends_ms[i];
    }
    int64_t span = kept < BUDGET_EVENTS_KEPT ? BUDGET_WINDOW_MS : now - oldest;
    return span > 0 ? (double)sum / 1000.0 * BUDGET_WINDOW_MS / (double)span : 0;
}

bool budget_is_spent(const struct budget *b)
{
    return budget_faults_hour(b) >= BUDGET_FAULTS_MAX;
}

int64_t budget_free_ms(const struct budget *b)
{
    if (!budget_is_spent(b)) return 0;
    unsigned kept = b->fault_count < BUDGET_EVENTS_KEPT ? b->fault_count : BUDGET_EVENTS_KEPT;
    int64_t oldest = now_ms();
    for (unsigned i = 0; i < kept; i++)
        if (b->faults_ms[i] > now_ms() - BUDGET_WINDOW_MS && b->faults_ms[i] < oldest)
            oldest = b->faults_ms[i];
    return oldest + BUDGET_WINDOW_MS;
}

int64_t budget_wait_ms(int64_t popped_ms, int width_px, int height_px, int work_steps, bool trusted)
{
    if (trusted) return 0;
    double work = (double)width_px * height_px * work_steps;
    int64_t due = popped_ms + (int64_t)(work / BUDGET_PIXELSTEPS_PER_S * 1000.0) + 1;
    int64_t wait = due - now_ms();
    return wait > 0 ? wait : 0;
}
