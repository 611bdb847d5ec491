/*
 * dataset.h - a folder of pictures and what is known about them, as training samples.
 *
 * Place    `kiln dataset check` shows it, diffusion/train reads it.
 * Owner    dataset_open / dataset_release around the caller's struct.
 * Failure  ERR_IO; ERR_NOT_FOUND also when nothing is left to train on. Everything that does not
 *          fit is a problem in the list, named; the rest is used.
 * Source   captions as in kohya-ss/sd-scripts (NAME.txt, NAME.caption, folders REPEATS_words);
 *          matching and region crops: lora-training section 8.
 */
#ifndef DATASET_DATASET_H
#define DATASET_DATASET_H

#include <stdbool.h>

#include "dataset/annotations.h"
#include "image/pixels.h"

struct dataset_options {
    const char *folder;
    const char *annotations; /* NULL: none; "" : look for labels_*.csv|json in the folder */
    enum annotation_hint hint;
    const char *trigger; /* put first in every caption; NULL: none */
    const char *caption; /* template with %s for the words, after the trigger; NULL: the words */
    bool crops;          /* one more sample per box */
    double crop_margin;  /* grows a box by so much of its size on each side */
    int min_side_px;     /* smaller pictures are refused */
    int warn_side_px;    /* smaller ones are named */
};

enum caption_source {
    CAPTION_FILE,
    CAPTION_LIST,
    CAPTION_ANNOTATIONS,
    CAPTION_FOLDER,
    CAPTION_NONE
};

struct sample {
    char *path; /* of the picture */
    char *name; /* its file name */
    char *caption;
    enum caption_source source;
    int width, height; /* of the picture, upright */
    int repeats;
    bool is_crop; /* x y w h is a region; else the whole picture */
    int x, y, w, h;
    const struct annotated *annotated; /* NULL: none */
};

struct dataset {
    struct sample *sample;
    int count, pictures;
    struct annotations annotations;
    char *annotations_path; /* where they come from; NULL: none */
    char **problem;
    int problem_count;
    int skipped; /* pictures refused */
};

int dataset_open(struct dataset *d, const struct dataset_options *options, struct error *err);
void dataset_release(struct dataset *d);
void dataset_problem(struct dataset *d, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* The sample's pixels, upright RGB, alpha laid on white; cut to its region. */
int sample_pixels(struct pixels *p, const struct sample *s, struct error *err);

/* Label -> how often, for ss_tag_frequency and the table of `kiln dataset check`. */
struct label_count {
    const char *label;
    int count;
};
/* Sorted by count; the caller frees the array, labels are the dataset's. */
int dataset_labels(const struct dataset *d, struct label_count **counts);

#endif
