/* cmd_post.c - a picture changed by a network, here or by the Horde: enlarged, faces fixed, cut out. */
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/str.h"
#include "cli/alchemy_horde.h"
#include "cli/command.h"
#include "cli/local_engine.h"
#include "cli/progress.h"
#include "cli/table.h"
#include "image/codec.h"

#define JOB "local"

struct post_run {
    const struct command *command;
    enum alchemy_form form; /* of a file of one's own: what kind of network it is */
    const char *input, *with, *output, *device;
    const char *config, *horde_url;
    double strength, fidelity;
    bool quiet, horde, dry_run, fast, trusted;
};

static int read_input(struct blob *to, const char *path, struct error *err)
{
    struct buf b;
    buf_init(&b, CODEC_BYTES_MAX);
    int rc = buf_read_file(&b, path, err);
    if (!rc) to->data = buf_take(&b, &to->length);
    buf_release(&b);
    return rc;
}

static int write_output(const struct blob *webp, const char *path, struct error *err)
{
    struct pixels p;
    int rc = codec_decode(&p, NULL, "from the engine", webp->data, webp->length, err);
    if (rc) return rc;
    rc = image_write(&p, NULL, path, 95, err);
    pixels_release(&p);
    return rc;
}

static void say_done(const struct post_run *u, const struct engine_alchemy_result *r)
{
    char faces[40] = "";
    if (u->quiet) return;
    if (u->command == &command_fix && r->number >= 0)
        snprintf(faces, sizeof faces, "%.0f face%s, ", r->number, r->number == 1 ? "" : "s");
    fprintf(stderr, "%d x %d, %s%.1f s\n", r->image.width_px, r->image.height_px, faces,
            r->seconds);
}

static int wait_for_result(struct local_engine *e, struct post_run *u, struct progress *progress,
                           struct error *err)
{
    for (;;) {
        struct engine_msg m;
        int rc = local_engine_next(e, &m, JOB, err);
        if (rc) return rc;
        if (m.kind == ENGINE_PROGRESS)
            progress_show(progress, u->command->name, m.progress.step, m.progress.steps);
        if (m.kind == ENGINE_ALCHEMY_RESULT) {
            progress_end(progress);
            rc = write_output(&m.alchemy_result.image.bytes, u->output, err);
            if (!rc) puts(u->output);
            if (!rc) say_done(u, &m.alchemy_result);
            engine_msg_release(&m);
            return rc;
        }
        engine_msg_release(&m);
    }
}

static int send_job(struct local_engine *e, const struct post_run *u, const char *path,
                    struct blob source, struct error *err)
{
    struct engine_msg m;
    engine_msg_init(&m, ENGINE_ALCHEMY, e->launch_id, JOB);
    m.alchemy.form = path ? u->form : alchemy_form_find(u->with);
    m.alchemy.control_type = path;
    m.alchemy.source = source;
    m.alchemy.strength = u->strength;
    m.alchemy.fidelity = u->fidelity;
    m.alchemy.lossless = true;
    return local_engine_send(e, &m, err);
}

/* ---- on the Horde ---- */

static int take_picture(struct alchemy_horde *a, const char *url, const char *path,
                        struct error *err)
{
    struct buf got;
    struct blob webp = {0};
    buf_init(&got, CODEC_BYTES_MAX);
    int rc = horde_source_is_url(url)
                 ? horde_client_fetch(&a->client, url, &got, err)
                 : error_set(err, ERR_FORMAT, "the Horde's answer is no picture's address");
    if (!rc) webp.data = buf_take(&got, &webp.length);
    if (!rc) rc = write_output(&webp, path, err);
    free(webp.data);
    buf_release(&got);
    return rc;
}

static int one_there(struct post_run *u, struct alchemy_horde *a, const struct pixels *pixels,
                     struct error *err)
{
    enum alchemy_form form = alchemy_form_find(u->with);
    char request[HORDE_ID_BYTES], kudos[24], *url = NULL;
    int64_t quote = alchemy_horde_quote(a, form, pixels->width, pixels->height);
    if (!u->quiet) fprintf(stderr, "quote: %s kudos\n", format_kudos(kudos, quote));
    if (u->dry_run) return 0;
    int rc = alchemy_horde_run(a, &url, request, form, pixels, err);
    if (!rc) rc = take_picture(a, url, u->output, err);
    if (!rc) puts(u->output);
    if (!rc && !u->quiet)
        fprintf(stderr, "request %s cost %s kudos\n", request, format_kudos(kudos, quote));
    free(url);
    return rc;
}

