#include "cli/alchemy_horde.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/now.h"
#include "base/str.h"
#include "cli/control_client.h"
#include "image/codec.h"
#include "proto/horde_async.h"

#define WAIT_SECONDS_MAX (20 * 60)
#define SOURCE_BYTES_MAX (24u << 20)
#define TILE_PX 512

static volatile sig_atomic_t interrupted;

static void on_interrupt(int number)
{
    (void)number;
    if (interrupted++) _exit(130);
}

int alchemy_horde_open(struct alchemy_horde *a, const char *config_path, const char *url,
                       struct progress *progress, struct error *err)
{
    *a = (struct alchemy_horde){.progress = progress};
    int rc = horde_client_open(&a->client, config_path, url, err);
    if (rc) return rc;
    interrupted = 0;
    signal(SIGINT, on_interrupt);
    return 0;
}

void alchemy_horde_close(struct alchemy_horde *a)
{
    if (!a->client.curl) return;
    signal(SIGINT, SIG_DFL);
    horde_client_close(&a->client);
}

int64_t alchemy_horde_quote(const struct alchemy_horde *a, enum alchemy_form form, int width_px,
                            int height_px)
{
    int tiles = ((width_px + TILE_PX - 1) / TILE_PX) * ((height_px + TILE_PX - 1) / TILE_PX);
    return alchemy_price_milli(form, tiles, !a->fast_only);
}

/* ---- asking ---- */

static int ask(struct alchemy_horde *a, char request[HORDE_ID_BYTES], enum alchemy_form form,
               const struct pixels *picture, struct buf *reply, struct error *err)
{
    struct buf webp, body;
    struct horde_accepted accepted = {0};
    const char *name = alchemy_form_name(form);
    buf_init(&webp, SOURCE_BYTES_MAX);
    buf_init(&body, 2 * SOURCE_BYTES_MAX);
    int rc = codec_encode(&webp, IMAGE_WEBP, picture, 95, NULL, err);
    if (!rc) {
        struct horde_alchemy_async async = {
            .forms = &name,
            .form_count = 1,
            .source = {.data = webp.data, .length = webp.length},
            .slow_workers = !a->fast_only,
            .trusted_workers = a->trusted_only,
        };
        rc = horde_alchemy_async_format(&async, &body, err);
    }
    if (!rc)
        rc = horde_client_call(&a->client, "POST", "/api/v2/interrogate/async", &body, NULL, reply,
                               err);
    if (!rc) rc = horde_accepted_parse(&accepted, (char *)reply->data, reply->length, err);
    if (!rc) str_copy(request, HORDE_ID_BYTES, accepted.id);
    horde_accepted_release(&accepted);
    buf_release(&webp);
    buf_release(&body);
    return rc;
}

static int call_about(struct alchemy_horde *a, const char *method, const char *request,
                      struct buf *reply, struct error *err)
{
    char *path = alloc_printf("/api/v2/interrogate/status/%s", request);
    int rc = horde_client_call(&a->client, method, path, NULL, NULL, reply, err);
    free(path);
    return rc;
}

/* ---- waiting ---- */

/* 0 with *answer NULL: not yet. */
static int look(struct alchemy_horde *a, char **answer, const char *request, struct buf *reply,
                struct error *err)
{
    struct horde_alchemy_result r;
    int rc = call_about(a, "GET", request, reply, err);
    if (!rc) rc = horde_alchemy_result_parse(&r, (char *)reply->data, reply->length, err);
    if (rc) return rc;
    const char *state = r.count ? r.list[0].state : r.state;
    progress_show(a->progress, str_equal(state, "processing") ? "done by a worker" : "waiting", 0,
                  1);
    if (str_equal(state, "done") && r.count && r.list[0].result)
        *answer = alloc_string(r.list[0].result);
    else if (str_equal(state, "done"))
        rc = error_set(err, ERR_FORMAT, "the Horde says done and gave no answer");
    else if (str_equal(state, "faulted"))
        rc = error_set(err, ERR_REFUSED, "the workers failed at the picture");
    else if (str_equal(state, "cancelled"))
        rc = error_set(err, ERR_CANCELED, "the request was canceled at the Horde");
    horde_alchemy_result_release(&r);
    return rc;
}

static int wait_for_it(struct alchemy_horde *a, char **answer, const char *request,
                       struct buf *reply, struct error *err)
{
    double start = now_seconds();
    int failures = 0;
    *answer = NULL;
    for (;;) {
        if (interrupted) {
            call_about(a, "DELETE", request, reply, NULL);
            return error_set(err, ERR_CANCELED, "canceled at the Horde too");
        }
        int rc = look(a, answer, request, reply, err);
        if (rc && rc != ERR_NETWORK && rc != ERR_BUSY) return rc;
        if (rc && ++failures > 20) return rc;
        if (!rc) failures = 0;
        if (*answer) return 0;
        if (now_seconds() - start > WAIT_SECONDS_MAX) {
            call_about(a, "DELETE", request, reply, NULL);
            return error_set(err, ERR_BUSY, "no worker has taken request %s within 20 minutes",
                             request);
        }
        usleep(a->client.loopback ? 100000 : 2000000);
    }
}

/* The daemon, when one runs, books what was spent. */
static void book(struct alchemy_horde *a, const char *request, enum alchemy_form form,
                 int64_t milli)
{
    char text[80];
    snprintf(text, sizeof text, "alchemy request: %s", alchemy_form_name(form));
    struct control_request spent = {
        .kind = CONTROL_SPENT, .kudos_milli = milli, .job = request, .text = text};
    struct control_reply reply = {0};
    a->spent_milli += milli;
    if (control_ask(&reply, &spent, NULL, NULL) == 0) control_reply_release(&reply);
}

int alchemy_horde_run(struct alchemy_horde *a, char **answer, char request[HORDE_ID_BYTES],
                      enum alchemy_form form, const struct pixels *picture, struct error *err)
{
    struct buf reply;
    buf_init(&reply, 1 << 20);
    request[0] = '\0';
    int rc = ask(a, request, form, picture, &reply, err);
    if (!rc) rc = wait_for_it(a, answer, request, &reply, err);
    progress_end(a->progress);
    if (!rc) book(a, request, form, alchemy_horde_quote(a, form, picture->width, picture->height));
    buf_release(&reply);
    return rc;
}
