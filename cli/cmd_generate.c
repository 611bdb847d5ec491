/* cmd_generate.c - pictures made on this machine, by an engine of our own. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/json_write.h"
#include "base/now.h"
#include "base/str.h"
#include "cli/cmd_generate_horde.h"
#include "cli/command.h"
#include "cli/generate_options.h"
#include "cli/local_engine.h"
#include "cli/picture.h"
#include "cli/progress.h"
#include "image/provenance.h"

#define JOB "local"

struct run {
    struct generate_options options;
    struct local_engine engine;
    struct progress progress;
    char family[64];
    char *paths[REQUEST_COUNT_MAX];
    int written;
};

/* Loads the model so that its family and a refusal are known before anything is computed. */
static int load_model(struct run *r, struct error *err)
{
    struct engine_msg m;
    engine_msg_init(&m, ENGINE_LOAD, r->engine.launch_id, JOB);
    m.load.model = m.load.path = r->options.request.model;
    m.load.vae_path = r->options.vae;
    m.load.precision = r->options.precision;
    int rc = local_engine_send(&r->engine, &m, err);
    if (rc) return rc;
    progress_show(&r->progress, "load", 0, 0);
    rc = local_engine_next(&r->engine, &m, JOB, err);
    if (rc) return rc;
    if (m.kind == ENGINE_LOADED) str_copy(r->family, sizeof r->family, m.loaded.family);
    engine_msg_release(&m);
    return 0;
}

static int start_job(struct run *r, struct error *err)
{
    struct engine_msg m;
    engine_msg_init(&m, ENGINE_GENERATE, r->engine.launch_id, JOB);
    image_request_release(&m.generate.request);
    m.generate.request = r->options.request; /* borrowed for the encoding */
    m.generate.format =
        str_ends(r->options.output, ".webp") ? ENGINE_FORMAT_WEBP : ENGINE_FORMAT_PNG;
    m.generate.quality = 95;
    m.generate.preview_every_steps = r->options.preview ? r->options.preview_every : 0;
    return local_engine_send(&r->engine, &m, err);
}

/* Into the file, whole at every moment; or on the terminal. A preview that fails is no failure. */
static void show_preview(struct run *r, const struct blob *png)
{
    bool drawn = str_equal(r->options.preview, "-");
    char *path = drawn ? alloc_printf("%s.preview.png", r->options.output)
                       : alloc_string(r->options.preview);
    char *fresh = alloc_printf("%s.new", path);
    struct buf b;
    buf_init(&b, FRAME_ENGINE_MAX);
    int rc = buf_append(&b, png->data, png->length, NULL);
    if (!rc) rc = buf_write_file(&b, fresh, 0644, NULL);
    if (!rc && rename(fresh, path) == 0 && drawn) {
        progress_end(&r->progress);
        picture_show(path, 32, 0, NULL);
        fflush(stdout);
        unlink(path);
    }
    buf_release(&b);
    free(fresh);
    free(path);
}

static int wait_for_result(struct run *r, struct engine_msg *m, struct error *err)
{
    for (;;) {
        int rc = local_engine_next(&r->engine, m, JOB, err);
        if (rc) return rc;
        if (m->kind == ENGINE_RESULT) return 0;
        if (m->kind == ENGINE_PROGRESS && m->progress.preview.data)
            show_preview(r, &m->progress.preview);
        if (m->kind == ENGINE_PROGRESS)
            progress_show(&r->progress, engine_phase_name(m->progress.phase), m->progress.step,
                          m->progress.steps);
        engine_msg_release(m);
    }
}

char *generate_path(const char *output, int index)
{
    if (index == 0) return alloc_string(output);
    const char *dot = strrchr(output, '.');
    return alloc_printf("%.*s-%d%s", (int)(dot - output), output, index + 1, dot);
}

static void tell_loras(struct provenance *p, const struct image_request *q)
{
    struct buf b;
    buf_init(&b, 1 << 16);
    for (int i = 0; i < q->lora_count; i++)
        buf_printf(&b, NULL, "%s%s: %g", i ? ", " : "", q->loras[i].name,
                   q->loras[i].model_strength);
    if (b.length) provenance_set(p, PROVENANCE_LORAS, "%s", (char *)b.data);
    buf_release(&b);
}

