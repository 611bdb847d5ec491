/* cmd_describe.c - `kiln caption` and `kiln interrogate`: what a picture shows, here or by the Horde. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/json_write.h"
#include "base/str.h"
#include "cli/alchemy_horde.h"
#include "cli/command.h"
#include "cli/local_engine.h"
#include "cli/progress.h"
#include "cli/table.h"
#include "image/codec.h"

#define JOB "local"

struct describing {
    const struct command *command;
    enum alchemy_form form;
    char **pictures;
    int count;
    const char *device, *precision, *config, *horde_url;
    bool horde, quiet, json, dry_run, fast, trusted;
    struct progress progress;
    struct json_write json_out;
    struct buf out;
};

/* ---- what comes out ---- */

static void print_words(const struct alchemy_word *words, int count)
{
    struct table t;
    table_start(&t, "group|>share|words");
    for (int i = 0; i < count; i++) {
        char share[24];
        snprintf(share, sizeof share, "%.1f %%", words[i].confidence);
        table_row(&t, words[i].group, share, words[i].text);
    }
    table_print(&t);
}

static void json_words(struct json_write *w, const struct alchemy_word *words, int count)
{
    json_write_object(w, "interrogation");
    for (int i = 0; i < count; i++) {
        if (!i || !str_equal(words[i].group, words[i - 1].group)) {
            if (i) json_write_close(w, ']');
            json_write_array(w, words[i].group);
        }
        json_write_object(w, NULL);
        json_write_text(w, "text", words[i].text);
        json_write_number(w, "confidence", words[i].confidence);
        json_write_close(w, '}');
    }
    if (count) json_write_close(w, ']');
    json_write_close(w, '}');
}

/* text: of a caption; words: of an interrogation; request NULL: done here */
static void tell(struct describing *d, int picture, const char *text,
                 const struct alchemy_word *words, int count, const char *request)
{
    progress_end(&d->progress);
    if (d->json) {
        json_write_object(&d->json_out, NULL);
        json_write_text(&d->json_out, "picture", d->pictures[picture]);
        if (d->form == ALCHEMY_CAPTION)
            json_write_text(&d->json_out, "caption", text);
        else
            json_words(&d->json_out, words, count);
        if (request) json_write_text(&d->json_out, "request", request);
        json_write_close(&d->json_out, '}');
        return;
    }
    if (d->form == ALCHEMY_CAPTION) {
        char shown[2000];
        str_clean(shown, sizeof shown, text);
        if (d->count > 1) printf("%s: ", d->pictures[picture]);
        puts(shown);
    } else {
        if (d->count > 1) printf("%s%s:\n", picture ? "\n" : "", d->pictures[picture]);
        print_words(words, count);
    }
    fflush(stdout);
}

/* ---- on this machine ---- */

static int read_bytes(struct blob *to, const char *path, struct error *err)
{
    struct buf b;
    buf_init(&b, CODEC_BYTES_MAX);
    int rc = buf_read_file(&b, path, err);
    if (!rc) to->data = buf_take(&b, &to->length);
    buf_release(&b);
    return rc;
}

static int wait_here(struct describing *d, struct local_engine *e, int picture, struct error *err)
{
    for (;;) {
        struct engine_msg m;
        int rc = local_engine_next(e, &m, JOB, err);
        if (rc) return rc;
        if (m.kind == ENGINE_PROGRESS)
            progress_show(&d->progress, d->form == ALCHEMY_CAPTION ? "words" : "phrases",
                          m.progress.step, m.progress.steps);
        bool done = m.kind == ENGINE_ALCHEMY_RESULT;
        if (done)
            tell(d, picture, m.alchemy_result.text ? m.alchemy_result.text : "",
                 m.alchemy_result.words, m.alchemy_result.word_count, NULL);
        engine_msg_release(&m);
        if (done) return 0;
    }
}

