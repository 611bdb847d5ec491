/*
 * answers.h - what the tests of networks with recorded answers share: the folder, the device, its
 *             pictures, and how far a vector is from what torch had.
 *
 * Place    test_caption.c, test_safety.c, test_interrogation.c.
 * Owner    answers_open in main, answers_close before it returns. Paths and pictures are the caller's.
 * Failure  the running test fails with a message; answers_open says what is wrong and returns false.
 */
#ifndef GOLDEN_ANSWERS_H
#define GOLDEN_ANSWERS_H

#include <jansson.h>
#include <stdbool.h>

#include "image/pixels.h"
#include "kernels/device.h"

struct answers {
    const char *folder;
    struct device *device;
    json_t *expected;
};
extern struct answers answers;

/* argv[1] is the folder, `file` its recorded answers. */
bool answers_open(int argc, char **argv, const char *file);
void answers_close(void);

/* name below the folder; an absolute one is itself */
char *answers_path(const char *name);
/* All of them lie with the safety check's data. */
void answers_picture(struct pixels *p, const char *name);
/* Largest difference over the largest magnitude. */
double answers_distance(const float *have, const json_t *want);

#endif
