#include "daemon/seat.h"

#include <dlfcn.h>
#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/now.h"
#include "base/str.h"

#define LOGIND "org.freedesktop.login1"
#define CALL_USEC 2000000 /* a bus that does not answer */

struct sd_bus;

/* libsystemd's, by their names there */
struct library {
    void *handle;
    int (*get_sessions)(char ***sessions);
    int (*session_is_active)(const char *session);
    int (*session_get_type)(const char *session, char **type);
    int (*session_get_class)(const char *session, char **class);
    int (*bus_open_system)(struct sd_bus **bus);
    struct sd_bus *(*bus_flush_close_unref)(struct sd_bus *bus);
    int (*bus_set_method_call_timeout)(struct sd_bus *bus, uint64_t usec);
    int (*bus_path_encode)(const char *prefix, const char *id, char **path);
    int (*bus_get_property_trivial)(struct sd_bus *bus, const char *destination, const char *path,
                                    const char *interface, const char *member, void *error,
                                    char type, void *to);
};

struct seat {
    struct library lib;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool stopping;
    double idle_s; /* at looked_ms */
    int64_t looked_ms;
};

/* ---- the library ---- */

static bool library_open(struct library *l)
{
    const char *path = getenv("KILN_LIBSYSTEMD"); /* a stand-in, in tests */
    l->handle = dlopen(path && *path ? path : "libsystemd.so.0", RTLD_NOW | RTLD_LOCAL);
    const struct {
        const char *name;
        void *to;
    } table[] = {
        {"sd_get_sessions", &l->get_sessions},
        {"sd_session_is_active", &l->session_is_active},
        {"sd_session_get_type", &l->session_get_type},
        {"sd_session_get_class", &l->session_get_class},
        {"sd_bus_open_system", &l->bus_open_system},
        {"sd_bus_flush_close_unref", &l->bus_flush_close_unref},
        {"sd_bus_set_method_call_timeout", &l->bus_set_method_call_timeout},
        {"sd_bus_path_encode", &l->bus_path_encode},
        {"sd_bus_get_property_trivial", &l->bus_get_property_trivial},
    };
    for (size_t i = 0; l->handle && i < COUNT_OF(table); i++) {
        *(void **)table[i].to = dlsym(l->handle, table[i].name);
        if (*(void **)table[i].to) continue;
        dlclose(l->handle);
        l->handle = NULL;
    }
    return l->handle != NULL;
}

/* ---- one look ---- */

static bool is_desktop_of_a_person(const struct library *l, const char *session)
{
    char *type = NULL, *class = NULL;
    bool is = l->session_is_active(session) > 0 && l->session_get_type(session, &type) >= 0 &&
              l->session_get_class(session, &class) >= 0 && str_equal(class, "user") &&
              (str_equal(type, "x11") || str_equal(type, "wayland") || str_equal(type, "mir"));
    free(type);
    free(class);
    return is;
}

static double session_idle_s(const struct library *l, struct sd_bus *bus, const char *session)
{
    char *path = NULL;
    int idle = 0;
    uint64_t since_usec = 0;
    double s = NAN;
    if (l->bus_path_encode("/org/freedesktop/login1/session", session, &path) < 0) return NAN;
    if (l->bus_get_property_trivial(bus, LOGIND, path, LOGIND ".Session", "IdleHint", NULL, 'b',
                                    &idle) >= 0 &&
        l->bus_get_property_trivial(bus, LOGIND, path, LOGIND ".Session", "IdleSinceHint", NULL,
                                    't', &since_usec) >= 0)
        s = idle ? (double)now_wall_ms() / 1000 - (double)since_usec / 1e6 : 0;
    free(path);
    return s < 0 ? 0 : s;
}

static double look(const struct library *l)
{
    char **sessions = NULL;
    struct sd_bus *bus = NULL;
    double least = NAN;
    int count = l->get_sessions(&sessions);
    for (int i = 0; i < count; i++) {
        if (!is_desktop_of_a_person(l, sessions[i])) continue;
        if (!bus && l->bus_open_system(&bus) < 0) break;
        l->bus_set_method_call_timeout(bus, CALL_USEC);
        double s = session_idle_s(l, bus, sessions[i]);
        if (!isnan(s) && !(least <= s)) least = s;
    }
    if (bus) l->bus_flush_close_unref(bus);
    for (int i = 0; i < count; i++) free(sessions[i]);
    if (count >= 0) free(sessions);
    return least;
}

/* ---- the thread ---- */

static void *watch(void *context)
{
    struct seat *s = context;
    pthread_mutex_lock(&s->lock);
    while (!s->stopping) {
        pthread_mutex_unlock(&s->lock);
        double idle_s = look(&s->lib);
        pthread_mutex_lock(&s->lock);
        s->idle_s = idle_s;
        s->looked_ms = now_ms();
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec += SEAT_LOOK_SECONDS;
        while (!s->stopping && !pthread_cond_timedwait(&s->changed, &s->lock, &until)) continue;
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

int seat_start(struct seat **seat, struct error *err)
{
    struct seat *s = alloc_zero(1, sizeof *s);
    s->idle_s = NAN;
    if (!library_open(&s->lib)) {
        free(s);
        return error_set(err, ERR_NOT_FOUND,
                         "libsystemd is not here: user_idle_minutes sees terminals only");
    }
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->changed, NULL);
    int bad = pthread_create(&s->thread, NULL, watch, s);
    if (bad) {
        dlclose(s->lib.handle);
        free(s);
        return error_set_errno(err, ERR_NO_MEMORY, bad, "starting the thread that asks logind");
    }
    *seat = s;
    return 0;
}

void seat_stop(struct seat *s)
{
    if (!s) return;
    pthread_mutex_lock(&s->lock);
    s->stopping = true;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->thread, NULL);
    pthread_cond_destroy(&s->changed);
    pthread_mutex_destroy(&s->lock);
    dlclose(s->lib.handle);
    free(s);
}

double seat_idle_s(struct seat *s)
{
    if (!s) return NAN;
    pthread_mutex_lock(&s->lock);
    /* who was idle a moment ago still is, a little longer */
    double idle_s =
        s->idle_s > 0 ? s->idle_s + (double)(now_ms() - s->looked_ms) / 1000 : s->idle_s;
    pthread_mutex_unlock(&s->lock);
    return idle_s;
}
