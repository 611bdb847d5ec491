/* config/: the table of keys, what is refused and with which sentence, and where a key may lie. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "config/config.h"
#include "config/folders.h"
#include "config/schedule.h"

static int parse(struct config *c, const char *text, struct error *err)
{
    return config_parse(c, text, strlen(text), err);
}

static void a_volunteers_file_is_understood(void **state)
{
    struct config c;
    struct error err = {0};
    int rc = parse(&c,
                   "horde_url: \"https://aihorde.net/api/\"\n"
                   "api_key: \"abc\"\n"
                   "priority_usernames: [\"mireille#4711\"]\n"
                   "max_threads: 1\nqueue_size: 2\nmax_batch: 4\n"
                   "safety_on_gpu: True\n"
                   "civitai_api_token:\n"
                   "dreamer_name: Reading Room\nmax_power: 32\nhigh_memory_mode: true\n"
                   "vram_to_leave_free: \"80%\"\nblacklist:\nnsfw: no\n"
                   "models_to_load:\n  - \"Deliberate\"\n  - AlbedoBase XL (SDXL)\n"
                   "models_to_skip: []\n"
                   "custom_models:\n  - name: stable_diffusion\n    baseline: stable diffusion 1\n"
                   "    filepath: pocket\n",
                   &err);
    assert_string_equal(err.text, "");
    assert_int_equal(rc, 0);
    assert_string_equal(c.horde_url, "https://aihorde.net");
    assert_false(c.horde_loopback);
    assert_int_equal(c.queue_size, 2);
    assert_int_equal(c.max_power, 32);
    assert_true(c.safety_on_gpu);
    assert_false(c.nsfw);
    assert_int_equal(c.models_to_load.count, 2);
    assert_string_equal(c.models_to_load.items[1], "AlbedoBase XL (SDXL)");
    assert_int_equal(c.blacklist.count, 0);
    assert_int_equal(c.custom_model_count, 1);
    assert_string_equal(c.custom_models[0].filepath, "pocket");
    assert_string_equal(c.ignored, "high_memory_mode, vram_to_leave_free");
    assert_string_equal(c.bridge_agent, KILN_BRIDGE_AGENT);
    assert_string_equal(c.civitai_api_token, "");
    config_release(&c);
}

static void the_older_spelling_of_the_name_counts(void **state)
{
    struct config c;
    assert_int_equal(parse(&c, "worker_name: Old House\n", NULL), 0);
    assert_string_equal(c.worker_name, "Old House");
    config_release(&c);
}

struct refusal {
    const char *text, *sentence;
};

/* Every scalar key of the reference worker's template and data model and of the public SDK's bridge data
 * (horde-worker-reGen 10.1, horde_sdk 0.18): a volunteer's file is never refused for one of them. */
static void every_key_of_the_reference_worker_is_known(void **state)
{
    static const char *const names[] = {
        "alchemist_name",
        "allow_controlnet",
        "allow_img2img",
        "allow_lora",
        "allow_painting",
        "allow_post_processing",
        "allow_sdxl_controlnet",
        "allow_unsafe_ip",
        "always_download",
        "api_key",
        "branded_model",
        "cache_home",
        "capture_kudos_training_data",
        "censor_nsfw",
        "civitai_api_token",
        "cycle_process_on_model_change",
        "disable_disk_cache",
        "disable_terminal_ui",
        "download_timeout",
        "dreamer_name",
        "dynamic_models",
        "exit_on_unhandled_faults",
        "extra_slow_worker",
        "extra_stable_diffusion_models_folders",
        "high_memory_mode",
        "high_performance_mode",
        "horde_model_stickiness",
        "horde_url",
        "inference_step_timeout",
        "kai_url",
        "kudos_training_data_file",
        "limit_max_steps",
        "limited_console_messages",
        "load_large_models",
        "max_batch",
        "max_context_length",
        "max_dynamic_models_to_download",
        "max_length",
        "max_lora_cache_size",
        "max_models_to_download",
        "max_power",
        "max_threads",
        "minutes_allowed_without_jobs",
        "moderate_performance_mode",
        "nsfw",
        "number_of_dynamic_models",
        "number_of_dynamic_models_to_load",
        "post_process_job_overlap",
        "post_process_timeout",
        "preload_timeout",
        "process_timeout",
        "purge_loras_on_download",
        "queue_size",
        "ram_to_leave_free",
        "remove_maintenance_on_init",
        "require_upfront_kudos",
        "safety_on_gpu",
        "scribe_name",
        "stats_output_frequency",
        "suppress_speed_warnings",
        "temp_dir",
        "unload_models_from_vram_often",
        "very_fast_disk_mode",
        "very_high_memory_mode",
        "vram_to_leave_free",
    };
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        struct config c;
        struct error err = {0};
        char *text = alloc_printf("%s:\n", names[i]);
        int rc = parse(&c, text, &err);
        if (rc) fail_msg("%s: %s", names[i], err.text);
        config_release(&c);
        free(text);
    }
}

