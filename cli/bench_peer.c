#include "cli/bench_peer.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/data_path.h"
#include "base/str.h"
#include "cli/command.h"
#include "cli/local_engine.h"

#define PARTS_MAX 16
#define RUNS_MAX 400

struct peer_options {
    const char *peer, *python, *isa, *model, *precision, *size, *rounds, *rank;
    bool train, lean, json, no_image;
    int64_t peer_rounds, threads;
};

struct part {
    char name[48];
    double wall[RUNS_MAX], cpu[RUNS_MAX];
    int runs;
};

struct side {
    struct part part[PARTS_MAX];
    int parts;
    double mib[RUNS_MAX]; /* peak of each process */
    int processes;
};

struct comparison {
    struct peer_options o;
    char *engine, *script, *model;
    struct side ours, theirs;
};

static double median(const double *value, int n)
{
    double sorted[RUNS_MAX];
    for (int i = 0; i < n; i++) {
        int j = i;
        for (; j > 0 && sorted[j - 1] > value[i]; j--) sorted[j] = sorted[j - 1];
        sorted[j] = value[i];
    }
    if (n == 0) return 0;
    return n % 2 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2;
}

static const struct part *find_part(const struct side *s, const char *name)
{
    for (int i = 0; i < s->parts; i++)
        if (str_equal(s->part[i].name, name)) return &s->part[i];
    return NULL;
}

/* "first step wall 1.234 cpu 2.345" */
static void read_line(struct side *s, const char *line)
{
    const char *at = strstr(line, " wall ");
    double wall, cpu;
    if (!at || sscanf(at, " wall %lf cpu %lf", &wall, &cpu) != 2) return;
    char name[sizeof s->part[0].name];
    snprintf(name, sizeof name, "%.*s", (int)(at - line), line);
    struct part *p = (struct part *)(uintptr_t)find_part(s, name);
    if (!p && s->parts < PARTS_MAX) {
        p = &s->part[s->parts++];
        str_copy(p->name, sizeof p->name, name);
    }
    if (!p || p->runs == RUNS_MAX) return;
    p->wall[p->runs] = wall;
    p->cpu[p->runs++] = cpu;
}

static void set_environment(const struct peer_options *o, bool peer)
{
    if (o->isa && !peer) setenv("KILN_CPU", o->isa, 1);
    if (!peer) return;
    /* idle workers sleep: their waiting is neither work nor in the way of others */
    setenv("OMP_WAIT_POLICY", "passive", 0);
    setenv("GOMP_SPINCOUNT", "0", 0);
    if (!o->isa) return;
    setenv("ATEN_CPU_CAPABILITY", "avx2", 1);
    setenv("ONEDNN_MAX_CPU_ISA", "AVX2", 1);
    setenv("DNNL_MAX_CPU_ISA", "AVX2", 1);
    setenv("MKL_ENABLE_INSTRUCTIONS", "AVX2", 1);
}

/* Starts a program, reads its lines into `s` (NULL: only waits), returns its exit code. */
static int run_program(const struct peer_options *o, char *const *argv, bool peer, struct side *s)
{
    int out[2];
    if (pipe2(out, O_CLOEXEC)) return 127;
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        set_environment(o, peer);
        dup2(out[1], STDOUT_FILENO);
        execvp(argv[0], argv);
        fprintf(stderr, "%s: %s\n", argv[0], strerror(errno));
        _exit(127);
    }
    close(out[1]);
    FILE *f = pid < 0 ? NULL : fdopen(out[0], "r");
    char line[256];
    while (f && fgets(line, sizeof line, f))
        if (s) read_line(s, line);
    if (f)
        fclose(f);
    else
        close(out[0]);
    int status = 0;
    struct rusage use = {0};
    if (pid < 0 || wait4(pid, &status, 0, &use) < 0) return 127;
    if (s && s->processes < RUNS_MAX) s->mib[s->processes++] = (double)use.ru_maxrss / 1024;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int run_ours(struct comparison *c, const char *precision, bool lean)
{
    const struct peer_options *o = &c->o;
    char device[32] = "cpu";
    if (o->threads) snprintf(device, sizeof device, "cpu:%lld", (long long)o->threads);
    const char *argv[24] = {c->engine, o->train ? "bench-train" : "bench", "--model", c->model};
    int n = 4;
    const char *const pairs[][2] = {{"--precision", precision},
                                    {"--device", device},
                                    {"--size", o->size},
                                    {"--rounds", o->rounds},
                                    {"--rank", o->train ? o->rank : NULL}};
    for (size_t i = 0; i < COUNT_OF(pairs); i++) {
        if (!pairs[i][1]) continue;
        argv[n++] = pairs[i][0];
        argv[n++] = pairs[i][1];
    }
    if (!o->train) argv[n++] = "--no-train";
    if (o->no_image && !o->train) argv[n++] = "--no-image";
    if (lean) argv[n++] = "--lean";
    argv[n] = NULL;
    return run_program(o, (char *const *)(uintptr_t)argv, false, &c->ours);
}

