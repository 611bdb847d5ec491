/* The Horde's hires fix: a picture at the size the model knows, enlarged as a latent, drawn again. */
#include <math.h>

#include "base/alloc.h"
#include "diffusion/pipeline_run.h"

static int to_64(double v)
{
    int n = (int)(v / 64 + 0.5) * 64;
    return n < 64 ? 64 : n;
}

static void first_size_xl(int width, int height, int *w, int *h)
{
    static const int sizes[][2] = {{1024, 1024}, {1152, 896}, {896, 1152}, {1216, 832}, {832, 1216},
                                   {1344, 768},  {768, 1344}, {1536, 640}, {640, 1536}};
    double want = log((double)width / height), best = 1e9;
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        double off = fabs(log((double)sizes[i][0] / sizes[i][1]) - want);
        if (off < best) {
            best = off;
            *w = sizes[i][0];
            *h = sizes[i][1];
        }
    }
}

bool hires_wanted(const struct run *run, int *first_width, int *first_height)
{
    const struct image_request *r = run->r;
    enum family family = run->m->info.family;
    bool xl = family == FAMILY_SDXL || family == FAMILY_SDXL_REFINER;
    int least = xl ? 1024 : 512;
    if (!r->hires_fix || run->m->info.inpainting || r->width_px <= least || r->height_px <= least)
        return false;
    if (r->source_use == SOURCE_INPAINTING || r->source_use == SOURCE_OUTPAINTING) return false;
    if (xl) {
        first_size_xl(r->width_px, r->height_px, first_width, first_height);
    } else {
        int shorter = r->width_px < r->height_px ? r->width_px : r->height_px;
        *first_width = to_64(512.0 * r->width_px / shorter);
        *first_height = to_64(512.0 * r->height_px / shorter);
    }
    return true;
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
