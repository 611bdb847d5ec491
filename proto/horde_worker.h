/*
 * horde_worker.h - people and their workers as the Horde shows them.
 *
 * Place    find_user and users/{id} for balances (daemon reconciliation, cli), workers/ and its kin
 *          for the operator's own workers and maintenance.
 * Owner    *_release frees; strings live in the struct's arena, raw as sent (str_clean to show).
 * Failure  ERR_FORMAT naming the field.
 * Source   horde-api 14 and 15. Figures are cached by the server for 30 s.
 */
#ifndef PROTO_HORDE_WORKER_H
#define PROTO_HORDE_WORKER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/error.h"

struct horde_user {
    struct arena memory;
    const char *username; /* alias#id */
    int64_t id;
    double kudos;
    double evaluating_kudos; /* NAN when not shown */
    int concurrency, worker_count;
    bool trusted, flagged, moderator, deleted;
    double accumulated, gifted, donated, admin, received, recurring, awarded, styled;
    const char **worker_ids;
    int worker_id_count;
    const char **sharedkey_ids; /* shown to the owner only; each is a key */
    int sharedkey_id_count;
    const char **active_images; /* ids of own requests that still run */
    int active_image_count;
    const char **active_alchemy;
    int active_alchemy_count;
};

int horde_user_parse(struct horde_user *u, const char *body, size_t length, struct error *err);
void horde_user_release(struct horde_user *u);

struct horde_worker {
    const char *id, *name;
    const char *type; /* image, text, interrogation */
    const char *bridge_agent, *info, *performance, *team;
    bool online, maintenance_mode, trusted, flagged, nsfw;
    bool paused; /* shown to moderators only */
    int64_t requests_fulfilled, uncompleted_jobs, uptime_seconds, threads, max_pixels;
    double kudos_rewards, kudos_generated, kudos_uptime; /* 0 when null */
    double megapixelsteps_generated;
    bool img2img, painting, post_processing, lora, controlnet, sdxl_controlnet;
    const char **models;
    int model_count;
    const char **forms;
    int form_count;
};

struct horde_workers {
    struct arena memory;
    struct horde_worker *list;
    int count;
};

/* One object (workers/{id}, workers/name/{name}) gives a list of one; an array the whole. */
int horde_workers_parse(struct horde_workers *w, const char *body, size_t length,
                        struct error *err);
void horde_workers_release(struct horde_workers *w);

/* PUT workers/{id}. */
struct horde_worker_change {
    bool set_maintenance, maintenance;
    const char *maintenance_msg;    /* NULL: none */
    const char *info, *name, *team; /* NULL: unchanged */
};
int horde_worker_change_format(const struct horde_worker_change *c, struct buf *body,
                               struct error *err);

/* POST kudos/transfer; send a fresh UUID as Idempotency-Key with each intended transfer. */
int horde_transfer_format(const char *username, int64_t amount, struct buf *body,
                          struct error *err);
int horde_transfer_parse(double *transferred, const char *body, size_t length, struct error *err);

#endif