static int work_there(struct post_run *u, struct error *err)
{
    struct alchemy_horde a;
    struct progress progress;
    struct pixels pixels;
    int rc = image_read(&pixels, NULL, u->input, err);
    if (rc) return rc;
    progress_start(&progress, u->quiet);
    rc = alchemy_horde_open(&a, u->config, u->horde_url, &progress, err);
    if (!rc) {
        a.fast_only = u->fast;
        a.trusted_only = u->trusted;
        rc = one_there(u, &a, &pixels, err);
        alchemy_horde_close(&a);
    }
    progress_end(&progress);
    pixels_release(&pixels);
    return rc;
}

/* ---- the commands ---- */

static int work(struct post_run *u, struct error *err)
{
    struct local_engine e;
    struct progress progress;
    struct blob source = {0};
    char *path = NULL;
    int rc = read_input(&source, u->input, err);
    if (rc) return rc;
    /* a file is named with its folder, so that it cannot be taken for one of the Horde's names */
    if (alchemy_form_find(u->with) == ALCHEMY_UNKNOWN) path = realpath(u->with, NULL);
    if (!path && alchemy_form_find(u->with) == ALCHEMY_UNKNOWN)
        rc = error_set(err, ERR_NOT_FOUND, "--with %s: neither a file nor one of the Horde's names",
                       u->with);
    progress_start(&progress, u->quiet);
    if (!rc) rc = local_engine_start(&e, u->device, NULL, err);
    if (!rc) {
        rc = send_job(&e, u, path, source, err);
        if (!rc) rc = wait_for_result(&e, u, &progress, err);
        local_engine_stop(&e);
    }
    progress_end(&progress);
    free(path);
    free(source.data);
    return rc;
}

static bool share(const char *text, double *value)
{
    char *end;
    double v = strtod(text, &end);
    if (end == text || *end || !(v >= 0 && v <= 1)) return false;
    *value = v;
    return true;
}

static bool fixes(const struct command *c, const char *with)
{
    return c == &command_fix &&
           (str_equal_nocase(with, "gfpgan") || str_equal_nocase(with, "codeformers") ||
            str_equal_nocase(with, "codeformer"));
}

static int run_post(const struct command *c, enum alchemy_form form, int argc, char **argv)
{
    static const struct option table[] = {{"with", required_argument, NULL, 'w'},
                                          {"strength", required_argument, NULL, 's'},
                                          {"fidelity", required_argument, NULL, 'f'},
                                          {"output", required_argument, NULL, 'o'},
                                          {"device", required_argument, NULL, 'd'},
                                          {"quiet", no_argument, NULL, 'q'},
                                          {"horde", no_argument, NULL, 'h'},
                                          {"horde-url", required_argument, NULL, 'u'},
                                          {"config", required_argument, NULL, 'c'},
                                          {"dry-run", no_argument, NULL, 'n'},
                                          {"fast-workers", no_argument, NULL, 'a'},
                                          {"trusted-workers", no_argument, NULL, 't'},
                                          {0}};
    struct post_run u = {.command = c,
                         .form = form,
                         .with = alchemy_form_name(form),
                         .strength = 1,
                         .fidelity = 0.5};
    struct error err = {0};
    bool here = false, there = false;
    optind = 1;
    opterr = 0;
    for (int id; (id = getopt_long(argc, argv, "o:q", table, NULL)) != -1;) {
        bool fix_only = id == 's' || id == 'f';
        if (id == '?' || (fix_only && c != &command_fix))
            return command_usage(c, "option %s is unknown or lacks its value", argv[optind - 1]);
        if (id == 'w') u.with = optarg;
        if (id == 'o') u.output = optarg;
        if (id == 'd') u.device = optarg;
        if (id == 'q') u.quiet = true;
        if (id == 'h') u.horde = true;
        if (id == 'u') u.horde_url = optarg;
        if (id == 'c') u.config = optarg;
        if (id == 'n') u.dry_run = true;
        if (id == 'a') u.fast = true;
        if (id == 't') u.trusted = true;
        here = here || fix_only || id == 'd';
        there = there || strchr("ucnat", id);
        if (fix_only && !share(optarg, id == 's' ? &u.strength : &u.fidelity))
            return command_usage(c, "--%s %s is not a number from 0 to 1",
                                 id == 's' ? "strength" : "fidelity", optarg);
    }
    if (fixes(c, u.with))
        u.with = alchemy_form_name(str_equal_nocase(u.with, "gfpgan") ? ALCHEMY_GFPGAN
                                                                      : ALCHEMY_CODEFORMERS);
    if (argc - optind != 1) return command_usage(c, "one IMAGE is expected");
    if (!u.output && !u.dry_run) return command_usage(c, "-o OUT.png is missing");
    if (there && !u.horde) return command_usage(c, "an option that needs --horde");
    if (here && u.horde)
        return command_usage(c, "--device, --strength and --fidelity are for this machine, not for "
                                "the Horde");
    enum alchemy_form wanted = alchemy_form_find(u.with);
    if (u.horde && (wanted == ALCHEMY_UNKNOWN || wanted == ALCHEMY_ANNOTATION ||
                    alchemy_form_result(wanted) != ALCHEMY_IMAGE))
        return command_usage(c, "--with %s: none of the Horde's post-processors", u.with);
    u.input = argv[optind];
    return (u.horde ? work_there(&u, &err) : work(&u, &err)) ? command_fail(c, &err) : EXIT_DONE;
}

