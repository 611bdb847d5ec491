/*
 * keys.h - every key of bridgeData.yaml, one line each: what it means, or that Kiln ignores it.
 *
 * Place    read by config/config.c (schema, parser) and by the test that holds the example file
 *          against it.
 * Failure  none: data.
 * Source   the reference worker's template and data model; keys from "bridge_agent" on are Kiln's
 *          own.
 *
 * Columns: key, member, default, then least and most for numbers, then the meaning. KEY_OLD is an
 * older spelling of a key; KEY_IGNORED may hold anything.
 */
#ifndef CONFIG_KEYS_H
#define CONFIG_KEYS_H

#define CONFIG_KEYS(TEXT, LIST, BOOL, INT, OLD, IGNORED)                                           \
    TEXT(horde_url, horde_url, "https://aihorde.net",                                              \
         "the Horde's address; http only on this machine")                                         \
    TEXT(api_key, api_key, "", "your key; only in a file of yours with mode 0600")                 \
    TEXT(api_key_file, api_key_file, "", "a file with nothing but the key, yours, mode 0600")      \
    TEXT(dreamer_name, worker_name, "An Awesome Dreamer",                                          \
         "the image worker's name, unique on the Horde")                                           \
    OLD(worker_name, worker_name, "older spelling of dreamer_name")                                \
    OLD(dreamer_worker_name, worker_name, "another spelling of dreamer_name")                      \
    OLD(default_worker_name, worker_name, "another spelling of dreamer_name")                      \
    LIST(priority_usernames, priority_usernames, "alias#id of people who are served first")        \
    INT(max_threads, max_threads, 1, 1, 50, "jobs computed at the same time")                      \
    INT(queue_size, queue_size, 1, 0, 4, "jobs popped ahead")                                      \
    INT(max_batch, max_batch, 1, 1, 20, "images of one request taken at once")                     \
    INT(max_power, max_power, 8, 2, 288, "largest image: 32768 pixels each, 8 is 512x512")         \
    BOOL(require_upfront_kudos, require_upfront_kudos, false,                                      \
         "only requests that can be paid now")                                                     \
    LIST(models_to_load, models_to_load, "models offered, or TOP n, ALL SDXL and so on")           \
    OLD(image_models_to_load, models_to_load, "another spelling of models_to_load")                \
    OLD(image_models_to_skip, models_to_skip, "another spelling of models_to_skip")                \
    LIST(models_to_skip, models_to_skip, "models that a meta command must not choose")             \
    BOOL(load_large_models, load_large_models, false,                                              \
         "meta commands may choose very large models")                                             \
    BOOL(dynamic_models, dynamic_models, false, "choose what to offer from the Horde's demand")    \
    BOOL(nsfw, nsfw, true, "serve NSFW requests")                                                  \
    BOOL(censor_nsfw, censor_nsfw, false, "replace NSFW results by a notice")                      \
    LIST(blacklist, blacklist, "words whose requests are not taken")                               \
    LIST(censorlist, censorlist, "words whose NSFW results are always replaced")                   \
    BOOL(allow_img2img, allow_img2img, true, "requests with a source image")                       \
    BOOL(allow_painting, allow_painting, true, "inpainting and outpainting")                       \
    OLD(allow_inpainting, allow_painting, "another spelling of allow_painting")                    \
    BOOL(allow_unsafe_ip, allow_unsafe_ip, true, "requests from behind VPNs")                      \
    BOOL(allow_post_processing, allow_post_processing, true, "upscalers, face fixers")             \
    BOOL(allow_controlnet, allow_controlnet, false, "ControlNet requests")                         \
    BOOL(allow_sdxl_controlnet, allow_sdxl_controlnet, false, "SDXL ControlNet and transparency")  \
    BOOL(allow_lora, allow_lora, false, "LoRAs, downloaded on demand")                             \
    INT(max_lora_cache_size, max_lora_cache_gb, 10, 1, 10000, "GB of LoRAs kept")                  \
    BOOL(extra_slow_worker, extra_slow_worker, false, "slower than 0.1 megapixel-steps a second")  \
    BOOL(limit_max_steps, limit_max_steps, false, "no requests with more steps than usual")        \
    BOOL(safety_on_gpu, safety_on_gpu, false,                                                      \
         "without effect: the check runs on the engine's device")                                  \
    INT(stats_output_frequency, stats_output_s, 30, 0, 86400,                                      \
        "seconds between summaries in the log; 0: none")                                           \
    INT(process_timeout, process_timeout_s, 900, 30, 86400,                                        \
        "seconds after which a job is taken from its engine")                                      \
    INT(download_timeout, download_timeout_s, 121, 5, 3600, "seconds for a LoRA or embedding")     \
    TEXT(cache_home, cache_home, "", "folder of the models")                                       \
    OLD(models_folder_parent, cache_home, "another spelling of cache_home")                        \
    TEXT(civitai_api_token, civitai_api_token, "", "CivitAI token; only in a file with mode 0600") \
    TEXT(alchemist_name, alchemist_name, "An Awesome Alchemist",                                   \
         "the alchemist's name, another than the worker's")                                        \
    LIST(forms, forms, "alchemy forms offered: caption, nsfw, interrogation, post-process")        \
    TEXT(bridge_agent, bridge_agent, KILN_BRIDGE_AGENT,                                            \
         "what the worker calls itself: name:version:url")                                         \
    LIST(devices, devices, "one engine each: cpu, cuda:0 ...; empty: the engine chooses")          \
    TEXT(precision, precision, "auto", "auto, fp32, bf16, fp16 or int8")                           \
    TEXT(engine_path, engine_path, "", "the engine program; empty: kiln-engine beside kilnd")      \
    TEXT(state_dir, state_dir, "", "ledger and spool; empty: STATE_DIRECTORY or XDG")              \
    LIST(upload_hosts, upload_hosts, "further hosts that job URLs may name, *.name for all below") \
    LIST(schedule, schedule, "when to work, as \"mon-fri 22:00-07:00\"; empty: always")            \
    TEXT(place, place, "", "where the machine stands, as you want it stated on your own images")   \
    TEXT(energy, energy, "", "where its electricity comes from, likewise")                         \
    INT(disk_floor_mb, disk_floor_mb, 512, 0, 1000000, "free MB below which no job is popped")     \
    INT(drain_seconds, drain_s, 90, 0, 3600, "seconds that jobs in flight get at SIGTERM")         \
    BOOL(mains_only, mains_only, false, "pause while the machine runs on its battery")             \
    BOOL(pause_when_gpu_busy, pause_when_gpu_busy, false,                                          \
         "pause while another program uses the GPU")                                               \
    INT(max_temperature, max_temperature_c, 0, 0, 120,                                             \
        "pause while the GPU is hotter, in degrees Celsius; 0: never")                             \
    INT(user_idle_minutes, user_idle_min, 0, 0, 1440,                                              \
        "work only when nobody has used terminals or desktop for so long; 0: always")              \
    TEXT(control_group, control_group, "", "group that may use the control socket")                \
    INT(metrics_port, metrics_port, 0, 0, 65535,                                                   \
        "port on 127.0.0.1 with numbers for Prometheus; 0: none")                                  \
    TEXT(log_level, log_level, "info", "error, warn, info or debug")                               \
    IGNORED(high_memory_mode)                                                                      \
    IGNORED(very_high_memory_mode)                                                                 \
    IGNORED(high_performance_mode)                                                                 \
    IGNORED(moderate_performance_mode)                                                             \
    IGNORED(post_process_job_overlap)                                                              \
    IGNORED(unload_models_from_vram_often)                                                         \
    IGNORED(very_fast_disk_mode)                                                                   \
    IGNORED(cycle_process_on_model_change)                                                         \
    IGNORED(purge_loras_on_download)                                                               \
    IGNORED(number_of_dynamic_models)                                                              \
    IGNORED(max_models_to_download)                                                                \
    IGNORED(temp_dir)                                                                              \
    IGNORED(always_download)                                                                       \
    IGNORED(disable_terminal_ui)                                                                   \
    IGNORED(vram_to_leave_free)                                                                    \
    IGNORED(ram_to_leave_free)                                                                     \
    IGNORED(disable_disk_cache)                                                                    \
    IGNORED(suppress_speed_warnings)                                                               \
    IGNORED(exit_on_unhandled_faults)                                                              \
    IGNORED(post_process_timeout)                                                                  \
    IGNORED(preload_timeout)                                                                       \
    IGNORED(minutes_allowed_without_jobs)                                                          \
    IGNORED(model_stickiness)                                                                      \
    IGNORED(horde_model_stickiness)                                                                \
    IGNORED(capture_kudos_training_data)                                                           \
    IGNORED(kudos_training_data_file)                                                              \
    IGNORED(remove_maintenance_on_init)                                                            \
    IGNORED(nataili_cache_home)                                                                    \
    IGNORED(enable_terminal_ui)                                                                    \
    IGNORED(ray_temp_dir)                                                                          \
    IGNORED(low_vram_mode)                                                                         \
    IGNORED(enable_model_cache)                                                                    \
    IGNORED(limited_console_messages)                                                              \
    IGNORED(inference_step_timeout)                                                                \
    IGNORED(extra_stable_diffusion_models_folders)                                                 \
    IGNORED(max_dynamic_models_to_download)                                                        \
    IGNORED(number_of_dynamic_models_to_load)                                                      \
    IGNORED(backend_engine)                                                                        \
    IGNORED(openai_api)                                                                            \
    IGNORED(scribe_name)                                                                           \
    IGNORED(kai_url)                                                                               \
    IGNORED(max_length)                                                                            \
    IGNORED(max_context_length)                                                                    \
    IGNORED(branded_model)

#endif
