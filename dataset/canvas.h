/*
 * canvas.h - lines, frames and small writing on a picture.
 *
 * Place    contact sheets, before/after sheets, loss curves.
 * Owner    the caller's RGB pixels. Any thread.
 * Failure  cannot fail: what lies outside is not drawn; letters without a shape are blanks.
 *
 * Letters are 5 x 7 dots and two below the line, enlarged, one dot apart.
 */
#ifndef DATASET_CANVAS_H
#define DATASET_CANVAS_H

#include "image/pixels.h"

#define CANVAS_ROWS 9 /* of a letter, times the scale */

struct ink {
    unsigned char r, g, b;
};

void canvas_fill(struct pixels *p, int x, int y, int width, int height, struct ink ink);
void canvas_frame(struct pixels *p, int x, int y, int width, int height, int thick, struct ink ink);
void canvas_line(struct pixels *p, double x0, double y0, double x1, double y1, struct ink ink);
/* (x, y) is the upper left corner; returns the width drawn. */
int canvas_text(struct pixels *p, int x, int y, int scale, const char *text, struct ink ink);
int canvas_text_width(int scale, const char *text);
/* Cut to `width` pixels with three dots at its end. */
void canvas_text_fit(struct pixels *p, int x, int y, int scale, int width, const char *text,
                     struct ink ink);

#endif
