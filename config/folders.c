#include "config/folders.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"

/* systemd may give several, colon-separated: the first is ours */
static char *from_systemd(const char *variable)
{
    const char *list = getenv(variable);
    if (!list || !*list) return NULL;
    return alloc_string_n(list, strcspn(list, ":"));
}

static char *from_xdg(const char *variable, const char *below_home)
{
    const char *folder = getenv(variable);
    if (folder && *folder == '/') return alloc_printf("%s/kiln", folder);
    const char *home = getenv("HOME");
    if (!below_home || !home || *home != '/') return NULL;
    return alloc_printf("%s/%s/kiln", home, below_home);
}

int folders_init(struct folders *f, const char *state, const char *cache, struct error *err)
{
    memset(f, 0, sizeof *f);
    f->state = state ? alloc_string(state) : from_systemd("STATE_DIRECTORY");
    f->cache = cache ? alloc_string(cache) : from_systemd("CACHE_DIRECTORY");
    f->runtime = from_systemd("RUNTIME_DIRECTORY");
    if (state) {
        if (!f->cache) f->cache = alloc_printf("%s/cache", state);
        if (!f->runtime) f->runtime = alloc_printf("%s/run", state);
    }
    if (!f->state) f->state = from_xdg("XDG_STATE_HOME", ".local/state");
    if (!f->cache) f->cache = from_xdg("XDG_CACHE_HOME", ".cache");
    if (!f->runtime) f->runtime = from_xdg("XDG_RUNTIME_DIR", NULL);
    if (!f->runtime && f->state) f->runtime = alloc_printf("%s/run", f->state);
    f->data = from_xdg("XDG_DATA_HOME", ".local/share");
    if (!f->data) f->data = alloc_string("/usr/share/kiln");
    if (!f->state || !f->cache) {
        folders_release(f);
        return error_set(err, ERR_NOT_FOUND,
                         "no folder for Kiln's state: set STATE_DIRECTORY, XDG_STATE_HOME or HOME");
    }
    f->socket = alloc_printf("%s/kilnd.sock", f->runtime);
    return 0;
}

void folders_release(struct folders *f)
{
    free(f->state);
    free(f->cache);
    free(f->runtime);
    free(f->data);
    free(f->socket);
    memset(f, 0, sizeof *f);
}

int folders_make_one(const char *path, unsigned mode, struct error *err)
{
    char *whole = alloc_string(path);
    int rc = 0;
    for (char *slash = strchr(whole + 1, '/'); slash && !rc; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        if (mkdir(whole, 0755) && errno != EEXIST)
            rc = error_set_errno(err, ERR_IO, errno, "making the folder %s", whole);
        *slash = '/';
    }
    if (!rc && mkdir(whole, mode) && errno != EEXIST)
        rc = error_set_errno(err, ERR_IO, errno, "making the folder %s", whole);
    free(whole);
    return rc;
}

int folders_make(const struct folders *f, struct error *err)
{
    int rc = folders_make_one(f->state, 0700, err);
    if (!rc) rc = folders_make_one(f->cache, 0700, err);
    if (!rc) rc = folders_make_one(f->runtime, 0750, err);
    return rc;
}
