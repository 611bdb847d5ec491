#include "diffusion/pipeline.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/free_memory.h"
#include "base/log.h"
#include "base/now.h"
#include "base/str.h"
#include "diffusion/control/frame.h"
#include "diffusion/hires.h"
#include "diffusion/pipeline_run.h"
#include "diffusion/preview.h"
#include "diffusion/sample/schedule.h"
#include "diffusion/vae/taesd.h"

#define NOTES_MAX 64

void run_note(struct run *run, const char *format, ...)
{
    char text[600];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    struct pipeline_result *result = run->result;
    if (result->note_count == NOTES_MAX) return;
    result->notes =
        alloc_grow(result->notes, (size_t)result->note_count + 1, sizeof *result->notes);
    result->notes[result->note_count++] = alloc_string(text);
}

void run_progress(struct run *run, enum pipeline_phase phase, int step, int steps)
{
    if (!run->hooks || !run->hooks->progress) return;
    struct pipeline_progress p = {phase, step, steps, now_seconds() - run->start};
    run->hooks->progress(run->hooks->context, &p);
}

bool run_canceled(void *context)
{
    const struct run *run = context;
    return run->hooks && run->hooks->canceled && run->hooks->canceled(run->hooks->context);
}

int run_stopped(struct error *err)
{
    return error_set(err, ERR_CANCELED, "stopped on request");
}

static int to_pixels(struct pixels *p, const float *rgb, int width, int height, struct error *err);

#define LEAN_TILE 32 /* latents a side */

static int vae_tile(const struct run *run)
{
    return run->lean ? LEAN_TILE : VAE_TILE_AUTO;
}

/* ---- sampling ---- */

/* By the tiny decoder when there is one; what cannot be shown is not. */
static void show_preview(struct run *run, const float *latent)
{
    struct model *m = run->m;
    struct pixels picture = {0};
    int w = run->latent_width, h = run->latent_height, f = vae_factor(&m->vae), rc = 1;
    float *rgb = m->taesd ? alloc_try((size_t)(w * f) * (size_t)(h * f), 3 * sizeof *rgb) : NULL;
    if (rgb) rc = taesd_decode_picture(m->taesd, m->memory, m->vae_dtype, latent, h, w, rgb, NULL);
    if (!rc) rc = to_pixels(&picture, rgb, w * f, h * f, NULL);
    if (!rgb) rc = preview_linear(&picture, m->info.family, latent, w, h, NULL);
    if (!rc) run->hooks->preview(run->hooks->context, &picture);
    pixels_release(&picture);
    free(rgb);
}

static int step_done(void *context, int step, int steps, const float *denoised, struct error *err)
{
    struct run *run = context;
    int done = run->steps_done + step + 1;
    run->pass_steps = steps;
    int every = run->hooks && run->hooks->preview ? run->hooks->preview_every : 0;
    if (every && done % every == 0) show_preview(run, denoised);
    run_progress(run, PHASE_SAMPLE, done, run->steps_all > done ? run->steps_all : done);
    return run_canceled(run) ? run_stopped(err) : 0;
}

static void start_guidance(const struct run *run, const struct sampling_pass *pass,
                           struct guidance *g, int64_t factor)
{
    *g = (struct guidance){.model = run->m,
                           .positive = pass->positive ? pass->positive : &run->positive,
                           .negative = run->guided ? &run->negative : NULL,
                           .scale = run->r->cfg,
                           .rescale = run->r->guidance_rescale,
                           .images = run->r->count,
                           .lean = run->lean,
                           .h = pass->height / factor,
                           .w = pass->width / factor,
                           .sizes = {pass->height, pass->width, 0, 0, pass->height, pass->width},
                           .extra = pass->extra,
                           .canceled = run_canceled,
                           .canceled_context = (void *)run};
}

