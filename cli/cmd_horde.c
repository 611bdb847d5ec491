/* cmd_horde.c - the Horde at a glance: its health, models, workers, news; and one's own account. */
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <curl/curl.h>

#include "base/alloc.h"
#include "base/str.h"
#include "cli/command.h"
#include "cli/horde_client.h"
#include "cli/table.h"
#include "proto/horde_status.h"
#include "proto/horde_style.h"
#include "proto/horde_worker.h"

struct ask {
    struct horde_client client;
    struct buf reply;
    bool json;
};

static const char *text_of(const struct ask *a)
{
    return (const char *)a->reply.data;
}

static int get(struct ask *a, const char *path, struct error *err)
{
    return horde_client_call(&a->client, "GET", path, NULL, NULL, &a->reply, err);
}

static int by_queue(const void *a, const void *b)
{
    const struct horde_model *x = a, *y = b;
    return (x->queued < y->queued) - (x->queued > y->queued);
}

static int show_models(struct ask *a, struct error *err)
{
    struct horde_models m = {0};
    int rc = horde_models_parse(&m, text_of(a), a->reply.length, err);
    if (rc) return rc;
    struct table t;
    qsort(m.list, (size_t)m.count, sizeof *m.list, by_queue);
    table_start(&t, "model|>workers|>queued|>jobs|>wait");
    for (int i = 0; i < m.count && i < 40; i++) {
        char workers[24], queued[24], jobs[24], wait[24];
        snprintf(workers, sizeof workers, "%lld", (long long)m.list[i].count);
        snprintf(queued, sizeof queued, "%.0f", m.list[i].queued);
        snprintf(jobs, sizeof jobs, "%.0f", m.list[i].jobs);
        format_seconds(wait, (int64_t)m.list[i].eta_seconds);
        table_row(&t, m.list[i].name, workers, queued, jobs,
                  m.list[i].eta_seconds >= 10000 ? "-" : wait);
    }
    table_print(&t);
    horde_models_release(&m);
    return 0;
}

static int show_workers(struct ask *a, struct error *err)
{
    struct horde_workers w = {0};
    int rc = horde_workers_parse(&w, text_of(a), a->reply.length, err);
    if (rc) return rc;
    struct table t;
    table_start(&t, "worker|program|performance|>jobs|>kudos|state");
    for (int i = 0; i < w.count; i++) {
        char jobs[24], kudos[24], agent[40];
        snprintf(jobs, sizeof jobs, "%lld", (long long)w.list[i].requests_fulfilled);
        snprintf(kudos, sizeof kudos, "%.0f", w.list[i].kudos_rewards);
        str_copy(agent, sizeof agent, w.list[i].bridge_agent ? w.list[i].bridge_agent : "");
        agent[strcspn(agent, ":")] = 0;
        table_row(&t, w.list[i].name, agent, w.list[i].performance, jobs, kudos,
                  w.list[i].maintenance_mode ? "maintenance"
                  : w.list[i].online         ? "online"
                                             : "offline");
    }
    table_print(&t);
    horde_workers_release(&w);
    return 0;
}

static int show_news(struct ask *a, struct error *err)
{
    struct horde_news n = {0};
    int rc = horde_news_parse(&n, text_of(a), a->reply.length, err);
    if (rc) return rc;
    for (int i = 0; i < n.count && i < 5; i++) {
        char title[200], piece[1200];
        str_clean(title, sizeof title, n.list[i].title ? n.list[i].title : "");
        str_clean(piece, sizeof piece, n.list[i].newspiece ? n.list[i].newspiece : "");
        printf("%s  %s\n    %s\n\n", n.list[i].date_published ? n.list[i].date_published : "",
               title, piece);
    }
    horde_news_release(&n);
    return 0;
}

static int show_styles(struct ask *a, struct error *err)
{
    struct horde_styles s = {0};
    int rc = horde_styles_parse(&s, text_of(a), a->reply.length, err);
    if (rc) return rc;
    struct table t;
    table_start(&t, "style|id|of|>used|models|what it does");
    for (int i = 0; i < s.count; i++) {
        const struct horde_style *y = &s.list[i];
        char used[24], models[80] = "", info[100];
        snprintf(used, sizeof used, "%lld", (long long)y->use_count);
        for (int k = 0; k < y->model_count; k++) {
            size_t n = strlen(models);
            snprintf(models + n, sizeof models - n, "%s%.40s", k ? ", " : "", y->models[k]);
        }
        str_clean(info, sizeof info, y->info[0] ? y->info : y->prompt);
        table_row(&t, y->name, y->id, y->creator, used, models, info);
    }
    table_print(&t);
    horde_styles_release(&s);
    return 0;
}

