#include "proto/http_head.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/alloc.h"
#include "base/str.h"

struct piece {
    const char *text;
    size_t length;
};

static bool is_word(const struct piece *p, const char *word)
{
    return p->length == strlen(word) && !strncasecmp(p->text, word, p->length);
}

static struct piece cut(const char *text, size_t length)
{
    while (length && (*text == ' ' || *text == '\t')) text++, length--;
    while (length && (text[length - 1] == ' ' || text[length - 1] == '\t')) length--;
    return (struct piece){text, length};
}

/* this machine's name, and our port or none where that is usual */
static bool host_is_here(const struct piece *host, int port)
{
    static const char *const names[] = {"127.0.0.1", "localhost", "[::1]"};
    for (unsigned i = 0; i < COUNT_OF(names); i++) {
        char whole[40];
        snprintf(whole, sizeof whole, "%s:%d", names[i], port);
        if (is_word(host, whole) || (port == 80 && is_word(host, names[i]))) return true;
    }
    return false;
}

static int read_start(struct http_head *h, const char *line, size_t length, struct error *err)
{
    const char *end = line + length;
    const char *first = memchr(line, ' ', length);
    const char *second = first ? memchr(first + 1, ' ', (size_t)(end - first - 1)) : NULL;
    if (!second || first == line) return error_set(err, ERR_FORMAT, "no HTTP request");
    struct piece method = {line, (size_t)(first - line)};
    struct piece target = {first + 1, (size_t)(second - first - 1)};
    struct piece version = {second + 1, (size_t)(end - second - 1)};
    bool newer = is_word(&version, "HTTP/1.1");
    if (!newer && !is_word(&version, "HTTP/1.0"))
        return error_set(err, ERR_FORMAT, "no HTTP/1 request");
    h->keep = newer;
    h->head = method.length == 4 && !memcmp(method.text, "HEAD", 4);
    if (!h->head && !(method.length == 3 && !memcmp(method.text, "GET", 3))) h->refusal = 405;
    for (size_t i = 0; i < target.length; i++)
        if (target.text[i] == '?') target.length = i;
    if (!target.length || target.text[0] != '/')
        return error_set(err, ERR_FORMAT, "a request for no path");
    if (target.length < sizeof h->target) memcpy(h->target, target.text, target.length);
    return 0;
}

struct seen {
    int hosts;
    bool host_here, cross_site, body;
};

static int read_field(struct http_head *h, struct seen *seen, const char *line, size_t length,
                      int port, struct error *err)
{
    const char *colon = memchr(line, ':', length);
    if (!colon || colon == line || line[0] == ' ' || line[0] == '\t')
        return error_set(err, ERR_FORMAT, "no header line");
    struct piece name = {line, (size_t)(colon - line)};
    struct piece value = cut(colon + 1, length - name.length - 1);
    if (is_word(&name, "Host")) {
        seen->hosts++;
        seen->host_here = host_is_here(&value, port);
    } else if (is_word(&name, "Origin")) {
        seen->cross_site = true; /* no browser sends it for a page that was just opened */
    } else if (is_word(&name, "Sec-Fetch-Site")) {
        seen->cross_site |= !is_word(&value, "none") && !is_word(&value, "same-origin");
    } else if (is_word(&name, "Connection")) {
        if (is_word(&value, "close")) h->keep = false;
    } else if (is_word(&name, "Content-Length")) {
        seen->body |= !is_word(&value, "0");
    } else if (is_word(&name, "Transfer-Encoding")) {
        seen->body = true;
    }
    return 0;
}

int http_head_parse(struct http_head *to, const char *bytes, size_t length, int port,
                    struct error *err)
{
    struct http_head h = {0};
    struct seen seen = {0};
    const char *at = bytes, *end = bytes + length;
    for (int line = 0;; line++) {
        const char *next = memchr(at, '\n', (size_t)(end - at));
        if (!next) {
            return length >= HTTP_HEAD_BYTES_MAX
                       ? error_set(err, ERR_FORMAT, "a head of more than %d bytes",
                                   HTTP_HEAD_BYTES_MAX)
                       : 0;
        }
        size_t n = (size_t)(next - at);
        if (n && at[n - 1] == '\r') n--;
        if (memchr(at, 0, n)) return error_set(err, ERR_FORMAT, "a NUL in the head");
        if ((size_t)(next + 1 - bytes) > HTTP_HEAD_BYTES_MAX)
            return error_set(err, ERR_FORMAT, "a head of more than %d bytes", HTTP_HEAD_BYTES_MAX);
        if (!n && line) {
            h.length = (size_t)(next + 1 - bytes);
            break;
        }
        int rc = line ? read_field(&h, &seen, at, n, port, err) : read_start(&h, at, n, err);
        if (rc) return rc;
        at = next + 1;
    }
    if (seen.hosts != 1 || !seen.host_here || seen.cross_site) h.refusal = 403;
    if (seen.body) { /* it would be taken for the next request */
        h.keep = false;
        if (!h.refusal) h.refusal = 413;
    }
    if (h.refusal) h.keep = false;
    *to = h;
    return 1;
}