static int run_theirs(struct comparison *c, const char *precision, bool lean)
{
    const struct peer_options *o = &c->o;
    char threads[16];
    snprintf(threads, sizeof threads, "%lld",
             (long long)(o->threads ? o->threads : sysconf(_SC_NPROCESSORS_ONLN)));
    const char *argv[24] = {o->python, c->script, o->peer, o->train ? "train" : "engine"};
    int n = 4;
    const char *const pairs[][2] = {{"--model", c->model},   {"--precision", precision},
                                    {"--threads", threads},  {"--size", o->size},
                                    {"--rounds", o->rounds}, {"--rank", o->rank}};
    for (size_t i = 0; i < COUNT_OF(pairs); i++) {
        if (!pairs[i][1]) continue;
        argv[n++] = pairs[i][0];
        argv[n++] = pairs[i][1];
    }
    if (lean) argv[n++] = "--lean";
    if (!o->no_image && !o->train) argv[n++] = "--image";
    argv[n] = NULL;
    return run_program(o, (char *const *)(uintptr_t)argv, true, &c->theirs);
}

/* ---- results ---- */

static void print_case(const struct comparison *c, const char *precision, bool lean)
{
    double load[1] = {0};
    if (getloadavg(load, 1) < 1) load[0] = 0;
    printf("\n%s%s, %sx%s, %s%s%lld round%s, load %.1f\n", precision, lean ? " lean" : "",
           c->o.size, c->o.size, c->o.isa ? c->o.isa : "", c->o.isa ? ", " : "",
           (long long)c->o.peer_rounds, c->o.peer_rounds == 1 ? "" : "s", load[0]);
    printf("%-20s %9s %9s %6s %9s %9s %6s\n", "", "kiln s", c->o.peer, "ratio", "kiln cpu", "peer",
           "ratio");
    for (int i = 0; i < c->theirs.parts; i++) {
        const struct part *b = &c->theirs.part[i], *a = find_part(&c->ours, b->name);
        if (!a) continue;
        double wall[2] = {median(a->wall, a->runs), median(b->wall, b->runs)};
        double cpu[2] = {median(a->cpu, a->runs), median(b->cpu, b->runs)};
        printf("%-20s %9.3f %9.3f %6.2f %9.3f %9.3f %6.2f\n", b->name, wall[0], wall[1],
               wall[1] / wall[0], cpu[0], cpu[1], cpu[1] / cpu[0]);
    }
    double mib[2] = {median(c->ours.mib, c->ours.processes),
                     median(c->theirs.mib, c->theirs.processes)};
    printf("%-20s %9.0f %9.0f %6.2f\n", "peak memory MiB", mib[0], mib[1], mib[1] / mib[0]);
}