static int one_here(struct describing *d, struct local_engine *e, int picture, struct error *err)
{
    struct engine_msg m;
    struct blob source = {0};
    int rc = read_bytes(&source, d->pictures[picture], err);
    if (rc) return rc;
    engine_msg_init(&m, ENGINE_ALCHEMY, e->launch_id, JOB);
    m.alchemy.form = d->form;
    m.alchemy.source = source;
    rc = local_engine_send(e, &m, err);
    if (!rc) rc = wait_here(d, e, picture, err);
    free(source.data);
    return rc;
}

static int run_here(struct describing *d, struct error *err)
{
    struct local_engine e;
    int rc = local_engine_start(&e, d->device, d->precision, err);
    if (rc) return rc;
    for (int i = 0; i < d->count && !rc; i++) rc = one_here(d, &e, i, err);
    local_engine_stop(&e);
    return rc;
}

/* ---- on the Horde ---- */

static int answer(struct describing *d, int picture, const char *value, const char *request,
                  struct error *err)
{
    struct horde_words words = {0};
    if (d->form == ALCHEMY_CAPTION) {
        tell(d, picture, value, NULL, 0, request);
        return 0;
    }
    int rc = horde_words_parse(&words, value, strlen(value), err);
    if (!rc) tell(d, picture, NULL, words.list, words.count, request);
    horde_words_release(&words);
    return rc;
}

static int one_there(struct describing *d, struct alchemy_horde *a, int picture, struct error *err)
{
    struct pixels pixels;
    char request[HORDE_ID_BYTES], kudos[24], *value = NULL;
    int rc = image_read(&pixels, NULL, d->pictures[picture], err);
    if (rc) return rc;
    int64_t quote = alchemy_horde_quote(a, d->form, pixels.width, pixels.height);
    if (!d->quiet)
        fprintf(stderr, "quote: %s kudos for %s\n", format_kudos(kudos, quote),
                d->pictures[picture]);
    if (!d->dry_run) {
        rc = alchemy_horde_run(a, &value, request, d->form, &pixels, err);
        if (!rc) rc = answer(d, picture, value, request, err);
        if (!rc && !d->quiet)
            fprintf(stderr, "request %s cost %s kudos\n", request, format_kudos(kudos, quote));
    }
    free(value);
    pixels_release(&pixels);
    return rc;
}

static int run_there(struct describing *d, struct error *err)
{
    struct alchemy_horde a;
    int rc = alchemy_horde_open(&a, d->config, d->horde_url, &d->progress, err);
    if (rc) return rc;
    a.fast_only = d->fast;
    a.trusted_only = d->trusted;
    for (int i = 0; i < d->count && !rc; i++) rc = one_there(d, &a, i, err);
    alchemy_horde_close(&a);
    return rc;
}

/* ---- the commands ---- */

static int work(struct describing *d, struct error *err)
{
    buf_init(&d->out, 64u << 20);
    progress_start(&d->progress, d->quiet || d->json);
    json_write_start(&d->json_out, &d->out);
    json_write_array(&d->json_out, NULL);
    int rc = d->horde ? run_there(d, err) : run_here(d, err);
    progress_end(&d->progress);
    json_write_close(&d->json_out, ']');
    if (!rc && d->json && !d->dry_run) rc = json_write_end(&d->json_out, err);
    if (!rc && d->json && !d->dry_run) fwrite(d->out.data, 1, d->out.length, stdout);
    buf_release(&d->out);
    return rc;
}

