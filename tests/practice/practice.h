/*
 * practice.h - a small Horde on loopback: the oracle of the end-to-end tests and the first run.
 *
 * Place    kiln-practice-horde, one program of its own. Uses base/ and the tables of proto/;
 *          nothing of daemon/, so that a mistake there is not made twice.
 * Owner    struct practice in main; everything in it is guarded by `lock`. HTTP runs a thread a
 *          connection, the ticker (sweeps, folds, firing) is the main thread.
 * Failure  a request that is wrong is answered as the real server answers (horde-api 2); a start
 *          that fails ends the program with a sentence.
 * Source   horde-api.md, reliability.md sections 1 and 8, and recordings of a real server 5.1.5.
 */
#ifndef PRACTICE_H
#define PRACTICE_H

#include <jansson.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/error.h"
#include "proto/capability.h"
#include "proto/horde_submit.h"

#define ID_BYTES 37

/* ---- people ----------------------------------------------------------------------------- */

struct user {
    char key[64], alias[64];
    int id;
    bool trusted, flagged, anonymous;
    int64_t balance_milli; /* settled */
    int64_t escrow_milli;
    int64_t pending_milli; /* not folded into the balance yet */
    int64_t accumulated_milli, gifted_milli, received_milli;
    int requests, fulfillments;
};

struct sharedkey { /* its id is the key */
    char id[ID_BYTES];
    char *name; /* or NULL */
    struct user *owner;
    int64_t kudos, utilized; /* whole, as the server's; -1: no limit */
    int64_t max_pixels, max_steps, max_tokens;
    bool expires, deleted;
    int64_t expiry_ms;
};

struct style {
    char id[ID_BYTES];
    struct user *owner;
    struct sharedkey *sharedkey; /* or NULL */
    json_t *body;                /* as posted */
    int use_count;
};

enum worker_type { WORKER_IMAGE, WORKER_ALCHEMIST };

struct worker {
    char id[ID_BYTES], name[128], bridge_agent[256];
    enum worker_type type;
    struct user *owner;
    bool maintenance, paused, nsfw, lora;
    char maintenance_msg[256], info[256];
    int model_count;
    json_t *models; /* or forms */
    int64_t max_pixels;
    int64_t first_ms, last_ms, uptime_from_ms, uptime_ms;
    int64_t earned_milli, uptime_milli; /* after the factor */
    int fulfilled, uncompleted, suspicion;
    int64_t abort_ms[64]; /* ring of the last aborts and faults */
    int aborts;
    json_t *messages;
    double megapixelsteps;
};

/* ---- image requests and their jobs ------------------------------------------------------ */

enum job_state { JOB_GIVEN, JOB_DONE, JOB_FAULTED, JOB_ABORTED };

struct image_job { /* one image with one worker */
    char id[ID_BYTES];
    struct image_ask *ask;
    struct worker *worker;
    enum job_state state;
    int64_t given_ms, ttl_ms, done_ms;
    uint64_t seed;
    bool fake;
    bool censored;
    int64_t reward_milli;
    json_t *metadata;
    char *generation; /* as submitted when it is neither R2 nor faulted */
};

struct image_ask { /* what a client asked for */
    char id[ID_BYTES];
    struct user *user;
    struct sharedkey *sharedkey; /* that it is asked with, or NULL */
    json_t *payload; /* without seed and n_iter */
    json_t *models, *workers;
    char model_asked[128];
    int n, waiting, processing, finished, restarted, faults;
    bool r2, nsfw, censor, faulted, canceled, done, slow_workers, trusted_workers, extra_slow;
    bool own; /* fired by us */
    uint64_t seed, seed_variation;
    int next_index; /* for seed variation */
    char source_processing[32];
    char source_id[ID_BYTES];
    bool has_source, has_mask;
    int64_t born_ms, price_milli, spent_milli, ttl_ms;
    int width, height, steps, work_steps, upscale;
    struct image_job **jobs;
    int job_count;
    struct horde_job gate; /* what a worker needs to be able to do */
};

struct form {
    char id[ID_BYTES], name[64];
    struct form_ask *ask;
    struct worker *worker;
    enum { FORM_WAITING, FORM_PROCESSING, FORM_DONE, FORM_CANCELED, FORM_FAULTED } state;
    int64_t given_ms;
    int aborts;
    json_t *result;
};

struct form_ask {
    char id[ID_BYTES];
    struct user *user;
    char source_id[ID_BYTES];
    char *source_url; /* when it came as a URL */
    struct form **forms;
    int form_count, tiles;
    int64_t born_ms;
    bool own;
};

/* ---- storage ---------------------------------------------------------------------------- */

struct object {
    char name[96]; /* "transient/<id>" "source/<id>_src" */
    uint8_t *data;
    size_t length;
    int64_t expires_ms;
};

/* ---- faults ----------------------------------------------------------------------------- */

