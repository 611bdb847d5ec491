/* main.c - kiln-engine: says hello, works off jobs, ends when told or when the host goes. */
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/data_path.h"
#include "base/free_memory.h"
#include "base/log.h"
#include "base/now.h"
#include "base/str.h"
#include "engine/bench_model.h"
#include "engine/convert.h"
#include "engine/engine.h"
#include "engine/engine_bench.h"
#include "engine/kernels_bench.h"
#include "engine/train_bench.h"
#include "engine/verdict.h"
#include "proto/capability.h"

static const char usage[] =
    "usage: kiln-engine [--device NAME] [--precision P] [--launch N] [--memory MIB] [--cache DIR]\n"
    "                   [--safety MODEL] [--verbose]\n"
    "\n"
    "Owns a compute device and runs Stable Diffusion for kilnd or kiln, who start it and talk to "
    "it\n"
    "in frames on its standard input and output. Not meant to be started by hand.\n"
    "\n"
    "  --device NAME     cpu, cpu:THREADS, plain, cuda, cuda:N (default cpu)\n"
    "  --precision P     auto, fp32, bf16, fp16, int8: of models loaded without one (default "
    "auto)\n"
    "  --launch N        number that every message carries\n"
    "  --memory MIB      limit of resident weights; the least recently used model goes first\n"
    "  --ahead WHEN      auto, always, never: load the next job's model beside the work; auto "
    "leaves\n"
    "                    alone what the CPU finds in the page cache\n"
    "  --cache DIR       where weights beside models lie: DIR/post, DIR/annotators, DIR/layered,\n"
    "                    DIR/caption, DIR/words\n"
    "  --safety MODEL    CLIP checkpoint of the safety check; none: no check; auto (the default):\n"
    "                    DIR/safety/model.safetensors, if it is there\n"
    "  --verbose         more lines on standard error\n";

struct options {
    const char *device, *cache, *safety;
    enum precision precision;
    enum models_ahead ahead;
    uint64_t launch_id, memory_mib;
};

static bool find_ahead(const char *name, enum models_ahead *ahead)
{
    static const char *const names[] = {"auto", "always", "never"};
    for (size_t i = 0; i < COUNT_OF(names); i++)
        if (str_equal(name, names[i])) {
            *ahead = (enum models_ahead)i;
            return true;
        }
    return false;
}

/* 0, or the exit code */
static int parse_options(struct options *o, int argc, char **argv)
{
    static const struct option table[] = {
        {"device", required_argument, NULL, 'd'},
        {"precision", required_argument, NULL, 'p'},
        {"launch", required_argument, NULL, 'l'},
        {"memory", required_argument, NULL, 'm'},
        {"cache", required_argument, NULL, 'c'},
        {"safety", required_argument, NULL, 's'},
        {"ahead", required_argument, NULL, 'a'},
        {"verbose", no_argument, NULL, 'v'},
        {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'V'},
        {0},
    };
    for (int c; (c = getopt_long(argc, argv, "", table, NULL)) != -1;) {
        bool ok = true;
        switch (c) {
        case 'd': o->device = optarg; break;
        case 'p': ok = precision_find(optarg, &o->precision); break;
        case 'l': ok = str_parse_u64(optarg, &o->launch_id); break;
        case 'm': ok = str_parse_u64(optarg, &o->memory_mib); break;
        case 'a': ok = find_ahead(optarg, &o->ahead); break;
        case 'c': o->cache = optarg; break;
        case 's': o->safety = optarg; break;
        case 'v': log_set_level(LOG_DEBUG); break;
        case 'V': puts("kiln-engine " KILN_VERSION); exit(0);
        case 'h': fputs(usage, stdout); exit(0);
        default: ok = false;
        }
        if (!ok) {
            fputs(usage, stderr);
            return 2;
        }
    }
    return 0;
}

/* A post-processor is offered only when its weights are here; everything else is code. */
static bool can(const struct engine *e, const char *name)
{
    enum capability post;
    return !capability_find_post(name, &post) || post_available(&e->post, name);
}

