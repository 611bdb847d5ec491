#include "daemon/engine_process.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/now.h"
#include "base/str.h"

#define STEPS_KEPT 31

struct life { /* one launch; freed when its three handles are closed */
    struct engine_process *e;
    uv_process_t process;
    uv_pipe_t in, out;
    struct buf bytes;
    uint64_t launch_id;
    int open;                   /* handles not yet closed */
    bool over, exited, drained; /* drained: its pipe is at its end */
    char why[96];
};

struct engine_process {
    uv_loop_t *loop;
    struct alarms *alarms;
    struct engine_events events;
    void *data;
    char *program, *device, *precision, *cache;
    enum engine_state state;
    struct life *life;
    uint64_t launches;
    struct engine_msg hello, heartbeat;
    bool has_hello, has_heartbeat, stopping;
    struct alarm silence, again, kill, late;
    int64_t deaths_ms[ENGINE_RESTARTS_MAX];
    int restarts, stop_signal;
    char trouble[256];
    void (*freed)(void *data);
    void *freed_data;
    double steps[STEPS_KEPT];
    int step_count;
};

static void on_silence(void *data);
static void end_life(struct engine_process *e, const char *why);

/* ---- facts ---- */

enum engine_state engine_process_state(const struct engine_process *e)
{
    return e->state;
}

uint64_t engine_process_launch(const struct engine_process *e)
{
    return e->launches;
}

const char *engine_process_device(const struct engine_process *e)
{
    return e->device;
}

const char *engine_process_trouble(const struct engine_process *e)
{
    return e->trouble;
}

int engine_process_pid(const struct engine_process *e)
{
    return e->life && !e->life->over ? e->life->process.pid : 0;
}

int engine_process_restarts(const struct engine_process *e)
{
    return e->restarts;
}

const struct engine_hello *engine_process_hello(const struct engine_process *e)
{
    return &e->hello.hello;
}

