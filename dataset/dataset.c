#include "dataset/dataset.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/str.h"
#include "image/codec.h"
#include "image/resize.h"

#define CAPTION_BYTES_MAX (16u << 10)
#define PICTURES_MAX 5000
#define PROBLEMS_MAX 1000

void dataset_problem(struct dataset *d, const char *format, ...)
{
    char text[500], shown[500];
    va_list args;
    if (d->problem_count == PROBLEMS_MAX) return;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    str_clean(shown, sizeof shown, text);
    d->problem = alloc_grow(d->problem, (size_t)d->problem_count + 1, sizeof *d->problem);
    d->problem[d->problem_count++] = alloc_string(shown);
}

void dataset_release(struct dataset *d)
{
    for (int i = 0; i < d->count; i++) {
        free(d->sample[i].path);
        free(d->sample[i].name);
        free(d->sample[i].caption);
    }
    for (int i = 0; i < d->problem_count; i++) free(d->problem[i]);
    annotations_release(&d->annotations);
    free(d->annotations_path);
    free(d->problem);
    free(d->sample);
    *d = (struct dataset){0};
}

/* ---- names ---- */

/* Which annotated image a file is: the same name, the same but for case, the same stem. */
static const struct annotated *find_annotated(const struct annotations *a, const char *name)
{
    const struct annotated *found = NULL;
    char *stem = str_stem(name);
    for (int i = 0; i < a->count && !found; i++)
        if (!a->item[i].stem && str_equal(a->item[i].image, name)) found = &a->item[i];
    for (int i = 0; i < a->count && !found; i++)
        if (!a->item[i].stem && str_equal_nocase(a->item[i].image, name)) found = &a->item[i];
    for (int i = 0; i < a->count && !found; i++) {
        char *other = a->item[i].stem ? alloc_string(a->item[i].image) : str_stem(a->item[i].image);
        if (str_equal_nocase(other, stem)) found = &a->item[i];
        free(other);
    }
    free(stem);
    return found;
}

/* ---- captions ---- */

/* First line of a text file, trimmed; NULL when there is no file. */
static char *read_caption(struct dataset *d, const char *path)
{
    struct buf bytes;
    char *caption = NULL;
    struct error err;
    buf_init(&bytes, CAPTION_BYTES_MAX);
    int rc = buf_read_file(&bytes, path, &err);
    if (rc && rc != ERR_NOT_FOUND) dataset_problem(d, "%s", err.text);
    if (!rc) {
        char *text = bytes.data ? (char *)bytes.data : (char[]){""};
        if (!strncmp(text, "\xef\xbb\xbf", 3)) text += 3;
        text[strcspn(text, "\r\n")] = 0;
        if (!str_is_utf8(text, strlen(text))) {
            dataset_problem(d, "%s is not UTF-8; it is not used", path);
        } else {
            while (*text == ' ' || *text == '\t') text++;
            size_t length = strlen(text);
            while (length && (text[length - 1] == ' ' || text[length - 1] == '\t')) length--;
            if (length) caption = alloc_string_n(text, length);
        }
    }
    buf_release(&bytes);
    return caption;
}

static char *caption_file(struct dataset *d, const char *folder, const char *name)
{
    static const char *const extensions[] = {"txt", "caption"};
    char *stem = str_stem(name), *caption = NULL;
    for (size_t i = 0; i < COUNT_OF(extensions) && !caption; i++) {
        char *path = alloc_printf("%s/%s.%s", folder, stem, extensions[i]);
        caption = read_caption(d, path);
        free(path);
    }
    free(stem);
    return caption;
}

/* captions.csv: image,caption a line; the caption may hold commas and quotes. */
static char *caption_list(const char *list, const char *name)
{
    size_t length = strlen(name);
    for (const char *line = list; line && *line; line = strchr(line, '\n') + 1) {
        const char *at = *line == '"' ? line + 1 : line;
        if (!strncmp(at, name, length)) {
            at += length;
            if (*at == '"') at++;
            if (*at == ',') {
                size_t n = strcspn(++at, "\r\n");
                if (n >= 2 && at[0] == '"' && at[n - 1] == '"') {
                    at++;
                    n -= 2;
                }
                if (n) return alloc_string_n(at, n);
            }
        }
        if (!strchr(line, '\n')) break;
    }
    return NULL;
}

static int by_area(const void *a, const void *b)
{
    const struct region *const *p = a, *const *q = b;
    double x = (*p)->w * (*p)->h, y = (*q)->w * (*q)->h;
    return x < y ? 1 : x > y ? -1 : (*p)->line - (*q)->line;
}