/* What one sampling needs while it runs. */
struct sampling {
    struct guidance g;
    struct sigmas sigmas;
    struct noise noise;
    size_t each, count; /* numbers of an image and of all */
    float *first;       /* noise of the start */
    float *known;       /* noise over what an inpainting run knows: `first`, or its own */
    double *times;      /* of all sigmas */
    struct guidance_control controls[REQUEST_CONTROLS_MAX];
    float *pictures[REQUEST_CONTROLS_MAX];
    float *x;
};

static void sampling_release(struct sampling *s)
{
    guidance_close(&s->g);
    sigmas_release(&s->sigmas);
    free(s->times);
    noise_release(&s->noise);
    if (s->known != s->first) free(s->known);
    free(s->first);
    for (int i = 0; i < REQUEST_CONTROLS_MAX; i++) free(s->pictures[i]);
    free(s->x);
}

/* A stream of noise for each request of the run; `more`: added to their seeds. */
static void start_noise(const struct run *run, struct noise *noise, enum noise_device device,
                        uint64_t more)
{
    noise_init(noise, device, (run->shares ? run->shares[0].seed : run->r->seed) + more);
    if (run->shares) noise->images = run->shares[0].count;
    for (int i = 1; i < run->share_count; i++)
        noise_add(noise, run->shares[i].seed + more, run->shares[i].count);
}

static int draw_noise(const struct run *run, struct sampling *s, struct noise *noise, float *to,
                      struct error *err)
{
    const struct image_request *r = run->r;
    return noise_first(noise, to, r->count, s->each, r->variation_seed, r->variation_strength, err);
}

/* ComfyUI's DDIM is euler but for this: known areas are noised by a generator of seed + 1. */
static int draw_known(const struct run *run, struct sampling *s, struct error *err)
{
    struct noise noise;
    s->known = s->first;
    if (run->r->sampler != SAMPLER_DDIM) return 0;
    s->known = alloc_try(s->count, sizeof *s->known);
    if (!s->known) return error_set(err, ERR_NO_MEMORY, "no memory for latents");
    start_noise(run, &noise, NOISE_CPU, 1);
    int rc = noise_first(&noise, s->known, run->r->count, s->each, 0, 0, err);
    noise_release(&noise);
    return rc;
}

/* Only the steps that the pass is for. */
static void cut_steps(struct sigmas *s, const struct sampling_pass *pass)
{
    int steps = s->count - 1;
    int last = pass->last_step > 0 && pass->last_step < steps ? pass->last_step : steps;
    int first = pass->first_step < last ? pass->first_step : last;
    memmove(s->value, s->value + first, (size_t)(last - first + 1) * sizeof *s->value);
    s->count = last - first + 1;
}

static int use_controls(const struct sampling_pass *pass, struct sampling *s, struct error *err)
{
    int rc = 0;
    for (int i = 0; i < pass->control_count && !rc; i++) {
        const struct run_control *c = &pass->controls[i];
        if (!c->picture)
            rc = control_hint(&s->pictures[i], &c->map, pass->width, pass->height, err);
        s->controls[i] =
            (struct guidance_control){.net = c->net,
                                      .picture = c->picture ? c->picture : s->pictures[i],
                                      .strength = c->strength};
    }
    s->g.controls = s->controls;
    s->g.control_count = pass->control_count;
    return rc;
}

/* What the network is told of each step, so that it can be computed at once. */
static void know_times(struct sampling *s, const struct noise_levels *levels)
{
    s->times = alloc_zero((size_t)s->sigmas.count + 1, sizeof *s->times);
    s->g.times = s->times;
    for (int i = 0; i < s->sigmas.count; i++)
        if (s->sigmas.value[i] > 0)
            s->times[s->g.time_count++] = noise_levels_timestep(levels, s->sigmas.value[i]);
}

