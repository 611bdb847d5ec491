/* cmd_models.c - the models that the worker offers, and the store they come from. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/alloc.h"
#include "base/json_write.h"
#include "base/str.h"
#include "cli/control_client.h"
#include "cli/horde_client.h"
#include "cli/market.h"
#include "cli/progress.h"
#include "cli/table.h"
#include "config/folders.h"
#include "store/download.h"
#include "store/known.h"
#include "store/reference.h"
#include "store/source.h"

#define MB INT64_C(1000000)
#define FILE_MB_MAX 64000 /* the largest checkpoint of the Horde has 17 GB */
#define TRIES 5
#define SHOWN_MAX 40

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

struct models_run {
    const char *config_path;
    struct source_options source;
    int64_t limit, tries, max_mb, floor_mb, quota_mb; /* -1: not said */
    bool json, quiet, offline, again;
    enum market from;
    char *word; /* NULL: none */
    struct config config;
    struct folders folders;
    struct store store;
    struct fetch_client client;
    struct reference reference;
    struct progress progress;
};

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

static int open_reference(struct models_run *m, struct error *err)
{
    int rc = reference_open(&m->reference, &m->store, m->offline ? NULL : &m->client, err);
    if (!rc && m->reference.stale.code)
        fprintf(stderr, "kiln models: an older copy of the Horde's lists is used: %s\n",
                m->reference.stale.text);
    return rc;
}

static void on_progress(void *context, int64_t done, int64_t total)
{
    struct models_run *m = context;
    bool known = total > 0;
    /* in MB, so that it fits the bar's whole numbers */
    progress_show(&m->progress, m->word ? m->word : "verify", known ? (int)(done / MB) : 0,
                  known ? (int)((total + MB - 1) / MB) : 0);
}

/* ---- search ---- */

static bool contains(const char *text, const char *word)
{
    size_t length = strlen(word);
    for (; *text; text++)
        if (!strncasecmp(text, word, length)) return true;
    return !length;
}

static void search_row(struct table *t, struct json_write *w, enum reference_list list,
                       const struct reference_model *x, enum store_state state, bool here)
{
    char size[24] = "-", about[64];
    const char *kind = store_kind_name(reference_kind(list));
    if (!w->out) {
        if (x->size_bytes) format_bytes(size, x->size_bytes);
        str_copy(about, sizeof about, x->description);
        table_row(t, x->name, kind, x->baseline, x->style, size, x->nsfw ? "yes" : "",
                  here ? store_state_name(state) : "", about);
        return;
    }
    json_write_object(w, NULL);
    json_write_text(w, "name", x->name);
    json_write_text(w, "kind", kind);
    json_write_text(w, "baseline", x->baseline);
    json_write_text(w, "style", x->style);
    json_write_text(w, "description", x->description);
    json_write_int(w, "size_bytes", x->size_bytes);
    json_write_bool(w, "nsfw", x->nsfw);
    json_write_bool(w, "inpainting", x->inpainting);
    json_write_text(w, "sha256", x->sha256);
    json_write_text(w, "url", x->url);
    json_write_text(w, "state", here ? store_state_name(state) : NULL);
    json_write_close(w, '}');
}

static const struct store_entry *entry_of(const struct store_list *here, enum reference_list list,
                                          const struct reference_model *x)
{
    for (int i = 0; i < here->count; i++)
        if (here->entries[i].kind == reference_kind(list) &&
            str_equal(here->entries[i].name, reference_file_name(list, x)))
            return &here->entries[i];
    return NULL;
}

static int search_market(struct models_run *m, struct error *err)
{
    int64_t limit = m->limit > 0 ? m->limit : SHOWN_MAX;
    if (m->offline)
        return error_set(err, ERR_INVALID, "--from and --offline contradict each other");
    if (!m->word || !*m->word)
        return error_set(err, ERR_INVALID, "--from needs a WORD: its lists are too long to show");
    if (limit > MARKET_LIMIT_MAX)
        return error_set(err, ERR_INVALID, "--limit %lld: at most %d at once from there",
                         (long long)limit, MARKET_LIMIT_MAX);
    return market_search(&m->client, m->from, m->word, m->source.kind, (int)limit, m->json, err);
}

