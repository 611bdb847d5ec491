/* kilnd.c - the daemon's beginning and end: options, signals, the loop, exit codes. */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/now.h"
#include "daemon/fault_point.h"
#include "daemon/notify.h"
#include "daemon/worker.h"

enum { EXIT_USAGE = 2, EXIT_INTERNAL = 70, EXIT_LOCKED = 75 };

static const char usage[] =
    "usage: kilnd [--config FILE] [--check]\n"
    "\n"
    "The daemon of Kiln: takes jobs from the AI Horde, has kiln-engine compute them, keeps the "
    "books.\n"
    "\n"
    "  --config FILE   bridgeData.yaml (default: ./bridgeData.yaml, then "
    "~/.config/kiln/bridgeData.yaml,\n"
    "                  then /etc/kiln/bridgeData.yaml)\n"
    "  --check         read the configuration, say what is wrong with it, and end\n"
    "  --fault-points  the names of the places where a test may stop this build\n"
    "  --version, --help\n"
    "\n"
    "Signals: TERM finishes the jobs in flight and ends, a second one gives them back at once; HUP "
    "reads\n"
    "the configuration again. Exit codes: 0 ended on request, 2 wrong usage, 70 a bug or a "
    "failing\n"
    "disk, 75 another kilnd has the folder, 77 the key could be read by others or is missing, 78 "
    "the\n"
    "configuration is wrong.\n";

static char *usual_config(void)
{
    const char *home = getenv("HOME"), *xdg = getenv("XDG_CONFIG_HOME");
    char *places[] = {alloc_string("bridgeData.yaml"),
                      xdg && *xdg == '/'
                          ? alloc_printf("%s/kiln/bridgeData.yaml", xdg)
                          : alloc_printf("%s/.config/kiln/bridgeData.yaml", home ? home : ""),
                      alloc_string("/etc/kiln/bridgeData.yaml")};
    char *found = NULL;
    for (unsigned i = 0; i < COUNT_OF(places); i++) {
        if (!found && !access(places[i], F_OK))
            found = places[i];
        else
            free(places[i]);
    }
    return found ? found : alloc_string("bridgeData.yaml");
}

static void on_signal(uv_signal_t *signal, int number)
{
    struct worker *w = signal->data;
    struct error err = {0};
#ifdef KILN_FAULT_POINTS
    if (number == SIGUSR1)
        now_turn_ms(60000); /* a test's minute */
    else
#endif
        if (number == SIGHUP)
        worker_reload(w, &err);
    else
        worker_leave(w);
}

static void close_rest(uv_handle_t *handle, void *arg)
{
    if (!uv_is_closing(handle)) uv_close(handle, NULL);
}

static int exit_code_of(int rc)
{
    if (rc == ERR_BUSY) return EXIT_LOCKED;
    if (rc == ERR_INVALID || rc == ERR_NOT_FOUND) return CONFIG_EXIT_CONFIG;
    return rc ? EXIT_INTERNAL : 0;
}

static int serve(const char *config_path)
{
    uv_loop_t loop;
    struct worker *w = NULL;
    struct error err = {0};
    uv_loop_init(&loop);
    int rc = worker_new(&w, &loop, config_path, &err);
    if (rc) {
        log_error("config.refused", "text=\"%s\"", err.text);
        uv_loop_close(&loop);
        return config_exit_code(rc);
    }
#ifdef KILN_FAULT_POINTS
    static const int numbers[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1};
#else
    static const int numbers[] = {SIGTERM, SIGINT, SIGHUP};
#endif
    uv_signal_t signals[COUNT_OF(numbers)];
    for (unsigned i = 0; i < COUNT_OF(numbers); i++) {
        uv_signal_init(&loop, &signals[i]);
        signals[i].data = w;
        uv_signal_start(&signals[i], on_signal, numbers[i]);
    }
    rc = worker_start(w, &err);
    if (rc) {
        log_error("kilnd.start", "text=\"%s\"", err.text);
        notify_send("STATUS=%.200s", err.text);
        /* what has begun ends with the process: nothing was popped yet */
        _exit(exit_code_of(rc));
    }
    uv_run(&loop, UV_RUN_DEFAULT);
    uv_walk(&loop, close_rest, NULL);
    uv_run(&loop, UV_RUN_DEFAULT);
    worker_free(w);
    uv_loop_close(&loop);
    return 0;
}

static int check(const char *config_path)
{
    struct config c;
    struct error err = {0};
    int rc = config_load(&c, config_path, true, &err);
    if (!rc) rc = worker_check_config(&c, &err);
    if (rc) {
        fprintf(stderr, "kilnd: %s\n", err.text);
        return config_exit_code(rc);
    }
    printf("%s: good. Worker \"%s\" for %s\n", config_path, c.worker_name, c.horde_url);
    if (c.ignored) printf("ignored: %s\n", c.ignored);
    config_release(&c);
    return 0;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"config", required_argument, NULL, 'c'}, {"check", no_argument, NULL, 'k'},
        {"fault-points", no_argument, NULL, 'f'}, {"version", no_argument, NULL, 'v'},
        {"help", no_argument, NULL, 'h'},         {0},
    };
    char *config_path = NULL;
    bool checking = false;
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (c) {
        case 'c':
            free(config_path);
            config_path = alloc_string(optarg);
            break;
        case 'k': checking = true; break;
        case 'f':
            for (int i = 0; i < FAULT_POINT_COUNT; i++) puts(fault_point_name((enum fault_point)i));
            return 0;
        case 'v': puts("kilnd " KILN_VERSION); return 0;
        case 'h': fputs(usage, stdout); return 0;
        default: fputs(usage, stderr); return EXIT_USAGE;
        }
    }
    if (optind < argc) {
        fprintf(stderr, "kilnd: \"%s\" is no option\n%s", argv[optind], usage);
        return EXIT_USAGE;
    }
    /* the key is in memory: no core file, no ptrace by others of the same user */
    struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    prctl(PR_SET_DUMPABLE, 0);
    signal(SIGPIPE, SIG_IGN);
    now_start();
    log_start("kilnd", LOG_INFO);
    if (!config_path) config_path = usual_config();
    int code = checking ? check(config_path) : serve(config_path);
    free(config_path);
    return code;
}