static void tell(struct provenance *p, const struct run *r, const struct engine_result *result,
                 int index)
{
    const struct image_request *q = &r->options.request;
    const struct engine_image *image = &result->images[index];
    const char *slash = strrchr(q->model, '/');
    double seconds = 0;
    char when[25];
    for (int i = 0; i < ENGINE_PHASE_COUNT; i++) seconds += result->seconds[i];
    now_format_utc(when, now_wall_ms());
    provenance_set(p, PROVENANCE_PROMPT, "%s", q->prompt);
    provenance_set(p, PROVENANCE_NEGATIVE, "%s", q->negative);
    provenance_set(p, PROVENANCE_STEPS, "%d", q->steps);
    provenance_set(p, PROVENANCE_SAMPLER, "%s", sampler_name(q->sampler));
    provenance_set(p, PROVENANCE_SCHEDULE, "%s", schedule_name(q->schedule));
    provenance_set(p, PROVENANCE_CFG, "%g", q->cfg);
    provenance_set(p, PROVENANCE_SEED, "%llu", (unsigned long long)q->seed);
    provenance_set(p, PROVENANCE_SIZE, "%dx%d", image->width_px, image->height_px);
    if (q->clip_skip) provenance_set(p, PROVENANCE_CLIP_SKIP, "%d", q->clip_skip);
    if (q->source_use != SOURCE_NONE) provenance_set(p, PROVENANCE_DENOISE, "%g", q->denoise);
    if (q->count > 1) provenance_set(p, PROVENANCE_BATCH, "%d", index);
    provenance_set(p, PROVENANCE_CREATED, "%s", when);
    provenance_set(p, PROVENANCE_MODEL, "%s", slash && slash[1] ? slash + 1 : q->model);
    if (result->model_sha256 && *result->model_sha256)
        provenance_set(p, PROVENANCE_MODEL_SHA256, "%s", result->model_sha256);
    provenance_set(p, PROVENANCE_MODEL_FAMILY, "%s", r->family);
    tell_loras(p, q);
    provenance_set(p, PROVENANCE_PROGRAM, "Kiln %s", KILN_VERSION);
    provenance_set(p, PROVENANCE_KERNELS, "%s", result->kernels);
    provenance_set(p, PROVENANCE_DEVICE, "%s", result->device);
    provenance_set(p, PROVENANCE_SECONDS, "%.2f", seconds);
    if (!isnan(result->joules)) provenance_set(p, PROVENANCE_JOULES, "%.0f", result->joules);
    provenance_set(p, PROVENANCE_ENERGY_SOURCE, "%s", result->energy_source);
}

static int write_image(struct run *r, const struct engine_result *result, int index,
                       struct error *err)
{
    const struct blob *bytes = &result->images[index].bytes;
    struct provenance p;
    struct image_text text = {0};
    struct buf out;
    provenance_init(&p);
    buf_init(&out, FRAME_ENGINE_MAX);
    int rc;
    if (r->options.no_provenance) {
        rc = buf_append(&out, bytes->data, bytes->length, err);
    } else {
        tell(&p, r, result, index);
        provenance_text(&p, &text);
        rc = codec_set_text(&out, "from the engine", bytes->data, bytes->length, &text, err);
    }
    char *path = generate_path(r->options.output, index);
    if (!rc) rc = buf_write_file(&out, path, 0644, err);
    if (rc)
        free(path);
    else
        r->paths[r->written++] = path;
    image_text_release(&text);
    provenance_release(&p);
    buf_release(&out);
    return rc;
}

