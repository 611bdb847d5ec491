#include "cli/cmd_generate_horde.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <openssl/evp.h>

#include "base/alloc.h"
#include "base/json_write.h"
#include "base/now.h"
#include "base/str.h"
#include "cli/control_client.h"
#include "cli/horde_client.h"
#include "cli/picture.h"
#include "cli/progress.h"
#include "image/provenance.h"
#include "proto/horde_async.h"

#define WAIT_SECONDS_MAX (20 * 60)

static volatile sig_atomic_t interrupted;

static void on_interrupt(int number)
{
    (void)number;
    if (interrupted++) _exit(130);
}

struct errand {
    struct generate_options *o;
    struct horde_client client;
    struct progress progress;
    struct buf reply;
    char id[HORDE_ID_BYTES];
    double kudos;
    char *paths[REQUEST_COUNT_MAX];
    int written;
};

static void fill(struct horde_async *a, const struct generate_options *o, const char *const *models,
                 bool dry_run)
{
    *a = (struct horde_async){
        .request = &o->request,
        .models = models,
        .model_count = o->request.model ? 1 : 0,
        .slow_workers = true,
        .censor_nsfw = true,
        .replacement_filter = true,
        .r2 = !o->mine, /* inline results reach workers whose name the server does not know */
        .random_seed = !o->seed_given,
        .style = o->style,
        .dry_run = dry_run,
    };
}

static int ask(struct errand *e, bool dry_run, struct error *err)
{
    const char *models[] = {e->o->request.model};
    struct horde_async a;
    struct horde_accepted accepted = {0};
    struct buf body;
    buf_init(&body, 64u << 20);
    fill(&a, e->o, models, dry_run);
    int rc = horde_async_format(&a, &body, err);
    if (!rc)
        rc = horde_client_call(&e->client, "POST", "/api/v2/generate/async", &body, NULL, &e->reply,
                               err);
    if (!rc)
        rc = horde_accepted_parse(&accepted, (char *)e->reply.data, e->reply.length, err);
    buf_release(&body);
    if (rc) return rc;
    e->kudos = accepted.kudos;
    str_copy(e->id, sizeof e->id, accepted.id);
    if (!dry_run)
        for (int i = 0; i < accepted.warning_count; i++) {
            char text[300];
            str_clean(text, sizeof text, accepted.warnings[i].message);
            fprintf(stderr, "note from the Horde: %s\n", text);
        }
    horde_accepted_release(&accepted);
    return 0;
}

static int call_about(struct errand *e, const char *method, const char *what, struct error *err)
{
    char *path = alloc_printf("/api/v2/generate/%s/%s", what, e->id);
    int rc = horde_client_call(&e->client, method, path, NULL, NULL, &e->reply, err);
    free(path);
    return rc;
}

static void show(struct errand *e, const struct horde_check *c)
{
    char phase[48];
    int count = e->o->request.count;
    if (c->processing || c->finished) snprintf(phase, sizeof phase, "drawn by a worker");
    else
        snprintf(phase, sizeof phase, "place %lld, about %lld s", (long long)c->queue_position,
                 (long long)c->wait_seconds);
    progress_show(&e->progress, phase, c->finished, count);
}

static int wait_for_it(struct errand *e, struct error *err)
{
    double start = now_seconds();
    int failures = 0;
    for (;;) {
        struct horde_check c;
        if (interrupted) {
            call_about(e, "DELETE", "status", NULL);
            return error_set(err, ERR_CANCELED, "canceled at the Horde too");
        }
        int rc = call_about(e, "GET", "check", err);
        if (!rc) rc = horde_check_parse(&c, (char *)e->reply.data, e->reply.length, err);
        if (rc && rc != ERR_NETWORK && rc != ERR_BUSY) return rc;
        if (rc && ++failures > 20) return rc;
        if (!rc) {
            failures = 0;
            show(e, &c);
            if (c.faulted)
                return error_set(err, ERR_REFUSED, "three workers failed at the request; nothing is lost "
                                                   "but time");
            if (c.done) return 0;
        }
        if (now_seconds() - start > WAIT_SECONDS_MAX)
            return error_set(err, ERR_BUSY,
                             "no worker has taken request %s within 20 minutes; it lapses by itself",
                             e->id);
        usleep(e->client.loopback ? 100000 : 1500000);
    }
}

