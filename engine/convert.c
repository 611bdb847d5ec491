#include "engine/convert.h"

#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/str.h"
#include "diffusion/weight_store.h"

#define F16_MOST 65504.0

struct convert {
    const char *from, *to;
    bool keep; /* each tensor's own precision */
    enum dtype dtype;
    bool prune;
    struct safetensors_entry *entries;
    void **made; /* what was converted, by entry; NULL: borrowed from the file */
    size_t count;
    size_t left_out;
};

static bool is_float(enum dtype d)
{
    return d == DTYPE_F32 || d == DTYPE_F16 || d == DTYPE_BF16 || d == DTYPE_F64 ||
           d == DTYPE_F8_E4M3 || d == DTYPE_F8_E5M2;
}

/* Averaged copies and a training's own notes: no program that draws reads them. */
static bool is_needless(const char *name)
{
    return str_starts(name, "model_ema.") || str_starts(name, "optimizer_states") ||
           str_starts(name, "loss.") || str_starts(name, "callbacks");
}

static int change(struct convert *c, size_t i, struct error *err)
{
    struct safetensors_entry *e = &c->entries[i];
    if (c->keep || !is_float(e->dtype) || e->dtype == c->dtype) return 0;
    int64_t n = (int64_t)(e->bytes / dtype_bytes(e->dtype));
    void *to = alloc_try((size_t)n + 1, dtype_bytes(c->dtype));
    if (!to) return error_set(err, ERR_NO_MEMORY, "no memory to convert %s", e->name);
    c->made[i] = to;
    for (int64_t k = 0; c->dtype == DTYPE_F16 && k < n; k++) {
        double v = dtype_get(e->data, e->dtype, k);
        if (isfinite(v) && fabs(v) > F16_MOST)
            return error_set(err, ERR_INVALID,
                             "%s holds %g, more than fp16's %g: bf16 or fp32 can hold it", e->name,
                             v, F16_MOST);
    }
    dtype_convert(to, c->dtype, e->data, e->dtype, n);
    e->data = to;
    e->dtype = c->dtype;
    e->bytes = (size_t)n * dtype_bytes(c->dtype);
    return 0;
}

static int write_anew(struct convert *c, const struct safetensors_meta *meta, size_t meta_count,
                      const struct weight_store *store, struct error *err)
{
    size_t n = weight_store_count(store);
    int rc = 0;
    c->entries = alloc_zero(n + 1, sizeof *c->entries);
    c->made = alloc_zero(n + 1, sizeof *c->made);
    for (size_t i = 0; i < n; i++) {
        const struct safetensors_entry *e = weight_store_at(store, i);
        if (c->prune && is_needless(e->name))
            c->left_out++;
        else
            c->entries[c->count++] = *e;
    }
    for (size_t i = 0; i < c->count && !rc; i++) rc = change(c, i, err);
    if (!rc) rc = safetensors_write(c->to, c->entries, c->count, meta, meta_count, err);
    for (size_t i = 0; i < c->count; i++) free(c->made[i]);
    free(c->entries);
    free(c->made);
    return rc;
}

static int convert(struct convert *c, struct error *err)
{
    struct weight_store *store;
    struct safetensors whole = {0};
    int rc = weight_store_open(&store, c->from, err);
    if (rc) return rc;
    /* what a single safetensors file says about itself goes along; pickles and shards say nothing */
    bool single = !str_ends(c->from, ".json") && safetensors_open(&whole, c->from, NULL) == 0;
    rc = write_anew(c, single ? whole.meta : NULL, single ? whole.meta_count : 0, store, err);
    if (single) safetensors_close(&whole);
    weight_store_close(store);
    return rc;
}

static bool take_precision(struct convert *c, const char *name)
{
    static const struct {
        const char *name;
        enum dtype dtype;
    } known[] = {{"fp32", DTYPE_F32}, {"fp16", DTYPE_F16}, {"bf16", DTYPE_BF16}};
    c->keep = str_equal(name, "keep");
    for (size_t i = 0; i < COUNT_OF(known); i++)
        if (str_equal(name, known[i].name)) {
            c->dtype = known[i].dtype;
            return true;
        }
    return c->keep;
}

static const char usage[] =
    "usage: kiln convert IN OUT.safetensors [--precision keep|fp32|fp16|bf16] [--prune]\n"
    "\n"
    "Writes a checkpoint, LoRA, VAE or other file of weights anew as safetensors: IN is a\n"
    "safetensors file, its .index.json (shards become one file), or a torch pickle (.ckpt, .pt, "
    ".pth,\n"
    ".bin), which is read as data and never run. Names stay as they are.\n"
    "\n"
    "  --precision P  of the numbers; keep (the default) leaves each as it is\n"
    "  --prune        leaves out averaged copies (model_ema) and what only training reads\n";

int convert_main(int argc, char **argv)
{
    static const struct option table[] = {{"precision", required_argument, NULL, 'p'},
                                          {"prune", no_argument, NULL, 'x'},
                                          {"help", no_argument, NULL, 'h'},
                                          {0}};
    struct convert c = {.keep = true};
    struct error err = {0};
    bool right = true;
    for (int id; (id = getopt_long(argc, argv, "", table, NULL)) != -1;) {
        if (id == 'h') {
            fputs(usage, stdout);
            return 0;
        }
        if (id == 'x') c.prune = true;
        right = right && id != '?' && (id != 'p' || take_precision(&c, optarg));
    }
    if (!right || argc - optind != 2 || !str_ends(argv[optind + 1], ".safetensors")) {
        fputs(usage, stderr);
        return 2;
    }
    c.from = argv[optind];
    c.to = argv[optind + 1];
    int rc = convert(&c, &err);
    if (rc) {
        fprintf(stderr, "kiln convert: %s\n", err.text);
        return 1;
    }
    puts(c.to);
    fprintf(stderr, "%zu tensors, %zu left out\n", c.count, c.left_out);
    return 0;
}