static void add_word(char **words, const char *word)
{
    if (!word || str_equal_nocase(word, "ignore")) return;
    for (const char *at = *words; (at = strstr(at, word)); at++) {
        bool starts = at == *words || at[-1] == ' ';
        char end = at[strlen(word)];
        if (starts && (!end || end == ',')) return;
    }
    char *longer = **words ? alloc_printf("%s, %s", *words, word) : alloc_string(word);
    free(*words);
    *words = longer;
}

/* Tags in their order, then distinct labels, the largest region first. NULL: no words. */
static char *caption_words(const struct annotated *a)
{
    char *words = alloc_string("");
    for (int i = 0; i < a->tag_count; i++) add_word(&words, a->tag[i]);
    const struct region **order = alloc_zero((size_t)a->region_count + 1, sizeof(void *));
    for (int i = 0; i < a->region_count; i++) order[i] = &a->region[i];
    qsort(order, (size_t)a->region_count, sizeof(void *), by_area);
    for (int i = 0; i < a->region_count; i++) add_word(&words, order[i]->label);
    free(order);
    if (*words) return words;
    free(words);
    return NULL;
}

/* "10_kiln brick": repeats and the caption of pictures without one. */
static int folder_words(const char *folder, const char **words)
{
    const char *name =
        strrchr(folder, '/') && strrchr(folder, '/')[1] ? strrchr(folder, '/') + 1 : folder;
    char *end;
    long repeats = strtol(name, &end, 10);
    *words = NULL;
    if (end == name || *end != '_' || repeats < 1 || repeats > 1000) return 1;
    if (end[1]) *words = end + 1;
    return (int)repeats;
}

static char *finish_caption(const struct dataset_options *o, char *words)
{
    bool first = o->trigger && *o->trigger;
    char *middle = words;
    const char *hole = o->caption ? strstr(o->caption, "%s") : NULL;
    if (hole) {
        middle = alloc_printf("%.*s%s%s", (int)(hole - o->caption), o->caption, words ? words : "",
                              hole + 2);
        free(words);
    }
    if (!first) return middle ? middle : alloc_string("");
    bool there = middle && str_starts(middle, o->trigger);
    char *whole = !middle || !*middle ? alloc_string(o->trigger)
                  : there             ? alloc_string(middle)
                                      : alloc_printf("%s, %s", o->trigger, middle);
    free(middle);
    return whole;
}

/* ---- pictures ---- */

static void check_regions(struct dataset *d, const struct sample *s, struct annotated *a)
{
    if (a->width && (a->width != s->width || a->height != s->height))
        dataset_problem(d,
                        a->width == s->height && a->height == s->width
                            ? "%s was annotated as %dx%d but is %dx%d upright: its regions were "
                              "drawn on the picture before turning"
                            : "%s was annotated as %dx%d but is %dx%d: its regions are scaled",
                        s->name, a->width, a->height, s->width, s->height);
    double fx = a->width ? (double)s->width / a->width : 1;
    double fy = a->height ? (double)s->height / a->height : 1;
    for (int i = 0; i < a->region_count; i++) {
        struct region *r = &a->region[i];
        double sx = r->normalised ? s->width : fx, sy = r->normalised ? s->height : fy;
        r->normalised = false;
        for (int k = 0; k < r->point_count; k++) {
            r->point[2 * k] *= sx;
            r->point[2 * k + 1] *= sy;
        }
        r->x *= sx;
        r->w *= sx;
        r->y *= sy;
        r->h *= sy;
        if (r->x < -1 || r->y < -1 || r->x + r->w > s->width + 1 || r->y + r->h > s->height + 1)
            dataset_problem(d,
                            "%s: the %s '%s' at %.0f,%.0f %.0fx%.0f reaches outside the %dx%d "
                            "picture%s",
                            s->name, region_kind_name(r->kind), r->label ? r->label : "", r->x,
                            r->y, r->w, r->h, s->width, s->height,
                            r->line ? " and is clipped" : "");
    }
    a->width = s->width; /* scaled once */
    a->height = s->height;
}

static struct sample *add_sample(struct dataset *d)
{
    d->sample = alloc_grow(d->sample, (size_t)d->count + 1, sizeof *d->sample);
    d->sample[d->count] = (struct sample){0};
    return &d->sample[d->count++];
}

static int clip_to(double value, int limit)
{
    return value < 0 ? 0 : value > limit ? limit : (int)lround(value);
}