static int sampling_prepare(struct run *run, const struct sampling_pass *pass, struct sampling *s,
                            struct error *err)
{
    const struct image_request *r = run->r;
    struct model *m = run->m;
    start_guidance(run, pass, &s->g, vae_factor(&m->vae));
    s->each = (size_t)(m->unet.config.out_channels * s->g.h * s->g.w);
    s->count = s->each * (size_t)r->count;
    s->first = alloc_try(s->count, sizeof *s->first);
    s->x = alloc_try(s->count, sizeof *s->x);
    if (!s->first || !s->x) return error_set(err, ERR_NO_MEMORY, "no memory for latents");
    int rc = schedule_for_run(&s->sigmas, pass->schedule, r->sampler, &m->levels, m->info.family,
                              pass->steps, pass->denoise, err);
    if (!rc) cut_steps(&s->sigmas, pass);
    if (!rc) know_times(s, &m->levels);
    if (!rc) rc = draw_noise(run, s, &s->noise, s->first, err);
    if (!rc && pass->mask) rc = draw_known(run, s, err);
    if (!rc) rc = use_controls(pass, s, err);
    if (rc) return rc;
    if (pass->mask) {
        s->g.mask = pass->mask;
        s->g.latent = pass->latent;
        s->g.noise = s->known;
    }
    float factor = pass->noisy ? 0 : (float)schedule_noise_factor(&m->levels, s->sigmas.value[0]);
    for (size_t i = 0; i < s->count; i++)
        s->x[i] = s->first[i] * factor + (pass->latent ? pass->latent[i] : 0);
    return guidance_open(&s->g, err);
}

int sampling_pass_run(struct run *run, const struct sampling_pass *pass, float **latents,
                      struct error *err)
{
    struct sampling s = {0};
    run->latent_width = pass->width / vae_factor(&run->m->vae);
    run->latent_height = pass->height / vae_factor(&run->m->vae);
    start_noise(run, &s.noise, run->r->noise, 0);
    int rc = sampling_prepare(run, pass, &s, err);
    if (!rc) {
        struct sampler_run sampler = {.denoiser = {&s.g, guidance_denoise},
                                      .x = s.x,
                                      .count = s.count,
                                      .sigmas = s.sigmas.value,
                                      .sigma_count = s.sigmas.count,
                                      .noise = &s.noise,
                                      .eta = run->r->eta,
                                      .hook_context = run,
                                      .step_done = step_done};
        if (s.sigmas.count > 1) rc = sampler_run(run->r->sampler, &sampler, err);
        run->steps_done += run->pass_steps;
        if (s.g.peak_bytes > run->result->peak_bytes) run->result->peak_bytes = s.g.peak_bytes;
    }
    if (!rc) {
        *latents = s.x;
        s.x = NULL;
    }
    sampling_release(&s);
    return rc;
}

/* ---- from a source picture to the start of sampling ---- */

struct start {
    float *latent; /* [images,c,h,w] */
    float *mask;   /* [h,w] */
    float *extra;  /* [5,h,w] */
};

static void start_release(struct start *s)
{
    free(s->latent);
    free(s->mask);
    free(s->extra);
}

int run_encode_picture(struct run *run, const float *rgb, int width, int height, float *latent,
                       struct error *err)
{
    struct model *m = run->m;
    if (!m->vae.config.encoder)
        return error_set(err, ERR_UNSUPPORTED,
                         "%s: its VAE has no encoder, which a source image "
                         "needs",
                         m->info.path);
    return vae_encode_picture(&m->vae, m->memory, m->vae_dtype, vae_tile(run), rgb, 1, height,
                              width, latent, &run->result->peak_bytes, err);
}

/* What an inpainting network sees besides the noise: mask, and the picture without what is new. */
static int make_extra(struct run *run, const struct source_picture *s, const float *mask,
                      size_t area, float *extra, struct error *err)
{
    static const float blank[4] = {.8223f, -.6876f, .6364f, .1380f}; /* a grey picture's latent */
    for (size_t i = 0; i < area; i++) {
        extra[i] = mask ? mask[i] : 1;
        for (size_t k = 0; k < 4; k++)
            extra[(k + 1) * area + i] = (float)(blank[k] * run->m->vae.config.scale);
    }
    if (!mask) return 0;
    float *masked = source_picture_masked(s);
    if (!masked) return error_set(err, ERR_NO_MEMORY, "no memory for the masked picture");
    int rc = run_encode_picture(run, masked, s->width, s->height, extra + area, err);
    free(masked);
    return rc;
}