static void print_json_case(const struct comparison *c, const char *precision, bool lean,
                            bool first)
{
    printf("%s{\"precision\": \"%s\", \"lean\": %s, \"ours_mib\": %.0f, \"peer_mib\": %.0f, "
           "\"parts\": [",
           first ? "" : ", ", precision, lean ? "true" : "false",
           median(c->ours.mib, c->ours.processes), median(c->theirs.mib, c->theirs.processes));
    bool comma = false;
    for (int i = 0; i < c->theirs.parts; i++) {
        const struct part *b = &c->theirs.part[i], *a = find_part(&c->ours, b->name);
        if (!a) continue;
        double wall[2] = {median(a->wall, a->runs), median(b->wall, b->runs)};
        printf("%s{\"name\": \"%s\", \"ours_seconds\": %.4f, \"peer_seconds\": %.4f, "
               "\"ratio\": %.3f, \"ours_cpu_seconds\": %.4f, \"peer_cpu_seconds\": %.4f}",
               comma ? ", " : "", b->name, wall[0], wall[1], wall[1] / wall[0],
               median(a->cpu, a->runs), median(b->cpu, b->runs));
        comma = true;
    }
    printf("]}");
}

/* ---- what is needed first ---- */

static int check_peer(const struct comparison *c)
{
    const char *const argv[] = {c->o.python, c->script, c->o.peer, "check", NULL};
    int code = run_program(&c->o, (char *const *)(uintptr_t)argv, true, NULL);
    if (code == 0) return EXIT_DONE;
    fprintf(stderr,
            "kiln bench: %s has no %s; install the Python package%s and name their Python with "
            "--python or KILN_PYTHON\n",
            c->o.python, c->o.peer,
            str_equal(c->o.peer, "sdcpp") ? " stable-diffusion-cpp-python"
                                          : "s torch, diffusers, transformers and peft");
    return EXIT_FAILED;
}

