#include "store/note.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/str.h"

void note_init(struct note *n)
{
    *n = (struct note){0};
}

void note_release(struct note *n)
{
    for (int i = 0; i < n->count; i++) {
        free(n->keys[i]);
        free(n->values[i]);
    }
    *n = (struct note){0};
}

const char *note_get(const struct note *n, const char *key)
{
    for (int i = 0; i < n->count; i++)
        if (str_equal(n->keys[i], key)) return n->values[i];
    return "";
}

int64_t note_get_i64(const struct note *n, const char *key)
{
    int64_t value = 0;
    str_parse_i64(note_get(n, key), &value);
    return value;
}

void note_set(struct note *n, const char *key, const char *value)
{
    char *copy = alloc_string(value ? value : "");
    for (char *c = copy; *c; c++)
        if (*c == '\n' || *c == '\r') *c = ' ';
    for (int i = 0; i < n->count; i++)
        if (str_equal(n->keys[i], key)) {
            free(n->values[i]);
            n->values[i] = copy;
            return;
        }
    KILN_ASSERT(n->count < NOTE_LINES_MAX, "a note of more than %d lines", NOTE_LINES_MAX);
    n->keys[n->count] = alloc_string(key);
    n->values[n->count++] = copy;
}

void note_set_i64(struct note *n, const char *key, int64_t value)
{
    char text[24];
    snprintf(text, sizeof text, "%lld", (long long)value);
    note_set(n, key, text);
}

static void take_line(struct note *n, char *line)
{
    char *space = strchr(line, ' ');
    if (!space || n->count == NOTE_LINES_MAX) return;
    *space = 0;
    note_set(n, line, space + 1);
}

void note_read(struct note *n, int folder, const char *name)
{
    char text[NOTE_BYTES_MAX + 1];
    note_init(n);
    int fd = openat(folder, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) return;
    ssize_t length = read(fd, text, sizeof text);
    close(fd);
    if (length <= 0 || length > NOTE_BYTES_MAX || memchr(text, 0, (size_t)length)) return;
    text[length] = 0;
    char *rest = text;
    for (char *line = strsep(&rest, "\n"); line; line = strsep(&rest, "\n")) take_line(n, line);
}

static int write_whole(int fd, const char *text, size_t length)
{
    while (length) {
        ssize_t done = write(fd, text, length);
        if (done < 0 && errno == EINTR) continue;
        if (done < 0) return -1;
        text += done;
        length -= (size_t)done;
    }
    return fsync(fd);
}

int note_write(const struct note *n, int folder, const char *name, struct error *err)
{
    char *draft = alloc_printf("%s.new", name), *text = alloc_string("");
    for (int i = 0; i < n->count; i++) {
        char *longer = alloc_printf("%s%s %s\n", text, n->keys[i], n->values[i]);
        free(text);
        text = longer;
    }
    int rc = 0;
    int fd = openat(folder, draft, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    int failed = fd < 0 || write_whole(fd, text, strlen(text));
    if (fd >= 0 && close(fd)) failed = 1;
    if (failed || renameat(folder, draft, folder, name))
        rc = error_set_errno(err, ERR_IO, errno, "writing %s", name);
    if (rc) unlinkat(folder, draft, 0);
    free(draft);
    free(text);
    return rc;
}
