/*
 * fake_engine.c - an engine that computes nothing and can fail in every way an engine can.
 *
 * Place    kilnd's engine_path in the tests of this folder. Speaks proto/engine_msg as kiln-engine
 *          does.
 * Failure  as asked: KILN_FAKE is a comma-separated list of behaviours, one for each job over all
 *          launches (the count is kept in the file KILN_FAKE_COUNT); the last one stays.
 *
 *     ok          at once             slow:MS     after MS milliseconds, with progress
 *     hang        never, no heartbeat quiet       never, heartbeats go on
 *     70 segv     ends                nan oom constant invalid   an error
 *     none        images without a verdict     failed   a broken check
 *     nsfw csam   flagged             few         one image too few
 *     junk        bytes that are no message
 *
 * KILN_FAKE_DUMP names a file that gets a line for each image job: what the engine was asked;
 * KILN_FAKE_PREPARED one for each hint: the model, and how many jobs the engine had then.
 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/now.h"
#include "base/str.h"
#include "proto/capability.h"
#include "proto/engine_msg.h"

#define JOBS_MAX 64

struct waiting {
    struct engine_msg m;
    char behaviour[32];
    double due;
    bool begun;
};

static uint64_t launch_id;
static struct waiting jobs[JOBS_MAX];
static int job_count;
static bool mute;

static void write_all(const void *bytes, size_t length)
{
    for (const char *at = bytes; length;) {
        ssize_t wrote = write(STDOUT_FILENO, at, length);
        if (wrote < 0 && errno == EINTR) continue;
        if (wrote <= 0) _exit(0);
        at += wrote;
        length -= (size_t)wrote;
    }
}

static void say(const struct engine_msg *m)
{
    struct buf b;
    struct error err = {0};
    buf_init(&b, FRAME_ENGINE_MAX + 4);
    if (engine_msg_encode(m, &b, &err)) {
        fprintf(stderr, "fake_engine: %s\n", err.text);
        _exit(1);
    }
    write_all(b.data, b.length);
    buf_release(&b);
}

static void say_hello(const char *device)
{
    struct engine_msg m;
    struct capability_set built = capability_built();
    static char list[256];
    const char *forms = getenv("KILN_FAKE_FORMS");
    engine_msg_init(&m, ENGINE_HELLO, launch_id, "");
    m.hello.version = KILN_VERSION;
    m.hello.pid = getpid();
    m.hello.kernels = "fake";
    m.hello.device_count = 1;
    m.hello.devices[0] = (struct engine_device){.name = device,
                                                .title = "fake",
                                                .driver = "",
                                                .memory_bytes = 1 << 30,
                                                .free_bytes = 1 << 29};
    for (int i = 0; i < CAPABILITY_COUNT && m.hello.capability_count < ENGINE_NAMES_MAX; i++)
        if (capability_has(&built, (enum capability)i))
            m.hello.capabilities[m.hello.capability_count++] = capability_name((enum capability)i);
    for (int i = 0; i < SAMPLER_COUNT; i++)
        m.hello.samplers[m.hello.sampler_count++] = sampler_name((enum sampler)i);
    str_copy(list, sizeof list, forms ? forms : "");
    for (char *f = strtok(list, ","); f; f = strtok(NULL, ","))
        m.hello.forms[m.hello.form_count++] = f;
    m.hello.safety = getenv("KILN_FAKE_SAFETY") != NULL;
    say(&m);
}

static void say_heartbeat(void)
{
    struct engine_msg m;
    engine_msg_init(&m, ENGINE_HEARTBEAT, launch_id, "");
    m.heartbeat.busy = job_count > 0;
    m.heartbeat.queued = job_count;
    say(&m);
}

static void say_error(const char *job, int code, const char *text)
{
    struct engine_msg m;
    engine_msg_init(&m, ENGINE_ERROR, launch_id, job);
    m.error.code = code;
    m.error.text = text;
    say(&m);
}

/* which behaviour is next, over all launches */
static void next_behaviour(char out[32])
{
    static char list[1024];
    char *words[128];
    int count = 0, nth = 0;
    const char *path = getenv("KILN_FAKE_COUNT"), *wanted = getenv("KILN_FAKE");
    str_copy(list, sizeof list, wanted ? wanted : "ok");
    for (char *w = strtok(list, ","); w && count < 128; w = strtok(NULL, ",")) words[count++] = w;
    int fd = path ? open(path, O_RDWR | O_CREAT, 0600) : -1;
    if (fd >= 0) {
        char text[16] = "";
        flock(fd, LOCK_EX);
        if (read(fd, text, sizeof text - 1) > 0) nth = atoi(text);
        int length = snprintf(text, sizeof text, "%d", nth + 1);
        if (pwrite(fd, text, (size_t)length, 0) != length) _exit(1);
        close(fd);
    } else {
        static int here;
        nth = here++;
    }
    str_copy(out, 32, count ? words[nth < count ? nth : count - 1] : "ok");
}

