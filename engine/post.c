#include "engine/post.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/data_path.h"
#include "base/str.h"

/* those whose network is an ESRGAN; the rest of the Horde's list needs networks that are not here */
static const char *const upscalers[] = {
    "RealESRGAN_x4plus", "RealESRGAN_x2plus", "RealESRGAN_x4plus_anime_6B",
    "NMKD_Siax",         "4x_AnimeSharp",
};

void post_init(struct post *p, struct device *device, const char *cache)
{
    char *own = cache ? NULL : data_path_cache();
    *p = (struct post){.device = device};
    if (cache || own) p->folder = alloc_printf("%s/post", cache ? cache : own);
    free(own);
}

static void close_open(struct post *p)
{
    upscaler_close(p->upscaler);
    free(p->name);
    p->upscaler = NULL;
    p->name = NULL;
}

void post_release(struct post *p)
{
    close_open(p);
    free(p->folder);
    *p = (struct post){0};
}

static char *file_of(const struct post *p, const char *name)
{
    static const char *const endings[] = {"safetensors", "pth"};
    if (strchr(name, '/')) return access(name, R_OK) ? NULL : alloc_string(name);
    bool ours = false;
    for (size_t i = 0; i < COUNT_OF(upscalers); i++) ours = ours || str_equal(upscalers[i], name);
    for (size_t i = 0; ours && p->folder && i < COUNT_OF(endings); i++) {
        char *path = alloc_printf("%s/%s.%s", p->folder, name, endings[i]);
        if (access(path, R_OK) == 0) return path;
        free(path);
    }
    return NULL;
}

bool post_available(const struct post *p, const char *name)
{
    char *file = file_of(p, name);
    free(file);
    return file != NULL;
}

static int open_named(struct post *p, const char *name, struct error *err)
{
    if (p->upscaler && str_equal(p->name, name)) return 0;
    close_open(p);
    char *file = file_of(p, name);
    if (!file)
        return error_set(err, ERR_UNSUPPORTED, "post-processing by %s: its weights are not in %s",
                         name, p->folder ? p->folder : "any cache folder");
    int rc = upscaler_open(&p->upscaler, p->device, file, PRECISION_AUTO, err);
    if (!rc) p->name = alloc_string(name);
    free(file);
    return rc;
}

int post_run(struct post *p, const char *name, struct pixels *picture,
             const struct pipeline_hooks *hooks, struct error *err)
{
    struct pixels larger;
    int rc = open_named(p, name, err);
    if (!rc) rc = upscaler_run(p->upscaler, &larger, picture, hooks, err);
    if (rc) return error_wrap(err, rc, "%s", name);
    pixels_release(picture);
    *picture = larger;
    return 0;
}
