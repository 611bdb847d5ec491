/*
 * adapters.h - LoRAs and embeddings that jobs name, fetched before their engine needs them.
 *
 * Place    prepare asks for a job's; the job goes on when all have come or failed. What fails becomes a line of
 *          gen_metadata, the image is made without it (horde-api 8).
 * Owner    the worker: adapters_start / adapters_stop. Loop thread; the waiting for disk and network happens
 *          in libuv's pool, one fetch for everybody who names the same thing, ADAPTERS_AT_ONCE at a time.
 * Failure  a fetch gives up after download_timeout; a job waits for half of its time at most.
 * Source   store/adapter.h; horde-api 7 (inject_trigger); reliability F5, F6, N4.
 */
#ifndef DAEMON_ADAPTERS_H
#define DAEMON_ADAPTERS_H

#include "daemon/job.h"

#define ADAPTERS_AT_ONCE 3

struct adapters;

int adapters_start(struct adapters **a, struct worker *w, struct error *err);
/* Gives up what is under way, within a second; nobody is called any more. Freed when the last has ended. */
void adapters_stop(struct adapters *a);

/* Fills the job's request with what it names; `then` runs when that is over, possibly at once. */
void adapters_need(struct adapters *a, struct job *job, void (*then)(struct job *job));
/* The job ends: nothing of it is waited for, its files may go. */
void adapters_forget(struct adapters *a, struct job *job);
/* Fetches under way or waiting, for `kiln status`. */
int adapters_open(const struct adapters *a);

/* The trigger words that `wish` asks for, as ", word" behind the prompt: "any" one by the seed, "all", or
 * the nearest to the given one. In malloc; "" when there is none. */
char *adapters_trigger(const char *const *words, int count, const char *wish, uint64_t seed);

#endif
