/* cmd_models.c - the models that the worker offers, and the store they come from. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/json_write.h"
#include "base/str.h"
#include "cli/control_client.h"
#include "cli/horde_client.h"
#include "cli/models_run.h"
#include "cli/table.h"
#include "store/download.h"
#include "store/known.h"
#include "store/ranges.h"

#define FILE_MB_MAX 64000 /* the largest checkpoint of the Horde has 17 GB */
#define TRIES 5

/* ---- without a verb: what the daemon offers ---- */

static void print_models(const struct control_reply *reply)
{
    const struct control_models *m = &reply->models;
    struct table t;
    table_start(&t, "model|family|state|>size|offered|>jobs|note");
    for (int i = 0; i < m->count; i++) {
        const struct control_model *x = &m->list[i];
        char size[24], jobs[24];
        snprintf(jobs, sizeof jobs, "%lld", (long long)x->jobs);
        table_row(&t, x->name, x->family, x->state, format_bytes(size, x->bytes),
                  x->offered ? "yes" : "no", jobs, x->note);
    }
    table_print(&t);
}

static int show_offered(int argc, char **argv)
{
    struct ask_options o = {.request = {.kind = CONTROL_MODELS}};
    int code = ask_options_parse(&o, &command_models, "", argc, argv);
    return code ? code : ask_and_print(&command_models, &o, print_models);
}

/* ---- what all verbs share ---- */

static int open_store(struct models_run *m, struct error *err)
{
    char *path = m->config_path ? alloc_string(m->config_path) : horde_client_config_path();
    int rc = path ? config_load(&m->config, path, false, err) : 0;
    free(path);
    if (rc) return rc;
    const char *cache = m->config.cache_home, *state = m->config.state_dir;
    rc = folders_init(&m->folders, state && *state ? state : NULL, cache && *cache ? cache : NULL,
                      err);
    if (!rc) rc = store_open(&m->store, m->folders.cache, err);
    if (!rc && !m->offline) rc = fetch_open(&m->client, m->config.civitai_api_token, NULL, err);
    return rc;
}

static void close_store(struct models_run *m)
{
    reference_close(&m->reference);
    fetch_close(&m->client);
    store_close(&m->store);
    folders_release(&m->folders);
    config_release(&m->config);
}

int models_open_reference(struct models_run *m, struct error *err)
{
    int rc = reference_open(&m->reference, &m->store, m->offline ? NULL : &m->client, err);
    if (!rc && m->reference.stale.code)
        fprintf(stderr, "kiln models: an older copy of the Horde's lists is used: %s\n",
                m->reference.stale.text);
    return rc;
}

void models_progress(void *context, int64_t done, int64_t total)
{
    struct models_run *m = context;
    bool known = total > 0;
    /* in MB, so that it fits the bar's whole numbers */
    progress_show(&m->progress, m->word ? m->word : "verify", known ? (int)(done / MB) : 0,
                  known ? (int)((total + MB - 1) / MB) : 0);
}

/* ---- get ---- */

static int64_t or_default(int64_t given, int64_t fallback)
{
    return given >= 0 ? given : fallback;
}

static struct download_rule rule_of(struct models_run *m, enum store_kind kind)
{
    bool configured = m->config.horde_url != NULL;
    int64_t floor = configured ? m->config.disk_floor_mb : 512;
    int64_t loras = configured ? m->config.max_lora_cache_gb : 10;
    return (struct download_rule){
        .max_bytes = or_default(m->max_mb, FILE_MB_MAX) * MB,
        .floor_bytes = or_default(m->floor_mb, floor) << 20,
        .quota_bytes = or_default(m->quota_mb, kind == STORE_LORA ? loras * 1000 : 0) * MB,
        .tries = (int)or_default(m->tries, TRIES),
        .again = m->again,
        .ranges = (int)or_default(m->ranges, RANGES_MAX),
        .progress = models_progress,
        .context = m,
    };
}

static void say_got(const struct models_run *m, const struct wanted *w, enum download_end end,
                    enum store_state state, const char *sha256)
{
    char *path = alloc_printf("%s/%s/%s.%s", m->store.folder, store_kind_name(w->kind), w->name,
                              w->extension);
    struct buf out;
    struct json_write j;
    buf_init(&out, 1 << 20);
    if (m->json) {
        json_write_start(&j, &out);
        json_write_object(&j, NULL);
        json_write_text(&j, "name", w->name);
        json_write_text(&j, "kind", store_kind_name(w->kind));
        json_write_text(&j, "path", path);
        json_write_text(&j, "state", store_state_name(state));
        json_write_text(&j, "sha256", *sha256 ? sha256 : NULL);
        json_write_text(&j, "source", w->source);
        json_write_bool(&j, "fetched", end == DOWNLOAD_DONE);
        json_write_close(&j, '}');
        if (!json_write_end(&j, NULL)) fwrite(out.data, 1, out.length, stdout);
    } else {
        puts(path);
    }
    if (end == DOWNLOAD_HAD_IT)
        fprintf(stderr, "it was there already, %s\n", store_state_name(state));
    if (state == STORE_UNVERIFIED)
        fprintf(
            stderr,
            "unverified: nobody says which SHA-256 it must have, so it serves your own pictures\n"
            "but no strangers' jobs. Its SHA-256 is %s;\n"
            "compare it with its publisher's, then: kiln models verify %s/%s --sha256 HEX\n",
            sha256, store_kind_name(w->kind), w->name);
    buf_release(&out);
    free(path);
}

