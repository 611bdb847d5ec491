#include <getopt.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/buf.h"
#include "base/now.h"
#include "base/str.h"
#include "practice.h"

static volatile sig_atomic_t told_to_stop;

static void on_signal(int number)
{
    told_to_stop = number;
}

static const char help[] =
    "usage: kiln-practice-horde [options]\n"
    "A small AI Horde on 127.0.0.1 for practice and tests. It prints its URL on the first line.\n"
    "\n"
    "  --port N             0 (default) takes a free one\n"
    "  --port-file FILE     writes the port there\n"
    "  --log FILE           every exchange and posting, one JSON object a line\n"
    "  --store DIR          keeps uploaded images there as <id>.webp\n"
    "  --user KEY:ALIAS     adds an account (three exist: see docs/practice-horde.md)\n"
    "  --gate open|real     open (default): every worker is given everything; real: by "
    "bridge_agent\n"
    "  --swagger older|newer  describes itself as a server before or after 5.1.5 would\n"
    "  --untrusted          half of what workers earn waits in escrow\n"
    "  --integer-balances   balances are whole numbers, each fold is rounded\n"
    "  --fold SECONDS       postings reach balances this often (default 0: at once)\n"
    "  --cache SECONDS      user and worker pages are this old at most (default 0)\n"
    "  --sweep SECONDS      how often jobs past their TTL are aborted (default 60)\n"
    "  --ttl-scale X        multiplies every TTL\n"
    "  --uptime SECONDS     an uptime reward each so often (default 600, 0: none)\n"
    "  --suspicion          pauses untrusted workers that are unreasonably fast\n"
    "  --faults FILE        one fault a line, as POST /practice/fault takes them\n"
    "  --jobs N             fires N image jobs of its own\n"
    "  --jobs-file FILE     fires the requests in FILE, one generate/async body a line\n"
    "  --kinds LIST         of "
    "txt2img,batch,img2img,inpainting,outpainting,hires,twopass,tiling,clipskip,\n"
    "                       post,lora,ti,control,controlmap,transparent\n"
    "  --sizes LIST         such as 128x128,192x128 (default 128x128,128x192,192x128)\n"
    "  --samplers LIST      (default k_euler,k_euler_a,k_dpmpp_2m,k_heun,k_lms,DDIM)\n"
    "  --steps A-B          (default 2-6)\n"
    "  --models LIST        models of own jobs (default stable_diffusion)\n"
    "  --prompts FILE       prompts of own jobs, one a line\n"
    "  --forms N            fires N alchemy forms of its own\n"
    "  --form-names LIST    (default caption,nsfw,interrogation,RealESRGAN_x4plus)\n"
    "  --rate X             own jobs a second (default 0: all at once)\n"
    "  --waiting N          keeps at most N own jobs in the queue (default 0: no limit)\n"
    "  --no-r2              own jobs ask for r2 false\n"
    "  --seed N             of the random numbers; printed\n"
    "  --seconds X          ends after X seconds (default 3600)\n"
    "  --exit-when-done     ends when all own jobs are over\n"
    "  --tls-cert FILE --tls-key FILE   speaks https with these\n"
    "  --quiet              prints the URL only\n";

enum {
    OPTION_FIRST = 1000,
    PORT,
    PORT_FILE,
    LOG,
    STORE,
    USER,
    GATE,
    SWAGGER,
    UNTRUSTED,
    INTEGER,
    FOLD,
    CACHE,
    SWEEP,
    TTL,
    UPTIME,
    SUSPICION,
    FAULTS,
    JOBS,
    JOBS_FILE,
    KINDS,
    SIZES,
    SAMPLERS,
    STEPS,
    MODELS,
    PROMPTS,
    FORMS,
    FORM_NAMES,
    RATE,
    WAITING,
    NO_R2,
    SEED,
    SECONDS,
    EXIT,
    CERT,
    KEY,
    QUIET,
    HELP
};

static const struct option long_options[] = {{"port", 1, 0, PORT},
                                             {"port-file", 1, 0, PORT_FILE},
                                             {"log", 1, 0, LOG},
                                             {"store", 1, 0, STORE},
                                             {"user", 1, 0, USER},
                                             {"gate", 1, 0, GATE},
                                             {"swagger", 1, 0, SWAGGER},
                                             {"untrusted", 0, 0, UNTRUSTED},
                                             {"integer-balances", 0, 0, INTEGER},
                                             {"fold", 1, 0, FOLD},
                                             {"cache", 1, 0, CACHE},
                                             {"sweep", 1, 0, SWEEP},
                                             {"ttl-scale", 1, 0, TTL},
                                             {"uptime", 1, 0, UPTIME},
                                             {"suspicion", 0, 0, SUSPICION},
                                             {"faults", 1, 0, FAULTS},
                                             {"jobs", 1, 0, JOBS},
                                             {"jobs-file", 1, 0, JOBS_FILE},
                                             {"kinds", 1, 0, KINDS},
                                             {"sizes", 1, 0, SIZES},
                                             {"samplers", 1, 0, SAMPLERS},
                                             {"steps", 1, 0, STEPS},
                                             {"models", 1, 0, MODELS},
                                             {"prompts", 1, 0, PROMPTS},
                                             {"forms", 1, 0, FORMS},
                                             {"form-names", 1, 0, FORM_NAMES},
                                             {"rate", 1, 0, RATE},
                                             {"waiting", 1, 0, WAITING},
                                             {"no-r2", 0, 0, NO_R2},
                                             {"seed", 1, 0, SEED},
                                             {"seconds", 1, 0, SECONDS},
                                             {"exit-when-done", 0, 0, EXIT},
                                             {"tls-cert", 1, 0, CERT},
                                             {"tls-key", 1, 0, KEY},
                                             {"quiet", 0, 0, QUIET},
                                             {"help", 0, 0, HELP},
                                             {0, 0, 0, 0}};