static int print_json(const struct run *r, const struct engine_result *result, struct error *err)
{
    const struct image_request *q = &r->options.request;
    struct json_write w;
    struct buf out;
    buf_init(&out, 1 << 20);
    json_write_start(&w, &out);
    json_write_object(&w, NULL);
    json_write_array(&w, "images");
    for (int i = 0; i < r->written; i++) {
        json_write_object(&w, NULL);
        json_write_text(&w, "path", r->paths[i]);
        json_write_int(&w, "width", result->images[i].width_px);
        json_write_int(&w, "height", result->images[i].height_px);
        json_write_int(&w, "batch_index", i);
        json_write_close(&w, '}');
    }
    json_write_close(&w, ']');
    json_write_text(&w, "model", q->model);
    json_write_text(&w, "model_sha256", result->model_sha256);
    json_write_text(&w, "family", r->family);
    json_write_uint(&w, "seed", q->seed);
    json_write_int(&w, "steps", q->steps);
    json_write_number(&w, "cfg", q->cfg);
    json_write_text(&w, "sampler", sampler_name(q->sampler));
    json_write_text(&w, "schedule", schedule_name(q->schedule));
    json_write_text(&w, "device", result->device);
    json_write_text(&w, "kernels", result->kernels);
    json_write_object(&w, "seconds");
    for (int i = 0; i < ENGINE_PHASE_COUNT; i++)
        if (result->seconds[i] > 0)
            json_write_number(&w, engine_phase_name((enum engine_phase)i), result->seconds[i]);
    json_write_close(&w, '}');
    json_write_number(&w, "joules", result->joules);
    json_write_text(&w, "energy_source", result->energy_source);
    json_write_int(&w, "peak_bytes", result->peak_bytes);
    json_write_array(&w, "notes");
    for (int i = 0; i < result->note_count; i++) json_write_text(&w, NULL, result->notes[i]);
    json_write_close(&w, ']');
    json_write_close(&w, '}');
    int rc = json_write_end(&w, err);
    if (!rc) fwrite(out.data, 1, out.length, stdout);
    buf_release(&out);
    return rc;
}

static void print_plain(const struct run *r, const struct engine_result *result)
{
    double seconds = 0;
    for (int i = 0; i < ENGINE_PHASE_COUNT; i++) seconds += result->seconds[i];
    for (int i = 0; i < r->written; i++) puts(r->paths[i]);
    for (int i = 0; i < result->note_count; i++) fprintf(stderr, "note: %s\n", result->notes[i]);
    if (!r->options.quiet)
        fprintf(stderr, "seed %llu, %.1f s on %s\n", (unsigned long long)r->options.request.seed,
                seconds, result->device);
}

static int work(struct run *r, struct error *err)
{
    struct engine_msg *m = alloc_zero(1, sizeof *m);
    int rc = local_engine_start(&r->engine, r->options.device, r->options.precision, err);
    if (rc) goto out;
    rc = load_model(r, err);
    if (!rc) rc = start_job(r, err);
    if (!rc) rc = wait_for_result(r, m, err);
    progress_end(&r->progress);
    if (!rc) {
        for (int i = 0; i < m->result.image_count && !rc; i++)
            rc = write_image(r, &m->result, i, err);
        if (!rc && r->options.json)
            rc = print_json(r, &m->result, err);
        else if (!rc)
            print_plain(r, &m->result);
        for (int i = 0; i < r->written && !rc && r->options.show; i++)
            rc = picture_show(r->paths[i], 0, 0, err);
        engine_msg_release(m);
    }
    local_engine_stop(&r->engine);
out:
    free(m);
    return rc;
}

/* Fails before the engine starts when the picture could not be written at the end. */
static int check_output(const char *output, struct error *err)
{
    const char *slash = strrchr(output, '/');
    char *folder = slash ? alloc_string_n(output, slash == output ? 1 : (size_t)(slash - output))
                         : alloc_string(".");
    int rc = access(folder, W_OK)
                 ? error_set(err, ERR_IO, "-o %s: folder %s cannot be written to", output, folder)
                 : 0;
    free(folder);
    return rc;
}

static int run(int argc, char **argv)
{
    struct run *r = alloc_zero(1, sizeof *r);
    struct error err = {0};
    generate_options_init(&r->options);
    int rc = generate_options_parse(&r->options, argc, argv, &err);
    bool usage = rc == ERR_INVALID;
    if (!rc) rc = check_output(r->options.output, &err);
    progress_start(&r->progress, r->options.quiet);
    if (!rc) rc = r->options.horde ? generate_on_horde(&r->options, &err) : work(r, &err);
    progress_end(&r->progress);
    if (rc) command_fail(&command_generate, &err);
    int code = usage ? EXIT_USAGE : rc ? EXIT_FAILED : EXIT_DONE;
    for (int i = 0; i < r->written; i++) free(r->paths[i]);
    generate_options_release(&r->options);
    free(r);
    return code;
}

const struct command command_generate = {
    .name = "generate",
    .summary = "make pictures from a prompt on this machine",
    .usage = generate_usage,
    .run = run,
};