const struct engine_heartbeat *engine_process_heartbeat(const struct engine_process *e)
{
    return e->has_heartbeat ? &e->heartbeat.heartbeat : NULL;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

void engine_process_step(struct engine_process *e, double seconds)
{
    if (!(seconds >= 0 && seconds < 3600)) return;
    e->steps[e->step_count++ % STEPS_KEPT] = seconds;
}

static int64_t silence_ms(const struct engine_process *e)
{
    double sorted[STEPS_KEPT];
    int count = e->step_count < STEPS_KEPT ? e->step_count : STEPS_KEPT;
    if (!count) return ENGINE_SILENCE_MS;
    memcpy(sorted, e->steps, (size_t)count * sizeof *sorted);
    qsort(sorted, (size_t)count, sizeof *sorted, by_size);
    double most = sorted[count / 2] * 10 * 1000;
    return most > ENGINE_SILENCE_MS ? (int64_t)most : ENGINE_SILENCE_MS;
}

/* ---- listening ---- */

static void keep(struct engine_msg *place, bool *has, struct engine_msg *m)
{
    if (*has) engine_msg_release(place);
    *place = *m;
    *has = true;
}

static void take_message(struct engine_process *e, struct engine_msg *m)
{
    if (m->kind == ENGINE_HELLO) {
        if (m->hello.protocol != ENGINE_PROTOCOL) {
            snprintf(e->trouble, sizeof e->trouble, "it speaks protocol %d, kilnd %d",
                     m->hello.protocol, ENGINE_PROTOCOL);
            engine_msg_release(m);
            e->state = ENGINE_BROKEN;
            end_life(e, e->trouble);
            return;
        }
        keep(&e->hello, &e->has_hello, m);
        e->state = ENGINE_READY;
        log_info("engine.ready", "device=%s launch=%llu pid=%lld kernels=\"%s\" safety=%d",
                 e->device, (unsigned long long)e->launches, (long long)e->hello.hello.pid,
                 e->hello.hello.kernels, e->hello.hello.safety);
        e->events.ready(e->data, e);
    } else if (m->kind == ENGINE_HEARTBEAT) {
        keep(&e->heartbeat, &e->has_heartbeat, m);
    } else {
        e->events.message(e->data, e, m);
        engine_msg_release(m);
    }
}

static void take_bytes(struct life *life)
{
    struct engine_process *e = life->e;
    const uint8_t *payload;
    size_t length;
    struct error err = {0};
    int found;
    while (!life->over &&
           (found = frame_next(&life->bytes, FRAME_ENGINE_MAX, &payload, &length, &err)) > 0) {
        struct engine_msg m;
        int rc = engine_msg_decode(&m, payload, length, &err);
        frame_drop(&life->bytes, length);
        if (rc) {
            log_error("engine.babble", "device=%s text=\"%s\"", e->device, err.text);
            end_life(e, "it sent what is no message");
            return;
        }
        if (m.launch_id != life->launch_id || e->stopping) {
            engine_msg_release(&m);
            continue;
        }
        alarm_set(e->alarms, &e->silence, silence_ms(e), on_silence, e);
        take_message(e, &m);
    }
    if (!life->over && found < 0) {
        log_error("engine.babble", "device=%s text=\"%s\"", e->device, err.text);
        end_life(e, "its stream broke");
    }
}

/* The end has two halves, the exit and the pipe's end, in either order: results may still stand in
 * the pipe when the exit is known. Half a second after one the other is not waited for. */
static void on_late(void *data)
{
    struct engine_process *e = data;
    if (e->life) end_life(e, e->life->why[0] ? e->life->why : "it closed its pipe");
}

static void wait_for_both(struct life *life)
{
    struct engine_process *e = life->e;
    if (e->stopping || life->over || e->life != life) return;
    if (life->exited && life->drained)
        end_life(e, life->why);
    else
        alarm_set(e->alarms, &e->late, 500, on_late, e);
}

static void on_room(uv_handle_t *handle, size_t wanted, uv_buf_t *room)
{
    struct life *life = handle->data;
    uint8_t *at = buf_reserve(&life->bytes, 65536, NULL);
    *room = uv_buf_init((char *)at, at ? 65536 : 0);
}

static void on_read(uv_stream_t *stream, ssize_t got, const uv_buf_t *room)
{
    struct life *life = stream->data;
    if (life->over) return;
    if (got < 0) {
        uv_read_stop(stream);
        life->drained = true;
        wait_for_both(life);
        return;
    }
    buf_commit(&life->bytes, (size_t)got);
    take_bytes(life);
}

/* ---- ending ---- */

static void free_self(struct engine_process *e)
{
    if (e->has_hello) engine_msg_release(&e->hello);
    if (e->has_heartbeat) engine_msg_release(&e->heartbeat);
    alarm_drop(&e->silence);
    alarm_drop(&e->again);
    alarm_drop(&e->kill);
    alarm_drop(&e->late);
    free(e->program);
    free(e->device);
    free(e->precision);
    free(e->cache);
    void (*freed)(void *data) = e->freed;
    void *data = e->freed_data;
    free(e);
    if (freed) freed(data);
}

static void on_closed(uv_handle_t *handle)
{
    struct life *life = handle->data;
    if (--life->open) return;
    struct engine_process *e = life->e;
    buf_release(&life->bytes);
    bool last = e->life == life;
    free(life);
    if (!last) return;
    e->life = NULL;
    if (e->stopping) free_self(e);
}

static void on_again(void *data)
{
    engine_process_start(data);
}

/* 5 ends within 10 minutes: down until a person looks (E1) */
static bool too_often(struct engine_process *e)
{
    int64_t now = now_ms();
    int64_t oldest = e->deaths_ms[0];
    memmove(e->deaths_ms, e->deaths_ms + 1, sizeof e->deaths_ms - sizeof e->deaths_ms[0]);
    e->deaths_ms[ENGINE_RESTARTS_MAX - 1] = now;
    return oldest && now - oldest < ENGINE_RESTARTS_WINDOW_MS;
}

static void plan_restart(struct engine_process *e, const char *why)
{
    if (e->state == ENGINE_BROKEN) return;
    if (too_often(e)) {
        e->state = ENGINE_BROKEN;
        snprintf(e->trouble, sizeof e->trouble, "it ended %d times in 10 minutes, last because %s",
                 ENGINE_RESTARTS_MAX + 1, why);
        log_error("engine.broken", "device=%s text=\"%s\"", e->device, e->trouble);
        return;
    }
    e->state = ENGINE_DEAD;
    e->restarts++;
    alarm_set(e->alarms, &e->again, 250, on_again, e);
}

static void end_life(struct engine_process *e, const char *why)
{
    struct life *life = e->life;
    if (!life || life->over) return;
    life->over = true;
    alarm_drop(&e->silence);
    alarm_drop(&e->late);
    if (!life->exited) uv_process_kill(&life->process, SIGKILL);
    uv_close((uv_handle_t *)&life->in, on_closed);
    uv_close((uv_handle_t *)&life->out, on_closed);
    log_warn("engine.gone", "device=%s launch=%llu text=\"%s\"", e->device,
             (unsigned long long)life->launch_id, why);
    if (e->has_heartbeat) engine_msg_release(&e->heartbeat);
    e->has_heartbeat = false;
    plan_restart(e, why);
    e->events.gone(e->data, e, life->launch_id, why);
}

static void on_ended(uv_process_t *process, int64_t status, int signal)
{
    struct life *life = process->data;
    struct engine_process *e = life->e;
    life->exited = true;
    if (signal)
        snprintf(life->why, sizeof life->why, "signal %d ended it", signal);
    else
        snprintf(life->why, sizeof life->why, "it ended with %d", (int)status);
    uv_close((uv_handle_t *)process, on_closed);
    if (!e->stopping) {
        wait_for_both(life);
    } else if (!life->over) {
        life->over = true;
        uv_close((uv_handle_t *)&life->in, on_closed);
        uv_close((uv_handle_t *)&life->out, on_closed);
    }
}

static void on_silence(void *data)
{
    struct engine_process *e = data;
    end_life(e, e->state == ENGINE_STARTING ? "it did not say hello" : "its heartbeat stopped");
}

/* ---- starting ---- */

static char **environment(void)
{
    static const char *const kept[] = {
        "PATH",           "HOME",           "LANG",          "LC_ALL",
        "TMPDIR",         "XDG_CACHE_HOME", "XDG_DATA_HOME", "CUDA_VISIBLE_DEVICES",
        "LD_LIBRARY_PATH"};
    extern char **environ;
    char **list = alloc_zero(1, sizeof *list);
    size_t count = 0;
    for (char **v = environ; *v; v++) {
        bool take = str_starts(*v, "KILN_") && !str_starts(*v, "KILN_FAULT");
        for (size_t i = 0; i < COUNT_OF(kept) && !take; i++)
            take = str_starts(*v, kept[i]) && (*v)[strlen(kept[i])] == '=';
        if (!take) continue;
        list = alloc_grow(list, count + 2, sizeof *list);
        list[count++] = *v;
        list[count] = NULL;
    }
    return list;
}

void engine_process_start(struct engine_process *e)
{
    if (e->stopping || e->state == ENGINE_BROKEN || e->life) {
        if (e->life && !e->stopping && e->state == ENGINE_DEAD) /* the old one is not reaped yet */
            alarm_set(e->alarms, &e->again, 50, on_again, e);
        return;
    }
    struct life *life = alloc_zero(1, sizeof *life);
    life->e = e;
    life->launch_id = ++e->launches;
    buf_init(&life->bytes, FRAME_ENGINE_MAX + 131072);
    uv_pipe_init(e->loop, &life->in, 0);
    uv_pipe_init(e->loop, &life->out, 0);
    life->process.data = life->in.data = life->out.data = life;
    char launch[24];
    snprintf(launch, sizeof launch, "%llu", (unsigned long long)life->launch_id);
    char launch_word[] = "--launch", device_word[] = "--device", precision_word[] = "--precision",
         cache_word[] = "--cache";
    char *args[] = {e->program,     launch_word,  launch,     device_word, e->device,
                    precision_word, e->precision, cache_word, e->cache,    NULL};
    uv_stdio_container_t stdio[] = {
        {.flags = UV_CREATE_PIPE | UV_READABLE_PIPE, .data.stream = (uv_stream_t *)&life->in},
        {.flags = UV_CREATE_PIPE | UV_WRITABLE_PIPE, .data.stream = (uv_stream_t *)&life->out},
        {.flags = UV_INHERIT_FD, .data.fd = 2},
    };
    char **env = environment();
    uv_process_options_t options = {.file = e->program,
                                    .args = args,
                                    .env = env,
                                    .exit_cb = on_ended,
                                    .stdio = stdio,
                                    .stdio_count = 3};
    e->life = life;
    e->state = ENGINE_STARTING;
    int bad = uv_spawn(e->loop, &life->process, &options);
    free(env);
    life->open = 3;
    if (bad) {
        life->over = true;
        snprintf(e->trouble, sizeof e->trouble, "starting %s: %s", e->program, uv_strerror(bad));
        log_error("engine.start", "device=%s text=\"%s\"", e->device, e->trouble);
        e->state = ENGINE_BROKEN;
        uv_close((uv_handle_t *)&life->process, on_closed);
        uv_close((uv_handle_t *)&life->in, on_closed);
        uv_close((uv_handle_t *)&life->out, on_closed);
        return;
    }
    uv_read_start((uv_stream_t *)&life->out, on_room, on_read);
    alarm_set(e->alarms, &e->silence, ENGINE_SILENCE_MS, on_silence, e);
    log_info("engine.started", "device=%s launch=%s pid=%d", e->device, launch, life->process.pid);
}

struct engine_process *engine_process_new(uv_loop_t *loop, struct alarms *alarms,
                                          const struct engine_options *o,
                                          const struct engine_events *events, void *data)
{
    struct engine_process *e = alloc_zero(1, sizeof *e);
    e->loop = loop;
    e->alarms = alarms;
    e->events = *events;
    e->data = data;
    e->program = alloc_string(o->program);
    e->device = alloc_string(o->device);
    e->precision = alloc_string(o->precision);
    e->cache = alloc_string(o->cache);
    e->state = ENGINE_DEAD;
    return e;
}

void engine_process_replace(struct engine_process *e, const char *why)
{
    if (!e->stopping) end_life(e, why);
}

void engine_process_break(struct engine_process *e, const char *why)
{
    e->state = ENGINE_BROKEN;
    str_clean(e->trouble, sizeof e->trouble, why);
    log_error("engine.broken", "device=%s text=\"%s\"", e->device, e->trouble);
    end_life(e, e->trouble);
}

void engine_process_mend(struct engine_process *e)
{
    if (e->state != ENGINE_BROKEN) return;
    memset(e->deaths_ms, 0, sizeof e->deaths_ms);
    e->trouble[0] = 0;
    e->state = ENGINE_DEAD;
    alarm_set(e->alarms, &e->again, 0, on_again, e);
}

/* ---- sending ---- */

struct letter {
    uv_write_t write;
    struct buf bytes;
};

static void on_written(uv_write_t *write, int status)
{
    struct letter *letter = (struct letter *)write;
    buf_release(&letter->bytes);
    free(letter);
}

int engine_process_send(struct engine_process *e, const struct engine_msg *m, struct error *err)
{
    if (!e->life || e->life->over)
        return error_set(err, ERR_DEVICE, "the engine on %s is not running", e->device);
    struct letter *letter = alloc_zero(1, sizeof *letter);
    buf_init(&letter->bytes, FRAME_ENGINE_MAX + FRAME_HEAD_BYTES);
    int rc = engine_msg_encode(m, &letter->bytes, err);
    if (!rc) {
        uv_buf_t b = uv_buf_init((char *)letter->bytes.data, (unsigned)letter->bytes.length);
        int bad = uv_write(&letter->write, (uv_stream_t *)&e->life->in, &b, 1, on_written);
        if (!bad) return 0;
        rc = error_set(err, ERR_DEVICE, "writing to the engine: %s", uv_strerror(bad));
    }
    buf_release(&letter->bytes);
    free(letter);
    return rc;
}

static void on_kill(void *data)
{
    struct engine_process *e = data;
    if (!e->life || e->life->over) return;
    uv_process_kill(&e->life->process, e->stop_signal);
    e->stop_signal = SIGKILL;
    alarm_set(e->alarms, &e->kill, 1000, on_kill, e);
}

void engine_process_stop(struct engine_process *e, int64_t grace_ms, void (*freed)(void *data),
                         void *data)
{
    if (e->stopping) return;
    e->stopping = true;
    e->freed = freed;
    e->freed_data = data;
    alarm_drop(&e->silence);
    alarm_drop(&e->again);
    e->state = ENGINE_STOPPED;
    if (!e->life) {
        free_self(e);
        return;
    }
    if (e->life->over) return; /* freed when its handles are closed */
    struct engine_msg m;
    engine_msg_init(&m, ENGINE_SHUTDOWN, e->launches, "");
    engine_process_send(e, &m, NULL);
    e->stop_signal = SIGTERM;
    alarm_set(e->alarms, &e->kill, grace_ms, on_kill, e);
}