static int decode_base64(struct buf *to, const char *text, struct error *err)
{
    size_t n = strlen(text);
    uint8_t *room = n % 4 ? NULL : buf_reserve(to, n / 4 * 3 + 3, err);
    int got = room ? EVP_DecodeBlock(room, (const unsigned char *)text, (int)n) : -1;
    if (got < 0) return error_set(err, ERR_FORMAT, "the picture is not base64");
    for (size_t i = n; i && text[i - 1] == '='; i--) got--;
    buf_commit(to, (size_t)got);
    return 0;
}

static void tell(struct provenance *p, const struct errand *e, const struct horde_generation *g)
{
    const struct image_request *q = &e->o->request;
    char text[300], when[25];
    now_format_utc(when, now_wall_ms());
    provenance_set(p, PROVENANCE_PROMPT, "%s", q->prompt);
    provenance_set(p, PROVENANCE_NEGATIVE, "%s", q->negative);
    if (e->o->style) { /* the rest is the style's, which only the server knows */
        str_clean(text, sizeof text, e->o->style);
        provenance_set(p, PROVENANCE_STYLE, "%s", text);
    } else {
        provenance_set(p, PROVENANCE_STEPS, "%d", q->steps);
        provenance_set(p, PROVENANCE_SAMPLER, "%s", sampler_name(q->sampler));
        provenance_set(p, PROVENANCE_SCHEDULE, "%s", schedule_name(q->schedule));
        provenance_set(p, PROVENANCE_CFG, "%g", q->cfg);
        provenance_set(p, PROVENANCE_SIZE, "%dx%d", q->width_px, q->height_px);
    }
    provenance_set(p, PROVENANCE_CREATED, "%s", when);
    str_clean(text, sizeof text, g->seed ? g->seed : "");
    provenance_set(p, PROVENANCE_SEED, "%s", text);
    str_clean(text, sizeof text, g->model ? g->model : "");
    provenance_set(p, PROVENANCE_MODEL, "%s", text);
    str_clean(text, sizeof text, g->worker_name ? g->worker_name : "");
    provenance_set(p, PROVENANCE_WORKER, "%s", text);
    provenance_set(p, PROVENANCE_PROGRAM, "Kiln %s (client)", KILN_VERSION);
    provenance_set(p, PROVENANCE_HORDE, "%s", e->client.url);
    provenance_set(p, PROVENANCE_REQUEST, "%s", e->id);
    provenance_set(p, PROVENANCE_KUDOS, "-%g", e->kudos);
}

/* PNG asked for: the Horde's WebP is decoded and written anew; WebP keeps its bytes. */
static int convert(struct buf *out, const struct buf *webp, const char *path,
                   const struct image_text *text, struct error *err)
{
    struct pixels pixels;
    if (str_ends(path, ".webp"))
        return codec_set_text(out, "from the Horde", webp->data, webp->length, text, err);
    int rc = codec_decode(&pixels, NULL, "from the Horde", webp->data, webp->length, err);
    if (rc) return rc;
    rc = codec_encode(out, IMAGE_PNG, &pixels, 0, text, err);
    pixels_release(&pixels);
    return rc;
}