struct fault {
    char on[24]; /* pop submit upload download async check status user worker alchemy_pop ... any */
    char kind[24]; /* see practice_fault.c */
    int nth;       /* first request of its kind it hits, 1-based, counted from when it was set */
    int every;     /* then each so many; 0: only `count` in a row */
    int count;     /* how often; 0: once */
    int status, ms, retry_after;
    char rc[64], location[256], message[128];
    int seen, hit;
};

/* ---- the whole -------------------------------------------------------------------------- */

struct options {
    const char *host;
    int port;
    const char *port_file, *log, *store, *faults, *jobs_file, *tls_cert, *tls_key;
    const char *kinds, *sizes, *samplers, *models, *prompts, *form_names;
    int jobs, steps_least, steps_most, forms;
    uint64_t seed;
    double rate, seconds, ttl_scale, sweep_seconds, fold_seconds, cache_seconds, uptime_seconds;
    const char *swagger; /* older, newer, or NULL: 5.1.5 */
    bool gate_real, exit_when_done, untrusted, integer_balances, suspicion, quiet, r2;
    int max_waiting;
};

struct practice {
    pthread_mutex_t lock;
    struct options options;
    int64_t start_ms;
    char base_url[64]; /* "http://127.0.0.1:PORT" */
    int port;
    volatile bool stopping, closed; /* closed: for a while nobody listens */
    int64_t closed_from_ms, closed_until_ms;
    uint64_t random;

    struct user **users;
    int user_count;
    struct sharedkey **sharedkeys;
    int sharedkey_count;
    struct style **styles;
    int style_count;
    struct worker **workers;
    int worker_count;
    struct image_ask **asks;
    int ask_count, first_open; /* asks before this one are all over */
    struct image_job **jobs;
    int job_count;
    struct form_ask **form_asks;
    int form_ask_count;
    struct form **forms;
    int form_count;
    struct object **objects;
    int object_count;
    size_t object_bytes;
    struct fault *faults;
    int fault_count;

    bool maintenance_mode, invite_only_mode;
    FILE *log;
    int64_t serial;
    int64_t last_sweep_ms, last_fold_ms;
    int own_open; /* fired and not over */
    int fired;
    int64_t told_milli, credited_milli, spent_milli; /* over everything */
    int given, done, faulted, aborted, duplicates, fakes, empties;
    struct cached *cache;
    int cache_count;
};

/* ---- one call --------------------------------------------------------------------------- */

struct call {
    const char *method, *path; /* path without query */
    const char *kind;          /* "pop", for faults and the log */
    char args[2][160];
    const char *key, *agent, *host, *query;
    const char *sort, *page, *tag, *model; /* of the query; NULL: not there */
    const char *idempotency;
    const uint8_t *bytes;
    size_t length;
    json_t *body; /* parsed, or NULL */
    struct user *user;
    struct sharedkey *sharedkey; /* who pays, when a shared key was sent or a style has one */
    bool styled_key;

    int status; /* the answer */
    json_t *reply;
    uint8_t *data; /* instead of reply; owned */
    size_t data_length;
    const char *type;
    char location[300];
    int retry_after; /* -1: none */
    char note[160];  /* for the log */
    struct fault fault;
    bool faulty; /* fault hits this call */
};

/* practice_http.c */
int http_start(struct practice *p, struct error *err);
void http_stop(struct practice *p);
int64_t practice_ms(const struct practice *p); /* since the start */
void practice_sleep(const struct practice *p, int ms);

