#include "dataset/bucket.h"

#include <math.h>

#define STEP_PX 64

struct bucket bucket_of(int width, int height, int resolution, bool aspect)
{
    int square = resolution / STEP_PX * STEP_PX;
    int low = square < 256 ? STEP_PX : 256, high = square > 1024 ? square : 1024;
    struct bucket best = {square, square};
    if (!aspect) return best;
    double ratio = (double)width / height, nearest = fabs(log(ratio));
    for (int w = low; w <= high; w += STEP_PX) {
        int h = (int)((double)resolution * resolution / w) / STEP_PX * STEP_PX;
        if (h > high) h = high;
        if (h < low) continue;
        if (w == width && h == height) return (struct bucket){w, h};
        double off = fabs(log(ratio) - log((double)w / h));
        if (off < nearest - 1e-9) {
            nearest = off;
            best = (struct bucket){w, h};
        }
    }
    return best;
}

struct cover bucket_cover(struct bucket b, int width, int height)
{
    return bucket_cut(b, width, height, 1, .5, .5);
}

struct cover bucket_cut(struct bucket b, int width, int height, double zoom, double u, double v)
{
    double fx = (double)b.width / width, fy = (double)b.height / height;
    double f = (fx > fy ? fx : fy) * zoom;
    struct cover c = {(int)lround(width * f), (int)lround(height * f), 0, 0};
    if (c.width < b.width) c.width = b.width;
    if (c.height < b.height) c.height = b.height;
    c.left = (int)((c.width - b.width) * u);
    c.top = (int)((c.height - b.height) * v);
    return c;
}