/* the head of a small lossless WebP, and a tail that makes each image another */
static void make_image(struct engine_image *image, const struct engine_msg *m, int index)
{
    static const unsigned char webp[] = {
        'R', 'I', 'F', 'F',  0x1a, 0, 0, 0,    'W',  'E',  'B',  'P',  'V',  'P',  '8',  'L',  0x0d,
        0,   0,   0,   0x2f, 0,    0, 0, 0x10, 0x07, 0x10, 0x11, 0x11, 0x88, 0x88, 0xfe, 0x07, 0};
    size_t length = sizeof webp + 96;
    image->bytes.data = alloc_zero(1, length);
    memcpy(image->bytes.data, webp, sizeof webp);
    snprintf((char *)image->bytes.data + sizeof webp, 96, "%s %d", m->job_id, index);
    image->bytes.length = length;
    image->index = index;
}

static enum engine_verdict verdict_of(const struct waiting *w)
{
    if (str_equal(w->behaviour, "none")) return ENGINE_VERDICT_NONE;
    if (str_equal(w->behaviour, "failed")) return ENGINE_VERDICT_FAILED;
    if (str_equal(w->behaviour, "nsfw")) return ENGINE_VERDICT_NSFW;
    if (str_equal(w->behaviour, "csam")) return ENGINE_VERDICT_CSAM;
    bool checked =
        w->m.kind == ENGINE_ALCHEMY ? w->m.alchemy.check_safety : w->m.generate.check_safety;
    return checked ? ENGINE_VERDICT_OK : ENGINE_VERDICT_NONE;
}

static void say_form(const struct waiting *w)
{
    const struct engine_msg *m = &w->m;
    struct engine_msg r;
    engine_msg_init(&r, ENGINE_ALCHEMY_RESULT, launch_id, m->job_id);
    r.alchemy_result.form = m->alchemy.form;
    r.alchemy_result.text = "a wooden drawer full of labelled seeds";
    r.alchemy_result.number = 5.5;
    if (alchemy_form_result(m->alchemy.form) == ALCHEMY_IMAGE) {
        make_image(&r.alchemy_result.image, m, 0);
        r.alchemy_result.image.verdict = verdict_of(w);
    }
    say(&r);
    free(r.alchemy_result.image.bytes.data);
}

static void say_result(const struct waiting *w, double seconds)
{
    const struct engine_msg *m = &w->m;
    struct engine_msg r;
    if (m->kind == ENGINE_ALCHEMY) {
        say_form(w);
        return;
    }
    engine_msg_init(&r, ENGINE_RESULT, launch_id, m->job_id);
    r.result.format = ENGINE_FORMAT_WEBP;
    r.result.image_count = m->generate.request.count - str_equal(w->behaviour, "few");
    for (int i = 0; i < r.result.image_count; i++) {
        struct engine_image *image = &r.result.images[i];
        make_image(image, m, i);
        image->width_px = m->generate.request.width_px;
        image->height_px = m->generate.request.height_px;
        image->verdict = verdict_of(w);
        image->censored = image->verdict == ENGINE_VERDICT_CSAM ||
                          (image->verdict == ENGINE_VERDICT_NSFW && m->generate.censor_nsfw);
    }
    r.result.seconds[ENGINE_PHASE_SAMPLE] = seconds;
    r.result.joules = 12.5;
    r.result.energy_source = "estimated";
    r.result.model_sha256 = "";
    r.result.kernels = "fake";
    r.result.device = "fake";
    say(&r);
    for (int i = 0; i < r.result.image_count; i++) free(r.result.images[i].bytes.data);
}

/* fields behind tabs: prompt, negative prompt, then name=path of LoRAs and embeddings */
static void dump(const struct engine_msg *m)
{
    const char *path = getenv("KILN_FAKE_DUMP");
    FILE *f = path && m->kind == ENGINE_GENERATE ? fopen(path, "ae") : NULL;
    if (!f) return;
    const struct image_request *r = &m->generate.request;
    fprintf(f, "%s\t%s", r->prompt, r->negative ? r->negative : "");
    for (int i = 0; i < r->lora_count; i++)
        fprintf(f, "\t%s=%s", r->loras[i].name, r->loras[i].path);
    for (int i = 0; i < r->embedding_count; i++)
        fprintf(f, "\t%s=%s", r->embeddings[i].name, r->embeddings[i].path);
    fputc('\n', f);
    fclose(f);
}

static void begin(struct waiting *w)
{
    const char *b = w->behaviour;
    w->begun = true;
    w->due = now_seconds();
    dump(&w->m);
    if (str_starts(b, "slow:")) {
        struct engine_msg p;
        engine_msg_init(&p, ENGINE_PROGRESS, launch_id, w->m.job_id);
        p.progress.phase = ENGINE_PHASE_SAMPLE;
        p.progress.step = 1;
        p.progress.steps = 2;
        say(&p);
        w->due += atof(b + 5) / 1000;
    }
    if (str_equal(b, "hang")) mute = true;
    if (str_equal(b, "hang") || str_equal(b, "quiet")) w->due = INFINITY;
    if (str_equal(b, "70")) _exit(70);
    if (str_equal(b, "segv")) {
        signal(SIGSEGV, SIG_DFL);
        raise(SIGSEGV);
    }
    if (str_equal(b, "junk")) {
        write_all("\xff\xff\xff\x7fgarbage", 11);
        w->due = INFINITY;
    }
}

