/* cmd_upscale.c - a picture made two or four times as large on this machine. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/str.h"
#include "cli/command.h"
#include "cli/local_engine.h"
#include "cli/progress.h"
#include "image/codec.h"

#define JOB "local"

struct upscale {
    const char *input, *with, *output, *device;
    bool quiet;
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

static int wait_for_result(struct local_engine *e, struct upscale *u, struct progress *progress,
                           struct error *err)
{
    for (;;) {
        struct engine_msg m;
        int rc = local_engine_next(e, &m, JOB, err);
        if (rc) return rc;
        if (m.kind == ENGINE_PROGRESS)
            progress_show(progress, "upscale", m.progress.step, m.progress.steps);
        if (m.kind == ENGINE_ALCHEMY_RESULT) {
            progress_end(progress);
            rc = write_output(&m.alchemy_result.image.bytes, u->output, err);
            if (!rc) puts(u->output);
            if (!rc && !u->quiet)
                fprintf(stderr, "%d x %d, %.1f s\n", m.alchemy_result.image.width_px,
                        m.alchemy_result.image.height_px, m.alchemy_result.seconds);
            engine_msg_release(&m);
            return rc;
        }
        engine_msg_release(&m);
    }
}

static int work(struct upscale *u, struct error *err)
{
    struct local_engine e;
    struct engine_msg m;
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
        engine_msg_init(&m, ENGINE_ALCHEMY, e.launch_id, JOB);
        m.alchemy.form = path ? ALCHEMY_REALESRGAN_X4PLUS : alchemy_form_find(u->with);
        m.alchemy.control_type = path;
        m.alchemy.source = source;
        rc = local_engine_send(&e, &m, err);
        if (!rc) rc = wait_for_result(&e, u, &progress, err);
        local_engine_stop(&e);
    }
    progress_end(&progress);
    free(path);
    free(source.data);
    return rc;
}

static int run(int argc, char **argv)
{
    static const struct option table[] = {{"with", required_argument, NULL, 'w'},
                                          {"output", required_argument, NULL, 'o'},
                                          {"device", required_argument, NULL, 'd'},
                                          {"quiet", no_argument, NULL, 'q'},
                                          {0}};
    struct upscale u = {.with = "RealESRGAN_x4plus"};
    struct error err = {0};
    optind = 1;
    opterr = 0;
    for (int id; (id = getopt_long(argc, argv, "o:q", table, NULL)) != -1;) {
        if (id == '?')
            return command_usage(&command_upscale, "option %s is unknown or lacks its value",
                                 argv[optind - 1]);
        if (id == 'w') u.with = optarg;
        if (id == 'o') u.output = optarg;
        if (id == 'd') u.device = optarg;
        if (id == 'q') u.quiet = true;
    }
    if (argc - optind != 1) return command_usage(&command_upscale, "one IMAGE is expected");
    if (!u.output) return command_usage(&command_upscale, "-o OUT.png is missing");
    u.input = argv[optind];
    return work(&u, &err) ? command_fail(&command_upscale, &err) : EXIT_DONE;
}

const struct command command_upscale = {
    .name = "upscale",
    .summary = "make a picture larger with an ESRGAN network",
    .usage = "usage: kiln upscale IMAGE [--with NAME|PATH] [--device NAME] -o OUT.png\n\n"
             "NAME is one of the Horde's post-processors whose weights lie in the cache folder as\n"
             "post/NAME.safetensors or post/NAME.pth; PATH is any ESRGAN-type file. Default:\n"
             "RealESRGAN_x4plus.\n",
    .run = run,
};