static int show_status(struct ask *a, struct error *err)
{
    struct horde_performance p;
    int rc = horde_performance_parse(&p, text_of(a), a->reply.length, err);
    if (rc) return rc;
    printf("horde       %s\n", a->client.url);
    printf("queue       %lld requests, %.0f megapixel-steps\n", (long long)p.queued_requests,
           p.queued_megapixelsteps);
    printf("workers     %lld with %lld threads; %.0f megapixel-steps in the last minute\n",
           (long long)p.worker_count, (long long)p.thread_count, p.past_minute_megapixelsteps);
    printf("alchemy     %.0f forms for %lld alchemists\n", p.queued_forms,
           (long long)p.interrogator_count);
    return 0;
}

static int show_user(struct ask *a, struct error *err)
{
    struct horde_user u = {0};
    char name[120];
    int rc = horde_user_parse(&u, text_of(a), a->reply.length, err);
    if (rc) return rc;
    str_clean(name, sizeof name, u.username ? u.username : "");
    printf("account     %s%s\n", name, u.trusted ? ", trusted" : "");
    printf("kudos       %.0f", u.kudos);
    if (!isnan(u.evaluating_kudos)) printf(", %.0f in escrow", u.evaluating_kudos);
    printf("\nworkers     %d\nat once     %d images\n", u.worker_count, u.concurrency);
    horde_user_release(&u);
    return 0;
}

static const struct {
    const char *name, *path;
    int (*show)(struct ask *a, struct error *err);
} subjects[] = {
    {"status", "/api/v2/status/performance", show_status},
    {"models", "/api/v2/status/models?type=image", show_models},
    {"workers", "/api/v2/workers?type=image", show_workers},
    {"news", "/api/v2/status/news", show_news},
    {"account", "/api/v2/find_user", show_user},
    {"styles", "/api/v2/styles/image", show_styles},
};

struct horde_options {
    const char *config, *url;
    const char *tag, *model, *sort; /* of styles; NULL: not given */
    int64_t page;                   /* 0: not given */
    bool json;
};

static void add_query(char **path, const char *key, const char *value)
{
    if (!value) return;
    char *escaped = curl_easy_escape(NULL, value, 0);
    char *longer = alloc_printf("%s%c%s=%s", *path, strchr(*path, '?') ? '&' : '?', key, escaped);
    curl_free(escaped);
    free(*path);
    *path = longer;
}

/* heap */
static char *path_of(const char *subject, const struct horde_options *o)
{
    char page[24], *path = alloc_string(subject);
    snprintf(page, sizeof page, "%lld", (long long)o->page);
    add_query(&path, "tag", o->tag);
    add_query(&path, "model", o->model);
    add_query(&path, "sort", o->sort);
    add_query(&path, "page", o->page ? page : NULL);
    return path;
}

/* EXIT_DONE, or the exit code of wrong usage; *first is the index of the first word. */
static int parse(struct horde_options *o, const struct command *c, int argc, char **argv,
                 int *first)
{
    static const struct option table[] = {{"json", no_argument, NULL, 'j'},
                                          {"config", required_argument, NULL, 'c'},
                                          {"horde-url", required_argument, NULL, 'u'},
                                          {"tag", required_argument, NULL, 't'},
                                          {"model", required_argument, NULL, 'm'},
                                          {"sort", required_argument, NULL, 's'},
                                          {"page", required_argument, NULL, 'p'},
                                          {0}};
    optind = 1;
    opterr = 0;
    for (int id; (id = getopt_long(argc, argv, "", table, NULL)) != -1;) {
        if (id == '?')
            return command_usage(c, "option %s is unknown or lacks its value", argv[optind - 1]);
        if (id == 'j') o->json = true;
        if (id == 'c') o->config = optarg;
        if (id == 'u') o->url = optarg;
        if (id == 't') o->tag = optarg;
        if (id == 'm') o->model = optarg;
        if (id == 's') o->sort = optarg;
        if (id == 's' && !str_equal(optarg, "popular") && !str_equal(optarg, "age"))
            return command_usage(c, "--sort %s: popular or age is expected", optarg);
        if (id == 'p' && (!str_parse_i64(optarg, &o->page) || o->page < 1 || o->page > 100000))
            return command_usage(c, "--page %s: a whole number from 1 to 100000 is expected",
                                 optarg);
    }
    *first = optind;
    return EXIT_DONE;
}

