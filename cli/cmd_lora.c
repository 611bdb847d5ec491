/* cmd_lora.c - what a LoRA file says about itself. */
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/json_write.h"
#include "base/str.h"
#include "cli/command.h"
#include "tensor/safetensors.h"

static const char usage[] =
    "usage: kiln lora show FILE [--all] [--json]\n"
    "\n"
    "Prints what a LoRA (.safetensors) says about itself: name, trigger word, base model, rank,\n"
    "steps, licence, and the hashes by which other sites know it. Nothing is loaded or believed.\n"
    "\n"
    "  --all    every key of its metadata\n"
    "  --json   the same as JSON\n";

struct row {
    const char *label, *name; /* for people, in JSON */
    const char *keys[3];      /* the first that is there */
};

static const struct row rows[] = {
    {"name", "name", {"modelspec.title", "ss_output_name", NULL}},
    {"trigger", "trigger", {"modelspec.trigger_phrase", NULL, NULL}},
    {"author", "author", {"modelspec.author", NULL, NULL}},
    {"licence", "licence", {"modelspec.license", NULL, NULL}},
    {"description", "description", {"modelspec.description", NULL, NULL}},
    {"made for", "family", {"ss_base_model_version", "modelspec.architecture", NULL}},
    {"base model", "base_model", {"ss_sd_model_name", NULL, NULL}},
    {"its SHA-256", "base_sha256", {"ss_new_sd_model_hash", NULL, NULL}},
    {"rank", "rank", {"ss_network_dim", NULL, NULL}},
    {"alpha", "alpha", {"ss_network_alpha", NULL, NULL}},
    {"steps", "steps", {"ss_steps", "ss_max_train_steps", NULL}},
    {"pictures", "pictures", {"kiln.pictures", "ss_num_train_images", NULL}},
    {"resolution", "resolution", {"ss_resolution", "modelspec.resolution", NULL}},
    {"rate", "learning_rate", {"ss_unet_lr", "ss_learning_rate", NULL}},
    {"optimiser", "optimizer", {"ss_optimizer", NULL, NULL}},
    {"seed", "seed", {"ss_seed", NULL, NULL}},
    {"made by", "implementation", {"modelspec.implementation", "ss_network_module", NULL}},
};

static const char *value_of(const struct safetensors *file, const struct row *row)
{
    for (size_t i = 0; i < COUNT_OF(row->keys) && row->keys[i]; i++) {
        const char *value = safetensors_meta_find(file, row->keys[i]);
        if (value && *value && strcmp(value, "None") != 0) return value;
    }
    return NULL;
}

static void hex(char text[65], const uint8_t *data, size_t length)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned got;
    *text = 0;
    if (!EVP_Digest(data, length, digest, &got, EVP_sha256(), NULL)) return;
    for (int i = 0; i < 32; i++) sprintf(text + 2 * i, "%02x", digest[i]);
}

/* Matrices that make a LoRA; 0: the file is something else. */
static size_t pairs_in(const struct safetensors *file)
{
    static const char *const ends[] = {".lora_down.weight", ".lora_A.weight", ".lora.down.weight",
                                       ".hada_w1_a",        ".lokr_w1",       ".lokr_w1_a"};
    size_t pairs = 0;
    for (size_t i = 0; i < file->count; i++)
        for (size_t k = 0; k < COUNT_OF(ends); k++)
            if (str_ends(file->entries[i].name, ends[k])) pairs++;
    return pairs;
}

static void print_plain(const struct safetensors *file, const char *whole, const char *data,
                        bool all)
{
    char shown[600];
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        const char *value = value_of(file, &rows[i]);
        if (!value) continue;
        str_clean(shown, sizeof shown, value);
        printf("%-12s %s\n", rows[i].label, shown);
    }
    printf("%-12s %zu\n", "layers", pairs_in(file));
    printf("%-12s %zu bytes\n", "size", file->map_bytes);
    printf("%-12s %s\n", "SHA-256", whole);
    printf("%-12s AutoV2 %.10s, AutoV3 %.12s\n", "CivitAI", whole, data);
    if (all) puts("");
    for (size_t i = 0; all && i < file->meta_count; i++) {
        char key[128];
        str_clean(key, sizeof key, file->meta[i].key);
        str_clean(shown, sizeof shown, file->meta[i].value);
        printf("%s = %s\n", key, shown);
    }
}

static int print_json(const struct safetensors *file, const char *whole, const char *data, bool all,
                      struct error *err)
{
    struct json_write w;
    struct buf out;
    buf_init(&out, 32u << 20);
    json_write_start(&w, &out);
    json_write_object(&w, NULL);
    for (size_t i = 0; i < COUNT_OF(rows); i++)
        json_write_text(&w, rows[i].name, value_of(file, &rows[i]));
    json_write_int(&w, "layers", (int64_t)pairs_in(file));
    json_write_int(&w, "bytes", (int64_t)file->map_bytes);
    json_write_text(&w, "sha256", whole);
    json_write_text(&w, "data_sha256", data);
    if (all) {
        json_write_object(&w, "metadata");
        for (size_t i = 0; i < file->meta_count; i++)
            json_write_text(&w, file->meta[i].key, file->meta[i].value);
        json_write_close(&w, '}');
    }
    json_write_close(&w, '}');
    int rc = json_write_end(&w, err);
    if (!rc) fwrite(out.data, 1, out.length, stdout);
    buf_release(&out);
    return rc;
}

static int show(const char *path, bool all, bool json, struct error *err)
{
    struct safetensors file;
    char whole[65], data[65];
    int rc = safetensors_open(&file, path, err);
    if (rc) return rc;
    if (!pairs_in(&file)) {
        rc = error_set(err, ERR_FORMAT, "%s is no LoRA: it has none of their matrices", path);
    } else {
        uint64_t header = 0;
        for (int i = 7; i >= 0; i--) header = header << 8 | file.map[i];
        hex(whole, file.map, file.map_bytes);
        hex(data, file.map + 8 + header, file.map_bytes - 8 - (size_t)header);
        if (json)
            rc = print_json(&file, whole, data, all, err);
        else
            print_plain(&file, whole, data, all);
    }
    safetensors_close(&file);
    return rc;
}

static int run(int argc, char **argv)
{
    struct error err = {0};
    const char *path = NULL;
    bool all = false, json = false;
    if (argc < 3 || !str_equal(argv[1], "show"))
        return command_usage(&command_lora, "say: kiln lora show FILE");
    for (int i = 2; i < argc; i++) {
        if (str_equal(argv[i], "--all"))
            all = true;
        else if (str_equal(argv[i], "--json"))
            json = true;
        else if (argv[i][0] == '-' || path)
            return command_usage(&command_lora, "%s is no option", argv[i]);
        else
            path = argv[i];
    }
    if (!path) return command_usage(&command_lora, "name a file");
    return show(path, all, json, &err) ? command_fail(&command_lora, &err) : EXIT_DONE;
}

const struct command command_lora = {
    .name = "lora",
    .summary = "what a LoRA file says about itself",
    .usage = usage,
    .run = run,
};
