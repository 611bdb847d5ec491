/*
 * horde_status.h - how the Horde as a whole is doing, and what its server understands.
 *
 * Place    start of the daemon, model choice (queued, eta), `kiln horde models|news`, drift
 *          probe.
 * Owner    *_release frees; strings live in the struct's arena, raw as sent.
 * Failure  ERR_FORMAT naming the field.
 * Source   horde-api 17 and 18.6.
 */
#ifndef PROTO_HORDE_STATUS_H
#define PROTO_HORDE_STATUS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"

struct horde_heartbeat {
    char message[32]; /* OK, OVERLOADED, DOWN */
    char version[32];
};
int horde_heartbeat_parse(struct horde_heartbeat *h, const char *body, size_t length,
                          struct error *err);

struct horde_modes {
    bool maintenance_mode, invite_only_mode, raid_mode;
};
int horde_modes_parse(struct horde_modes *m, const char *body, size_t length, struct error *err);

struct horde_performance {
    int64_t queued_requests, worker_count, thread_count, interrogator_count;
    double queued_megapixelsteps, past_minute_megapixelsteps, queued_forms;
};
int horde_performance_parse(struct horde_performance *p, const char *body, size_t length,
                            struct error *err);

struct horde_model {
    const char *name;
    int64_t count;      /* workers */
    double performance; /* pixelsteps a second of one worker */
    double queued;      /* megapixelsteps as documented; the server sends pixelsteps */
    double jobs;
    double eta_seconds; /* 10000: no capacity */
};
struct horde_models {
    struct arena memory;
    struct horde_model *list;
    int count;
};
int horde_models_parse(struct horde_models *m, const char *body, size_t length, struct error *err);
void horde_models_release(struct horde_models *m);

/* stats/img/models: images a month for each model, for "TOP n" */
int horde_model_stats_parse(struct horde_models *m, const char *body, size_t length,
                            struct error *err); /* name, and jobs = month */

struct horde_news_item {
    const char *date_published, *title, *newspiece, *importance;
};
struct horde_news {
    struct arena memory;
    struct horde_news_item *list;
    int count;
};
int horde_news_parse(struct horde_news *n, const char *body, size_t length, struct error *err);
void horde_news_release(struct horde_news *n);

/* What /api/swagger.json says this server knows. Until probed (zeroed): nothing beyond 5.1.5. */
struct horde_swagger {
    struct arena memory;
    bool probed;
    bool pop_extended_controlnet, pop_sampler_contract;
    const char **forms;
    int form_count;
    const char **metadata_types;
    int metadata_type_count;
    const char **metadata_values;
    int metadata_value_count;
    const char **samplers;
    int sampler_count;
    const char **schedulers;
    int scheduler_count;
    const char **control_types;
    int control_type_count;
    const char **post_processors;
    int post_processor_count;
};
int horde_swagger_parse(struct horde_swagger *s, const char *body, size_t length,
                        struct error *err);
void horde_swagger_release(struct horde_swagger *s);

#endif
