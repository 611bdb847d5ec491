#include "image/pixels.h"

#include <stdlib.h>

int pixels_new(struct pixels *p, int width, int height, int channels, struct error *err)
{
    if (width < 1 || height < 1 || channels < 1 || channels > 4)
        return error_set(err, ERR_INVALID, "a picture of %d x %d x %d", width, height, channels);
    size_t bytes = (size_t)width * (size_t)height * (size_t)channels;
    uint8_t *data = malloc(bytes);
    if (!data)
        return error_set(err, ERR_NO_MEMORY, "no memory for a picture of %d x %d", width, height);
    *p = (struct pixels){.width = width, .height = height, .channels = channels, .data = data};
    return 0;
}

void pixels_release(struct pixels *p)
{
    if (!p) return;
    free(p->data);
    *p = (struct pixels){0};
}
