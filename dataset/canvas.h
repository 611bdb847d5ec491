/*
 * canvas.h - lines, frames and small writing on a picture.
 *
 * Place    contact sheets, before/after sheets, loss curves.
 * Owner    the caller's RGB pixels. Any thread.
 * Failure  cannot fail: what lies outside is not drawn; letters without a shape are blanks.
 *
 * Letters are 3 x 5 dots, enlarged; small letters are drawn as capitals.
 */
#ifndef DATASET_CANVAS_H
#define DATASET_CANVAS_H

#include "image/pixels.h"

struct ink {
    unsigned char r, g, b;
};

void canvas_fill(struct pixels *p, int x, int y, int width, int height, struct ink ink);
void canvas_frame(struct pixels *p, int x, int y, int width, int height, int thick, struct ink ink);
void canvas_line(struct pixels *p, double x0, double y0, double x1, double y1, struct ink ink);
/* (x, y) is the upper left corner; returns the width drawn. */
int canvas_text(struct pixels *p, int x, int y, int scale, const char *text, struct ink ink);
int canvas_text_width(int scale, const char *text);

#endif
