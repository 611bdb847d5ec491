#include "base/log.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LINES_PER_SECOND 50

static struct {
    pthread_mutex_t lock;
    const char *program;
    enum log_level level;
    time_t second;
    unsigned lines;
    unsigned dropped;
} sink = {.lock = PTHREAD_MUTEX_INITIALIZER, .program = "kiln", .level = LOG_INFO};

void log_start(const char *program, enum log_level level)
{
    sink.program = program;
    sink.level = level;
}

void log_set_level(enum log_level level)
{
    sink.level = level;
}

bool log_enabled(enum log_level level)
{
    return level <= sink.level;
}

static bool may_write(time_t now, unsigned *dropped)
{
    *dropped = 0;
    if (now != sink.second) {
        *dropped = sink.dropped;
        sink.second = now;
        sink.lines = 0;
        sink.dropped = 0;
    }
    if (sink.lines >= LINES_PER_SECOND) {
        sink.dropped++;
        return false;
    }
    sink.lines++;
    return true;
}

void log_event(enum log_level level, const char *event, const char *format, ...)
{
    static const char *const words[] = {"error", "warn", "info", "debug"};
    if (!log_enabled(level)) return;
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    struct tm tm;
    gmtime_r(&ts.tv_sec, &tm);
    char line[1024];
    size_t used = strftime(line, sizeof line, "%Y-%m-%dT%H:%M:%S", &tm);
    used += (size_t)snprintf(line + used, sizeof line - used, ".%03ldZ %s %s %s ",
                             ts.tv_nsec / 1000000, sink.program, words[level], event);
    va_list args;
    va_start(args, format);
    int more = vsnprintf(line + used, sizeof line - used - 1, format, args);
    va_end(args);
    if (more > 0) used += (size_t)more;
    if (used > sizeof line - 2) used = sizeof line - 2;
    for (size_t i = 0; i < used; i++)
        if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f) line[i] = '?';
    while (used && line[used - 1] == ' ') used--;
    line[used++] = '\n';

    pthread_mutex_lock(&sink.lock);
    unsigned dropped;
    if (level == LOG_ERROR || may_write(ts.tv_sec, &dropped)) {
        ssize_t ignored = write(STDERR_FILENO, line, used);
        (void)ignored;
    }
    pthread_mutex_unlock(&sink.lock);
}
