/* A stranger's picture: its header by codec_probe, then its pixels, as kiln-decode meets them. */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "fuzz.h"
#include "image/codec.h"

#define PIXELS_MAX 4096 /* larger ones are for the probe alone: decoding them is libpng's time */

static struct fuzz_seed seeds[8];
static size_t seed_count;

static void add(enum image_format format, int width, int height, int channels, int quality,
                bool with_text)
{
    struct pixels p;
    struct buf bytes;
    struct error err;
    struct image_text text = {.parameters = (char *)"a prompt\nSteps: 2", .xmp = (char *)"<x/>"};
    KILN_ASSERT(!pixels_new(&p, width, height, channels, &err));
    for (int i = 0; i < width * height * channels; i++) p.data[i] = (uint8_t)(i * 37);
    buf_init(&bytes, 1 << 16);
    if (codec_encode(&bytes, format, &p, quality, with_text ? &text : NULL, &err))
        KILN_ASSERT(false, "%s", err.text);
    size_t length;
    void *data = buf_take(&bytes, &length);
    seeds[seed_count++] = (struct fuzz_seed){data, length};
    pixels_release(&p);
}

const struct fuzz_seed *fuzz_seeds(size_t *count)
{
    if (!seed_count) {
        add(IMAGE_PNG, 9, 5, 3, 0, true);
        add(IMAGE_PNG, 8, 8, 4, 0, false);
        add(IMAGE_WEBP, 16, 8, 3, 80, true);
        add(IMAGE_WEBP, 8, 16, 4, 101, false);
    }
    *count = seed_count;
    return seeds;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct image_header head;
    struct pixels p = {0};
    struct image_text text = {0};
    struct error err = {0};
    if (codec_probe(&head, "a source image", data, size, &err)) {
        KILN_ASSERT(err.text[0]);
        return 0;
    }
    KILN_ASSERT(head.width > 0 && head.height > 0, "%d x %d", head.width, head.height);
    if ((int64_t)head.width * head.height > PIXELS_MAX) return 0;
    if (codec_decode(&p, &text, "a source image", data, size, &err)) {
        KILN_ASSERT(err.text[0] && !p.data);
        return 0;
    }
    KILN_ASSERT(p.channels == 3 || p.channels == 4, "%d", p.channels);
    KILN_ASSERT((p.width == head.width && p.height == head.height) ||
                    (p.width == head.height && p.height == head.width), /* Exif turned it */
                "%d x %d", p.width, p.height);
    unsigned sum = 0;
    for (int i = 0; i < p.width * p.height * p.channels; i++) sum += p.data[i]; /* all is there */
    KILN_ASSERT(sum <= 255u * PIXELS_MAX * 4);
    pixels_release(&p);
    image_text_release(&text);
    return 0;
}
