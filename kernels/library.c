#include "kernels/library.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int open_file(void **library, const char *path, struct error *err)
{
    *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    return *library ? 0 : error_set(err, ERR_NOT_FOUND, "%s", dlerror());
}

/* The program's folder with its slash; "" when it cannot be told. */
static void program_folder(char folder[PATH_MAX])
{
    ssize_t length = readlink("/proc/self/exe", folder, PATH_MAX - 1);
    folder[length > 0 ? length : 0] = 0;
    char *slash = strrchr(folder, '/');
    if (slash)
        slash[1] = 0;
    else
        folder[0] = 0;
}

int library_open(void **library, const struct library_place *place, struct error *err)
{
    char folder[PATH_MAX], path[2 * PATH_MAX];
    const char *named = place->variable ? getenv(place->variable) : NULL;
    if (named && !*named)
        return error_set(err, ERR_NOT_FOUND, "%s says that none is wanted", place->variable);
    if (named) return open_file(library, named, err);
    program_folder(folder);
    for (const char *const *at = place->beside; at && *at && *folder; at++) {
        snprintf(path, sizeof path, "%s%s", folder, *at);
        if (access(path, F_OK) == 0) return open_file(library, path, err);
    }
    int rc = error_set(err, ERR_NOT_FOUND, "there is none");
    for (const char *const *at = place->names; at && *at && rc; at++)
        rc = open_file(library, *at, err);
    return rc;
}

bool library_entries(void *library, void *entries, const char *const *symbols, size_t count)
{
    bool whole = true;
    for (size_t i = 0; i < count; i++) {
        void *found = dlsym(library, symbols[i]);
        /* POSIX gives functions as objects; ISO C has no cast for it */
        memcpy((char *)entries + i * sizeof found, &found, sizeof found);
        whole = whole && found;
    }
    return whole;
}
