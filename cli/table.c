#include "cli/table.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/alloc.h"
#include "base/error.h"
#include "base/str.h"

static char **new_row(struct table *t)
{
    if (t->count == t->room) {
        t->room = t->room ? 2 * t->room : 16;
        t->rows = alloc_grow(t->rows, (size_t)t->room, sizeof *t->rows);
    }
    return t->rows[t->count++] = alloc_zero((size_t)t->columns, sizeof(char *));
}

void table_start(struct table *t, const char *heads)
{
    *t = (struct table){.columns = 1};
    for (const char *s = heads; *s; s++) t->columns += *s == '|';
    KILN_ASSERT(t->columns <= TABLE_COLUMNS_MAX, "%d", t->columns);
    char **row = new_row(t);
    for (int i = 0; i < t->columns; i++) {
        const char *bar = strchr(heads, '|');
        size_t n = bar ? (size_t)(bar - heads) : strlen(heads);
        row[i] = alloc_string_n(heads, n);
        heads += n + 1;
    }
}

void table_row(struct table *t, ...)
{
    va_list args;
    va_start(args, t);
    char **row = new_row(t);
    for (int i = 0; i < t->columns; i++) {
        const char *text = va_arg(args, const char *);
        row[i] = alloc_zero(strlen(text ? text : "") + 1, 1);
        str_clean(row[i], strlen(text ? text : "") + 1, text ? text : "");
    }
    va_end(args);
}

static int width_of(const char *text)
{
    int n = 0;
    for (; *text; text++) n += ((unsigned char)*text & 0xc0) != 0x80;
    return n;
}

static void print_cell(const char *text, int width, bool right, bool last)
{
    int pad = width - width_of(text);
    if (right)
        printf("%*s%s", pad, "", text);
    else
        printf("%s%*s", text, last ? 0 : pad, "");
    fputs(last ? "\n" : "  ", stdout);
}

void table_print(struct table *t)
{
    int width[TABLE_COLUMNS_MAX] = {0};
    bool right[TABLE_COLUMNS_MAX] = {0};
    for (int i = 0; i < t->columns; i++) {
        right[i] = t->rows[0][i][0] == '>';
        if (right[i]) memmove(t->rows[0][i], t->rows[0][i] + 1, strlen(t->rows[0][i]));
    }
    for (int r = 0; r < t->count; r++)
        for (int i = 0; i < t->columns; i++)
            if (width_of(t->rows[r][i]) > width[i]) width[i] = width_of(t->rows[r][i]);
    for (int r = 0; r < t->count; r++) {
        for (int i = 0; i < t->columns; i++) {
            print_cell(t->rows[r][i], width[i], right[i], i == t->columns - 1);
            free(t->rows[r][i]);
        }
        free(t->rows[r]);
    }
    free(t->rows);
    *t = (struct table){0};
}

char *format_kudos(char text[24], int64_t kudos_milli)
{
    int64_t size = kudos_milli < 0 ? -kudos_milli : kudos_milli;
    snprintf(text, 24, "%s%lld.%03lld", kudos_milli < 0 ? "-" : "", (long long)(size / 1000),
             (long long)(size % 1000));
    return text;
}

char *format_when(char text[24], int64_t wall_ms)
{
    time_t seconds = (time_t)(wall_ms / 1000);
    struct tm tm;
    if (wall_ms == 0) return strcpy(text, "-");
    localtime_r(&seconds, &tm);
    strftime(text, 24, "%Y-%m-%d %H:%M:%S", &tm);
    return text;
}

char *format_bytes(char text[24], int64_t bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double size = (double)bytes;
    int unit = 0;
    while (size >= 1024 && unit < 4) {
        size /= 1024;
        unit++;
    }
    snprintf(text, 24, unit ? "%.1f %s" : "%.0f %s", size, units[unit]);
    return text;
}

char *format_seconds(char text[24], int64_t seconds)
{
    if (seconds < 60)
        snprintf(text, 24, "%lld s", (long long)seconds);
    else if (seconds < 3600)
        snprintf(text, 24, "%lld min %02lld s", (long long)(seconds / 60),
                 (long long)(seconds % 60));
    else if (seconds < 86400)
        snprintf(text, 24, "%lld h %02lld min", (long long)(seconds / 3600),
                 (long long)(seconds / 60 % 60));
    else
        snprintf(text, 24, "%lld d %lld h", (long long)(seconds / 86400),
                 (long long)(seconds / 3600 % 24));
    return text;
}