static void wrong(const char *option, const char *value)
{
    fprintf(stderr, "kiln-practice-horde: --%s %s makes no sense; see --help\n", option, value);
    exit(2);
}

static double number(const char *option, const char *text, double least, double most)
{
    double value;
    if (!str_parse_f64(text, &value) || value < least || value > most) wrong(option, text);
    return value;
}

static void add_user(struct practice *p, const char *text)
{
    char key[64];
    const char *colon = strchr(text, ':');
    if (!colon || (size_t)(colon - text) >= sizeof key || colon == text) wrong("user", text);
    str_copy(key, (size_t)(colon - text) + 1, text);
    people_add(p, key, colon + 1, false);
}

static void set_steps(struct options *o, const char *text)
{
    if (sscanf(text, "%d-%d", &o->steps_least, &o->steps_most) == 1) o->steps_most = o->steps_least;
    if (o->steps_least < 1 || o->steps_most > 500 || o->steps_least > o->steps_most)
        wrong("steps", text);
}

static void read_options(struct practice *p, int argc, char **argv)
{
    struct options *o = &p->options;
    int code, index = 0;
    while ((code = getopt_long(argc, argv, "", long_options, &index)) != -1) {
        const char *name = code == '?' ? "" : long_options[index].name;
        switch (code) {
        case PORT: o->port = (int)number(name, optarg, 0, 65535); break;
        case PORT_FILE: o->port_file = optarg; break;
        case LOG: o->log = optarg; break;
        case STORE: o->store = optarg; break;
        case USER: add_user(p, optarg); break;
        case GATE:
            if (!str_equal(optarg, "real") && !str_equal(optarg, "open")) wrong(name, optarg);
            o->gate_real = str_equal(optarg, "real");
            break;
        case SWAGGER:
            if (!str_equal(optarg, "older") && !str_equal(optarg, "newer")) wrong(name, optarg);
            o->swagger = optarg;
            break;
        case UNTRUSTED: o->untrusted = true; break;
        case INTEGER: o->integer_balances = true; break;
        case FOLD: o->fold_seconds = number(name, optarg, 0, 1e6); break;
        case CACHE: o->cache_seconds = number(name, optarg, 0, 1e6); break;
        case SWEEP: o->sweep_seconds = number(name, optarg, 0.05, 1e6); break;
        case TTL: o->ttl_scale = number(name, optarg, 1e-4, 1e4); break;
        case UPTIME: o->uptime_seconds = number(name, optarg, 0, 1e9); break;
        case SUSPICION: o->suspicion = true; break;
        case FAULTS: o->faults = optarg; break;
        case JOBS: o->jobs = (int)number(name, optarg, 0, 1e6); break;
        case JOBS_FILE: o->jobs_file = optarg; break;
        case KINDS: o->kinds = optarg; break;
        case SIZES: o->sizes = optarg; break;
        case SAMPLERS: o->samplers = optarg; break;
        case STEPS: set_steps(o, optarg); break;
        case MODELS: o->models = optarg; break;
        case PROMPTS: o->prompts = optarg; break;
        case FORM_NAMES: o->form_names = optarg; break;
        case FORMS: o->forms = (int)number(name, optarg, 0, 1e6); break;
        case RATE: o->rate = number(name, optarg, 0, 1e6); break;
        case WAITING: o->max_waiting = (int)number(name, optarg, 0, 1e6); break;
        case NO_R2: o->r2 = false; break;
        case SEED:
            if (!str_parse_u64(optarg, &o->seed)) wrong(name, optarg);
            break;
        case SECONDS: o->seconds = number(name, optarg, 0.1, 1e7); break;
        case EXIT: o->exit_when_done = true; break;
        case CERT: o->tls_cert = optarg; break;
        case KEY: o->tls_key = optarg; break;
        case QUIET: o->quiet = true; break;
        case HELP: fputs(help, stdout); exit(0);
        default: fputs("see kiln-practice-horde --help\n", stderr); exit(2);
        }
    }
    if (optind < argc) wrong("", argv[optind]);
}

