#include "proto/request.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/str.h"

const char *const request_qr_drawers[] = {"square",        "gapped square",   "circle", "rounded",
                                          "vertical bars", "horizontal bars", NULL};

void image_request_init(struct image_request *r)
{
    *r = (struct image_request){
        .prompt = alloc_string(""),
        .negative = alloc_string(""),
        .width_px = 512,
        .height_px = 512,
        .steps = 30,
        .cfg = 7.5,
        .sampler = SAMPLER_K_EULER_A,
        .schedule = SCHEDULE_NORMAL,
        .count = 1,
        .eta = NAN,
        .hires_denoise = NAN,
        .denoise = 1.0,
        .control_strength = 1.0,
        .qr = {.x_px = -1, .y_px = -1, .border_modules = 1},
    };
}

void image_request_release(struct image_request *r)
{
    free(r->model);
    free(r->prompt);
    free(r->negative);
    free(r->source.data);
    free(r->mask.data);
    for (int i = 0; i < r->lora_count; i++) {
        free(r->loras[i].path);
        free(r->loras[i].name);
    }
    for (int i = 0; i < r->embedding_count; i++) {
        free(r->embeddings[i].path);
        free(r->embeddings[i].name);
    }
    free(r->control_type);
    free(r->control_path);
    free(r->control_image.data);
    for (int i = 0; i < r->more_control_count; i++) {
        free(r->more_controls[i].type);
        free(r->more_controls[i].path);
        free(r->more_controls[i].image.data);
    }
    free(r->qr.text);
    free(r->qr.prompt);
    memset(r, 0, sizeof *r);
}

static int check_side(const char *name, int px, struct error *err)
{
    if (px < REQUEST_SIDE_MIN_PX || px > REQUEST_SIDE_MAX_PX || px % 64)
        return error_set(err, ERR_INVALID, "%s %d is not a multiple of 64 from %d to %d pixels",
                         name, px, REQUEST_SIDE_MIN_PX, REQUEST_SIDE_MAX_PX);
    return 0;
}

static int check_number(const char *name, double value, double least, double most,
                        struct error *err)
{
    if (!(value >= least && value <= most))
        return error_set(err, ERR_INVALID, "%s %g is not between %g and %g", name, value, least,
                         most);
    return 0;
}

static int check_text(const char *name, const char *text, struct error *err)
{
    size_t length = strlen(text);
    if (length > REQUEST_PROMPT_BYTES_MAX)
        return error_set(err, ERR_INVALID, "the %s has %zu bytes, the limit is %d", name, length,
                         REQUEST_PROMPT_BYTES_MAX);
    if (!str_is_utf8(text, length))
        return error_set(err, ERR_INVALID, "the %s is not valid UTF-8", name);
    return 0;
}

static int check_controls(const struct image_request *r, struct error *err)
{
    int rc = check_number("control strength", r->control_strength, 0, 3, err);
    for (int i = 0; i < r->more_control_count && !rc; i++)
        rc = check_number("control strength", r->more_controls[i].strength, 0, 3, err);
    return rc;
}

static int check_qr(const struct request_qr *q, struct error *err)
{
    if (!q->text) return 0;
    size_t length = strlen(q->text);
    if (length < 1 || length > REQUEST_QR_BYTES_MAX)
        return error_set(err, ERR_INVALID, "the QR code's text has %zu bytes, 1 to %d fit", length,
                         REQUEST_QR_BYTES_MAX);
    return check_number("QR border", q->border_modules, 0, 100, err);
}

int image_request_check(const struct image_request *r, struct error *err)
{
    int rc = 0;
    if (!rc) rc = check_side("width", r->width_px, err);
    if (!rc) rc = check_side("height", r->height_px, err);
    if (!rc) rc = check_number("steps", r->steps, 1, REQUEST_STEPS_MAX, err);
    if (!rc) rc = check_number("cfg", r->cfg, 0, REQUEST_CFG_MAX, err);
    if (!rc) rc = check_number("count", r->count, 1, REQUEST_COUNT_MAX, err);
    if (!rc) rc = check_number("clip skip", r->clip_skip, 0, REQUEST_CLIP_SKIP_MAX, err);
    if (!rc) rc = check_number("denoise", r->denoise, 0.01, 1, err);
    if (!rc) rc = check_controls(r, err);
    if (!rc) rc = check_qr(&r->qr, err);
    if (!rc) rc = check_number("variation strength", r->variation_strength, 0, 1, err);
    if (!rc) rc = check_number("guidance rescale", r->guidance_rescale, 0, 1, err);
    if (!rc && !isnan(r->hires_denoise))
        rc = check_number("hires denoise", r->hires_denoise, 0.01, 1, err);
    if (!rc && !isnan(r->eta)) rc = check_number("eta", r->eta, 0, 100, err);
    for (int i = 0; i < r->lora_count && !rc; i++) {
        rc = check_number("LoRA strength", r->loras[i].model_strength, -10, 10, err);
        if (!rc) rc = check_number("LoRA text strength", r->loras[i].clip_strength, -10, 10, err);
    }
    if (!rc) rc = check_text("prompt", r->prompt, err);
    if (!rc) rc = check_text("negative prompt", r->negative, err);
    return rc;
}