/* practice_routes.c */
void route_call(struct practice *p, struct call *c);
void call_fail(struct call *c, int status, const char *rc, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
void call_invalid(struct call *c, const char *field, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
bool call_authenticate(struct practice *p, struct call *c, int status, const char *rc);

/* practice_fault.c */
int fault_add(struct practice *p, const json_t *o, struct error *err);
int fault_load(struct practice *p, const char *path, struct error *err);
void fault_clear(struct practice *p);
/* Sets call->fault and ->faulty when one hits this call; counts. */
void fault_find(struct practice *p, struct call *c);
/* Answers in place of the server when the fault strikes before the request is looked at. */
bool fault_answers(struct call *c);
/* Changes the text of the answer (content faults). `body` is heap, may be NULL. */
void fault_spoil(struct call *c, char **body, size_t *length);

/* practice_log.c */
void log_exchange(struct practice *p, const struct call *c);
void log_posting(struct practice *p, const char *what, const struct user *u, const char *job,
                 int64_t told_milli, int64_t credited_milli);
void log_state(struct practice *p, const char *kind, const char *id, const char *state,
               const struct worker *w);
void log_json(struct practice *p, json_t *line); /* takes */

/* practice_price.c */
int64_t price_job_milli(const struct image_ask *a);
int64_t price_request_milli(const struct image_ask *a); /* a client pays this for one image */
int64_t price_form_milli(const char *form, int tiles);
enum family price_family(const char *model);

/* practice_people.c */
struct user *people_add(struct practice *p, const char *key, const char *alias, bool trusted);
struct user *people_find(struct practice *p, const char *key);
struct worker *people_worker(struct practice *p, const char *name);
void people_credit(struct practice *p, const char *what, struct worker *w, const char *job,
                   int64_t told_milli, int factor_milli);
void people_charge(struct practice *p, struct user *u, const char *job, int64_t milli);
void people_fold(struct practice *p);
void people_abort(struct practice *p, struct worker *w);
void people_check_in(struct practice *p, struct worker *w, int64_t now);
json_t *people_user_json(struct practice *p, const struct user *u, bool own);
json_t *people_worker_json(struct practice *p, const struct worker *w);
void people_find_user(struct practice *p, struct call *c);
void people_users(struct practice *p, struct call *c);
void people_get_user(struct practice *p, struct call *c);
void people_workers(struct practice *p, struct call *c);
void people_get_worker(struct practice *p, struct call *c);
void people_name_worker(struct practice *p, struct call *c);
void people_put_worker(struct practice *p, struct call *c);
void people_delete_worker(struct practice *p, struct call *c);
void people_transfer(struct practice *p, struct call *c);

/* practice_sharedkey.c */
struct sharedkey *sharedkey_find(struct practice *p, const char *id);
json_t *sharedkey_ids(struct practice *p, const struct user *u);
bool sharedkey_expired(struct practice *p, const struct sharedkey *k);
/* "SharedKeyEmpty", "SharedKeyExpired", or NULL: may spend. */
const char *sharedkey_fault(struct practice *p, const struct sharedkey *k);
bool sharedkey_authenticate(struct practice *p, struct call *c);
bool sharedkey_allows(struct call *c, const struct image_ask *a, int64_t price_milli);
void sharedkey_consume(struct sharedkey *k, int64_t milli); /* k may be NULL */
void sharedkey_fill(struct sharedkey *k, int64_t milli);
void sharedkey_create(struct practice *p, struct call *c);
void sharedkey_get(struct practice *p, struct call *c);
void sharedkey_patch(struct practice *p, struct call *c);
void sharedkey_delete(struct practice *p, struct call *c);

/* practice_style.c */
bool style_uses_key(struct practice *p, const struct sharedkey *k);
json_t *style_refs(struct practice *p, const struct user *u);
json_t *style_apply(struct practice *p, struct call *c);
void style_list(struct practice *p, struct call *c);
void style_create(struct practice *p, struct call *c);
void style_get(struct practice *p, struct call *c);
void style_get_by_name(struct practice *p, struct call *c);

/* practice_ask.c: the client's side of images */
struct image_ask *ask_new(struct practice *p, struct user *u, const json_t *body, struct call *c);
void ask_charge(struct practice *p, struct image_ask *a, int64_t milli);
void ask_async(struct practice *p, struct call *c);
void ask_check(struct practice *p, struct call *c);
void ask_status(struct practice *p, struct call *c);
void ask_cancel(struct practice *p, struct call *c);
void ask_settle(struct practice *p, struct image_ask *a); /* notes that it is over */
bool ask_over(const struct image_ask *a);
void practice_id(struct practice *p, char id[ID_BYTES], int index);
int practice_index(const char *id); /* what practice_id put in, or -1 */
uint64_t practice_random(struct practice *p);

/* practice_pop.c: the worker's side of images */
void pop_image(struct practice *p, struct call *c);
void submit_image(struct practice *p, struct call *c);
void jobs_sweep(struct practice *p);

/* practice_alchemy.c */
void alchemy_async(struct practice *p, struct call *c);
void alchemy_pop(struct practice *p, struct call *c);
void alchemy_submit(struct practice *p, struct call *c);
void alchemy_status(struct practice *p, struct call *c);
void alchemy_cancel(struct practice *p, struct call *c);
void alchemy_sweep(struct practice *p);

/* practice_store.c */
void store_put(struct practice *p, const char *name, const void *data, size_t length);
const struct object *store_find(struct practice *p, const char *name);
char *store_url(struct practice *p, const char *name); /* heap */
void store_route_put(struct practice *p, struct call *c);
void store_route_get(struct practice *p, struct call *c);
int store_decode_base64(const char *text, uint8_t **data, size_t *length);
char *store_encode_base64(const void *data, size_t length);

/* practice_status.c */
void status_heartbeat(struct practice *p, struct call *c);
void status_modes(struct practice *p, struct call *c);
void status_put_modes(struct practice *p, struct call *c);
void status_performance(struct practice *p, struct call *c);
void status_models(struct practice *p, struct call *c);
void status_news(struct practice *p, struct call *c);
void status_stats(struct practice *p, struct call *c);
void status_swagger(struct practice *p, struct call *c);
/* our own: /practice/... */
void control_fault(struct practice *p, struct call *c);
void control_clear(struct practice *p, struct call *c);
void control_worker(struct practice *p, struct call *c);
void control_clock(struct practice *p, struct call *c);
void control_fire(struct practice *p, struct call *c);
void control_trap(struct practice *p, struct call *c);
void control_state(struct practice *p, struct call *c);
json_t *practice_summary(struct practice *p);

/* practice_fire.c */
int fire_start(struct practice *p, struct error *err);
void fire_tick(struct practice *p);
bool fire_over(struct practice *p);

#endif
