#include "cli/local_engine.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/data_path.h"

static volatile sig_atomic_t interrupts;

static void on_interrupt(int signal_number)
{
    (void)signal_number;
    interrupts++;
    if (interrupts > 2) _exit(130);
}

static void watch_interrupts(void)
{
    struct sigaction action = {.sa_handler = on_interrupt};
    interrupts = 0;
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

char *local_engine_program(struct error *err)
{
    const char *named = getenv("KILN_ENGINE");
    char *path = named && *named ? alloc_string(named) : data_path_program("kiln-engine");
    if (!path)
        error_set(err, ERR_NOT_FOUND, "kiln-engine is not beside kiln; KILN_ENGINE can name it");
    return path;
}

static void run_child(const char *path, int in_fd, int out_fd, const char *device,
                      const char *precision)
{
    dup2(in_fd, STDIN_FILENO);
    dup2(out_fd, STDOUT_FILENO);
    const char *argv[] = {path,
                          "--launch",
                          "1",
                          "--device",
                          device ? device : "cpu",
                          "--precision",
                          precision ? precision : "auto",
                          "--safety", /* own pictures are nobody's business */
                          "none",
                          NULL};
    execv(path, (char *const *)(uintptr_t)argv);
    fprintf(stderr, "kiln: starting %s: %s\n", path, strerror(errno));
    _exit(127);
}

int local_engine_start(struct local_engine *e, const char *device, const char *precision,
                       struct error *err)
{
    int to[2], from[2];
    *e = (struct local_engine){.pid = -1, .to_fd = -1, .from_fd = -1, .launch_id = 1};
    buf_init(&e->in, FRAME_ENGINE_MAX + FRAME_HEAD_BYTES);
    char *path = local_engine_program(err);
    if (!path) return ERR_NOT_FOUND;
    if (pipe2(to, O_CLOEXEC)) {
        free(path);
        return error_set_errno(err, ERR_IO, errno, "a pipe to the engine");
    }
    if (pipe2(from, O_CLOEXEC)) {
        int saved = errno;
        close(to[0]);
        close(to[1]);
        free(path);
        return error_set_errno(err, ERR_IO, saved, "a pipe from the engine");
    }
    watch_interrupts();
    e->pid = fork();
    if (e->pid == 0) run_child(path, to[0], from[1], device, precision);
    free(path);
    close(to[0]);
    close(from[1]);
    e->to_fd = to[1];
    e->from_fd = from[0];
    if (e->pid < 0) {
        int rc = error_set_errno(err, ERR_IO, errno, "starting the engine");
        local_engine_stop(e);
        return rc;
    }
    struct engine_msg hello;
    int rc = local_engine_next(e, &hello, "", err);
    if (!rc && hello.kind != ENGINE_HELLO)
        rc = error_set(err, ERR_FORMAT, "the engine began with \"%s\"",
                       engine_kind_name(hello.kind));
    if (!rc) engine_msg_release(&hello);
    if (rc) local_engine_stop(e);
    return rc;
}

void local_engine_stop(struct local_engine *e)
{
    if (e->to_fd >= 0) close(e->to_fd);
    if (e->from_fd >= 0) close(e->from_fd);
    e->to_fd = e->from_fd = -1;
    if (e->pid > 0) {
        int status;
        while (waitpid(e->pid, &status, 0) < 0 && errno == EINTR) continue;
    }
    e->pid = -1;
    buf_release(&e->in);
}

int local_engine_send(struct local_engine *e, const struct engine_msg *m, struct error *err)
{
    struct buf out;
    buf_init(&out, FRAME_ENGINE_MAX + FRAME_HEAD_BYTES);
    int rc = engine_msg_encode(m, &out, err);
    for (size_t at = 0; !rc && at < out.length;) {
        ssize_t put = write(e->to_fd, out.data + at, out.length - at);
        if (put < 0 && errno == EINTR) continue;
        if (put <= 0)
            rc = error_set_errno(err, ERR_NETWORK, errno, "the engine has ended");
        else
            at += (size_t)put;
    }
    buf_release(&out);
    return rc;
}

static int read_more(struct local_engine *e, struct error *err)
{
    uint8_t *to = buf_reserve(&e->in, 1 << 16, err);
    if (!to) return ERR_NO_MEMORY;
    ssize_t got = read(e->from_fd, to, 1 << 16);
    if (got < 0 && errno == EINTR) return 0;
    if (got < 0) return error_set_errno(err, ERR_IO, errno, "reading from the engine");
    if (got == 0) {
        int status = 0;
        waitpid(e->pid, &status, 0);
        e->pid = -1;
        if (WIFSIGNALED(status))
            return error_set(err, ERR_NETWORK, "the engine was ended by signal %d (%s)%s",
                             WTERMSIG(status), strsignal(WTERMSIG(status)),
                             WTERMSIG(status) == SIGKILL ? ": most often for want of memory" : "");
        return error_set(err, ERR_NETWORK, "the engine ended with status %d", WEXITSTATUS(status));
    }
    buf_commit(&e->in, (size_t)got);
    return 0;
}

static void ask_to_cancel(struct local_engine *e, const char *job_id)
{
    struct engine_msg m;
    engine_msg_init(&m, ENGINE_CANCEL, e->launch_id, job_id);
    local_engine_send(e, &m, NULL);
}

int local_engine_next(struct local_engine *e, struct engine_msg *m, const char *job_id,
                      struct error *err)
{
    bool asked = false;
    for (;;) {
        const uint8_t *payload;
        size_t length;
        int got = frame_next(&e->in, FRAME_ENGINE_MAX, &payload, &length, err);
        if (got < 0) return got;
        if (got > 0) {
            int rc = engine_msg_decode(m, payload, length, err);
            frame_drop(&e->in, length);
            if (rc) return rc;
            if (m->kind == ENGINE_ERROR) {
                rc = error_set(err, m->error.code, "%s", m->error.text);
                engine_msg_release(m);
                return rc;
            }
            if (m->kind != ENGINE_HEARTBEAT) return 0;
            engine_msg_release(m);
            continue;
        }
        if (interrupts && !asked && *job_id) {
            ask_to_cancel(e, job_id);
            asked = true;
        }
        struct pollfd waiting = {.fd = e->from_fd, .events = POLLIN};
        if (poll(&waiting, 1, 200) > 0) {
            int rc = read_more(e, err);
            if (rc) return rc;
        }
    }
}