static int make_start(struct run *run, int width, int height, struct start *start,
                      struct error *err)
{
    const struct image_request *r = run->r;
    struct model *m = run->m;
    int factor = vae_factor(&m->vae);
    size_t area = (size_t)(width / factor) * (size_t)(height / factor);
    size_t each = area * (size_t)m->unet.config.out_channels;
    struct source_picture s = {0};
    int rc = 0;
    *start = (struct start){0};
    if (m->info.inpainting) start->extra = alloc_zero(5 * area, sizeof *start->extra);
    if (r->source_use != SOURCE_NONE) {
        struct error differs;
        rc = source_picture_open(&s, r, width, height, err);
        if (!rc && source_picture_differs(&s, &differs))
            run_note(run, "source_mask:parse_failed:size\t%s", differs.text);
        start->latent = alloc_zero(each * (size_t)r->count, sizeof *start->latent);
        if (!rc) rc = run_encode_picture(run, s.rgb, width, height, start->latent, err);
        for (int i = 1; !rc && i < r->count; i++)
            memcpy(start->latent + (size_t)i * each, start->latent, each * sizeof *start->latent);
        if (!rc && s.mask) {
            start->mask = alloc_zero(area, sizeof *start->mask);
            source_picture_latent_mask(&s, factor, start->mask);
        }
    }
    if (!rc && start->extra) rc = make_extra(run, &s, start->mask, area, start->extra, err);
    source_picture_release(&s);
    if (rc) {
        start_release(start);
        *start = (struct start){0};
    }
    return rc;
}

static int draw(struct run *run, int width, int height, float **latents, struct error *err)
{
    struct start start;
    int rc = make_start(run, width, height, &start, err);
    if (rc) return rc;
    struct sampling_pass pass = {.width = width,
                                 .height = height,
                                 .steps = run->r->steps,
                                 .denoise = run->r->source_use == SOURCE_NONE ? 1 : run->r->denoise,
                                 .schedule = run->r->schedule,
                                 .controls = run->controls,
                                 .control_count = run->control_count,
                                 .latent = start.latent,
                                 .mask = start.mask,
                                 .extra = start.extra};
    rc = sampling_pass_run(run, &pass, latents, err);
    start_release(&start);
    return rc;
}

static int draw_twice(struct run *run, int first_width, int first_height, float **latents,
                      struct error *err)
{
    const struct image_request *r = run->r;
    int64_t f = vae_factor(&run->m->vae), planes = run->m->unet.config.out_channels * r->count;
    float *small, *large;
    int rc = draw(run, first_width, first_height, &small, err);
    if (rc) return rc;
    int64_t h = r->height_px / f, w = r->width_px / f;
    large = alloc_try((size_t)(planes * h * w), sizeof *large);
    if (large) hires_enlarge(large, h, w, small, planes, first_height / f, first_width / f);
    free(small);
    if (!large) return error_set(err, ERR_NO_MEMORY, "no memory for latents");
    struct sampling_pass pass = {.width = r->width_px,
                                 .height = r->height_px,
                                 .steps = hires_steps(run->m->info.family, r),
                                 .denoise = hires_denoise(r),
                                 .schedule = SCHEDULE_SIMPLE,
                                 .latent = large};
    rc = sampling_pass_run(run, &pass, latents, err);
    free(large);
    return rc;
}

static int sample(struct run *run, float **latents, struct error *err)
{
    double from = now_seconds();
    const struct image_request *r = run->r;
    enum family family = run->m->info.family;
    int width = 0, height = 0;
    bool twice = !run->m->info.inpainting && hires_first_size(family, r, &width, &height);
    run->steps_all = r->steps + (twice ? hires_steps(family, r) : 0);
    run_progress(run, PHASE_SAMPLE, 0, run->steps_all);
    int rc = r->qr.text ? run_draw_qr(run, latents, err)
             : twice    ? draw_twice(run, width, height, latents, err)
                        : draw(run, r->width_px, r->height_px, latents, err);
    run->result->sample_seconds = now_seconds() - from;
    return rc;
}