static bool say_failure(const struct waiting *w)
{
    static const struct {
        const char *behaviour, *text;
        int code;
    } failures[] = {
        {"nan", "the latents are not a number at step 3", ERR_INTERNAL},
        {"constant", "the image is constant", ERR_INTERNAL},
        {"oom", "out of device memory at step 2", ERR_NO_MEMORY},
        {"invalid", "a LoRA of another family", ERR_INVALID},
    };
    for (unsigned i = 0; i < COUNT_OF(failures); i++)
        if (str_equal(w->behaviour, failures[i].behaviour)) {
            say_error(w->m.job_id, failures[i].code, failures[i].text);
            return true;
        }
    return false;
}

static void work(void)
{
    while (job_count) {
        struct waiting *w = &jobs[0];
        if (!w->begun) begin(w);
        if (now_seconds() < w->due) return;
        double seconds = str_starts(w->behaviour, "slow:") ? atof(w->behaviour + 5) / 1000 : 0.001;
        if (!say_failure(w)) say_result(w, seconds);
        engine_msg_release(&w->m);
        memmove(jobs, jobs + 1, sizeof jobs[0] * (size_t)--job_count);
    }
}

static void cancel(const char *job_id)
{
    for (int i = 0; i < job_count; i++) {
        if (!str_equal(jobs[i].m.job_id, job_id)) continue;
        say_error(job_id, ERR_CANCELED, "taken back");
        engine_msg_release(&jobs[i].m);
        memmove(&jobs[i], &jobs[i + 1], sizeof jobs[0] * (size_t)(--job_count - i));
        return;
    }
}

static void take(struct engine_msg *m)
{
    if (m->launch_id != launch_id) {
        engine_msg_release(m);
    } else if (m->kind == ENGINE_SHUTDOWN) {
        _exit(0);
    } else if (m->kind == ENGINE_CANCEL) {
        cancel(m->job_id);
        engine_msg_release(m);
    } else if (m->kind == ENGINE_LOAD) {
        struct engine_msg l;
        engine_msg_init(&l, ENGINE_LOADED, launch_id, "");
        l.loaded.model = m->load.model;
        l.loaded.family = family_name(FAMILY_SD1);
        l.loaded.sha256 = "";
        say(&l);
        engine_msg_release(m);
    } else if (m->kind == ENGINE_PREPARE) {
        const char *path = getenv("KILN_FAKE_PREPARED");
        FILE *f = path ? fopen(path, "ae") : NULL;
        if (f) fprintf(f, "%s\t%d\n", m->load.model, job_count);
        if (f) fclose(f);
        engine_msg_release(m);
    } else if ((m->kind == ENGINE_GENERATE || m->kind == ENGINE_ALCHEMY) && job_count < JOBS_MAX) {
        struct waiting *w = &jobs[job_count++];
        memset(w, 0, sizeof *w);
        w->m = *m;
        next_behaviour(w->behaviour);
    } else {
        engine_msg_release(m);
    }
}

static void listen_once(struct buf *in)
{
    const uint8_t *payload;
    size_t length;
    struct error err = {0};
    uint8_t *room = buf_reserve(in, 65536, NULL);
    ssize_t got = room ? read(STDIN_FILENO, room, 65536) : 0;
    if (got <= 0) exit(0);
    buf_commit(in, (size_t)got);
    while (frame_next(in, FRAME_ENGINE_MAX, &payload, &length, &err) > 0) {
        struct engine_msg m;
        int rc = engine_msg_decode(&m, payload, length, &err);
        frame_drop(in, length);
        if (rc) {
            fprintf(stderr, "fake_engine: %s\n", err.text);
            exit(1);
        }
        take(&m);
    }
}

int main(int argc, char **argv)
{
    const char *device = "cpu", *late = getenv("KILN_FAKE_LATE");
    for (int i = 1; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--launch")) launch_id = strtoull(argv[i + 1], NULL, 10);
        if (!strcmp(argv[i], "--device")) device = argv[i + 1];
    }
    struct buf in;
    buf_init(&in, FRAME_ENGINE_MAX + 131072);
    if (late) usleep((unsigned)atoi(late) * 1000u);
    say_hello(device);
    double beat = now_seconds();
    for (;;) {
        struct pollfd p = {.fd = STDIN_FILENO, .events = POLLIN};
        double wait = 1.0, due = job_count && jobs[0].begun ? jobs[0].due - now_seconds() : 1.0;
        if (due < wait) wait = due > 0 ? due : 0;
        if (poll(&p, 1, (int)ceil(wait * 1000)) > 0) listen_once(&in);
        work();
        if (!mute && now_seconds() - beat >= 1) {
            say_heartbeat();
            beat = now_seconds();
        }
    }
}
