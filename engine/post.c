#include "engine/post.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/data_path.h"
#include "base/str.h"

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
    restorer_close(p->restorer);
    matte_close(p->matte);
    free(p->open);
    p->upscaler = NULL;
    p->restorer = NULL;
    p->matte = NULL;
    p->open = NULL;
}

void post_release(struct post *p)
{
    close_open(p);
    free(p->folder);
    *p = (struct post){0};
}

static char *file_of(const struct post *p, const struct post_weights *w, int part)
{
    char file[POST_FILE_BYTES];
    for (int i = 0; p->folder && post_weights_file(file, w, part, i); i++) {
        char *path = alloc_printf("%s/%s", p->folder, file);
        if (access(path, R_OK) == 0) return path;
        free(path);
    }
    return NULL;
}

static bool complete(const struct post_weights *w, char *const files[POST_PARTS])
{
    bool all = true;
    for (int i = 0; i < POST_PARTS; i++) all = all && (files[i] || !w->part[i] || w->optional[i]);
    return all;
}

static void find_files(const struct post *p, const struct post_weights *w, const char *path,
                       char *files[POST_PARTS])
{
    for (int i = 0; i < POST_PARTS; i++)
        files[i] = i == 0 && path ? alloc_string(path) : file_of(p, w, i);
}

static void free_files(char *files[POST_PARTS])
{
    for (int i = 0; i < POST_PARTS; i++) free(files[i]);
}

bool post_available(const struct post *p, const char *name)
{
    const struct post_weights *w = post_weights_find(name);
    char *files[POST_PARTS];
    if (!w) return false;
    find_files(p, w, NULL, files);
    bool all = complete(w, files);
    free_files(files);
    return all;
}

static int open_files(struct post *p, const struct post_weights *w, char *const files[POST_PARTS],
                      struct error *err)
{
    struct restorer_files faces = {files[0], files[1], files[2]};
    switch (w->kind) {
    case POST_UPSCALER:
        return upscaler_open(&p->upscaler, p->device, files[0], PRECISION_AUTO, err);
    case POST_FIXER: return restorer_open(&p->restorer, p->device, &faces, err);
    case POST_CUTTER: break;
    }
    return matte_open(&p->matte, p->device, files[0], err);
}

static int missing(const struct post *p, const struct post_weights *w,
                   char *const files[POST_PARTS], struct error *err)
{
    int i = 0;
    while (i + 1 < POST_PARTS && (files[i] || w->optional[i])) i++;
    return error_set(err, ERR_UNSUPPORTED,
                     "post-processing by %s: its weights are not in %s; a file with one of these "
                     "names is needed (.safetensors, .pth, .onnx): %s",
                     w->name, p->folder ? p->folder : "any cache folder", w->part[i]);
}

static int open_named(struct post *p, const struct post_job *job, struct error *err)
{
    const struct post_weights *w = post_weights_find(job->name);
    const char *asked = job->path ? job->path : job->name;
    char *files[POST_PARTS];
    if (!w)
        return error_set(err, ERR_UNSUPPORTED, "there is no network for post-processing by %s",
                         job->name);
    if (p->open && str_equal(p->open, asked)) return 0;
    close_open(p);
    find_files(p, w, job->path, files);
    int rc = complete(w, files) ? open_files(p, w, files, err) : missing(p, w, files, err);
    if (!rc) p->open = alloc_string(asked);
    free_files(files);
    return rc;
}

int post_run(struct post *p, const struct post_job *job, struct pixels *picture,
             const struct pipeline_hooks *hooks, struct error *err)
{
    struct pixels made;
    int rc = open_named(p, job, err);
    if (!rc && p->upscaler)
        rc = upscaler_run(p->upscaler, &made, picture, hooks, err);
    else if (!rc && p->restorer)
        rc = restorer_run(p->restorer, &made, picture, &job->restorer, hooks, job->faces, err);
    else if (!rc)
        rc = matte_run(p->matte, &made, picture, hooks, err);
    if (rc) return error_wrap(err, rc, "%s", job->name);
    pixels_release(picture);
    *picture = made;
    return 0;
}

static int rank(const char *name)
{
    const struct post_weights *w = post_weights_find(name);
    return w ? (int)w->kind : 0;
}

void post_sort(const char **names, int count)
{
    for (int i = 1; i < count; i++) {
        const char *name = names[i];
        int k = i;
        for (; k > 0 && rank(names[k - 1]) > rank(name); k--) names[k] = names[k - 1];
        names[k] = name;
    }
}
