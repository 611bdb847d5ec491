#include "engine/convert.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/str.h"
#include "diffusion/file_kind.h"
#include "diffusion/layout/layout.h"
#include "diffusion/lora/lora.h"

enum target { TARGET_SAME, TARGET_SINGLE, TARGET_FOLDER, TARGET_KOHYA, TARGET_PEFT };

struct convert {
    const char *from, *to;
    enum target target; /* TARGET_SAME: names stay as they are */
    struct request_lora loras[REQUEST_LORAS_MAX];
    int lora_count;
    bool keep; /* each tensor's own precision */
    enum dtype dtype;
    bool prune;
    struct safetensors_entry *entries;
    void **made; /* what was converted, by entry; NULL: borrowed from the file */
    size_t count;
    size_t left_out;
};

/* Averaged copies and a training's own notes: no program that draws reads them. */
static bool is_needless(const char *name)
{
    return str_starts(name, "model_ema.") || str_starts(name, "optimizer_states") ||
           str_starts(name, "loss.") || str_starts(name, "callbacks");
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
    for (size_t i = 0; i < c->count && !rc; i++)
        if (!c->keep) rc = layout_cast(&c->entries[i], &c->made[i], c->dtype, err);
    if (!rc) rc = safetensors_write(c->to, c->entries, c->count, meta, meta_count, err);
    for (size_t i = 0; i < c->count; i++) free(c->made[i]);
    free(c->entries);
    free(c->made);
    return rc;
}

/* What a single safetensors file says about itself goes along; pickles and shards say nothing. */
static bool open_meta(struct safetensors *file, const char *path)
{
    return !str_ends(path, ".json") && safetensors_open(file, path, NULL) == 0;
}

static int convert_file(struct convert *c, struct error *err)
{
    struct weight_store *store;
    struct safetensors whole = {0};
    int rc = weight_store_open(&store, c->from, err);
    if (rc) return rc;
    bool single = open_meta(&whole, c->from);
    rc = write_anew(c, single ? whole.meta : NULL, single ? whole.meta_count : 0, store, err);
    if (single) safetensors_close(&whole);
    weight_store_close(store);
    return rc;
}

/* ---- whole models ---- */

static void lora_refused(void *context, const char *name, const char *code, const char *sentence)
{
    struct error *err = context;
    error_set(err, ERR_INVALID, "%s", sentence);
}

static int merge_loras(struct convert *c, struct model *m, struct lora_set *s, struct error *err)
{
    struct error refused = {0};
    lora_set_init(s, m);
    s->merge_all = true;
    int rc = lora_set_use(s, c->loras, c->lora_count, lora_refused, &refused, err);
    return !rc && refused.text[0] ? error_set(err, ERR_INVALID, "%s", refused.text) : rc;
}

static int convert_model(struct convert *c, bool folder, struct error *err)
{
    struct device *device;
    struct model *m = NULL;
    struct lora_set set = {0};
    struct safetensors whole = {0};
    int rc = device_open(&device, "plain", err);
    if (rc) return rc;
    rc = model_open(&m, device, c->from, NULL, PRECISION_FP32, err);
    if (!rc) rc = merge_loras(c, m, &set, err);
    if (!rc) {
        bool single = !folder && open_meta(&whole, c->from);
        struct layout_options o = {c->keep, c->dtype, whole.meta, whole.meta_count};
        rc = c->target == TARGET_FOLDER ? layout_write_folder(m, c->to, &o, err)
                                        : layout_write_single(m, c->to, &o, err);
        if (single) safetensors_close(&whole);
    }
    lora_set_release(&set);
    model_close(m);
    device_close(device);
    return rc;
}

static int convert(struct convert *c, bool *model, struct error *err)
{
    enum file_kind kind;
    *model = true;
    if (c->target == TARGET_KOHYA || c->target == TARGET_PEFT)
        return layout_rename_lora(c->from, c->to, c->target == TARGET_PEFT, err);
    int rc = file_kind_of(&kind, c->from, err);
    if (rc) return rc;
    *model = c->target != TARGET_SAME || c->lora_count || kind == FILE_FOLDER;
    return *model ? convert_model(c, kind == FILE_FOLDER, err) : convert_file(c, err);
}

/* ---- arguments ---- */

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

static bool take_target(struct convert *c, const char *name)
{
    static const char *const names[] = {NULL, "single", "folder", "kohya", "peft"};
    for (size_t i = 1; i < COUNT_OF(names); i++)
        if (str_equal(name, names[i])) {
            c->target = (enum target)i;
            return true;
        }
    return false;
}

/* FILE or FILE:STRENGTH */
static bool take_lora(struct convert *c, char *text)
{
    char *colon = strrchr(text, ':');
    double strength = 1;
    if (c->lora_count == REQUEST_LORAS_MAX) return false;
    if (colon && str_parse_f64(colon + 1, &strength)) *colon = 0;
    if (!(strength >= -10 && strength <= 10)) return false;
    c->loras[c->lora_count++] =
        (struct request_lora){.path = text, .model_strength = strength, .clip_strength = strength};
    return true;
}

static const char usage[] =
    "usage: kiln convert IN OUT.safetensors [--precision keep|fp32|fp16|bf16] [--prune]\n"
    "       kiln convert MODEL OUT [--to single|folder] [--lora FILE[:STRENGTH]]...\n"
    "       kiln convert LORA OUT.safetensors --to kohya|peft\n"
    "\n"
    "Writes a checkpoint, LoRA, VAE or other file of weights anew as safetensors: IN is a\n"
    "safetensors file, its .index.json (shards become one file), or a torch pickle (.ckpt, .pt, "
    ".pth,\n"
    ".bin), which is read as data and never run. Names stay as they are. MODEL is a checkpoint of\n"
    "the SD 1, SD 2 or SDXL family, as a file or as a folder that diffusers reads.\n"
    "\n"
    "  --to T         single: one file in the original code's names; folder: OUT becomes a new\n"
    "                 folder for diffusers; without it a folder becomes a single file;\n"
    "                 kohya, peft: a LoRA under the other's names, its numbers as they are\n"
    "  --lora F[:S]   merges an adapter into the model, of strength S (1); can be repeated\n"
    "  --precision P  of the numbers; keep (the default) leaves each as it is\n"
    "  --prune        leaves out averaged copies (model_ema) and what only training reads\n";

int convert_main(int argc, char **argv)
{
    static const struct option table[] = {{"precision", required_argument, NULL, 'p'},
                                          {"prune", no_argument, NULL, 'x'},
                                          {"to", required_argument, NULL, 't'},
                                          {"lora", required_argument, NULL, 'l'},
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
        right = right && id != '?' && (id != 'p' || take_precision(&c, optarg)) &&
                (id != 't' || take_target(&c, optarg)) && (id != 'l' || take_lora(&c, optarg));
    }
    if (!right || argc - optind != 2 ||
        (c.target != TARGET_FOLDER && !str_ends(argv[optind + 1], ".safetensors"))) {
        fputs(usage, stderr);
        return 2;
    }
    c.from = argv[optind];
    c.to = argv[optind + 1];
    bool model = false;
    int rc = convert(&c, &model, &err);
    if (rc) {
        fprintf(stderr, "kiln convert: %s\n", err.text);
        return 1;
    }
    puts(c.to);
    if (!model) fprintf(stderr, "%zu tensors, %zu left out\n", c.count, c.left_out);
    return 0;
}
