/* Grey planes and Gaussian blur for control maps. */
#include <math.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "diffusion/control/map.h"

float *map_grey(const struct pixels *from)
{
    int64_t n = (int64_t)from->width * from->height;
    float *grey = alloc_try((size_t)n, sizeof *grey);
    for (int64_t i = 0; grey && i < n; i++) {
        const uint8_t *p = from->data + i * from->channels;
        grey[i] = 0.299f * p[0] + 0.587f * p[1] + 0.114f * p[2];
    }
    return grey;
}

/* Mirror without repeating the border: -1 is 1. */
static int mirrored(int i, int n)
{
    if (n == 1) return 0;
    while (i < 0 || i >= n) i = i < 0 ? -i : 2 * (n - 1) - i;
    return i;
}

static void blur_line(float *to, const float *from, int n, int step, const float *kernel,
                      int radius)
{
    for (int i = 0; i < n; i++) {
        float sum = 0;
        for (int k = -radius; k <= radius; k++)
            sum += kernel[k + radius] * from[mirrored(i + k, n) * step];
        to[i] = sum;
    }
}

bool map_blur(float *x, int width, int height, int channels, double sigma, double reach)
{
    int radius = (int)lrint(reach * sigma), longest = width > height ? width : height;
    float *kernel = alloc_try((size_t)(2 * radius + 1), sizeof *kernel);
    float *line = alloc_try((size_t)longest, sizeof *line);
    bool ok = kernel && line;
    double sum = 0;
    for (int k = -radius; ok && k <= radius; k++) {
        kernel[k + radius] = (float)exp(-k * k / (2 * sigma * sigma));
        sum += (double)kernel[k + radius];
    }
    for (int k = 0; ok && k <= 2 * radius; k++) kernel[k] = (float)((double)kernel[k] / sum);
    for (int c = 0; ok && c < channels; c++) {
        for (int y = 0; y < height; y++) {
            float *row = x + (int64_t)y * width * channels + c;
            blur_line(line, row, width, channels, kernel, radius);
            for (int i = 0; i < width; i++) row[i * channels] = line[i];
        }
        for (int i = 0; i < width; i++) {
            float *column = x + (int64_t)i * channels + c;
            int step = width * channels;
            blur_line(line, column, height, step, kernel, radius);
            for (int y = 0; y < height; y++) column[(int64_t)y * step] = line[y];
        }
    }
    free(kernel);
    free(line);
    return ok;
}
