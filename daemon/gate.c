#include "daemon/gate.h"

#include <dirent.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/now.h"
#include "base/str.h"
#include "config/schedule.h"

#define IN_MS 10000
#define OUT_MS 120000

static const char *const names[GATE_COUNT] = {"paused",      "schedule",    "battery", "disk",
                                              "foreign_use", "temperature", "user"};

const char *gate_name(enum gate_kind k)
{
    return names[k];
}

static bool within_hours(const struct config *c)
{
    if (!c->schedule.count) return true;
    time_t seconds = (time_t)(now_wall_ms() / 1000);
    struct tm tm;
    localtime_r(&seconds, &tm);
    for (unsigned i = 0; i < c->schedule.count; i++) {
        struct schedule_span span;
        if (!schedule_parse(&span, c->schedule.items[i], NULL) &&
            schedule_covers(&span, tm.tm_wday, tm.tm_hour * 60 + tm.tm_min))
            return true;
    }
    return false;
}

/* a mains supply that says it is off, and none that says it is on */
static bool on_battery(void)
{
    DIR *d = opendir("/sys/class/power_supply");
    bool on = false, off = false;
    for (struct dirent *e; d && (e = readdir(d));) {
        char path[600], value[8] = "";
        if (e->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "/sys/class/power_supply/%s/online", e->d_name);
        FILE *f = fopen(path, "re");
        if (!f) continue;
        if (fgets(value, sizeof value, f)) {
            on |= value[0] == '1';
            off |= value[0] == '0';
        }
        fclose(f);
    }
    if (d) closedir(d);
    return off && !on;
}

bool gate_is_urgent(enum gate_kind k)
{
    return k == GATE_FOREIGN_USE || k == GATE_TEMPERATURE || k == GATE_USER;
}

/* The terminal driver notes the time of reading (to 8 seconds, so that nobody can measure typing). */
static void newest_read(const char *folder, const char *start, double *newest)
{
    DIR *d = opendir(folder);
    for (struct dirent *e; d && (e = readdir(d));) {
        struct stat st;
        size_t length = strlen(start);
        char digit = strncmp(e->d_name, start, length) ? 0 : e->d_name[length];
        if (digit < '0' || digit > '9' || fstatat(dirfd(d), e->d_name, &st, 0)) continue;
        if (S_ISCHR(st.st_mode) && (isnan(*newest) || (double)st.st_atime > *newest))
            *newest = (double)st.st_atime;
    }
    if (d) closedir(d);
}

double gate_user_idle_s(const char *devices_folder)
{
    double newest = NAN;
    char terminals[400];
    snprintf(terminals, sizeof terminals, "%s/pts", devices_folder);
    newest_read(devices_folder, "tty", &newest);
    newest_read(terminals, "", &newest);
    double idle = (double)now_wall_ms() / 1000 - newest;
    return idle < 0 ? 0 : idle;
}

static bool settle(struct gate *g, enum gate_kind k, bool raw, int64_t in_ms, int64_t out_ms)
{
    int64_t now = now_ms();
    bool was = g->measured[k].shut;
    if (raw != g->measured[k].raw) {
        g->measured[k].raw = raw;
        g->measured[k].since_ms = now;
    }
    if (now - g->measured[k].since_ms >= (raw ? in_ms : out_ms)) g->measured[k].shut = raw;
    return was != g->measured[k].shut;
}

bool gate_look(struct gate *g, const struct config *c, const struct gate_facts *facts)
{
    int64_t floor_bytes = c->disk_floor_mb << 20;
    bool changed = false;
    if (g->paused && g->paused_until_ms && now_ms() >= g->paused_until_ms) {
        gate_resume(g);
        changed = true;
    }
    bool full =
        facts->disk_tight || (facts->disk_free_bytes >= 0 && facts->disk_free_bytes < floor_bytes);
    changed |= settle(g, GATE_DISK, full, 0, 0);
    changed |= settle(g, GATE_SCHEDULE, !within_hours(c), 0, 0);
    changed |= settle(g, GATE_BATTERY, c->mains_only && on_battery(), IN_MS, OUT_MS);
    changed |=
        settle(g, GATE_FOREIGN_USE,
               c->pause_when_gpu_busy && !isnan(facts->foreign_use) && facts->foreign_use > 0.1,
               IN_MS, OUT_MS);
    /* five degrees cooler before it counts as cool */
    double limit = (double)c->max_temperature_c - (gate_is_shut(g, GATE_TEMPERATURE) ? 5 : 0);
    changed |= settle(g, GATE_TEMPERATURE, c->max_temperature_c && facts->temperature_c > limit,
                      IN_MS, OUT_MS);
    changed |= settle(g, GATE_USER,
                      c->user_idle_min && facts->user_idle_s < (double)c->user_idle_min * 60, 0, 0);
    return changed;
}

bool gate_is_shut(const struct gate *g, enum gate_kind k)
{
    return k == GATE_PAUSED ? g->paused : g->measured[k].shut;
}

bool gate_is_open(const struct gate *g)
{
    for (int k = 0; k < GATE_COUNT; k++)
        if (gate_is_shut(g, (enum gate_kind)k)) return false;
    return true;
}

void gate_tell(char *text, size_t room, const struct gate *g, enum gate_kind k,
               const struct config *c)
{
    switch (k) {
    case GATE_PAUSED:
        snprintf(text, room, "paused by you%s%s", g->pause_reason[0] ? ": " : "", g->pause_reason);
        break;
    case GATE_SCHEDULE: snprintf(text, room, "outside the hours of the schedule"); break;
    case GATE_BATTERY: snprintf(text, room, "the machine runs on its battery"); break;
    case GATE_DISK:
        snprintf(text, room, "less than %lld MB are free where the ledger is",
                 (long long)c->disk_floor_mb);
        break;
    case GATE_FOREIGN_USE: snprintf(text, room, "another program uses the GPU"); break;
    case GATE_TEMPERATURE:
        snprintf(text, room, "the GPU is hotter than %lld degrees Celsius",
                 (long long)c->max_temperature_c);
        break;
    case GATE_USER:
        snprintf(text, room, "somebody typed here or used the desktop within the last %lld minutes",
                 (long long)c->user_idle_min);
        break;
    case GATE_COUNT: *text = 0;
    }
}

void gate_pause(struct gate *g, int64_t for_ms, const char *reason)
{
    g->paused = true;
    g->paused_until_ms = for_ms > 0 ? now_ms() + for_ms : 0;
    str_clean(g->pause_reason, sizeof g->pause_reason, reason ? reason : "");
}

void gate_resume(struct gate *g)
{
    g->paused = false;
    g->paused_until_ms = 0;
    g->pause_reason[0] = 0;
}