static int run_horde(int argc, char **argv)
{
    struct horde_options o = {0};
    struct ask a = {0};
    struct error err = {0};
    int first;
    int code = parse(&o, &command_horde, argc, argv, &first);
    if (code) return code;
    if (argc - first > 1) return command_usage(&command_horde, "one subject at a time");
    const char *wanted = first < argc ? argv[first] : "status";
    size_t i = 0;
    while (i < COUNT_OF(subjects) && !str_equal(subjects[i].name, wanted)) i++;
    if (i == COUNT_OF(subjects))
        return command_usage(&command_horde,
                             "\"%s\" is none of status, models, workers, news, account, styles",
                             wanted);
    if ((o.tag || o.model || o.sort || o.page) && !str_equal(wanted, "styles"))
        return command_usage(&command_horde, "--tag, --model, --sort and --page are of styles");
    buf_init(&a.reply, 1 << 20);
    int rc = horde_client_open(&a.client, o.config, o.url, &err);
    if (!rc) {
        char *path = path_of(subjects[i].path, &o);
        rc = get(&a, path, &err);
        free(path);
        if (!rc && o.json)
            fwrite(a.reply.data, 1, a.reply.length, stdout);
        else if (!rc)
            rc = subjects[i].show(&a, &err);
        horde_client_close(&a.client);
    }
    buf_release(&a.reply);
    return rc ? command_fail(&command_horde, &err) : EXIT_DONE;
}

const struct command command_horde = {
    .name = "horde",
    .summary = "the Horde at a glance, and one's own account",
    .usage =
        "usage: kiln horde [status|models|workers|news|account] [--json] [--config FILE]\n"
        "                  [--horde-url URL]\n"
        "       kiln horde styles [--tag TAG] [--model MODEL] [--sort popular|age] [--page N]\n"
        "                  [--json]\n\n"
        "Asks the Horde named by --horde-url, by the bridgeData.yaml of --config, or the "
        "public one.\n"
        "--json prints the server's answer as it came. Styles are for `kiln generate --horde\n"
        "--style`; shared keys are `kiln sharedkey`'s.\n",
    .run = run_horde,
};

/* A version 4 UUID from the kernel's generator: one per intended transfer. */
static int new_uuid(char text[40], struct error *err)
{
    FILE *f = fopen("/proc/sys/kernel/random/uuid", "re");
    bool ok = f && fscanf(f, "%36s", text) == 1;
    if (f) fclose(f);
    return ok ? 0 : error_set(err, ERR_IO, "no random number for the transfer");
}

static int transfer(struct ask *a, const char *to, int64_t amount, struct error *err)
{
    char uuid[40], header[80];
    struct buf body;
    double moved = 0;
    buf_init(&body, 1 << 16);
    int rc = new_uuid(uuid, err);
    snprintf(header, sizeof header, "Idempotency-Key: %s", rc ? "" : uuid);
    if (!rc) rc = horde_transfer_format(to, amount, &body, err);
    /* a lost answer is asked for again under the same key: the server moves the kudos once */
    for (int tries = 0; !rc && tries < 3; tries++) {
        rc = horde_client_call(&a->client, "POST", "/api/v2/kudos/transfer", &body, header,
                               &a->reply, err);
        if (rc != ERR_NETWORK) break;
        rc = tries < 2 ? 0 : rc;
    }
    if (!rc) rc = horde_transfer_parse(&moved, text_of(a), a->reply.length, err);
    if (!rc) printf("%.0f kudos went to %s\n", moved, to);
    buf_release(&body);
    return rc;
}

static int run_kudos(int argc, char **argv)
{
    struct horde_options o = {0};
    struct ask a = {0};
    struct error err = {0};
    int64_t amount;
    int first;
    int code = parse(&o, &command_kudos, argc, argv, &first);
    if (code) return code;
    if (o.tag || o.model || o.sort || o.page || o.json)
        return command_usage(&command_kudos, "only --config and --horde-url are expected");
    if (argc - first != 3 || !str_equal(argv[first], "send"))
        return command_usage(&command_kudos, "send USER#ID AMOUNT is expected");
    if (!str_parse_i64(argv[first + 2], &amount) || amount < 1)
        return command_usage(&command_kudos,
                             "AMOUNT %s: a whole number of kudos from 1 is expected",
                             argv[first + 2]);
    buf_init(&a.reply, 1 << 20);
    int rc = horde_client_open(&a.client, o.config, o.url, &err);
    if (!rc) {
        rc = transfer(&a, argv[first + 1], amount, &err);
        horde_client_close(&a.client);
    }
    buf_release(&a.reply);
    return rc ? command_fail(&command_kudos, &err) : EXIT_DONE;
}

const struct command command_kudos = {
    .name = "kudos",
    .summary = "give kudos to somebody",
    .usage = "usage: kiln kudos send USER#ID AMOUNT [--config FILE] [--horde-url URL]\n\n"
             "Moves whole kudos from the account of the key in FILE. A shared key's id takes kudos "
             "too.\n",
    .run = run_kudos,
};
