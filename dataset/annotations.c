#include "dataset/annotations.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/str.h"
#include "base/zip.h"

#define FILE_BYTES_MAX (64u << 20)
#define PROBLEMS_MAX 1000

static const char *const kind_names[] = {"box", "point", "line", "polygon"};
static const char *const format_names[ANNOTATIONS_FORMAT_COUNT] = {
    "CSV of regions", "CSV of tags", "JSON of tags", "VGG JSON", "COCO JSON", "YOLO", "VOC XML"};

const char *region_kind_name(enum region_kind kind)
{
    return kind_names[kind];
}

const char *annotation_format_name(enum annotation_format format)
{
    return format_names[format];
}

struct annotated *annotations_image(struct annotations *a, const char *name, bool stem)
{
    for (int i = 0; i < a->count; i++)
        if (!strcmp(a->item[i].image, name)) return &a->item[i];
    a->item = alloc_grow(a->item, (size_t)a->count + 1, sizeof *a->item);
    a->item[a->count] = (struct annotated){.image = alloc_string(name), .stem = stem};
    return &a->item[a->count++];
}

/* Labels are shown and trained on: control characters go, blanks at the ends too. */
static char *clean_label(const char *label)
{
    char text[256];
    if (!label) return NULL;
    while (*label == ' ') label++;
    size_t length = str_clean(text, sizeof text, label);
    while (length && text[length - 1] == ' ') text[--length] = 0;
    return length ? alloc_string(text) : NULL;
}

struct region *annotations_region(struct annotated *image, enum region_kind kind, const char *label,
                                  int line)
{
    image->region =
        alloc_grow(image->region, (size_t)image->region_count + 1, sizeof *image->region);
    struct region *r = &image->region[image->region_count++];
    *r = (struct region){.kind = kind, .label = clean_label(label), .line = line};
    return r;
}

void annotations_point(struct region *r, double x, double y)
{
    r->point = alloc_grow(r->point, 2 * ((size_t)r->point_count + 1), sizeof *r->point);
    r->point[2 * r->point_count] = x;
    r->point[2 * r->point_count++ + 1] = y;
}

void annotations_tag(struct annotated *image, const char *label)
{
    char *tag = clean_label(label);
    if (!tag) return;
    image->tag = alloc_grow(image->tag, (size_t)image->tag_count + 1, sizeof *image->tag);
    image->tag[image->tag_count++] = tag;
}

void annotations_problem(struct annotations *a, const char *format, ...)
{
    char text[400];
    va_list args;
    if (a->problem_count == PROBLEMS_MAX) return;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    char shown[400];
    str_clean(shown, sizeof shown, text);
    a->problem = alloc_grow(a->problem, (size_t)a->problem_count + 1, sizeof *a->problem);
    a->problem[a->problem_count++] = alloc_string(shown);
}

void annotations_release(struct annotations *a)
{
    for (int i = 0; i < a->count; i++) {
        for (int j = 0; j < a->item[i].region_count; j++) {
            free(a->item[i].region[j].label);
            free(a->item[i].region[j].point);
        }
        for (int j = 0; j < a->item[i].tag_count; j++) free(a->item[i].tag[j]);
        free(a->item[i].region);
        free(a->item[i].tag);
        free(a->item[i].image);
    }
    for (int i = 0; i < a->problem_count; i++) free(a->problem[i]);
    free(a->problem);
    free(a->item);
    *a = (struct annotations){0};
}

static int read_files(struct annotations *a, const struct export_files *files, const char *path,
                      struct error *err)
{
    if (annotations_files_have(files, ".xml")) return annotations_read_voc(a, files, err);
    if (annotations_files_have(files, ".txt")) return annotations_read_yolo(a, files, err);
    return error_set(err, ERR_FORMAT, "%s holds neither VOC (.xml) nor YOLO (.txt) files", path);
}

static int read_archive(struct annotations *a, const struct buf *bytes, const char *path,
                        struct error *err)
{
    struct zip archive;
    const char *slash = strrchr(path, '/');
    char *folder = slash ? alloc_string_n(path, (size_t)(slash - path)) : alloc_string(".");
    int rc = zip_open(&archive, path, bytes->data, bytes->length, err);
    if (!rc) {
        rc = read_files(a, &(struct export_files){folder, &archive}, path, err);
        zip_close(&archive);
    }
    free(folder);
    return rc;
}

static int read_file(struct annotations *a, const char *path, enum annotation_hint hint,
                     struct error *err)
{
    struct buf bytes;
    buf_init(&bytes, FILE_BYTES_MAX);
    int rc = buf_read_file(&bytes, path, err);
    if (rc) return rc;
    char *text = bytes.data ? (char *)bytes.data : NULL;
    bool archive = bytes.length > 4 && !memcmp(text, "PK", 2) && text[2] < 8;
    const char *start = text ? text : "";
    if (!strncmp(start, "\xef\xbb\xbf", 3)) start += 3;
    while (*start == ' ' || *start == '\n' || *start == '\r' || *start == '\t') start++;
    if (archive)
        rc = read_archive(a, &bytes, path, err);
    else if (!text || strlen(text) != bytes.length || !str_is_utf8(text, bytes.length))
        rc = error_set(err, ERR_FORMAT, "%s is empty or no UTF-8 text", path);
    else if (*start == '{' || (*start == '[' && strchr(start, '{')))
        rc = annotations_read_json(a, start, path, err);
    else
        rc = annotations_read_csv(a, (char *)start, hint, err);
    buf_release(&bytes);
    if (!rc && !a->count && a->format != ANNOTATIONS_COCO)
        rc = error_set(err, ERR_FORMAT, "%s: no row could be read as an annotation%s%s", path,
                       a->problem_count ? "; the first: " : "",
                       a->problem_count ? a->problem[0] : "");
    return rc;
}

int annotations_open(struct annotations *a, const char *path, enum annotation_hint hint,
                     struct error *err)
{
    struct stat st;
    *a = (struct annotations){0};
    if (stat(path, &st)) return error_set(err, ERR_NOT_FOUND, "there is no %s", path);
    int rc = S_ISDIR(st.st_mode) ? read_files(a, &(struct export_files){path, NULL}, path, err)
                                 : read_file(a, path, hint, err);
    if (rc) annotations_release(a);
    return rc;
}