/* The heartbeat's thread. A card that is gone ends the engine: kilnd is told why and does not start it again. */
static void measure(void *context, struct engine_heartbeat *h)
{
    struct engine *e = context;
    struct nvml_facts f;
    nvml_read(e->nvml, &f);
    h->temperature_c = f.temperature_c;
    h->watts = f.watts;
    h->foreign_use = f.foreign_use;
    h->memory_bytes = f.memory_bytes;
    h->free_bytes = f.free_bytes;
    if (e->device->host_memory && !h->memory_bytes) {
        h->memory_bytes = (int64_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE);
        h->free_bytes = (int64_t)free_memory_bytes();
    }
    if (!f.lost) return;
    struct error err = {0};
    error_set(&err, ERR_DEVICE,
              ENGINE_GPU_LOST ": %s fell off the bus; it comes back with the machine",
              e->device->name);
    channel_send_error(&e->channel, "", &err, true);
    _exit(ENGINE_EXIT_DEVICE);
}

static void say_hello(struct engine *e)
{
    struct engine_msg m;
    struct capability_set built = capability_built();
    engine_msg_init(&m, ENGINE_HELLO, e->channel.launch_id, "");
    struct engine_hello *h = &m.hello;
    h->version = KILN_VERSION;
    h->protocol = ENGINE_PROTOCOL;
    h->pid = getpid();
    h->kernels = e->device->kernels->name;
    h->device_count = 1;
    h->devices[0].name = e->device->name;
    h->devices[0].title = e->device->label;
    h->devices[0].driver = e->device->driver;
    if (e->device->host_memory) {
        h->devices[0].memory_bytes = (int64_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE);
        h->devices[0].free_bytes = (int64_t)free_memory_bytes();
    } else {
        size_t left = 0;
        h->devices[0].memory_bytes = (int64_t)e->device->memory_bytes;
        if (e->device->free_bytes && e->device->free_bytes(e->device, &left, NULL) == 0)
            h->devices[0].free_bytes = (int64_t)left;
    }
    for (int i = 0; i < CAPABILITY_COUNT && h->capability_count < ENGINE_NAMES_MAX; i++)
        if (capability_has(&built, (enum capability)i) &&
            can(e, capability_name((enum capability)i)))
            h->capabilities[h->capability_count++] = capability_name((enum capability)i);
    for (int i = 0; i < ALCHEMY_COUNT; i++)
        if (post_available(&e->post, alchemy_form_name((enum alchemy_form)i)))
            h->forms[h->form_count++] = alchemy_form_name((enum alchemy_form)i);
    if (e->safety) h->forms[h->form_count++] = alchemy_form_name(ALCHEMY_NSFW);
    static const enum alchemy_form in_words[] = {ALCHEMY_CAPTION, ALCHEMY_INTERROGATION};
    for (size_t i = 0; i < COUNT_OF(in_words); i++)
        if (describe_can(&e->describe, in_words[i], e->safety))
            h->forms[h->form_count++] = alchemy_form_name(in_words[i]);
    h->safety = e->safety != NULL;
    for (int i = 0; i < SAMPLER_COUNT; i++)
        if (built.samplers >> i & 1)
            h->samplers[h->sampler_count++] = sampler_name((enum sampler)i);
    channel_send(&e->channel, &m, NULL);
}