static void add_crops(struct dataset *d, const struct dataset_options *o, int index)
{
    const struct annotated *a = d->sample[index].annotated;
    for (int i = 0; a && i < a->region_count; i++) {
        const struct region *r = &a->region[i];
        struct sample whole = d->sample[index];
        if (!r->label || str_equal_nocase(r->label, "ignore") || r->w < 1 || r->h < 1) continue;
        double grow_x = r->w * o->crop_margin, grow_y = r->h * o->crop_margin;
        int x = clip_to(r->x - grow_x, whole.width), y = clip_to(r->y - grow_y, whole.height);
        int right = clip_to(r->x + r->w + grow_x, whole.width);
        int bottom = clip_to(r->y + r->h + grow_y, whole.height);
        if (right - x < o->min_side_px || bottom - y < o->min_side_px) {
            dataset_problem(d, "%s: the region '%s' is %dx%d, too small for a crop of its own (%d)",
                            whole.name, r->label, right - x, bottom - y, o->min_side_px);
            continue;
        }
        struct sample *s = add_sample(d);
        *s = whole;
        s->path = alloc_string(whole.path);
        s->name = alloc_string(whole.name);
        s->caption = finish_caption(o, alloc_string(r->label));
        s->is_crop = true;
        s->x = x;
        s->y = y;
        s->w = right - x;
        s->h = bottom - y;
    }
}

static bool probe(struct dataset *d, const struct dataset_options *o, struct sample *s)
{
    struct pixels pixels;
    struct error err;
    if (image_read(&pixels, NULL, s->path, &err)) {
        dataset_problem(d, "%s is left out: %s", s->name, err.text);
        return false;
    }
    s->width = pixels.width;
    s->height = pixels.height;
    pixels_release(&pixels);
    int side = s->width < s->height ? s->width : s->height;
    if (side < o->min_side_px) {
        dataset_problem(d, "%s is left out: %dx%d is smaller than %d pixels a side", s->name,
                        s->width, s->height, o->min_side_px);
        return false;
    }
    if (side < o->warn_side_px)
        dataset_problem(d, "%s is %dx%d, smaller than the training size %d: it is enlarged",
                        s->name, s->width, s->height, o->warn_side_px);
    return true;
}

static void add_picture(struct dataset *d, const struct dataset_options *o, const char *name,
                        const char *list)
{
    struct sample s = {.path = alloc_printf("%s/%s", o->folder, name), .name = alloc_string(name)};
    const char *folder_caption;
    if (!probe(d, o, &s)) {
        d->skipped++;
        free(s.path);
        free(s.name);
        return;
    }
    s.repeats = folder_words(o->folder, &folder_caption);
    s.annotated = find_annotated(&d->annotations, name);
    if (s.annotated) check_regions(d, &s, (struct annotated *)s.annotated);
    char *words = caption_file(d, o->folder, name);
    s.source = CAPTION_FILE;
    if (!words && list && (words = caption_list(list, name))) s.source = CAPTION_LIST;
    if (!words && s.annotated && (words = caption_words(s.annotated)))
        s.source = CAPTION_ANNOTATIONS;
    if (!words && folder_caption) {
        words = alloc_string(folder_caption);
        s.source = CAPTION_FOLDER;
    }
    if (!words) s.source = CAPTION_NONE;
    s.caption = finish_caption(o, words);
    if (s.source == CAPTION_NONE)
        dataset_problem(d,
                        o->trigger && *o->trigger
                            ? "%s has no caption and no annotation: it is trained with the "
                              "trigger word alone"
                            : "%s has no caption and no annotation",
                        name);
    d->pictures++;
    *add_sample(d) = s;
    if (o->crops) add_crops(d, o, d->count - 1);
}

/* ---- the folder ---- */

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool is_picture(const char *name)
{
    enum image_format format;
    return name[0] != '.' && image_format_of_path(name, &format);
}

static int list_folder(char ***names, size_t *count, const char *folder, struct error *err)
{
    DIR *dir = opendir(folder);
    if (!dir) return error_set_errno(err, ERR_NOT_FOUND, errno, "opening the folder %s", folder);
    struct dirent *entry;
    *names = NULL;
    *count = 0;
    while ((entry = readdir(dir)) && *count < PICTURES_MAX * 4) {
        *names = alloc_grow(*names, *count + 1, sizeof **names);
        (*names)[(*count)++] = alloc_string(entry->d_name);
    }
    closedir(dir);
    if (*count) qsort(*names, *count, sizeof **names, by_name);
    return 0;
}

static bool is_export(const char *name)
{
    return str_starts(name, "labels_") &&
           (str_ends(name, ".csv") || str_ends(name, ".json") || str_ends(name, ".zip"));
}

static int open_annotations(struct dataset *d, const struct dataset_options *o, char **names,
                            size_t count, struct error *err)
{
    char *path = o->annotations && *o->annotations ? alloc_string(o->annotations) : NULL;
    for (size_t i = 0; o->annotations && !*o->annotations && i < count; i++) {
        if (!is_export(names[i])) continue;
        if (path)
            dataset_problem(d,
                            "%s is not used: %s is the first export here (--annotations decides)",
                            names[i], path);
        else
            path = alloc_printf("%s/%s", o->folder, names[i]);
    }
    int rc = path ? annotations_open(&d->annotations, path, o->hint, err) : 0;
    for (int i = 0; i < d->annotations.problem_count; i++)
        dataset_problem(d, "%s", d->annotations.problem[i]);
    if (d->annotations.lines_guessed)
        dataset_problem(d,
                        "%s has no header: its rows of eight columns are read as %s (say --kind "
                        "to decide)",
                        path,
                        d->annotations.count && d->annotations.item[0].region_count &&
                                d->annotations.item[0].region[0].kind == REGION_LINE
                            ? "lines"
                            : "boxes");
    if (!rc)
        d->annotations_path = path;
    else
        free(path);
    return rc;
}

