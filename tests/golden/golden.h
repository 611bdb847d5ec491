/*
 * golden.h - a case of tests/golden/reference/cases.json as a request.
 *
 * Place    test_stages.c and test_pictures.c; make_goldens.py writes what it reads.
 * Owner    golden_open / golden_close.
 * Failure  prints what is wrong and exits: a broken fixture is no test result.
 */
#ifndef TESTS_GOLDEN_GOLDEN_H
#define TESTS_GOLDEN_GOLDEN_H

#include <jansson.h>

#include "diffusion/model.h"
#include "diffusion/pipeline.h"
#include "proto/request.h"

struct golden {
    char *data; /* the folder */
    json_t *cases;
    struct device *device;
    struct {
        char *key; /* its path, and that of a VAE of its own */
        struct model *model;
    } models[16];
    int model_count;
    enum precision precision;
};

void golden_open(struct golden *g, const char *data, enum precision precision);
void golden_close(struct golden *g);

/* A case's file: in its own folder, else in the data. The caller frees. */
char *golden_path(const struct golden *g, const json_t *c, const char *name);
const char *golden_string(const json_t *c, const char *key, const char *otherwise);
double golden_number(const json_t *c, const char *key, double otherwise);

/* Opened once; the case says folder, single file or pickle. */
struct model *golden_model(struct golden *g, const json_t *c);
/* A request out of a case; release with image_request_release. */
void golden_request(const struct golden *g, struct image_request *r, const json_t *c);

#endif