/* Returns the exit code. */
static int work(struct engine *e)
{
    struct engine_msg *job;
    while ((job = channel_take(&e->channel))) {
        int rc = 0;
        struct error err = {0};
        if (channel_canceled(&e->channel, job->job_id)) {
            error_set(&err, ERR_CANCELED, "taken back before it began");
            channel_send_error(&e->channel, job->job_id, &err, false);
        } else if (job->kind == ENGINE_LOAD || job->kind == ENGINE_UNLOAD) {
            rc = serve_load(e, job);
        } else if (job->kind == ENGINE_GENERATE) {
            rc = serve_generate(e, job);
            job = NULL;
        } else if (job->kind == ENGINE_ALCHEMY) {
            rc = serve_alchemy(e, job);
            job = NULL;
        } else if (job->kind == ENGINE_TRAIN) {
            rc = serve_train(e, job);
        } else {
            error_set(&err, ERR_UNSUPPORTED, "this engine does not serve \"%s\"",
                      engine_kind_name(job->kind));
            channel_send_error(&e->channel, job->job_id, &err, false);
        }
        if (job) channel_done(&e->channel, job);
        if (rc == ERR_DEVICE) return ENGINE_EXIT_DEVICE;
        if (e->models.lost.code) { /* this job was done, the next one cannot be */
            channel_send_error(&e->channel, "", &e->models.lost, true);
            return ENGINE_EXIT_DEVICE;
        }
    }
    return 0;
}

int main(int argc, char **argv)
{
    struct options o = {.device = "cpu"};
    struct engine *e = calloc(1, sizeof *e);
    struct error err = {0};
    log_start("kiln-engine", LOG_WARN);
    if (argc > 1 && str_equal(argv[1], "bench")) return engine_bench_main(argc - 1, argv + 1);
    if (argc > 1 && str_equal(argv[1], "convert")) return convert_main(argc - 1, argv + 1);
    if (argc > 1 && str_equal(argv[1], "bench-kernels"))
        return kernels_bench_main(argc - 1, argv + 1);
    if (argc > 1 && str_equal(argv[1], "bench-train")) return train_bench_main(argc - 1, argv + 1);
    if (argc > 1 && str_equal(argv[1], "bench-make")) return bench_make_main(argc - 1, argv + 1);
    int code = parse_options(&o, argc, argv);
    if (code || !e) return code ? code : 1;
    now_start();
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a file over the limit is an error with a name, not an end */
    signal(SIGINT, SIG_IGN);  /* the host decides: it cancels, or closes the pipe */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_DUMPABLE, 0);

    /* frames own the standard output; whatever else is printed goes to standard error */
    int out_fd = dup(STDOUT_FILENO);
    dup2(STDERR_FILENO, STDOUT_FILENO);

    if (channel_start(&e->channel, STDIN_FILENO, out_fd, o.launch_id, &err) ||
        finisher_start(&e->finisher, &e->channel, &err)) {
        log_error("engine.start", "reason=\"%s\"", err.text);
        return 1;
    }
    if (o.cache) setenv("KILN_CUDA_TUNE_DIR", o.cache, 0); /* measurements lie beside the weights */
    int rc = device_open(&e->device, o.device, &err);
    if (rc) {
        log_error("engine.start", "device=%s reason=\"%s\"", o.device, err.text);
        channel_send_error(&e->channel, "", &err, true);
        code = rc == ERR_DEVICE ? ENGINE_EXIT_DEVICE : 1;
        _exit(code);
    }
    post_init(&e->post, e->device, o.cache);
    char *cache = o.cache ? alloc_string(o.cache) : data_path_cache();
    if (cache) e->annotators = alloc_printf("%s/annotators", cache);
    if (cache) e->layered = alloc_printf("%s/layered", cache);
    free(cache);
    describe_init(&e->describe, e->device, o.precision, o.cache);
    models_init(&e->models, e->device, o.precision, (size_t)o.memory_mib << 20);
    e->models.ahead = o.ahead;
    verdict_open(e, o.safety, o.cache);
    e->nvml = nvml_open(o.device);
    e->channel.measure_context = e;
    e->channel.measure = measure;
    say_hello(e);
    code = work(e);
    finisher_stop(
        &e->finisher);     /* what was computed still leaves, also from a device that is gone */
    if (code) _exit(code); /* the device is gone: no orderly way out of its library */
    channel_stop(&e->channel);
    nvml_close(e->nvml);
    post_release(&e->post);
    free(e->annotators);
    free(e->layered);
    describe_release(&e->describe);
    safety_close(e->safety);
    models_release(&e->models);
    device_close(e->device);
    free(e);
    return 0;
}
