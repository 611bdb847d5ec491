/*
 * The published single-file layouts (make_keys.py): every tensor has a place in the model, once, or is
 * known to be of no use. The files are holes of the right size: nothing of their data is read.
 */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/str.h"
#include "diffusion/model.h"
#include "diffusion/text/clip_text.h"

static const char *keys_folder, *tokenizer;
static char folder[64];

struct layout {
    const char *name;
    enum family family;
    bool inpainting;
    double unet_millions; /* parameters, as published */
    size_t used;          /* tensors with a place */
};

static const struct layout layouts[] = {
    {"sd15", FAMILY_SD1, false, 859.52, 686 + 248 + 196},
    {"sd15-inpainting", FAMILY_SD1, true, 859.54, 686 + 248 + 196},
    {"sd21", FAMILY_SD2_512, false, 865.91, 686 + 248 + 293},
    {"sdxl", FAMILY_SDXL, false, 2567.46, 1680 + 248 + 196 + 389},
    {"refiner", FAMILY_SDXL_REFINER, false, 2259.53, 1220 + 248 + 389},
};

/* A safetensors file whose data part is a hole. */
static char *write_hollow(const struct layout *l)
{
    char line[1024], *path = alloc_printf("%s/%s.safetensors", folder, l->name);
    char *keys = alloc_printf("%s/%s.txt.gz", keys_folder, l->name);
    struct buf b;
    struct error err;
    uint64_t at = 0;
    gzFile z = gzopen(keys, "rb");
    if (!z) fail_msg("%s cannot be read", keys);
    buf_init(&b, 16u << 20);
    while (gzgets(z, line, sizeof line)) {
        char *name = strtok(line, " \n"), *dim;
        bool whole = str_ends(name, "position_ids");
        uint64_t bytes = whole ? 8 : 2;
        buf_printf(&b, &err, "%c\"%s\":{\"dtype\":\"%s\",\"shape\":[", b.length ? ',' : '{', name,
                   whole ? "I64" : "F16");
        for (int i = 0; (dim = strtok(NULL, " \n")); i++) {
            bytes *= strtoull(dim, NULL, 10);
            buf_printf(&b, &err, "%s%s", i ? "," : "", dim);
        }
        buf_printf(&b, &err, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", at, at + bytes);
        at += bytes;
    }
    gzclose(z);
    buf_append_string(&b, "}", &err);
    while ((b.length + 8) % 64) buf_append_string(&b, " ", &err);
    uint64_t header = b.length;
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(&header, 8, 1, f), 1);
    assert_int_equal(fwrite(b.data, b.length, 1, f), 1);
    fflush(f);
    assert_int_equal(ftruncate(fileno(f), (off_t)(8 + header + at)), 0);
    fclose(f);
    buf_release(&b);
    free(keys);
    return path;
}

struct census {
    const char **names;
    size_t count, room, stacked;
    enum dialect dialect;
    const char *prefix;
    int64_t parameters;
};

static int note(struct weight_visitor *v, struct weight *w, const struct weight_site *site,
                struct error *err)
{
    struct census *c = v->context;
    c->parameters += weight_count(w);
    /* w->name is the file's own: one string a tensor, so equal pointers are equal tensors */
    if (site->stacked_of[c->dialect] && site->stacked_from[c->dialect]) {
        c->stacked++;
        return 0;
    }
    if (c->count == c->room) {
        c->room = c->room ? 2 * c->room : 4096;
        c->names = alloc_grow(c->names, c->room, sizeof *c->names);
    }
    assert_non_null(w->name);
    c->names[c->count++] = w->name;
    return 0;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void check_layout(const struct layout *l)
{
    struct device *device;
    struct model *m;
    struct error err = {0};
    char *path = write_hollow(l);
    assert_int_equal(device_open(&device, "plain", &err), 0);
    if (model_open(&m, device, path, NULL, PRECISION_FP32, &err)) fail_msg("%s", err.text);
    assert_int_equal(m->info.family, l->family);
    assert_int_equal(m->info.inpainting, l->inpainting);
    assert_int_equal(m->info.v_prediction, 0);

    struct census c = {.dialect = DIALECT_LDM};
    struct weight_visitor v = {.visit = note, .context = &c};
    unet_visit(&v, &m->unet);
    double millions = (double)c.parameters / 1e6;
    if (millions < l->unet_millions - 0.005 || millions > l->unet_millions + 0.005)
        fail_msg("%s: %.2f M parameters", l->name, millions);
    vae_visit(&v, &m->vae);
    for (int i = 0; i < m->text.encoders; i++) {
        c.dialect = m->text_dialect[i];
        clip_text_visit(&v, m->text.encoder[i]);
    }
    qsort(c.names, c.count, sizeof *c.names, by_text);
    for (size_t i = 1; i < c.count; i++)
        if (strcmp(c.names[i - 1], c.names[i]) == 0) fail_msg("%s is used twice", c.names[i]);
    const char *example = "";
    size_t unknown = weight_store_ignored(m->stores[0], &example);
    if (unknown) fail_msg("%s: %zu tensors without a place, %s", l->name, unknown, example);
    printf("%s: %zu tensors, %zu used once, %zu ignorable, UNet %.2f M\n", l->name,
           weight_store_count(m->stores[0]), c.count, weight_store_count(m->stores[0]) - c.count,
           millions);
    assert_int_equal(c.count, l->used);
    free(c.names);
    model_close(m);
    device_close(device);
    unlink(path);
    free(path);
}

static void every_tensor_has_a_place(void **state)
{
    for (size_t i = 0; i < COUNT_OF(layouts); i++) check_layout(&layouts[i]);
}

static int make_folder(void **state)
{
    strcpy(folder, "/tmp/kiln-keys-XXXXXX");
    if (!mkdtemp(folder)) return -1;
    char *link = alloc_printf("%s/tokenizer", folder);
    int rc = symlink(tokenizer, link);
    free(link);
    return rc;
}

static int drop_folder(void **state)
{
    char *link = alloc_printf("%s/tokenizer", folder);
    unlink(link);
    free(link);
    return rmdir(folder);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_tensor_has_a_place)};
    if (argc < 3) {
        fprintf(stderr, "usage: test_keys KEYS TOKENIZER\n");
        return 2;
    }
    keys_folder = argv[1];
    tokenizer = argv[2];
    return cmocka_run_group_tests(tests, make_folder, drop_folder);
}