static int search(struct models_run *m, struct error *err)
{
    if (m->from != MARKET_HORDE) return search_market(m, err);
    struct store_list here = {0};
    struct buf out;
    struct json_write w = {0};
    struct table t;
    int found = 0, shown = 0, limit = m->limit > 0 ? (int)m->limit : m->json ? 100000 : SHOWN_MAX;
    int rc = open_reference(m, err);
    if (!rc) rc = store_read_list(&here, &m->store, err);
    if (rc) return rc;
    buf_init(&out, 64u << 20);
    if (m->json) json_write_start(&w, &out);
    if (m->json) json_write_array(&w, NULL);
    for (int l = 0; l < REFERENCE_COUNT; l++)
        for (int i = 0; i < m->reference.lists[l].count; i++) {
            const struct reference_model *x = &m->reference.lists[l].list[i];
            const char *word = m->word ? m->word : "";
            enum store_kind kind = m->source.kind;
            if (kind != STORE_KIND_COUNT && kind != reference_kind((enum reference_list)l))
                continue;
            if (!contains(x->name, word) && !contains(x->description, word) &&
                !contains(x->baseline, word) && !contains(x->style, word))
                continue;
            if (++found > limit) continue;
            if (!m->json && found == 1)
                table_start(&t, "name|kind|family|style|>size|nsfw|here|about");
            const struct store_entry *e = entry_of(&here, (enum reference_list)l, x);
            search_row(&t, &w, (enum reference_list)l, x, e ? e->state : STORE_OWN, e != NULL);
            shown++;
        }
    if (m->json) {
        json_write_close(&w, ']');
        rc = json_write_end(&w, err);
        if (!rc) fwrite(out.data, 1, out.length, stdout);
    } else if (found) {
        table_print(&t);
    }
    if (!rc && shown < found)
        fprintf(stderr, "%d more; --limit %d shows all\n", found - shown, found);
    if (!rc && !found)
        rc = error_set(err, ERR_NOT_FOUND, "the Horde's lists have nothing with \"%s\"",
                       m->word ? m->word : "");
    buf_release(&out);
    store_list_release(&here);
    return rc;
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
        .progress = on_progress,
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
    if (named) return open_reference(m, err);
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

/* ---- list, rm, verify ---- */

static void list_json(const struct store_list *l, struct buf *out)
{
    struct json_write w;
    json_write_start(&w, out);
    json_write_array(&w, NULL);
    for (int i = 0; i < l->count; i++) {
        const struct store_entry *e = &l->entries[i];
        json_write_object(&w, NULL);
        json_write_text(&w, "name", e->name);
        json_write_text(&w, "kind", store_kind_name(e->kind));
        json_write_text(&w, "file", e->file);
        json_write_text(&w, "state", store_state_name(e->state));
        json_write_int(&w, "bytes", e->bytes);
        json_write_text(&w, "sha256", *e->sha256 ? e->sha256 : NULL);
        json_write_text(&w, "source", *e->source ? e->source : NULL);
        json_write_int(&w, "checked_ms", e->checked_ms);
        json_write_close(&w, '}');
    }
    json_write_close(&w, ']');
    if (!json_write_end(&w, NULL)) fwrite(out->data, 1, out->length, stdout);
}

static int list(struct models_run *m, struct error *err)
{
    struct store_list l;
    struct table t;
    int rc = store_read_list(&l, &m->store, err);
    if (rc) return rc;
    if (m->json) {
        struct buf out;
        buf_init(&out, 64u << 20);
        list_json(&l, &out);
        buf_release(&out);
    } else if (!l.count) {
        fprintf(stderr, "nothing in %s; kiln models search WORD, kiln models get NAME\n",
                m->store.folder);
    } else {
        table_start(&t, "name|kind|state|>size|checked|from");
        for (int i = 0; i < l.count; i++) {
            const struct store_entry *e = &l.entries[i];
            char size[24], when[24];
            table_row(&t, e->name, store_kind_name(e->kind), store_state_name(e->state),
                      format_bytes(size, e->bytes), format_when(when, e->checked_ms), e->source);
        }
        table_print(&t);
    }
    store_list_release(&l);
    return 0;
}

static int rm(struct models_run *m, struct error *err)
{
    struct store_list l;
    const struct store_entry *e;
    int rc = store_read_list(&l, &m->store, err);
    if (rc) return rc;
    rc = store_find(&e, &l, m->word, err);
    if (!rc) rc = store_remove(&m->store, e, err);
    if (!rc) fprintf(stderr, "removed %s/%s\n", store_kind_name(e->kind), e->file);
    store_list_release(&l);
    return rc;
}

static int verify_one(struct models_run *m, const struct store_entry *e, struct table *t,
                      struct error *err)
{
    char given[65] = "", sha256[65] = "";
    const char *known = reference_sha256(&m->reference, e);
    enum store_state state = e->state;
    if (m->source.sha256 && !sha256_normalise(given, m->source.sha256))
        return error_set(err, ERR_INVALID, "\"%s\" is no SHA-256 of 64 hexadecimal digits",
                         m->source.sha256);
    if (*given) known = given;
    int rc = store_verify(&m->store, e, known, on_progress, m, &state, sha256, err);
    progress_end(&m->progress);
    if (!rc || rc == ERR_FORMAT)
        table_row(t, e->name, store_kind_name(e->kind), rc ? "bad" : store_state_name(state),
                  sha256);
    return rc;
}

static int verify_all(struct models_run *m, const struct store_list *l, struct table *t,
                      struct error *err)
{
    struct error first = {0};
    int bad = 0;
    for (int i = 0; i < l->count; i++) {
        struct error one = {0};
        if (l->entries[i].state >= STORE_PARTIAL) continue;
        if (!verify_one(m, &l->entries[i], t, &one)) continue;
        fprintf(stderr, "kiln models: %s\n", one.text);
        if (!bad++) first = one;
    }
    if (bad) error_set(err, first.code, "%d of %d did not pass", bad, l->count);
    return first.code;
}

static int verify(struct models_run *m, struct error *err)
{
    struct store_list l;
    struct table t;
    struct error ignored;
    const struct store_entry *e = NULL;
    if (m->source.sha256 && !m->word)
        return error_set(err, ERR_INVALID, "--sha256 is for one file; name it");
    reference_open(&m->reference, &m->store, NULL, &ignored); /* the copy at hand, if any */
    int rc = store_read_list(&l, &m->store, err);
    if (rc) return rc;
    if (m->word) rc = store_find(&e, &l, m->word, err);
    if (!rc) {
        table_start(&t, "name|kind|state|sha-256");
        rc = m->word ? verify_one(m, e, &t, err) : verify_all(m, &l, &t, err);
        table_print(&t);
    }
    store_list_release(&l);
    return rc;
}

/* ---- the command ---- */

static const struct verb {
    const char *name;
    int words_min, words_max;
    int (*run)(struct models_run *m, struct error *err);
} verbs[] = {
    {"search", 0, 1, search}, {"get", 1, 1, get},       {"list", 0, 0, list},
    {"rm", 1, 1, rm},         {"verify", 0, 1, verify},
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
    OPT_FROM
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
    if (m->from != MARKET_HORDE && verb->run != search)
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
        "                  [--tries N] [--max-mb N] [--disk-floor-mb N] [--quota-mb N] [--json]\n"
        "       kiln models list [--json]\n"
        "       kiln models rm NAME\n"
        "       kiln models verify [NAME [--sha256 HEX]]\n\n"
        "NAME is one of the Horde's lists (search shows them), KIND/NAME of the store, or gfpgan, "
        "codeformers,\n"
        "u2net, caption, interrogation, nsfw with all the files that it needs. URL is one of\n"
        "  https://civitai.com/models/N?modelVersionId=N   civitai:VERSION\n"
        "  https://huggingface.co/ORG/REPO/resolve/REV/FILE   hf:ORG/REPO/FILE\n"
        "  https://github.com/... and other files on the hosts of docs/models-store.md\n"
        "KIND is models, post, controlnet, loras or embeddings; --config FILE names "
        "bridgeData.yaml\n"
        "(cache_home, civitai_api_token, disk_floor_mb, max_lora_cache_size). Tokens may also be "
        "in\n"
        "CIVITAI_API_TOKEN and HF_TOKEN; they go into a header, to that host only.\n\n"
        "A download that was cut goes on where it ended. One whose SHA-256 is not the expected one "
        "is\n"
        "deleted; one that nobody knows the SHA-256 of is kept, marked unverified, and not used "
        "for\n"
        "strangers' jobs.\n",
    .run = run_models,
};
