/* cmd_config.c - reads a configuration with kilnd's own code and says what it would do. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/str.h"
#include "cli/command.h"
#include "config/config.h"

static void print_config(const struct config *c, const char *path)
{
    printf("%s is valid\n", path);
    printf("  worker      %s on %s\n", *c->worker_name ? c->worker_name : "(no name)",
           c->horde_url);
    printf("  API key     %s\n", *c->api_key ? "found" : "none");
    printf("  agent       %s\n", c->bridge_agent);
    printf("  max power   %lld (%lld pixels), %lld threads, queue %lld, batch %lld\n",
           (long long)c->max_power, (long long)c->max_power * 32768, (long long)c->max_threads,
           (long long)c->queue_size, (long long)c->max_batch);
    for (unsigned i = 0; i < c->custom_model_count; i++)
        printf("  model       %s (%s) from %s\n", c->custom_models[i].name,
               c->custom_models[i].baseline, c->custom_models[i].filepath);
    for (unsigned i = 0; i < c->models_to_load.count; i++)
        printf("  offers      %s\n", c->models_to_load.items[i]);
    if (c->ignored) printf("  no meaning to Kiln: %s\n", c->ignored);
}

static int check(int argc, char **argv)
{
    struct config c = {0};
    struct error err = {0};
    if (argc != 2) return command_usage(&command_config, "one FILE is expected after check");
    int rc = config_load(&c, argv[1], false, &err);
    if (rc) {
        command_fail(&command_config, &err);
        return config_exit_code(rc);
    }
    print_config(&c, argv[1]);
    config_release(&c);
    return EXIT_DONE;
}

static int keys(void)
{
    for (unsigned i = 0; config_key_name(i); i++) {
        const char *meaning = config_key_meaning(i);
        printf("%-28s %s\n", config_key_name(i), meaning ? meaning : "(no meaning to Kiln)");
    }
    return EXIT_DONE;
}

static int run(int argc, char **argv)
{
    if (argc >= 2 && str_equal(argv[1], "check")) return check(argc - 1, argv + 1);
    if (argc == 2 && str_equal(argv[1], "keys")) return keys();
    return command_usage(&command_config, "check FILE or keys is expected");
}

const struct command command_config = {
    .name = "config",
    .summary = "check a bridgeData.yaml, list its keys",
    .usage = "usage: kiln config check FILE    read FILE as kilnd would; 0 valid, 78 not, 77 "
             "unsafe key\n"
             "       kiln config keys          every key and what it means\n",
    .run = run,
};