/* ---- pixels ---- */

static bool all_finite(const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!isfinite(x[i])) return false;
    return true;
}

static int decode_one(struct run *run, const float *latent, float *rgb, struct error *err)
{
    struct model *m = run->m;
    int64_t f = vae_factor(&m->vae), h = run->r->height_px / f, w = run->r->width_px / f;
    size_t count = (size_t)run->r->height_px * (size_t)run->r->width_px * 3;
    /* a picture that closes on itself cannot be cut */
    int tile = run->r->tiling ? 0 : vae_tile(run);
    enum dtype tries[2] = {m->vae_dtype, DTYPE_F32};
    if (m->taesd)
        return taesd_decode_picture(m->taesd, m->memory, m->vae_dtype, latent, h, w, rgb, err);
    for (int i = 0; i < 2; i++) {
        if (i && tries[1] == tries[0]) break;
        int rc = vae_decode_picture(&m->vae, m->memory, tries[i], tile, latent, 1, h, w, rgb,
                                    &run->result->peak_bytes, err);
        if (rc || all_finite(rgb, count)) return rc;
    }
    return error_set(err, ERR_FORMAT, "%s drew something that is not a number", m->info.path);
}

static int to_pixels(struct pixels *p, const float *rgb, int width, int height, struct error *err)
{
    int rc = pixels_new(p, width, height, 3, err);
    for (int64_t i = 0; !rc && i < (int64_t)width * height * 3; i++) {
        float v = fminf(fmaxf(rgb[i] * 0.5f + 0.5f, 0), 1);
        p->data[i] = (uint8_t)lrintf(v * 255);
    }
    return rc;
}

static int decode(struct run *run, const float *latents, struct error *err)
{
    double from = now_seconds();
    struct model *m = run->m;
    int width = run->r->width_px, height = run->r->height_px, f = vae_factor(&m->vae);
    size_t each = (size_t)m->unet.config.out_channels * (size_t)(width / f) * (size_t)(height / f);
    float *rgb = alloc_try((size_t)width * (size_t)height, 3 * sizeof *rgb);
    int rc = rgb ? 0 : error_set(err, ERR_NO_MEMORY, "no memory for a picture");
    run->result->images = alloc_zero((size_t)run->r->count, sizeof *run->result->images);
    m->vae.circular = run->r->tiling;
    for (int i = 0; !rc && i < run->r->count; i++) {
        run_progress(run, PHASE_DECODE, i, run->r->count);
        rc = decode_one(run, latents + (size_t)i * each, rgb, err);
        if (!rc && run->r->transparent)
            rc = run_decode_alpha(run, rgb, latents + (size_t)i * each, &run->result->images[i],
                                  err);
        else if (!rc)
            rc = to_pixels(&run->result->images[i], rgb, width, height, err);
        if (!rc) run->result->count++;
        if (!rc && run_canceled(run)) rc = run_stopped(err);
    }
    m->vae.circular = false;
    free(rgb);
    run->result->decode_seconds = now_seconds() - from;
    return rc;
}

/* What the ControlNet would have seen, instead of a picture. */
static int return_map(struct run *run)
{
    run->result->images = alloc_zero(1, sizeof *run->result->images);
    run->result->images[0] = run->controls[0].map;
    run->result->count = 1;
    run->controls[0].map = (struct pixels){0};
    return 0;
}

static void release(struct run *run)
{
    run_release_text(run);
    run_release_controls(run);
    run->m->unet.circular = false;
}

/* Passes fail with ERR_NO_MEMORY where the system would end the process instead. */
#define SPARE_BYTES (192u << 20)

static void limit_memory(struct model *m)
{
    size_t left = m->device->host_memory ? free_memory_bytes() : SIZE_MAX;
    if (left == SIZE_MAX) return;
    left += m->memory->peak_bytes; /* touched already */
    m->memory->limit_bytes = left > 2 * SPARE_BYTES ? left - SPARE_BYTES : SPARE_BYTES;
}