static bool is_folder(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static bool is_there(const char *path)
{
    return access(path, R_OK) == 0;
}

/* The checkpoint in the form that the peer reads; a random one of full size is made when none is named. */
static int find_model(struct comparison *c)
{
    const char *model = c->o.model ? c->o.model : "sd15";
    bool file = str_equal(c->o.peer, "sdcpp");
    if (!str_equal(model, "sd15") && !str_equal(model, "sdxl")) {
        if (is_there(model) && is_folder(model) != file) {
            c->model = alloc_string(model);
            return EXIT_DONE;
        }
        fprintf(stderr, "kiln bench: %s reads a %s; %s is none\n", c->o.peer,
                file ? "single-file checkpoint" : "diffusers folder", model);
        return EXIT_FAILED;
    }
    char *cache = data_path_cache();
    if (!cache) {
        fprintf(stderr, "kiln bench: there is no cache folder: HOME is not set\n");
        return EXIT_FAILED;
    }
    c->model = alloc_printf("%s/bench/%s%s", cache, model, file ? ".safetensors" : "");
    char *last = alloc_printf("%s%s", c->model, file ? "" : "/model_index.json");
    free(cache);
    int code = 0;
    if (!is_there(last)) {
        fprintf(stderr, "writing random weights of full size to %s\n", c->model);
        const char *const argv[] = {c->engine, "bench-make", model, c->model, NULL};
        code = run_program(&c->o, (char *const *)(uintptr_t)argv, false, NULL);
    }
    free(last);
    return code ? EXIT_FAILED : EXIT_DONE;
}

/* ---- the run ---- */

static int run_case(struct comparison *c, const char *precision, bool lean)
{
    c->ours = c->theirs = (struct side){0};
    for (int64_t i = 0; i < c->o.peer_rounds; i++) {
        if (run_ours(c, precision, lean)) return EXIT_FAILED;
        if (run_theirs(c, precision, lean)) return EXIT_FAILED;
    }
    return EXIT_DONE;
}

static int run_all(struct comparison *c)
{
    static const struct {
        const char *precision;
        bool lean;
    } kinds[] = {{"bf16", false}, {"bf16", true}, {"fp32", false}};
    bool all = c->o.train && !c->o.precision && !c->o.lean;
    int code = EXIT_DONE;
    if (c->o.json)
        printf("{\"peer\": \"%s\", \"size\": %s, \"rounds\": %lld, \"cases\": [", c->o.peer,
               c->o.size, (long long)c->o.peer_rounds);
    for (size_t i = 0; i < (all ? COUNT_OF(kinds) : 1) && code == EXIT_DONE; i++) {
        const char *precision = all              ? kinds[i].precision
                                : c->o.precision ? c->o.precision
                                : c->o.isa       ? "fp32"
                                                 : "bf16";
        bool lean = all ? kinds[i].lean : c->o.lean;
        code = run_case(c, precision, lean);
        if (code == EXIT_DONE && c->o.json) print_json_case(c, precision, lean, i == 0);
        if (code == EXIT_DONE && !c->o.json) print_case(c, precision, lean);
    }
    if (c->o.json) printf("]}\n");
    return code;
}

static bool parse_options(struct peer_options *o, int argc, char **argv)
{
    static const struct option table[] = {
        {"peer", required_argument, NULL, 'P'},
        {"python", required_argument, NULL, 'y'},
        {"isa", required_argument, NULL, 'i'},
        {"peer-rounds", required_argument, NULL, 'R'},
        {"threads", required_argument, NULL, 't'},
        {"model", required_argument, NULL, 'm'},
        {"precision", required_argument, NULL, 'p'},
        {"size", required_argument, NULL, 's'},
        {"rounds", required_argument, NULL, 'r'},
        {"rank", required_argument, NULL, 'k'},
        {"lean", no_argument, NULL, 'l'},
        {"no-image", no_argument, NULL, 'I'},
        {"no-train", no_argument, NULL, 'T'},
        {"json", no_argument, NULL, 'j'},
        {0},
    };
    optind = 1;
    for (int c; (c = getopt_long(argc, argv, "", table, NULL)) != -1;) {
        bool ok = true;
        switch (c) {
        case 'P':
            ok = str_equal(optarg, "torch") || str_equal(optarg, "sdcpp");
            o->peer = optarg;
            break;
        case 'y': o->python = optarg; break;
        case 'i':
            ok = str_equal(optarg, "avx2");
            o->isa = optarg;
            break;
        case 'R':
            ok = str_parse_i64(optarg, &o->peer_rounds) && o->peer_rounds >= 1 &&
                 o->peer_rounds <= 20;
            break;
        case 't':
            ok = str_parse_i64(optarg, &o->threads) && o->threads >= 1 && o->threads <= 256;
            break;
        case 'm': o->model = optarg; break;
        case 'p':
            ok = str_equal(optarg, "bf16") || str_equal(optarg, "fp32");
            o->precision = optarg;
            break;
        case 's': o->size = optarg; break;
        case 'r': o->rounds = optarg; break;
        case 'k': o->rank = optarg; break;
        case 'l': o->lean = true; break;
        case 'I': o->no_image = true; break;
        case 'T': break; /* training is not compared here: kiln bench train --peer */
        case 'j': o->json = true; break;
        default: ok = false;
        }
        if (!ok) return false;
    }
    return optind == argc && !(o->train && str_equal(o->peer, "sdcpp"));
}

int bench_peer_run(int argc, char **argv)
{
    const char *named = getenv("KILN_PYTHON");
    struct comparison *c = alloc_zero(1, sizeof *c);
    c->o = (struct peer_options){.python = named && *named ? named : "python3",
                                 .size = "512",
                                 .rounds = "3",
                                 .rank = "8",
                                 .train = str_equal(argv[0], "train"),
                                 .peer_rounds = 2};
    int code;
    struct error err = {0};
    if (!parse_options(&c->o, argc, argv)) {
        code = command_usage(&command_bench, "%s", "these options do not go together with --peer");
    } else if (!(c->engine = local_engine_program(&err))) {
        code = command_fail(&command_bench, &err);
    } else if (!(c->script = data_path_find("bench_peer.py"))) {
        error_set(&err, ERR_NOT_FOUND, "bench_peer.py is in none of the data folders");
        code = command_fail(&command_bench, &err);
    } else {
        code = check_peer(c);
        if (code == EXIT_DONE) code = find_model(c);
        if (code == EXIT_DONE) code = run_all(c);
    }
    free(c->engine);
    free(c->script);
    free(c->model);
    free(c);
    return code;
}
