#include "image/apart.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/data_path.h"
#include "base/str.h"

#define APART_SECONDS 10

struct helper {
    pid_t pid;
    int to_fd, from_fd;
};

static int start(struct helper *h, const char *program, struct error *err)
{
    int to[2], from[2];
    if (pipe(to)) return error_set_errno(err, ERR_IO, errno, "a pipe to the picture decoder");
    if (pipe(from)) {
        int saved = errno;
        close(to[0]);
        close(to[1]);
        return error_set_errno(err, ERR_IO, saved, "a pipe from the picture decoder");
    }
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, to[0], STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, from[1], STDOUT_FILENO);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", 1, 0);
    posix_spawn_file_actions_addclosefrom_np(&actions, 3);
    char *argv[] = {(char *)(uintptr_t)program, NULL}, *envp[] = {NULL};
    int rc = posix_spawn(&h->pid, program, &actions, NULL, argv, envp);
    posix_spawn_file_actions_destroy(&actions);
    close(to[0]);
    close(from[1]);
    h->to_fd = to[1];
    h->from_fd = from[0];
    if (!rc) return 0;
    close(h->to_fd);
    close(h->from_fd);
    return error_set_errno(err, ERR_IO, rc, "starting %s", program);
}

/* Feeds and reads at once, so that neither pipe can fill up and stop both. */
static int exchange(struct helper *h, const uint8_t *data, size_t length, struct buf *reply)
{
    struct buf *r = reply;
    while (true) {
        struct pollfd fds[2] = {{.fd = h->from_fd, .events = POLLIN},
                                {.fd = h->to_fd, .events = POLLOUT}};
        int n = poll(fds, h->to_fd >= 0 ? 2 : 1, APART_SECONDS * 1000);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return -1;
        if (h->to_fd >= 0 && fds[1].revents) {
            ssize_t put = length ? write(h->to_fd, data, length > 65536 ? 65536 : length) : 0;
            if (put > 0) {
                data += put;
                length -= (size_t)put;
            }
            if (length == 0 || (put < 0 && errno != EINTR)) {
                close(h->to_fd);
                h->to_fd = -1;
            }
        }
        if (fds[0].revents) {
            uint8_t *to = buf_reserve(r, 1 << 18, NULL);
            ssize_t got = to ? read(h->from_fd, to, 1 << 18) : -1;
            if (got < 0 && errno == EINTR) continue;
            if (got < 0) return -1;
            if (got == 0) return 0;
            buf_commit(r, (size_t)got);
        }
    }
}

static void stop(struct helper *h)
{
    int status;
    if (h->to_fd >= 0) close(h->to_fd);
    close(h->from_fd);
    kill(h->pid, SIGKILL);
    while (waitpid(h->pid, &status, 0) < 0 && errno == EINTR) continue;
}

static int take(struct pixels *pixels, const char *name, const struct buf *reply, struct error *err)
{
    struct apart_head head;
    if (reply->length < sizeof head)
        return error_set(err, ERR_FORMAT, "picture %s could not be decoded within its limits",
                         name);
    memcpy(&head, reply->data, sizeof head);
    size_t left = reply->length - sizeof head;
    if (head.channels == 0) {
        char text[ERROR_TEXT_BYTES];
        char *raw = alloc_string_n((const char *)reply->data + sizeof head, left);
        str_clean(text, sizeof text, raw);
        free(raw);
        int code = (int)head.code;
        return error_set(err, code == ERR_INVALID || code == ERR_NO_MEMORY ? code : ERR_FORMAT,
                         "%s", text);
    }
    if (head.width > PIXELS_SIDE_MAX_PX || head.height > PIXELS_SIDE_MAX_PX || head.channels > 4 ||
        left != (size_t)head.width * head.height * head.channels)
        return error_set(err, ERR_FORMAT, "picture %s: the decoder's answer makes no sense", name);
    int rc = pixels_new(pixels, (int)head.width, (int)head.height, (int)head.channels, err);
    if (!rc) memcpy(pixels->data, reply->data + sizeof head, left);
    return rc;
}

int apart_decode(struct pixels *pixels, const char *name, const uint8_t *data, size_t length,
                 struct error *err)
{
    struct image_header header;
    struct helper h;
    struct buf reply;
    int rc = codec_probe(&header, name, data, length, err);
    if (rc) return rc;
    char *program = data_path_program("kiln-decode");
    if (!program) return error_set(err, ERR_NOT_FOUND, "kiln-decode is not beside the engine");
    buf_init(&reply, (size_t)PIXELS_COUNT_MAX * 4 + (1 << 19));
    rc = start(&h, program, err);
    if (!rc) {
        if (exchange(&h, data, length, &reply)) buf_clear(&reply);
        stop(&h);
        rc = take(pixels, name, &reply, err);
    }
    buf_release(&reply);
    free(program);
    return rc;
}
