#include "dataset/canvas.h"

#include <ctype.h>
#include <math.h>
#include <string.h>

/* Five rows of three dots, the leftmost dot is 4. */
static const struct {
    char letter;
    unsigned char row[5];
} shapes[] = {
    {'0', {7, 5, 5, 5, 7}}, {'1', {2, 6, 2, 2, 7}}, {'2', {7, 1, 7, 4, 7}}, {'3', {7, 1, 3, 1, 7}},
    {'4', {5, 5, 7, 1, 1}}, {'5', {7, 4, 7, 1, 7}}, {'6', {7, 4, 7, 5, 7}}, {'7', {7, 1, 2, 2, 2}},
    {'8', {7, 5, 7, 5, 7}}, {'9', {7, 5, 7, 1, 7}}, {'A', {2, 5, 7, 5, 5}}, {'B', {6, 5, 6, 5, 6}},
    {'C', {3, 4, 4, 4, 3}}, {'D', {6, 5, 5, 5, 6}}, {'E', {7, 4, 6, 4, 7}}, {'F', {7, 4, 6, 4, 4}},
    {'G', {3, 4, 5, 5, 3}}, {'H', {5, 5, 7, 5, 5}}, {'I', {7, 2, 2, 2, 7}}, {'J', {1, 1, 1, 5, 2}},
    {'K', {5, 5, 6, 5, 5}}, {'L', {4, 4, 4, 4, 7}}, {'M', {5, 7, 7, 5, 5}}, {'N', {6, 5, 5, 5, 5}},
    {'O', {2, 5, 5, 5, 2}}, {'P', {6, 5, 6, 4, 4}}, {'Q', {2, 5, 5, 6, 3}}, {'R', {6, 5, 6, 5, 5}},
    {'S', {3, 4, 2, 1, 6}}, {'T', {7, 2, 2, 2, 2}}, {'U', {5, 5, 5, 5, 7}}, {'V', {5, 5, 5, 5, 2}},
    {'W', {5, 5, 7, 7, 5}}, {'X', {5, 5, 2, 5, 5}}, {'Y', {5, 5, 2, 2, 2}}, {'Z', {7, 1, 2, 4, 7}},
    {'.', {0, 0, 0, 0, 2}}, {',', {0, 0, 0, 2, 4}}, {'-', {0, 0, 7, 0, 0}}, {':', {0, 2, 0, 2, 0}},
    {'/', {1, 1, 2, 4, 4}}, {'%', {5, 1, 2, 4, 5}}, {'+', {0, 2, 7, 2, 0}}, {'_', {0, 0, 0, 0, 7}},
    {'=', {0, 7, 0, 7, 0}}, {'(', {1, 2, 2, 2, 1}}, {')', {4, 2, 2, 2, 4}},
};

static void dot(struct pixels *p, int x, int y, struct ink ink)
{
    if (x < 0 || y < 0 || x >= p->width || y >= p->height) return;
    unsigned char *at = p->data + ((size_t)y * (size_t)p->width + (size_t)x) * 3;
    at[0] = ink.r;
    at[1] = ink.g;
    at[2] = ink.b;
}

void canvas_fill(struct pixels *p, int x, int y, int width, int height, struct ink ink)
{
    for (int v = y < 0 ? 0 : y; v < y + height && v < p->height; v++)
        for (int u = x < 0 ? 0 : x; u < x + width && u < p->width; u++) dot(p, u, v, ink);
}

void canvas_frame(struct pixels *p, int x, int y, int width, int height, int thick, struct ink ink)
{
    canvas_fill(p, x, y, width, thick, ink);
    canvas_fill(p, x, y + height - thick, width, thick, ink);
    canvas_fill(p, x, y, thick, height, ink);
    canvas_fill(p, x + width - thick, y, thick, height, ink);
}

void canvas_line(struct pixels *p, double x0, double y0, double x1, double y1, struct ink ink)
{
    double dx = x1 - x0, dy = y1 - y0, length = fmax(fabs(dx), fabs(dy));
    int steps = (int)ceil(length) + 1;
    for (int i = 0; i <= steps; i++)
        dot(p, (int)lround(x0 + dx * i / steps), (int)lround(y0 + dy * i / steps), ink);
}

static const unsigned char *shape_of(char letter)
{
    letter = (char)toupper((unsigned char)letter);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        if (shapes[i].letter == letter) return shapes[i].row;
    return NULL;
}

int canvas_text_width(int scale, const char *text)
{
    return (int)strlen(text) * 4 * scale;
}

int canvas_text(struct pixels *p, int x, int y, int scale, const char *text, struct ink ink)
{
    for (const char *at = text; *at; at++, x += 4 * scale) {
        const unsigned char *row = shape_of(*at);
        for (int v = 0; row && v < 5; v++)
            for (int u = 0; u < 3; u++)
                if (row[v] >> (2 - u) & 1)
                    canvas_fill(p, x + u * scale, y + v * scale, scale, scale, ink);
    }
    return canvas_text_width(scale, text);
}
