#include "diffusion/hires.h"

#include <math.h>

#include "base/alloc.h"

void hires_size_512(int width, int height, int *w, int *h)
{
    double ratio = (width < height ? width : height) / 512.0;
    *w = (int)floor(width / (ratio * 64)) * 64;
    *h = (int)floor(height / (ratio * 64)) * 64;
}

static void first_size_xl(int width, int height, int *w, int *h)
{
    static const int sizes[][2] = {{1024, 1024}, {1152, 896}, {896, 1152}, {1216, 832}, {832, 1216},
                                   {1344, 768},  {768, 1344}, {1536, 640}, {640, 1536}};
    double want = (double)width / height, best = 1e9;
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        double off = fabs((double)sizes[i][0] / sizes[i][1] - want);
        if (off < best) {
            best = off;
            *w = sizes[i][0];
            *h = sizes[i][1];
        }
    }
}

static bool is_xl(enum family family)
{
    return family == FAMILY_SDXL || family == FAMILY_SDXL_REFINER;
}

bool hires_first_size(enum family family, const struct image_request *r, int *w, int *h)
{
    int least = is_xl(family) ? 1024 : 512;
    if (!r->hires_fix || r->width_px <= least || r->height_px <= least) return false;
    if (r->source_use == SOURCE_INPAINTING || r->source_use == SOURCE_OUTPAINTING) return false;
    /* a source picture is brought to the small size of SD 1.x, whatever the family */
    if (is_xl(family) && r->source_use == SOURCE_NONE)
        first_size_xl(r->width_px, r->height_px, w, h);
    else
        hires_size_512(r->width_px, r->height_px, w, h);
    return true;
}

double hires_denoise(const struct image_request *r)
{
    if (!isnan(r->hires_denoise)) return r->hires_denoise;
    return r->source_use == SOURCE_IMG2IMG ? r->denoise : 0.65;
}

/* Side in pixels that the family was trained at. */
static double native_side(enum family family)
{
    if (is_xl(family)) return 1024;
    return family == FAMILY_SD2_768 ? 768 : 512;
}

int hires_steps(enum family family, const struct image_request *r)
{
    double denoise = fmin(fmax(hires_denoise(r), 0.01), 1), native = native_side(family);
    double distance = (double)r->width_px * r->height_px / (native * native) / (3 * 512.0 / native);
    double steps = nearbyint(3 + (r->steps - 3) * denoise * denoise);
    steps = nearbyint(steps * (1 / pow(0.5, distance)) / 2.25);
    if (r->steps <= 18) steps += 3;
    double least = r->steps < 6 ? r->steps : 6;
    return (int)fmin(fmax(steps, least), r->steps);
}

void hires_enlarge(float *to, int64_t oh, int64_t ow, const float *from, int64_t planes, int64_t h,
                   int64_t w)
{
    for (int64_t c = 0; c < planes; c++)
        for (int64_t y = 0; y < oh; y++)
            for (int64_t x = 0; x < ow; x++) {
                int64_t sy = (2 * y + 1) * h / (2 * oh), sx = (2 * x + 1) * w / (2 * ow);
                to[(c * oh + y) * ow + x] = from[(c * h + sy) * w + sx];
            }
}
