/* Exports of one file a picture: YOLO text and VOC XML, in a ZIP archive or unpacked to a folder. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/str.h"
#include "base/zip.h"
#include "dataset/annotations.h"

#define FILE_BYTES_MAX (4u << 20)
#define FILES_MAX 20000
#define ARCHIVE_BYTES_MAX ((size_t)256 << 20) /* of all that is unpacked */

typedef void (*file_reader)(struct annotations *a, const char *name, char *text, void *context);

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Calls `read` for each file of the folder that ends in `extension`, in the order of names. */
static int each_in_folder(struct annotations *a, const char *folder, const char *extension,
                          file_reader read, void *context, struct error *err)
{
    char **names = NULL;
    size_t count = 0;
    DIR *dir = opendir(folder);
    if (!dir) return error_set(err, ERR_IO, "the folder %s cannot be read", folder);
    struct dirent *entry;
    while ((entry = readdir(dir)) && count < FILES_MAX) {
        if (!str_ends(entry->d_name, extension) || !strcmp(entry->d_name, "labels.txt")) continue;
        names = alloc_grow(names, count + 1, sizeof *names);
        names[count++] = alloc_string(entry->d_name);
    }
    closedir(dir);
    if (count) qsort(names, count, sizeof *names, by_name);
    for (size_t i = 0; i < count; i++) {
        struct buf bytes;
        struct error problem;
        char *path = alloc_printf("%s/%s", folder, names[i]);
        buf_init(&bytes, FILE_BYTES_MAX);
        if (buf_read_file(&bytes, path, &problem))
            annotations_problem(a, "%s", problem.text);
        else
            read(a, names[i], bytes.data ? (char *)bytes.data : (char[]){""}, context);
        buf_release(&bytes);
        free(path);
        free(names[i]);
    }
    free(names);
    return 0;
}

/* The member's name without folders; NULL for what is no file of the export. */
static const char *member_name(const struct zip_entry *e)
{
    const char *slash = strrchr(e->name, '/'), *name = slash ? slash + 1 : e->name;
    return !*name || *name == '.' || str_starts(e->name, "__MACOSX/") ? NULL : name;
}

/* The text of a member; NULL after saying why. All members together are bounded. */
static char *member_text(struct annotations *a, const struct export_files *files,
                         const struct zip_entry *e, size_t *left)
{
    struct buf bytes;
    struct error problem;
    size_t length;
    buf_init(&bytes, *left < FILE_BYTES_MAX ? *left : FILE_BYTES_MAX);
    if (zip_unpack(files->archive, e, &bytes, &problem)) {
        annotations_problem(a, "%s", problem.text);
        buf_release(&bytes);
        return NULL;
    }
    *left -= bytes.length;
    return (char *)buf_take(&bytes, &length);
}

static void each_in_archive(struct annotations *a, const struct export_files *files,
                            const char *extension, file_reader read, void *context)
{
    size_t left = ARCHIVE_BYTES_MAX, count = 0;
    for (size_t i = 0; i < files->archive->count && count < FILES_MAX; i++) {
        const struct zip_entry *e = &files->archive->entry[i];
        const char *name = member_name(e);
        if (!name || !str_ends(name, extension) || !strcmp(name, "labels.txt")) continue;
        char *text = member_text(a, files, e, &left);
        count++;
        if (text) read(a, name, text, context);
        free(text);
    }
}

static int each_file(struct annotations *a, const struct export_files *files, const char *extension,
                     file_reader read, void *context, struct error *err)
{
    if (!files->archive) return each_in_folder(a, files->folder, extension, read, context, err);
    each_in_archive(a, files, extension, read, context);
    return 0;
}

bool annotations_files_have(const struct export_files *files, const char *extension)
{
    bool found = false;
    if (files->archive) {
        for (size_t i = 0; i < files->archive->count && !found; i++) {
            const char *name = member_name(&files->archive->entry[i]);
            found = name && str_ends(name, extension) && strcmp(name, "labels.txt") != 0;
        }
        return found;
    }
    DIR *dir = opendir(files->folder);
    struct dirent *entry;
    while (dir && !found && (entry = readdir(dir)))
        found = str_ends(entry->d_name, extension) && strcmp(entry->d_name, "labels.txt") != 0;
    if (dir) closedir(dir);
    return found;
}

/* ---- YOLO ---- */

struct labels {
    char **name;
    int count;
};

static void yolo_file(struct annotations *a, const char *name, char *text, void *context)
{
    const struct labels *labels = context;
    char *stem = alloc_string_n(name, strlen(name) - 4);
    struct annotated *image = annotations_image(a, stem, true);
    int number = 0;
    for (char *save, *line = strtok_r(text, "\r\n", &save); line;
         line = strtok_r(NULL, "\r\n", &save)) {
        int index;
        double x, y, w, h;
        number++;
        if (sscanf(line, "%d %lf %lf %lf %lf", &index, &x, &y, &w, &h) != 5 ||
            !(w >= 0 && h >= 0 && x >= -1 && x <= 2 && y >= -1 && y <= 2)) {
            annotations_problem(a, "%s, line %d is no YOLO box: '%.60s'", name, number, line);
            continue;
        }
        const char *label = index >= 0 && index < labels->count ? labels->name[index] : NULL;
        char plain[32];
        if (!label) {
            snprintf(plain, sizeof plain, "class %d", index);
            annotations_problem(a, "%s, line %d: class %d has no name (labels.txt gives %d)", name,
                                number, index, labels->count);
            label = plain;
        }
        struct region *r = annotations_region(image, REGION_BOX, label, number);
        r->normalised = true;
        r->x = x - w / 2;
        r->y = y - h / 2;
        r->w = w;
        r->h = h;
    }
    free(stem);
}

