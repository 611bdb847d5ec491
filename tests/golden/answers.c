#include "tests/golden/answers.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "image/codec.h"

struct answers answers;

bool answers_open(int argc, char **argv, const char *file)
{
    json_error_t why;
    struct error err;
    if (argc < 2) {
        fprintf(stderr, "usage: %s FOLDER\n", argv[0]);
        return false;
    }
    answers.folder = argv[1];
    char *path = answers_path(file);
    answers.expected = json_load_file(path, 0, &why);
    if (!answers.expected) fprintf(stderr, "%s: %s\n", path, why.text);
    free(path);
    if (!answers.expected) return false;
    if (device_open(&answers.device, "cpu", &err) == 0) return true;
    fprintf(stderr, "%s\n", err.text);
    return false;
}

void answers_close(void)
{
    device_close(answers.device);
    json_decref(answers.expected);
    answers = (struct answers){0};
}

char *answers_path(const char *name)
{
    return *name == '/' ? alloc_string(name) : alloc_printf("%s/%s", answers.folder, name);
}

void answers_picture(struct pixels *p, const char *name)
{
    struct error err;
    char *path = alloc_printf("%s/../safety/%s.png", answers.folder, name);
    if (image_read(p, NULL, path, &err)) fail_msg("%s", err.text);
    free(path);
}

double answers_distance(const float *have, const json_t *want)
{
    double worst = 0, largest = 0;
    for (size_t i = 0; i < json_array_size(want); i++) {
        double w = json_number_value(json_array_get(want, i));
        worst = fmax(worst, fabs((double)have[i] - w));
        largest = fmax(largest, fabs(w));
    }
    assert_true(largest > 0);
    return worst / largest;
}
