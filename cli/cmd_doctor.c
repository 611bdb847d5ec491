/* cmd_doctor.c - does this machine have what Kiln needs, part by part. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/data_path.h"
#include "cli/control_client.h"
#include "cli/local_engine.h"
#include "cli/table.h"
#include "config/folders.h"

enum verdict { GOOD, NOTE, BAD };

static int bad_count;

static void say(enum verdict v, const char *what, const char *text)
{
    static const char *const words[] = {"ok", "note", "MISSING"};
    if (v == BAD) bad_count++;
    printf("%-8s %-12s %s\n", words[v], what, text);
}

static void check_engine(const char *device, bool needed)
{
    struct local_engine e;
    struct error err = {0};
    int rc = local_engine_start(&e, device, "auto", &err);
    if (rc) {
        say(needed ? BAD : NOTE, device, err.text);
        return;
    }
    local_engine_stop(&e);
    say(GOOD, device, "an engine starts and answers");
}

static void check_file(const char *what, const char *relative, const char *otherwise)
{
    char *path = data_path_find(relative);
    say(path ? GOOD : NOTE, what, path ? path : otherwise);
    free(path);
}

static void check_folders(void)
{
    struct folders f = {0};
    struct error err = {0};
    if (folders_init(&f, NULL, NULL, &err)) {
        say(BAD, "folders", err.text);
        return;
    }
    char text[512], size[24];
    struct statvfs fs;
    const char *at = access(f.state, F_OK) == 0 ? f.state : "/";
    int64_t free_bytes = statvfs(at, &fs) ? 0 : (int64_t)fs.f_bavail * (int64_t)fs.f_frsize;
    snprintf(text, sizeof text, "%s, %s free", f.state, format_bytes(size, free_bytes));
    say(free_bytes > (int64_t)1 << 30 ? GOOD : NOTE, "state", text);
    say(GOOD, "socket", f.socket);
    folders_release(&f);
}

static void check_daemon(void)
{
    struct control_request request = {.kind = CONTROL_STATUS};
    struct control_reply reply = {0};
    struct error err = {0};
    if (control_ask(&reply, &request, NULL, &err)) {
        say(NOTE, "kilnd", err.text);
        return;
    }
    say(GOOD, "kilnd", reply.status.state);
    control_reply_release(&reply);
}

static int run(int argc, char **argv)
{
    if (argc > 1) return command_usage(&command_doctor, "\"%s\" belongs to no option", argv[1]);
    bad_count = 0;
    char *daemon = data_path_program("kilnd");
    say(daemon ? GOOD : NOTE, "program", daemon ? daemon : "kilnd is not beside kiln");
    free(daemon);
    check_engine("cpu", true);
    check_engine("cuda:0", false);
    check_file("vocabulary", "bpe_simple_vocab_16e6.txt.gz",
               "the CLIP vocabulary is not here: ./setup vocab fetches it; diffusers folders bring "
               "theirs");
    check_file("pocket", "models/pocket/model_index.json", "the pocket model is not here");
    check_folders();
    check_daemon();
    return bad_count ? EXIT_FAILED : EXIT_DONE;
}

const struct command command_doctor = {
    .name = "doctor",
    .summary = "check what this machine has",
    .usage =
        "usage: kiln doctor\n\n"
        "Starts an engine on each kind of device, looks for the files that come with Kiln and for\n"
        "a running kilnd. Exit status 1 when something that Kiln cannot do without is missing.\n",
    .run = run,
};