/* The lists are needed for a name; for a URL they only keep Horde names true, so a copy will do. */
static int reference_for(struct models_run *m, struct error *err)
{
    bool named =
        !strstr(m->word, "://") && !str_starts(m->word, "civitai:") && !str_starts(m->word, "hf:");
    struct error ignored;
    if (named) return models_open_reference(m, err);
    reference_open(&m->reference, &m->store, &m->client, &ignored);
    return 0;
}

static int get_one(struct models_run *m, const char *word, struct error *err)
{
    struct wanted w = {0};
    enum download_end end;
    enum store_state state = STORE_OWN;
    char sha256[65] = "";
    int rc = source_resolve(&w, word, &m->source, &m->reference, &m->client, err);
    if (rc) return rc;
    struct download_rule rule = rule_of(m, w.kind);
    char *typed = m->word;
    m->word = w.name; /* what the bar shows */
    rc = download_run(&m->store, &m->client, &w, &rule, &end, &state, sha256, err);
    m->word = typed;
    progress_end(&m->progress);
    if (!rc) say_got(m, &w, end, state, sha256);
    wanted_release(&w);
    return rc;
}

static int get(struct models_run *m, struct error *err)
{
    const struct known_file *files[KNOWN_GROUP_MAX];
    if (m->offline) return error_set(err, ERR_INVALID, "get and --offline contradict each other");
    int count = known_group(m->word, files), rc = 0;
    if (count && m->source.kind != STORE_KIND_COUNT && m->source.kind != files[0]->kind) count = 0;
    if (count > 1 && (m->source.name || m->source.sha256))
        return error_set(err, ERR_INVALID, "%s is %d files: --as and --sha256 are for one", m->word,
                         count);
    if (!count) {
        rc = reference_for(m, err);
        return rc ? rc : get_one(m, m->word, err);
    }
    for (int i = 0; i < count && !rc; i++) rc = get_one(m, files[i]->name, err);
    return rc;
}

/* ---- the command ---- */

static const struct verb {
    const char *name;
    int words_min, words_max;
    int (*run)(struct models_run *m, struct error *err);
} verbs[] = {
    {"search", 0, 1, models_search}, {"get", 1, 1, get},
    {"list", 0, 0, models_list},     {"rm", 1, 1, models_rm},
    {"verify", 0, 1, models_verify},
};

static const struct verb *find_verb(const char *name)
{
    for (size_t i = 0; i < COUNT_OF(verbs); i++)
        if (str_equal(verbs[i].name, name)) return &verbs[i];
    return NULL;
}

static bool whole(const char *text, int64_t most, int64_t *value)
{
    int64_t v;
    if (!str_parse_i64(text, &v) || v < 0 || v > most) return false;
    *value = v;
    return true;
}

enum {
    OPT_CONFIG = 256,
    OPT_KIND,
    OPT_AS,
    OPT_SHA256,
    OPT_LIMIT,
    OPT_TRIES,
    OPT_MAX,
    OPT_FLOOR,
    OPT_QUOTA,
    OPT_JSON,
    OPT_QUIET,
    OPT_OFFLINE,
    OPT_AGAIN,
    OPT_FROM,
    OPT_RANGES
};

