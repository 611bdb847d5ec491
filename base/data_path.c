#include "base/data_path.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"

/* Folder of the running program, without a slash at the end; NULL when it cannot be told. */
static char *own_folder(void)
{
    char path[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
    if (n <= 0) return NULL;
    path[n] = 0;
    char *slash = strrchr(path, '/');
    if (!slash) return NULL;
    *slash = 0;
    return alloc_string(path);
}

static char *if_there(char *path, int mode)
{
    if (access(path, mode) == 0) return path;
    free(path);
    return NULL;
}

char *data_path_find(const char *relative)
{
    static const char *const places[] = {"../data", "../../data", "../share/kiln",
                                         "../../share/kiln"};
    const char *named = getenv("KILN_DATA");
    if (named && *named) {
        char *found = if_there(alloc_printf("%s/%s", named, relative), R_OK);
        if (found) return found;
    }
    char *folder = own_folder(), *found = NULL;
    for (size_t i = 0; folder && !found && i < COUNT_OF(places); i++)
        found = if_there(alloc_printf("%s/%s/%s", folder, places[i], relative), R_OK);
    free(folder);
    return found;
}

char *data_path_program(const char *name)
{
    static const char *const places[] = {
        ".",           "../engine",       "../daemon", "../cli",     "../libexec/kiln",
        "../lib/kiln", "../kernels/cuda", "../image",  "../../image"};
    char *folder = own_folder(), *found = NULL;
    for (size_t i = 0; folder && !found && i < COUNT_OF(places); i++)
        found = if_there(alloc_printf("%s/%s/%s", folder, places[i], name), R_OK);
    free(folder);
    return found;
}

char *data_path_cache(void)
{
    const char *systemd = getenv("CACHE_DIRECTORY"), *xdg = getenv("XDG_CACHE_HOME");
    const char *home = getenv("HOME");
    if (systemd && *systemd) return alloc_string_n(systemd, strcspn(systemd, ":"));
    if (xdg && *xdg) return alloc_printf("%s/kiln", xdg);
    return home && *home ? alloc_printf("%s/.cache/kiln", home) : NULL;
}