static void other_spellings_have_their_keys_kind(void **state)
{
    struct config c;
    struct error err = {0};
    assert_int_equal(parse(&c,
                           "dreamer_worker_name: Old House\nallow_inpainting: false\n"
                           "image_models_to_load: [\"Deliberate\", \"TOP 2\"]\n"
                           "image_models_to_skip: [\"Anything\"]\nmodels_folder_parent: /tmp\n",
                           &err),
                     0);
    assert_string_equal(c.worker_name, "Old House");
    assert_false(c.allow_painting);
    assert_int_equal(c.models_to_load.count, 2);
    assert_string_equal(c.models_to_skip.items[0], "Anything");
    assert_string_equal(c.cache_home, "/tmp");
    config_release(&c);
    assert_int_equal(parse(&c, "models_to_load: [a]\nimage_models_to_load: [b, c]\n", &err), 0);
    assert_int_equal(c.models_to_load.count, 2);
    config_release(&c);
    assert_int_equal(parse(&c, "allow_inpainting: perhaps\n", &err), ERR_INVALID);
    assert_non_null(strstr(err.text, "perhaps"));
}

static void bad_input_gets_a_sentence(void **state)
{
    static const struct refusal cases[] = {
        {"max_pwer: 8\n", "unknown key \"max_pwer\"; did you mean max_power?"},
        {"frobnicate_everything: 8\n", "unknown key \"frobnicate_everything\""},
        {"max_power: 1\n", "max_power: 1 is not between 2 and 288"},
        {"max_power: lots\n", "max_power: \"lots\" is not a whole number"},
        {"nsfw: flase\n", "nsfw: \"flase\" is neither true nor false"},
        {"horde_url: http://aihorde.net\n",
         "horde_url: http:// would send the key in clear to aihorde.net; use https://"},
        {"horde_url: ftp://aihorde.net\n",
         "horde_url \"ftp://aihorde.net\" does not start with https://"},
        {"horde_url: https://u@aihorde.net\n", "horde_url must be https://host[:port] and no more"},
        {"horde_url: https://aihorde.net:99999\n",
         "horde_url: \"99999\" is no port from 1 to 65535"},
        {"horde_url: https://aihorde.net/wrong\n",
         "horde_url: the path \"/wrong\" is not one of /, /api/, /api/v2/"},
        {"dreamer_name: x\n", "dreamer_name has 1 characters, not 3 to 100"},
        {"dreamer_name: my Colab box\n", "dreamer_name: the Horde refuses names with \"colab\""},
        {"priority_usernames: [mireille]\n", "priority_usernames: \"mireille\" is not alias#id"},
        {"blacklist: [a word that is too long]\n",
         "blacklist: entry 1 has 23 characters, not 1 to 15"},
        {"bridge_agent: kiln\n", "bridge_agent \"kiln\" is not name:version:url"},
        {"precision: fp8\n", "precision: \"fp8\" is not one of auto, fp32, bf16, fp16, int8"},
        {"devices: [gpu]\n", "devices: \"gpu\" is neither cpu nor cuda:N"},
        {"schedule: [\"25:00-26:00\"]\n",
         "schedule: \"25:00-26:00\" is not of the form \"mon-fri 22:00-07:00\""},
        {"forms: [captoin]\n",
         "forms: \"captoin\" is not one of caption, nsfw, interrogation, post-process"},
        {"custom_models: [{name: a, baseline: flux, filepath: b}]\n", NULL},
        {"custom_models: [{name: a, baseline: stable_diffusion_1}]\n", NULL},
        {"blacklist: &a [x]\ncensorlist: *a\n", "YAML anchors and aliases are not accepted"},
        {"max_power: [8]\n", NULL},
        {"models_to_load: {a: b}\n", NULL},
        {"max_power: \"8\n", NULL},
        {"- a\n- b\n", NULL},
        {"place: \"a\\x1bb\"\n", "place holds a control character"},
    };
    for (unsigned i = 0; i < COUNT_OF(cases); i++) {
        struct config c = {.max_power = 4711};
        struct error err = {0};
        int rc = parse(&c, cases[i].text, &err);
        if (!rc) fail_msg("accepted: %s", cases[i].text);
        assert_int_equal(config_exit_code(rc), CONFIG_EXIT_CONFIG);
        if (cases[i].sentence) assert_string_equal(err.text, cases[i].sentence);
        assert_true(strlen(err.text) > 10);
        assert_int_equal(c.max_power, 4711); /* nothing half loaded */
    }
}