/* EXIT_DONE, or the exit code of wrong usage */
static int parse(struct describing *d, int argc, char **argv)
{
    static const struct option table[] = {{"device", required_argument, NULL, 'd'},
                                          {"precision", required_argument, NULL, 'p'},
                                          {"horde", no_argument, NULL, 'h'},
                                          {"horde-url", required_argument, NULL, 'u'},
                                          {"config", required_argument, NULL, 'c'},
                                          {"dry-run", no_argument, NULL, 'n'},
                                          {"fast-workers", no_argument, NULL, 'f'},
                                          {"trusted-workers", no_argument, NULL, 't'},
                                          {"json", no_argument, NULL, 'j'},
                                          {"quiet", no_argument, NULL, 'q'},
                                          {0}};
    bool there = false, here = false;
    optind = 1;
    opterr = 0;
    for (int id; (id = getopt_long(argc, argv, "q", table, NULL)) != -1;) {
        switch (id) {
        case 'd': d->device = optarg; break;
        case 'p': d->precision = optarg; break;
        case 'h': d->horde = true; break;
        case 'u': d->horde_url = optarg; break;
        case 'c': d->config = optarg; break;
        case 'n': d->dry_run = true; break;
        case 'f': d->fast = true; break;
        case 't': d->trusted = true; break;
        case 'j': d->json = true; break;
        case 'q': d->quiet = true; break;
        default:
            return command_usage(d->command, "option %s is unknown or lacks its value",
                                 argv[optind - 1]);
        }
        here = here || id == 'd' || id == 'p';
        there = there || strchr("ucnft", id);
    }
    d->pictures = argv + optind;
    d->count = argc - optind;
    if (d->count < 1) return command_usage(d->command, "a PICTURE is expected");
    if (there && !d->horde) return command_usage(d->command, "an option that needs --horde");
    if (here && d->horde)
        return command_usage(d->command, "--device and --precision are for this machine, not for "
                                         "the Horde");
    return EXIT_DONE;
}

static int run(const struct command *command, enum alchemy_form form, int argc, char **argv)
{
    struct describing d = {.command = command, .form = form};
    struct error err = {0};
    int code = parse(&d, argc, argv);
    if (code) return code;
    return work(&d, &err) ? command_fail(command, &err) : EXIT_DONE;
}

static int run_caption(int argc, char **argv)
{
    return run(&command_caption, ALCHEMY_CAPTION, argc, argv);
}

static int run_interrogate(int argc, char **argv)
{
    return run(&command_interrogate, ALCHEMY_INTERROGATION, argc, argv);
}

#define OPTIONS                                                                                    \
    "Options:\n"                                                                                   \
    "  --device NAME       cpu, cuda:0, ...      --precision P   auto, fp32, bf16, fp16\n"         \
    "  --horde             a worker of the Horde does it; the picture is sent there\n"             \
    "  --horde-url URL, --config FILE            which Horde, and the key (bridgeData.yaml)\n"     \
    "  --dry-run           only what it would cost\n"                                              \
    "  --fast-workers, --trusted-workers         only such ones\n"                                 \
    "  --json, --quiet\n"

const struct command command_caption = {
    .name = "caption",
    .summary = "say in a sentence what a picture shows",
    .usage =
        "usage: kiln caption PICTURE... [--json] [--quiet] [--device NAME] [--precision P]\n"
        "       kiln caption PICTURE... --horde [--dry-run] [--config FILE] [--horde-url URL]\n\n"
        "BLIP writes it on this machine; kiln models get caption fetches its weights. The same "
        "picture\n"
        "has the same caption.\n\n" OPTIONS,
    .run = run_caption,
};

const struct command command_interrogate = {
    .name = "interrogate",
    .summary = "which words of the lists fit a picture",
    .usage =
        "usage: kiln interrogate PICTURE... [--json] [--quiet] [--device NAME]\n"
        "       kiln interrogate PICTURE... --horde [--dry-run] [--config FILE] [--horde-url "
        "URL]\n\n"
        "CLIP ViT-L/14 ranks each list of the cache folder's words/ (tags, sites, artists, "
        "flavors,\n"
        "mediums, movements, techniques): the best five with their share in per cent. kiln models "
        "get\n"
        "interrogation fetches network and lists. The first run with a list reads all its phrases "
        "and\n"
        "keeps what CLIP makes of them.\n\n" OPTIONS,
    .run = run_interrogate,
};
