/*
 * annotations.h - what a person marked in pictures, from the files that makesense.ai exports.
 *
 * Place    between an export and dataset.h, which matches rows to pictures and makes captions.
 * Owner    annotations_open / annotations_release around the caller's struct.
 * Failure  ERR_NOT_FOUND, ERR_IO, ERR_FORMAT for a file of no known kind. A row that cannot be read
 *          is a problem in the list, named with its line, and the rest is used.
 * Source   SkalskiP/make-sense (exporters): CSV of boxes, points, lines and tags, written without
 *          quotes; YOLO and VOC as archives of one file a picture; VGG and COCO JSON; tags JSON.
 *          Files re-saved by a spreadsheet (BOM, CRLF, semicolons, quotes) are read too.
 */
#ifndef DATASET_ANNOTATIONS_H
#define DATASET_ANNOTATIONS_H

#include <stdbool.h>

#include "base/error.h"

enum region_kind { REGION_BOX, REGION_POINT, REGION_LINE, REGION_POLYGON };
const char *region_kind_name(enum region_kind kind);

struct region {
    enum region_kind kind;
    char *label;       /* NULL: never labelled, or its label was deleted */
    double x, y, w, h; /* what encloses it, pixels of the picture as the browser shows it */
    bool normalised;   /* YOLO: x y w h in parts of the picture until its size is known */
    double *point;     /* POLYGON: x, y, x, y ...; a pair of NANs between rings */
    int point_count;   /* pairs; 0: nothing but what encloses it is known */
    int line;          /* of the file; 0: unknown */
};

struct annotated {
    char *image;       /* file name as the export has it; YOLO: without extension */
    bool stem;         /* image is without extension */
    int width, height; /* 0: the export does not say */
    struct region *region;
    int region_count;
    char **tag;
    int tag_count;
};

enum annotation_format {
    ANNOTATIONS_CSV,
    ANNOTATIONS_TAGS_CSV,
    ANNOTATIONS_TAGS_JSON,
    ANNOTATIONS_VGG,
    ANNOTATIONS_COCO,
    ANNOTATIONS_YOLO,
    ANNOTATIONS_VOC,
    ANNOTATIONS_FORMAT_COUNT
};
const char *annotation_format_name(enum annotation_format format);

struct annotations {
    enum annotation_format format;
    struct annotated *item;
    int count;
    char **problem; /* sentences */
    int problem_count;
    bool lines_guessed; /* eight columns without header: boxes or lines, decided by their size */
};

/* Eight columns without header may be boxes (x,y,w,h) or lines (x1,y1,x2,y2). */
enum annotation_hint { ANNOTATIONS_GUESS, ANNOTATIONS_ARE_BOXES, ANNOTATIONS_ARE_LINES };

/* A file, a YOLO or VOC archive (ZIP), or the folder that such a one was unpacked to. YOLO's class
 * names, one a line, are labels.txt in the archive or beside the files or the archive. Out of an
 * archive nothing is written; it may have 64 MiB, and 4 MiB a member, 256 MiB in all, unpacked. */
int annotations_open(struct annotations *a, const char *path, enum annotation_hint hint,
                     struct error *err);
void annotations_release(struct annotations *a);

/* For the readers of each format. */
struct annotated *annotations_image(struct annotations *a, const char *name, bool stem);
struct region *annotations_region(struct annotated *image, enum region_kind kind, const char *label,
                                  int line);
void annotations_point(struct region *r, double x, double y);
void annotations_tag(struct annotated *image, const char *label);
void annotations_problem(struct annotations *a, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
int annotations_read_csv(struct annotations *a, char *text, enum annotation_hint hint,
                         struct error *err);
int annotations_read_json(struct annotations *a, const char *text, const char *path,
                          struct error *err);
/* Where the files of an export lie: in the folder, or, with `archive`, in that (the folder is then
 * the archive's). */
struct zip;
struct export_files {
    const char *folder;
    const struct zip *archive;
};
bool annotations_files_have(const struct export_files *files, const char *extension);
int annotations_read_yolo(struct annotations *a, const struct export_files *files,
                          struct error *err);
int annotations_read_voc(struct annotations *a, const struct export_files *files,
                         struct error *err);

#endif