static void size_is_bounded(void **state)
{
    struct config c;
    struct error err = {0};
    char *big = alloc_zero(CONFIG_FILE_BYTES_MAX + 2, 1);
    memset(big, '#', CONFIG_FILE_BYTES_MAX + 1);
    assert_int_equal(parse(&c, big, &err), ERR_INVALID);
    free(big);
    assert_int_equal(config_parse(&c, "nsfw: no\0\n", 10, &err), ERR_FORMAT);
}

static void a_repeated_key_neither_leaks_nor_crashes(void **state)
{
    struct config c;
    if (!parse(&c, "place: a\nplace: b\nforms: [nsfw]\nforms: [caption]\n", NULL))
        config_release(&c);
}

static void loopback_is_recognised(void **state)
{
    static const struct {
        const char *url;
        bool loopback;
    } cases[] = {{"http://127.0.0.1:7001/api/v2", true},
                 {"http://localhost:1/", true},
                 {"http://[::1]:80", true},
                 {"https://127.0.0.1.example.org", false},
                 {"https://aihorde.net", false}};
    for (unsigned i = 0; i < COUNT_OF(cases); i++) {
        struct config c;
        struct error err = {0};
        char *text = alloc_printf("horde_url: \"%s\"\n", cases[i].url);
        assert_int_equal(parse(&c, text, &err), 0);
        assert_int_equal(c.horde_loopback, cases[i].loopback);
        config_release(&c);
        free(text);
    }
}

static void write_file(const char *path, const char *text, unsigned mode)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    assert_int_equal(chmod(path, mode), 0);
}

static void a_key_that_others_can_read_is_refused(void **state)
{
    char folder[] = "/tmp/kiln-config-XXXXXX";
    assert_non_null(mkdtemp(folder));
    char *yaml = alloc_printf("%s/bridgeData.yaml", folder);
    char *key = alloc_printf("%s/api_key", folder);
    struct config c;
    struct error err = {0};

    write_file(yaml, "api_key: secret-key-1\n", 0644);
    int rc = config_load(&c, yaml, true, &err);
    assert_int_equal(config_exit_code(rc), CONFIG_EXIT_KEY);
    assert_non_null(strstr(err.text, "mode 0644"));
    assert_null(strstr(err.text, "secret-key-1"));

    assert_int_equal(chmod(yaml, 0600), 0);
    assert_int_equal(config_load(&c, yaml, true, &err), 0);
    assert_string_equal(c.api_key, "secret-key-1");
    config_release(&c);

    char *text = alloc_printf("api_key_file: %s\n", key);
    write_file(yaml, text, 0644);
    write_file(key, "secret-key-2\n", 0640);
    assert_int_equal(config_exit_code(config_load(&c, yaml, true, &err)), CONFIG_EXIT_KEY);
    assert_int_equal(chmod(key, 0600), 0);
    assert_int_equal(config_load(&c, yaml, true, &err), 0);
    assert_string_equal(c.api_key, "secret-key-2");
    assert_true(c.key_from_file);
    config_release(&c);
    write_file(key, "two words\n", 0600);
    assert_int_equal(config_load(&c, yaml, true, &err), ERR_REFUSED);
    assert_null(strstr(err.text, "two words"));

    setenv("CREDENTIALS_DIRECTORY", folder, 1);
    write_file(yaml, "dreamer_name: Reading Room\n", 0644);
    write_file(key, "secret-key-3", 0440);
    assert_int_equal(config_load(&c, yaml, true, &err), 0);
    assert_string_equal(c.api_key, "secret-key-3");
    config_release(&c);
    unsetenv("CREDENTIALS_DIRECTORY");

    assert_int_equal(config_load(&c, yaml, true, &err), ERR_REFUSED);
    assert_int_equal(config_load(&c, yaml, false, &err), 0);
    config_release(&c);
    write_file(yaml, "api_key: '0000000000'\n", 0644);
    assert_int_equal(config_load(&c, yaml, true, &err), ERR_REFUSED);
    unlink(yaml);
    assert_int_equal(config_exit_code(config_load(&c, yaml, true, &err)), CONFIG_EXIT_CONFIG);
    unlink(key);
    rmdir(folder);
    free(yaml);
    free(key);
    free(text);
}