static void tick(struct practice *p)
{
    int64_t now = practice_ms(p);
    pthread_mutex_lock(&p->lock);
    if (now - p->last_sweep_ms >= (int64_t)(p->options.sweep_seconds * 1000)) {
        p->last_sweep_ms = now;
        jobs_sweep(p);
        alchemy_sweep(p);
    }
    if (now - p->last_fold_ms >= (int64_t)(p->options.fold_seconds * 1000)) {
        p->last_fold_ms = now;
        people_fold(p);
    }
    fire_tick(p);
    pthread_mutex_unlock(&p->lock);
}

/* The refuse fault: for a while nobody listens and every connection is gone. */
static int open_and_close(struct practice *p, struct error *err)
{
    int64_t now = practice_ms(p);
    bool want = now >= p->closed_from_ms && now < p->closed_until_ms;
    if (want == p->closed) return 0;
    if (want) {
        p->closed = true;
        http_stop(p);
        return 0;
    }
    p->closed = false;
    return http_start(p, err);
}

static void run(struct practice *p)
{
    int64_t quiet_since = -1;
    double until = now_seconds() + p->options.seconds; /* a turned clock does not end it */
    while (!told_to_stop && now_seconds() < until) {
        tick(p);
        struct error err = {0};
        if (open_and_close(p, &err)) {
            fprintf(stderr, "kiln-practice-horde: %s\n", err.text);
            break;
        }
        pthread_mutex_lock(&p->lock);
        bool over = p->options.exit_when_done && fire_over(p);
        pthread_mutex_unlock(&p->lock);
        if (!over) quiet_since = -1;
        if (over && quiet_since < 0) quiet_since = practice_ms(p);
        if (over && practice_ms(p) - quiet_since > 500) break; /* answers under way get out */
        nanosleep(&(struct timespec){0, 20000000L}, NULL);
    }
}

static int tell_port(struct practice *p, struct error *err)
{
    struct buf b;
    if (!p->options.port_file) return 0;
    buf_init(&b, 16);
    int rc = buf_printf(&b, err, "%d\n", p->port);
    if (!rc) rc = buf_write_file(&b, p->options.port_file, 0644, err);
    buf_release(&b);
    return rc;
}

static void say_end(struct practice *p)
{
    pthread_mutex_lock(&p->lock);
    people_fold(p);
    json_t *summary = practice_summary(p);
    log_json(p, json_pack("{s:I,s:O}", "t", (json_int_t)practice_ms(p), "summary", summary));
    if (!p->options.quiet) {
        char *text = json_dumps(summary, JSON_INDENT(1));
        puts(text);
        free(text);
    }
    json_decref(summary);
    if (p->log) fclose(p->log);
    p->log = NULL;
    pthread_mutex_unlock(&p->lock);
}

int main(int argc, char **argv)
{
    static struct practice horde; /* lives to the end with all that hangs on it */
    struct practice *p = &horde;
    struct error err = {0};
    pthread_mutex_init(&p->lock, NULL);
    p->options = (struct options){.host = "127.0.0.1",
                                  .kinds = "txt2img,batch",
                                  .form_names = "caption,nsfw,interrogation,RealESRGAN_x4plus",
                                  .sizes = "128x128,128x192,192x128",
                                  .samplers = "k_euler,k_euler_a,k_dpmpp_2m,k_heun,k_lms,DDIM",
                                  .models = "stable_diffusion",
                                  .steps_least = 2,
                                  .steps_most = 6,
                                  .seed = 1,
                                  .seconds = 3600,
                                  .ttl_scale = 1,
                                  .sweep_seconds = 60,
                                  .uptime_seconds = 600,
                                  .r2 = true};
    people_add(p, "0000000000", "Anonymous", false)->anonymous = true;
    people_add(p, "practice-client-key-00", "client", true);
    people_add(p, "practice-worker-key-00", "volunteer", true);
    people_add(p, "practice-other-key-000", "stranger", true);
    now_start();
    read_options(p, argc, argv);
    for (int i = 0; i < p->user_count && p->options.untrusted; i++) p->users[i]->trusted = false;
    p->random = p->options.seed * 0x9e3779b97f4a7c15u + 1;
    p->start_ms = now_ms();
    if (p->options.log && !(p->log = fopen(p->options.log, "ae"))) {
        fprintf(stderr, "kiln-practice-horde: %s cannot be written\n", p->options.log);
        return 1;
    }
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    signal(SIGPIPE, SIG_IGN);
    int rc = p->options.faults ? fault_load(p, p->options.faults, &err) : 0;
    if (!rc) rc = http_start(p, &err);
    if (!rc) rc = fire_start(p, &err);
    if (!rc) tick(p); /* whoever knows the port finds the first jobs */
    if (!rc) rc = tell_port(p, &err);
    if (rc) {
        fprintf(stderr, "kiln-practice-horde: %s\n", err.text);
        return 1;
    }
    printf("practice horde on %s/api/v2 (seed %llu)\n", p->base_url,
           (unsigned long long)p->options.seed);
    fflush(stdout);
    run(p);
    p->stopping = true;
    http_stop(p);
    say_end(p);
    return 0;
}
