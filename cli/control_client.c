#include "cli/control_client.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/now.h"
#include "base/str.h"
#include "config/folders.h"
#include "proto/frame.h"

#define ANSWER_SECONDS 10

static int connect_to(const char *path, struct error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path)
        return error_set(err, ERR_INVALID, "socket path %s is longer than %zu bytes", path,
                         sizeof address.sun_path - 1);
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return error_set_errno(err, ERR_IO, errno, "a socket");
    struct timeval wait = {.tv_sec = ANSWER_SECONDS};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof wait);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0) return fd;
    int saved = errno;
    close(fd);
    if (saved == ENOENT || saved == ECONNREFUSED)
        return error_set(
            err, ERR_NOT_FOUND,
            "no kilnd is running: nothing listens on %s (start it with kilnd --config FILE)", path);
    return error_set_errno(err, saved == EACCES ? ERR_REFUSED : ERR_IO, saved, "connecting to %s",
                           path);
}

static int send_all(int fd, const struct buf *out, struct error *err)
{
    for (size_t at = 0; at < out->length;) {
        ssize_t put = send(fd, out->data + at, out->length - at, MSG_NOSIGNAL);
        if (put < 0 && errno == EINTR) continue;
        if (put <= 0) return error_set_errno(err, ERR_NETWORK, errno, "asking kilnd");
        at += (size_t)put;
    }
    return 0;
}

static int receive(int fd, struct buf *in, const uint8_t **payload, size_t *length,
                   struct error *err)
{
    for (;;) {
        int got = frame_next(in, FRAME_CONTROL_MAX, payload, length, err);
        if (got < 0) return got;
        if (got > 0) return 0;
        uint8_t *to = buf_reserve(in, 65536, err);
        if (!to) return ERR_NO_MEMORY;
        ssize_t n = recv(fd, to, 65536, 0);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return error_set(err, ERR_NETWORK, "kilnd did not answer within %d seconds",
                             ANSWER_SECONDS);
        if (n < 0) return error_set_errno(err, ERR_NETWORK, errno, "listening to kilnd");
        if (n == 0) return error_set(err, ERR_NETWORK, "kilnd closed the connection");
        buf_commit(in, (size_t)n);
    }
}

int control_ask(struct control_reply *reply, const struct control_request *request,
                const char *socket_path, struct error *err)
{
    struct folders folders = {0};
    struct buf out, in;
    const uint8_t *payload;
    size_t length;
    buf_init(&out, FRAME_CONTROL_MAX + FRAME_HEAD_BYTES);
    buf_init(&in, FRAME_CONTROL_MAX + FRAME_HEAD_BYTES + 65536);
    int rc = socket_path ? 0 : folders_init(&folders, NULL, NULL, err);
    int fd = -1;
    if (!rc) rc = fd = connect_to(socket_path ? socket_path : folders.socket, err);
    if (rc > 0) rc = 0;
    if (!rc) rc = control_request_encode(request, &out, err);
    if (!rc) rc = send_all(fd, &out, err);
    if (!rc) rc = receive(fd, &in, &payload, &length, err);
    if (!rc) rc = control_reply_decode(reply, payload, length, err);
    if (!rc && reply->doc == CONTROL_DOC_ERROR) {
        rc = error_set(err, ERR_REFUSED, "%s", reply->error.text);
        control_reply_release(reply);
    }
    if (fd >= 0) close(fd);
    buf_release(&in);
    buf_release(&out);
    folders_release(&folders);
    return rc;
}

/* "90", "90s", "15m", "2h", "1d" in seconds */
static bool parse_duration(const char *text, int64_t *seconds)
{
    static const struct {
        char unit;
        int64_t seconds;
    } units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}};
    char digits[24];
    size_t n = strlen(text);
    int64_t factor = 1;
    if (n == 0 || n >= sizeof digits) return false;
    memcpy(digits, text, n + 1);
    for (int i = 0; i < 4; i++)
        if (text[n - 1] == units[i].unit) {
            factor = units[i].seconds;
            digits[n - 1] = 0;
        }
    if (!str_parse_i64(digits, seconds) || *seconds < 1 || *seconds > 366 * 86400) return false;
    *seconds *= factor;
    return true;
}

int ask_options_parse(struct ask_options *o, const struct command *c, const char *extra, int argc,
                      char **argv)
{
    static const struct option table[] = {
        {"json", no_argument, NULL, 'j'},        {"socket", required_argument, NULL, 'k'},
        {"limit", required_argument, NULL, 'l'}, {"state", required_argument, NULL, 's'},
        {"now", no_argument, NULL, 'n'},         {"for", required_argument, NULL, 'f'},
        {"since", required_argument, NULL, 't'}, {0},
    };
    int64_t seconds;
    optind = 1;
    opterr = 0;
    for (int id; (id = getopt_long(argc, argv, "", table, NULL)) != -1;) {
        if (id == '?' || (id != 'j' && id != 'k' && !strchr(extra, id)))
            return command_usage(c, "option %s is unknown here or lacks its value",
                                 argv[optind - 1]);
        switch (id) {
        case 'j': o->json = true; break;
        case 'k': o->socket = optarg; break;
        case 'n': o->request.now = true; break;
        case 's': o->request.state = optarg; break;
        case 'l':
            if (!str_parse_i64(optarg, &o->request.limit) || o->request.limit < 1 ||
                o->request.limit > 1000)
                return command_usage(c, "--limit %s: a number from 1 to 1000 is expected", optarg);
            break;
        case 'f':
            if (!parse_duration(optarg, &o->request.for_seconds))
                return command_usage(c, "--for %s: a time such as 90s, 15m, 2h is expected",
                                     optarg);
            break;
        case 't':
            if (!parse_duration(optarg, &seconds))
                return command_usage(c, "--since %s: a time such as 15m, 2h, 7d is expected",
                                     optarg);
            o->request.since_wall_ms = now_wall_ms() - seconds * 1000;
            break;
        }
    }
    if (optind < argc) return command_usage(c, "\"%s\" belongs to no option", argv[optind]);
    return EXIT_DONE;
}

int ask_and_print(const struct command *c, struct ask_options *o,
                  void (*print)(const struct control_reply *reply))
{
    struct control_reply reply = {0};
    struct error err = {0};
    int rc = control_ask(&reply, &o->request, o->socket, &err);
    if (rc) return command_fail(c, &err);
    if (o->json) {
        struct buf out;
        buf_init(&out, 8u << 20);
        rc = control_reply_print(&reply, &out, &err);
        if (!rc) fwrite(out.data, 1, out.length, stdout);
        buf_release(&out);
    } else {
        print(&reply);
    }
    control_reply_release(&reply);
    return rc ? command_fail(c, &err) : EXIT_DONE;
}