static int parse_options(struct models_run *m, const struct verb *verb, int argc, char **argv)
{
    static const struct option options[] = {
        {"config", required_argument, NULL, OPT_CONFIG},
        {"kind", required_argument, NULL, OPT_KIND},
        {"as", required_argument, NULL, OPT_AS},
        {"sha256", required_argument, NULL, OPT_SHA256},
        {"limit", required_argument, NULL, OPT_LIMIT},
        {"tries", required_argument, NULL, OPT_TRIES},
        {"max-mb", required_argument, NULL, OPT_MAX},
        {"disk-floor-mb", required_argument, NULL, OPT_FLOOR},
        {"quota-mb", required_argument, NULL, OPT_QUOTA},
        {"json", no_argument, NULL, OPT_JSON},
        {"quiet", no_argument, NULL, OPT_QUIET},
        {"offline", no_argument, NULL, OPT_OFFLINE},
        {"again", no_argument, NULL, OPT_AGAIN},
        {"from", required_argument, NULL, OPT_FROM},
        {"ranges", required_argument, NULL, OPT_RANGES},
        {0},
    };
    bool good = true;
    int c, index = 0;
    optind = 1;
    opterr = 0;
    while ((c = getopt_long(argc, argv, "", options, &index)) != -1) {
        switch (c) {
        case OPT_CONFIG: m->config_path = optarg; break;
        case OPT_KIND: good = store_kind_find(optarg, &m->source.kind); break;
        case OPT_AS: m->source.name = optarg; break;
        case OPT_SHA256: m->source.sha256 = optarg; break;
        case OPT_LIMIT: good = whole(optarg, 100000, &m->limit); break;
        case OPT_TRIES: good = whole(optarg, 1000, &m->tries) && m->tries > 0; break;
        case OPT_MAX: good = whole(optarg, 10000000, &m->max_mb); break;
        case OPT_FLOOR: good = whole(optarg, 1000000000, &m->floor_mb); break;
        case OPT_QUOTA: good = whole(optarg, 1000000000, &m->quota_mb); break;
        case OPT_RANGES: good = whole(optarg, RANGES_MAX, &m->ranges) && m->ranges > 0; break;
        case OPT_JSON: m->json = true; break;
        case OPT_QUIET: m->quiet = true; break;
        case OPT_OFFLINE: m->offline = true; break;
        case OPT_AGAIN: m->again = true; break;
        case OPT_FROM: good = market_find(optarg, &m->from); break;
        default: return command_usage(&command_models, "unknown option %s", argv[optind - 1]);
        }
        if (!good)
            return command_usage(&command_models, "--%s %s is not one of its values",
                                 options[index].name, optarg);
    }
    int words = argc - optind;
    if (words < verb->words_min || words > verb->words_max)
        return command_usage(&command_models, "%s takes %s", verb->name,
                             verb->words_min   ? "one name"
                             : verb->words_max ? "at most one name"
                                               : "no name");
    if (m->from != MARKET_HORDE && verb->run != models_search)
        return command_usage(&command_models, "--from is for search; get takes what it shows");
    if (words) m->word = argv[optind];
    return EXIT_DONE;
}

static int run_models(int argc, char **argv)
{
    struct error err = {0};
    if (argc < 2 || argv[1][0] == '-') return show_offered(argc, argv);
    const struct verb *verb = find_verb(argv[1]);
    if (!verb)
        return command_usage(&command_models, "there is no \"%s\": search, get, list, rm, verify",
                             argv[1]);
    struct models_run m = {.source = {.kind = STORE_KIND_COUNT},
                           .limit = -1,
                           .tries = -1,
                           .max_mb = -1,
                           .floor_mb = -1,
                           .quota_mb = -1,
                           .ranges = -1,
                           .store = {.root = -1}};
    int code = parse_options(&m, verb, argc - 1, argv + 1);
    if (code) return code;
    progress_start(&m.progress, m.quiet || m.json);
    int rc = open_store(&m, &err);
    if (!rc) rc = verb->run(&m, &err);
    progress_end(&m.progress);
    close_store(&m);
    return rc ? command_fail(&command_models, &err) : EXIT_DONE;
}

const struct command command_models = {
    .name = "models",
    .summary = "the models that the worker offers, and the store of model files",
    .usage =
        "usage: kiln models [--json] [--socket PATH]        what the running worker offers\n"
        "       kiln models search [WORD] [--kind KIND] [--limit N] [--offline] [--json]\n"
        "       kiln models search WORD --from civitai|huggingface [--kind KIND] [--limit N] "
        "[--json]\n"
        "       kiln models get NAME|URL [--kind KIND] [--as NAME] [--sha256 HEX] [--again]\n"
        "                  [--tries N] [--ranges 1..4] [--max-mb N] [--disk-floor-mb N] "
        "[--quota-mb N] [--json]\n"
        "       kiln models list [--json]\n"
        "       kiln models rm NAME\n"
        "       kiln models verify [NAME [--sha256 HEX]]\n\n"
        "NAME is one of the Horde's lists (search shows them), KIND/NAME of the store, or gfpgan, "
        "codeformers,\n"
        "u2net, caption, interrogation, nsfw, annotators with all the files that it needs. URL is "
        "one of\n"
        "  https://civitai.com/models/N?modelVersionId=N   civitai:VERSION\n"
        "  https://huggingface.co/ORG/REPO/resolve/REV/FILE   hf:ORG/REPO/FILE\n"
        "  https://github.com/... and other files on the hosts of docs/models-store.md\n"
        "KIND is models, post, controlnet, annotators, loras or embeddings; --config FILE names "
        "bridgeData.yaml\n"
        "(cache_home, civitai_api_token, disk_floor_mb, max_lora_cache_size). Tokens may also be "
        "in\n"
        "CIVITAI_API_TOKEN and HF_TOKEN; they go into a header, to that host only.\n\n"
        "A download that was cut goes on where it ended. A large file comes by up to four requests "
        "at once\n"
        "(--ranges) where the server and a known SHA-256 allow it. One whose SHA-256 is not the "
        "expected one "
        "is\n"
        "deleted; one that nobody knows the SHA-256 of is kept, marked unverified, and not used "
        "for\n"
        "strangers' jobs.\n",
    .run = run_models,
};
