#include "diffusion/safety/notice.h"

#include <stdbool.h>
#include <string.h>

enum { GROUND = 64, SIGN = 200 };

/* A ring and a bar from its upper left to its lower right; lengths are thousandths of the shorter
 * side. */
static bool on_sign(int64_t x, int64_t y)
{
    enum { OUTER = 330, INNER = 260, BAR = 49 }; /* BAR: half the width, times sqrt 2 */
    int64_t square = x * x + y * y;
    if (square > OUTER * OUTER) return false;
    return square >= INNER * INNER || (x - y <= BAR && y - x <= BAR);
}

void notice_replace(struct pixels *p)
{
    int shorter = p->width < p->height ? p->width : p->height;
    explicit_bzero(p->data, (size_t)p->width * (size_t)p->height * (size_t)p->channels);
    for (int y = 0; y < p->height; y++)
        for (int x = 0; x < p->width; x++) {
            uint8_t *at =
                p->data + ((size_t)y * (size_t)p->width + (size_t)x) * (size_t)p->channels;
            int64_t dx = (2 * x + 1 - p->width) * (int64_t)500 / shorter;
            int64_t dy = (2 * y + 1 - p->height) * (int64_t)500 / shorter;
            memset(at, on_sign(dx, dy) ? SIGN : GROUND, (size_t)p->channels);
            if (p->channels == 4) at[3] = 255;
        }
}