static int take_image(struct errand *e, const struct horde_generation *g, struct error *err)
{
    struct buf webp, out;
    struct provenance p;
    struct image_text text = {0};
    buf_init(&webp, 16u << 20);
    buf_init(&out, 256u << 20);
    provenance_init(&p);
    if (!e->o->no_provenance) {
        tell(&p, e, g);
        provenance_text(&p, &text);
    }
    int rc = horde_source_is_url(g->image) ? horde_client_fetch(&e->client, g->image, &webp, err)
                                           : decode_base64(&webp, g->image, err);
    char *path = generate_path(e->o->output, e->written);
    if (!rc) rc = convert(&out, &webp, path, &text, err);
    if (!rc) rc = buf_write_file(&out, path, 0644, err);
    if (rc) free(path);
    else e->paths[e->written++] = path;
    if (!rc && g->censored) fprintf(stderr, "note: the worker replaced this picture (censored)\n");
    image_text_release(&text);
    provenance_release(&p);
    buf_release(&out);
    buf_release(&webp);
    return rc;
}

static int take_images(struct errand *e, struct error *err)
{
    struct horde_result result = {0};
    int rc = call_about(e, "GET", "status", err);
    if (!rc) rc = horde_result_parse(&result, (char *)e->reply.data, e->reply.length, err);
    if (rc) return rc;
    e->kudos = result.check.kudos;
    for (int i = 0; i < result.generation_count && i < REQUEST_COUNT_MAX && !rc; i++)
        rc = take_image(e, &result.generations[i], err);
    if (!rc && !e->written) rc = error_set(err, ERR_FORMAT, "the Horde says done and gave no picture");
    horde_result_release(&result);
    return rc;
}

/* The daemon, when one runs, books what was spent. */
static void book(const struct errand *e)
{
    struct control_request request = {
        .kind = CONTROL_SPENT,
        .kudos_milli = (int64_t)llround(e->kudos * 1000),
        .job = e->id,
        .text = "image request",
    };
    struct control_reply reply = {0};
    if (control_ask(&reply, &request, NULL, NULL) == 0) control_reply_release(&reply);
}

static int print(const struct errand *e, struct error *err)
{
    struct json_write w;
    struct buf out;
    int rc = 0;
    if (!e->o->json) {
        for (int i = 0; i < e->written; i++) puts(e->paths[i]);
        if (!e->o->quiet) fprintf(stderr, "request %s cost %.2f kudos\n", e->id, e->kudos);
        return 0;
    }
    buf_init(&out, 1 << 20);
    json_write_start(&w, &out);
    json_write_object(&w, NULL);
    json_write_array(&w, "images");
    for (int i = 0; i < e->written; i++) json_write_text(&w, NULL, e->paths[i]);
    json_write_close(&w, ']');
    json_write_text(&w, "request", e->id);
    json_write_text(&w, "horde", e->client.url);
    json_write_number(&w, "kudos", e->kudos);
    json_write_close(&w, '}');
    rc = json_write_end(&w, err);
    if (!rc) fwrite(out.data, 1, out.length, stdout);
    buf_release(&out);
    return rc;
}

static int run(struct errand *e, struct error *err)
{
    int rc = ask(e, true, err);
    if (rc) return rc;
    if (!e->o->quiet) fprintf(stderr, "quote: %.2f kudos\n", e->kudos);
    if (e->o->dry_run) return 0;
    rc = ask(e, false, err);
    if (!rc) rc = wait_for_it(e, err);
    progress_end(&e->progress);
    if (!rc) rc = take_images(e, err);
    if (rc) return rc;
    book(e);
    rc = print(e, err);
    for (int i = 0; i < e->written && !rc && e->o->show; i++)
        rc = picture_show(e->paths[i], 0, 0, err);
    return rc;
}

int generate_on_horde(struct generate_options *o, struct error *err)
{
    struct errand *e = alloc_zero(1, sizeof *e);
    e->o = o;
    interrupted = 0;
    signal(SIGINT, on_interrupt);
    buf_init(&e->reply, 1 << 20);
    progress_start(&e->progress, o->quiet);
    int rc = horde_client_open(&e->client, o->config, o->horde_url, err);
    if (!rc) {
        rc = run(e, err);
        horde_client_close(&e->client);
    }
    progress_end(&e->progress);
    for (int i = 0; i < e->written; i++) free(e->paths[i]);
    buf_release(&e->reply);
    free(e);
    return rc;
}
