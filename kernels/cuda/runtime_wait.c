/* Waiting for a card with a limit: one that never answers must end the process, not hold it. */
#include <sched.h>
#include <stdlib.h>
#include <time.h>

#include "base/now.h"
#include "base/str.h"
#include "kernels/cuda/runtime.h"

#define PATIENCE_MS 60000 /* between two answers, not for a picture */
#define SPIN_MS 20        /* a step takes some milliseconds: no sleep before */

int64_t runtime_patience_ms(void)
{
    int64_t ms;
    const char *said = getenv("KILN_CUDA_PATIENCE_MS");
    return said && str_parse_i64(said, &ms) && ms > 0 && ms < 86400000 ? ms : PATIENCE_MS;
}

int runtime_wait(struct runtime *r, int (*query)(struct runtime *r, int event), int event)
{
    int64_t start = now_ms();
    while (!r->lost) {
        int code = query(r, event);
        if (code != RUNTIME_BUSY) return code;
        int64_t waited = now_ms() - start;
        if (waited > r->patience_ms) {
            r->lost = true;
        } else if (waited < SPIN_MS) {
            sched_yield();
        } else {
            nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
        }
    }
    return RUNTIME_LOST;
}
