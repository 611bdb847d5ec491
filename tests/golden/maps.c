#include "tests/golden/maps.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "image/codec.h"
#include "image/resize.h"

void map_read(struct pixels *p, const char *folder, const char *name)
{
    struct error err;
    struct pixels raw;
    char *path = alloc_printf("%s/%s.png", folder, name);
    if (image_read(&raw, NULL, path, &err)) fail_msg("%s", err.text);
    if (pixels_convert(p, &raw, 3, &err)) fail_msg("%s: %s", path, err.text);
    pixels_release(&raw);
    free(path);
}

double map_off(const struct pixels *a, const struct pixels *b, int most)
{
    int n = a->width * a->height, count = 0;
    assert_int_equal(a->width, b->width);
    assert_int_equal(a->height, b->height);
    assert_int_equal(a->channels, 3);
    assert_int_equal(b->channels, 3);
    for (int i = 0; i < n; i++) {
        int worst = 0;
        for (int k = 0; k < 3; k++) {
            int d = abs(a->data[i * 3 + k] - b->data[i * 3 + k]);
            if (d > worst) worst = d;
        }
        count += worst > most;
    }
    return (double)count / n;
}