static int run_upscale(int argc, char **argv)
{
    return run_post(&command_upscale, ALCHEMY_REALESRGAN_X4PLUS, argc, argv);
}

static int run_fix(int argc, char **argv)
{
    return run_post(&command_fix, ALCHEMY_GFPGAN, argc, argv);
}

static int run_strip(int argc, char **argv)
{
    return run_post(&command_strip, ALCHEMY_STRIP_BACKGROUND, argc, argv);
}

#define BY_HORDE                                                                                   \
    "\nWith --horde a worker of the Horde does it for kudos: the picture is sent there, NAME is "  \
    "one\n"                                                                                        \
    "of the Horde's and needs no weights here. --config FILE holds the key, --horde-url URL is\n"  \
    "another server, --dry-run tells only what it would cost, --fast-workers and\n"                \
    "--trusted-workers take only such ones.\n"

const struct command command_upscale = {
    .name = "upscale",
    .summary = "make a picture larger with an ESRGAN network",
    .usage = "usage: kiln upscale IMAGE [--with NAME|PATH] [--device NAME] -o OUT.png\n"
             "       kiln upscale IMAGE --horde [--with NAME] [--dry-run] -o OUT.png\n\n"
             "NAME is one of the Horde's post-processors whose weights lie in the cache folder as\n"
             "post/NAME.safetensors or post/NAME.pth; PATH is any ESRGAN-type file. Default:\n"
             "RealESRGAN_x4plus.\n" BY_HORDE,
    .run = run_upscale,
};

const struct command command_fix = {
    .name = "fix",
    .summary = "restore the faces of a picture with GFPGAN or CodeFormer",
    .usage =
        "usage: kiln fix IMAGE [--with gfpgan|codeformers|PATH] [--strength X] [--fidelity X]\n"
        "                [--device NAME] -o OUT.png\n"
        "       kiln fix IMAGE --horde [--with gfpgan|codeformers] [--dry-run] -o OUT.png\n\n"
        "Faces are found, turned upright, restored and laid back; the rest of the picture and its\n"
        "alpha stay. --strength 0 .. 1 is how much of the restored face shows (1), --fidelity "
        "0 .. 1\n"
        "how closely CodeFormer follows the old one (0.5). PATH is any file of either network.\n"
        "The weights, and those that find faces, come from the cache folder's post/:\n"
        "  kiln models get gfpgan        kiln models get codeformers\n" BY_HORDE,
    .run = run_fix,
};

const struct command command_strip = {
    .name = "strip",
    .summary = "cut the background away with U2-Net",
    .usage = "usage: kiln strip IMAGE [--with PATH] [--device NAME] -o OUT.png\n"
             "       kiln strip IMAGE --horde [--dry-run] -o OUT.png\n\n"
             "What stands out stays, the rest becomes clear: OUT has an alpha channel, so PNG or "
             "WebP.\n"
             "PATH is any U2-Net (.onnx, .pth, .safetensors); without it the weights come from "
             "the\n"
             "cache folder's post/:   kiln models get u2net\n" BY_HORDE,
    .run = run_strip,
};