/* Rows whose picture is not here, captions that belong to none. */
static void report_orphans(struct dataset *d, char **names, size_t count)
{
    for (int i = 0; i < d->annotations.count; i++) {
        const struct annotated *a = &d->annotations.item[i];
        bool used = false;
        for (int j = 0; j < d->count && !used; j++) used = d->sample[j].annotated == a;
        if (!used)
            dataset_problem(d, "the annotations name %s, which is not among the pictures used",
                            a->image);
    }
    for (size_t i = 0; i < count; i++) {
        if (!str_ends(names[i], ".txt") && !str_ends(names[i], ".caption")) continue;
        if (!strcmp(names[i], "labels.txt")) continue;
        char *stem = str_stem(names[i]);
        bool used = false;
        for (size_t j = 0; j < count && !used; j++) {
            if (!is_picture(names[j])) continue;
            char *other = str_stem(names[j]);
            used = !strcmp(stem, other);
            free(other);
        }
        if (!used) dataset_problem(d, "%s is a caption without a picture", names[i]);
        free(stem);
    }
}

int dataset_open(struct dataset *d, const struct dataset_options *o, struct error *err)
{
    char **names = NULL;
    size_t count = 0;
    *d = (struct dataset){0};
    int rc = list_folder(&names, &count, o->folder, err);
    if (rc) return rc;
    rc = open_annotations(d, o, names, count, err);
    struct buf list;
    char *list_path = alloc_printf("%s/captions.csv", o->folder);
    buf_init(&list, 4u << 20);
    bool has_list = !rc && buf_read_file(&list, list_path, NULL) == 0 && list.data;
    for (size_t i = 0; i < count && !rc; i++) {
        if (!is_picture(names[i])) continue;
        if (d->pictures == PICTURES_MAX) {
            dataset_problem(d, "only the first %d pictures are used", PICTURES_MAX);
            break;
        }
        add_picture(d, o, names[i], has_list ? (const char *)list.data : NULL);
    }
    if (!rc) report_orphans(d, names, count);
    if (!rc && !d->count)
        rc = error_set(err, ERR_NOT_FOUND, "%s holds no picture to train on%s%s", o->folder,
                       d->problem_count ? "; the first problem: " : "",
                       d->problem_count ? d->problem[0] : "");
    for (size_t i = 0; i < count; i++) free(names[i]);
    free(names);
    free(list_path);
    buf_release(&list);
    if (rc) dataset_release(d);
    return rc;
}

int sample_pixels(struct pixels *p, const struct sample *s, struct error *err)
{
    struct pixels whole, rgb;
    int rc = image_read(&whole, NULL, s->path, err);
    if (rc) return rc;
    rc = pixels_convert(&rgb, &whole, 3, err);
    pixels_release(&whole);
    if (rc || !s->is_crop) {
        if (!rc) *p = rgb;
        return rc;
    }
    if (s->x + s->w > rgb.width || s->y + s->h > rgb.height)
        rc = error_set(err, ERR_INVALID, "%s changed its size", s->name);
    if (!rc) rc = pixels_crop(p, &rgb, s->x, s->y, s->w, s->h, err);
    pixels_release(&rgb);
    return rc;
}

static void count_label(struct label_count **counts, int *count, const char *label)
{
    if (!label) return;
    for (int i = 0; i < *count; i++)
        if (!strcmp((*counts)[i].label, label)) {
            (*counts)[i].count++;
            return;
        }
    *counts = alloc_grow(*counts, (size_t)*count + 1, sizeof **counts);
    (*counts)[(*count)++] = (struct label_count){label, 1};
}

static int by_count(const void *a, const void *b)
{
    const struct label_count *p = a, *q = b;
    return p->count != q->count ? q->count - p->count : strcmp(p->label, q->label);
}

int dataset_labels(const struct dataset *d, struct label_count **counts)
{
    int count = 0;
    *counts = NULL;
    for (int i = 0; i < d->annotations.count; i++) {
        const struct annotated *a = &d->annotations.item[i];
        for (int j = 0; j < a->region_count; j++) count_label(counts, &count, a->region[j].label);
        for (int j = 0; j < a->tag_count; j++) count_label(counts, &count, a->tag[j]);
    }
    if (count) qsort(*counts, (size_t)count, sizeof **counts, by_count);
    return count;
}
