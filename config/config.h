/*
 * config.h - what the operator wants, read from the bridgeData.yaml of Horde volunteers.
 *
 * Place    kilnd at start and at SIGHUP; `kiln config check` runs the same code.
 * Owner    config_load / config_release around the caller's struct; strings are its own.
 * Failure  a sentence with the key, its value and the limit; nothing is half loaded. ERR_REFUSED
 *          is a key that others could read (exit 77), everything else the file (exit 78).
 * Source   keys: Haidra-Org/horde-worker-reGen bridgeData_template.yaml and
 * bridge_data/data_model.py; reliability V5 (key), N1 (https), N5 (no aliases, 256 KiB).
 *
 * One table, CONFIG_KEYS in config/keys.h, says for every key what it means or that Kiln ignores
 * it.
 */
#ifndef CONFIG_CONFIG_H
#define CONFIG_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define CONFIG_FILE_BYTES_MAX (256 * 1024)
#define CONFIG_ANON_KEY "0000000000"
#define KILN_PROJECT_URL "https://example.org/kiln"
#define KILN_BRIDGE_AGENT "kiln:" KILN_VERSION ":" KILN_PROJECT_URL

#define CONFIG_EXIT_CONFIG 78
#define CONFIG_EXIT_KEY 77

struct config_list {
    char **items;
    unsigned count;
};

struct config_model {
    char *name;     /* what the Horde calls it */
    char *baseline; /* a family's Horde name */
    char *filepath; /* a local file, or "pocket" */
};

struct config {
    /* filled from the table, in its order */
    char *horde_url; /* normalised: scheme://host[:port], no path */
    char *api_key;   /* never shown; "" until found */
    char *api_key_file;
    char *worker_name;
    struct config_list priority_usernames;
    int64_t max_threads, queue_size, max_batch, max_power;
    bool require_upfront_kudos;
    struct config_list models_to_load, models_to_skip;
    bool load_large_models, dynamic_models;
    bool nsfw, censor_nsfw;
    struct config_list blacklist, censorlist;
    bool allow_img2img, allow_painting, allow_unsafe_ip, allow_post_processing;
    bool allow_controlnet, allow_sdxl_controlnet, allow_lora;
    int64_t max_lora_cache_gb;
    bool extra_slow_worker, limit_max_steps, safety_on_gpu;
    int64_t stats_output_s, process_timeout_s, download_timeout_s;
    char *cache_home;
    char *civitai_api_token; /* never shown */
    char *alchemist_name;
    struct config_list forms;

    /* Kiln's own */
    char *bridge_agent;
    struct config_list devices; /* cpu, cuda:N; empty: the engine chooses */
    char *precision;            /* auto fp32 bf16 fp16 int8 */
    char *engine_path;
    char *state_dir;
    struct config_list upload_hosts;
    struct config_list schedule;
    char *place, *energy; /* what the owner states for provenance */
    int64_t disk_floor_mb, drain_s;
    bool mains_only, pause_when_gpu_busy;
    int64_t max_temperature_c, user_idle_min;
    char *control_group;
    int64_t metrics_port;
    char *log_level;

    struct config_model *custom_models;
    unsigned custom_model_count;

    /* found while reading */
    char *ignored;       /* "key, key" that mean nothing to Kiln, or NULL: say it once */
    bool horde_loopback; /* horde_url is on this machine */
    bool key_from_file;  /* the key did not come from bridgeData.yaml */
};

/* Reads, checks and completes. Without `need_key` a missing API key is no error (config check of a
 * fresh file, local work). */
int config_load(struct config *c, const char *path, bool need_key, struct error *err);
/* The same from memory, without looking for a key file; `text` is not kept. */
int config_parse(struct config *c, const char *text, size_t length, struct error *err);
void config_release(struct config *c);
int config_exit_code(int rc);

/* The keys of the table, in its order, for documents and tests; NULL past the end. */
const char *config_key_name(unsigned index);
const char *config_key_meaning(unsigned index); /* NULL: named once and ignored */

/* Is that host this machine: localhost, 127.0.0.0/8, ::1. */
bool config_host_is_loopback(const char *host);

#endif