/* the example explains every key, holds the defaults, and nothing else */
static void the_example_is_the_table(void **state)
{
    struct buf b;
    struct config example, plain;
    struct error err = {0};
    buf_init(&b, CONFIG_FILE_BYTES_MAX);
    assert_int_equal(buf_read_file(&b, EXAMPLE_FILE, &err), 0);
    int rc = config_parse(&example, (char *)b.data, b.length, &err);
    assert_string_equal(err.text, "");
    assert_int_equal(rc, 0);
    assert_int_equal(parse(&plain, "nsfw: true\n", &err), 0);
    assert_null(example.ignored);
    assert_int_equal(example.max_power, plain.max_power);
    assert_int_equal(example.drain_s, plain.drain_s);
    assert_string_equal(example.bridge_agent, plain.bridge_agent);
    for (unsigned i = 0; config_key_name(i); i++) {
        if (!config_key_meaning(i) || strstr(config_key_meaning(i), " spelling of ")) continue;
        char *line = alloc_printf("\n%s:", config_key_name(i));
        if (!strstr((char *)b.data, line)) fail_msg("the example lacks %s", config_key_name(i));
        free(line);
    }
    config_release(&example);
    config_release(&plain);
    buf_release(&b);
}

static void hours_are_kept(void **state)
{
    struct schedule_span s;
    assert_int_equal(schedule_parse(&s, "mon-fri 22:00-07:00", NULL), 0);
    assert_true(schedule_covers(&s, 1, 22 * 60));
    assert_true(schedule_covers(&s, 2, 6 * 60 + 59));
    assert_false(schedule_covers(&s, 2, 7 * 60));
    assert_true(schedule_covers(&s, 6, 60));  /* Friday's night */
    assert_false(schedule_covers(&s, 1, 60)); /* Sunday's night */
    assert_int_equal(schedule_parse(&s, "sat-mon,wed", NULL), 0);
    assert_int_equal(s.days, 1 << 6 | 1 << 0 | 1 << 1 | 1 << 3);
    assert_true(schedule_covers(&s, 0, 0) && !schedule_covers(&s, 2, 0));
    assert_int_equal(schedule_parse(&s, "20:00-24:00", NULL), 0);
    assert_true(schedule_covers(&s, 4, 1439));
    static const char *const bad[] = {
        "", "mon-", "monday", "22:00", "22:00-07:60", "22:00-7:00x", "fri,"};
    for (unsigned i = 0; i < COUNT_OF(bad); i++)
        assert_int_equal(schedule_parse(&s, bad[i], NULL), ERR_INVALID);
}

static void folders_follow_systemd_then_xdg(void **state)
{
    struct folders f;
    setenv("STATE_DIRECTORY", "/var/lib/kiln:/other", 1);
    setenv("CACHE_DIRECTORY", "/var/cache/kiln", 1);
    setenv("RUNTIME_DIRECTORY", "/run/kiln", 1);
    assert_int_equal(folders_init(&f, NULL, NULL, NULL), 0);
    assert_string_equal(f.state, "/var/lib/kiln");
    assert_string_equal(f.socket, "/run/kiln/kilnd.sock");
    folders_release(&f);
    unsetenv("STATE_DIRECTORY");
    unsetenv("CACHE_DIRECTORY");
    unsetenv("RUNTIME_DIRECTORY");
    unsetenv("XDG_RUNTIME_DIR");
    setenv("XDG_STATE_HOME", "/x/state", 1);
    setenv("HOME", "/home/a", 1);
    unsetenv("XDG_CACHE_HOME");
    assert_int_equal(folders_init(&f, NULL, NULL, NULL), 0);
    assert_string_equal(f.state, "/x/state/kiln");
    assert_string_equal(f.cache, "/home/a/.cache/kiln");
    assert_string_equal(f.runtime, "/x/state/kiln/run");
    folders_release(&f);
    unsetenv("XDG_STATE_HOME");
    unsetenv("HOME");
    assert_int_equal(folders_init(&f, NULL, NULL, NULL), ERR_NOT_FOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_volunteers_file_is_understood),
        cmocka_unit_test(the_older_spelling_of_the_name_counts),
        cmocka_unit_test(every_key_of_the_reference_worker_is_known),
        cmocka_unit_test(other_spellings_have_their_keys_kind),
        cmocka_unit_test(bad_input_gets_a_sentence),
        cmocka_unit_test(size_is_bounded),
        cmocka_unit_test(a_repeated_key_neither_leaks_nor_crashes),
        cmocka_unit_test(loopback_is_recognised),
        cmocka_unit_test(a_key_that_others_can_read_is_refused),
        cmocka_unit_test(the_example_is_the_table),
        cmocka_unit_test(hours_are_kept),
        cmocka_unit_test(folders_follow_systemd_then_xdg),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