static int run_once(const struct run *asked, bool lean, struct pipeline_result *result,
                    struct error *err)
{
    struct pipeline_result made = {0};
    struct model *model = asked->m;
    const struct image_request *request = asked->r;
    struct run run = {.m = model,
                      .r = request,
                      .hooks = asked->hooks,
                      .shares = asked->shares,
                      .share_count = asked->share_count,
                      .result = &made,
                      .start = now_seconds(),
                      .guided = request->cfg != 1 && !model->unet.config.guidance,
                      .lean = lean};
    float *latents = NULL;
    model->unet.circular = request->tiling;
    model->unet.guidance_scale = request->cfg;
    limit_memory(model);
    int rc = run_open_controls(&run, err);
    if (!rc && request->control_type && request->return_control_map) {
        rc = return_map(&run);
    } else {
        if (!rc) rc = run_prepare_prompt(&run, err);
        if (!rc) rc = run_use_loras(&run, err);
        if (!rc) rc = run_encode_text(&run, err);
        if (!rc) rc = sample(&run, &latents, err);
        if (!rc) rc = decode(&run, latents, err);
    }
    free(latents);
    release(&run);
    if (rc) {
        pipeline_result_release(&made);
        return rc;
    }
    *result = made;
    return 0;
}

/* All that this model and its host could do without. */
static void make_room(struct model *m, const struct pipeline_hooks *hooks)
{
    record_cache_release(&m->steps);
    pass_memory_trim(m->memory);
    pass_memory_trim(m->context);
    if (hooks && hooks->make_room) hooks->make_room(hooks->context);
}

static int check_shares(const struct run *run, struct error *err)
{
    int sum = 0;
    for (int i = 0; i < run->share_count; i++) sum += run->shares[i].count;
    if (sum != run->r->count)
        return error_set(err, ERR_INVALID, "%d images asked, %d shared out", run->r->count, sum);
    if (run->r->sampler == SAMPLER_K_DPM_ADAPTIVE)
        return error_set(err, ERR_INVALID, "k_dpm_adaptive draws for one request at a time");
    return 0;
}

static int run_or_run_lean(const struct run *run, struct pipeline_result *result, struct error *err)
{
    const struct image_request *request = run->r;
    struct error first;
    int rc = image_request_check(request, err);
    if (!rc && run->shares) rc = check_shares(run, err);
    if (rc) return rc;
    rc = run_once(run, false, result, &first);
    if (rc && rc != ERR_NO_MEMORY && err) *err = first;
    /* several requests go back to their engine, which asks for less: each by itself */
    if (rc == ERR_NO_MEMORY && run->shares && err) *err = first;
    if (rc != ERR_NO_MEMORY || run->shares) return rc;
    log_warn("pipeline.lean", "width=%d height=%d count=%d reason=\"%s\"", request->width_px,
             request->height_px, request->count, first.text);
    make_room(run->m, run->hooks);
    return run_once(run, true, result, err);
}

int pipeline_run(struct model *model, const struct image_request *request,
                 const struct pipeline_hooks *hooks, struct pipeline_result *result,
                 struct error *err)
{
    struct run run = {.m = model, .r = request, .hooks = hooks};
    return run_or_run_lean(&run, result, err);
}

int pipeline_run_shared(struct model *model, const struct image_request *request,
                        const struct pipeline_share *shares, int share_count,
                        const struct pipeline_hooks *hooks, struct pipeline_result *result,
                        struct error *err)
{
    struct run run = {
        .m = model, .r = request, .hooks = hooks, .shares = shares, .share_count = share_count};
    return run_or_run_lean(&run, result, err);
}

void pipeline_result_release(struct pipeline_result *result)
{
    for (int i = 0; i < result->count; i++) pixels_release(&result->images[i]);
    free(result->images);
    for (int i = 0; i < result->note_count; i++) free(result->notes[i]);
    free(result->notes);
    memset(result, 0, sizeof *result);
}