/* labels.txt: in the archive, beside the files or beside the archive; NULL: nowhere */
static char *class_names(struct annotations *a, const struct export_files *files)
{
    struct buf bytes;
    size_t length, left = FILE_BYTES_MAX;
    for (size_t i = 0; files->archive && i < files->archive->count; i++) {
        const char *name = member_name(&files->archive->entry[i]);
        if (name && (!strcmp(name, "labels.txt") || !strcmp(name, "classes.txt")))
            return member_text(a, files, &files->archive->entry[i], &left);
    }
    char *path = alloc_printf("%s/labels.txt", files->folder);
    buf_init(&bytes, FILE_BYTES_MAX);
    int rc = buf_read_file(&bytes, path, NULL);
    free(path);
    if (!rc) return (char *)buf_take(&bytes, &length);
    buf_release(&bytes);
    return NULL;
}

int annotations_read_yolo(struct annotations *a, const struct export_files *files,
                          struct error *err)
{
    struct labels labels = {0};
    char *text = class_names(a, files);
    a->format = ANNOTATIONS_YOLO;
    if (text) {
        for (char *save, *line = strtok_r(text, "\r\n", &save); line;
             line = strtok_r(NULL, "\r\n", &save)) {
            labels.name = alloc_grow(labels.name, (size_t)labels.count + 1, sizeof *labels.name);
            labels.name[labels.count++] = alloc_string(line);
        }
    }
    free(text);
    int rc = each_file(a, files, ".txt", yolo_file, &labels, err);
    for (int i = 0; i < labels.count; i++) free(labels.name[i]);
    free(labels.name);
    return rc;
}

/* ---- VOC: names are written unescaped, so this looks for tags and parses no XML ---- */

/* Content of the first <tag> between at and end, cut off in place (the byte after it becomes 0);
 * NULL when absent. *after is behind the closing tag. */
static char *between(char *at, const char *tag, char **after)
{
    char open[40], close[40];
    snprintf(open, sizeof open, "<%s>", tag);
    snprintf(close, sizeof close, "</%s>", tag);
    char *from = strstr(at, open);
    if (!from) return NULL;
    from += strlen(open);
    char *end = strstr(from, close);
    if (!end) return NULL;
    *after = end + strlen(close);
    *end = 0;
    return from;
}

static void unescape(char *text)
{
    static const struct {
        const char *name;
        char byte;
    } entity[] = {{"&amp;", '&'}, {"&lt;", '<'}, {"&gt;", '>'}, {"&quot;", '"'}, {"&apos;", '\''}};
    char *to = text;
    while (*text) {
        size_t i = 0;
        while (i < COUNT_OF(entity) && !str_starts(text, entity[i].name)) i++;
        *to++ = i < COUNT_OF(entity) ? entity[i].byte : *text;
        text += i < COUNT_OF(entity) ? strlen(entity[i].name) : 1;
    }
    *to = 0;
}

static bool number_in(char *text, const char *tag, double *value)
{
    char *after, *copy = alloc_string(text), *inner = between(copy, tag, &after);
    bool ok = inner && str_parse_f64(inner, value);
    free(copy);
    return ok;
}

static void voc_object(struct annotations *a, struct annotated *image, char *object,
                       const char *file)
{
    double x0, y0, x1, y1;
    if (!number_in(object, "xmin", &x0) || !number_in(object, "ymin", &y0) ||
        !number_in(object, "xmax", &x1) || !number_in(object, "ymax", &y1)) {
        annotations_problem(a, "%s: an object without a box", file);
        return;
    }
    char *after, *label = between(object, "name", &after);
    if (label) unescape(label);
    struct region *r = annotations_region(image, REGION_BOX, label, 0);
    r->x = x0;
    r->y = y0;
    r->w = x1 - x0;
    r->h = y1 - y0;
    if (!r->label) annotations_problem(a, "%s: a box has no label", file);
}

static void voc_file(struct annotations *a, const char *name, char *text, void *context)
{
    char *after, *copy = alloc_string(text), *file = between(copy, "filename", &after);
    if (file) unescape(file);
    char *stem = alloc_string_n(name, strlen(name) - 4);
    struct annotated *image = annotations_image(a, file ? file : stem, !file);
    double width, height;
    if (number_in(text, "width", &width) && number_in(text, "height", &height) && width >= 1 &&
        height >= 1 && width <= 1e6 && height <= 1e6) {
        image->width = (int)width;
        image->height = (int)height;
    }
    char *object;
    for (char *at = text; (object = between(at, "object", &after)); at = after)
        voc_object(a, image, object, name);
    free(stem);
    free(copy);
}

int annotations_read_voc(struct annotations *a, const struct export_files *files, struct error *err)
{
    a->format = ANNOTATIONS_VOC;
    return each_file(a, files, ".xml", voc_file, NULL, err);
}
