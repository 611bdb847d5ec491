#include "diffusion/model_json.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/str.h"

#define CONFIG_BYTES_MAX (1u << 20)
#define INDEX_BYTES_MAX (16u << 20)
#define SHARDS_MAX 256

static int load(json_t **root, const char *path, size_t limit, struct error *err)
{
    struct buf b;
    buf_init(&b, limit);
    int rc = buf_read_file(&b, path, err);
    if (rc) return rc;
    json_error_t e;
    *root = json_loadb((const char *)b.data, b.length, JSON_REJECT_DUPLICATES, &e);
    buf_release(&b);
    if (!*root) return error_set(err, ERR_FORMAT, "%s, line %d: %s", path, e.line, e.text);
    if (json_is_object(*root)) return 0;
    json_decref(*root);
    return error_set(err, ERR_FORMAT, "%s is not a JSON object", path);
}

static int64_t integer(const json_t *root, const char *key, int64_t otherwise)
{
    const json_t *v = json_object_get(root, key);
    return json_is_integer(v) ? json_integer_value(v) : otherwise;
}

static void read_heads(struct unet_json *j, const json_t *root)
{
    /* attention_head_dim means the number of heads: a historical misnomer of the format */
    const json_t *v = json_object_get(root, "num_attention_heads");
    if (!v || json_is_null(v)) v = json_object_get(root, "attention_head_dim");
    if (json_is_integer(v)) {
        j->heads[0] = json_integer_value(v);
        j->head_count = 1;
    }
    size_t i;
    const json_t *item;
    json_array_foreach(v, i, item)
    {
        if (i == MODEL_JSON_LEVELS_MAX || !json_is_integer(item)) break;
        j->heads[i] = json_integer_value(item);
        j->head_count = (int)i + 1;
    }
}

int model_json_unet(struct unet_json *j, const char *path, struct error *err)
{
    json_t *root;
    int rc = load(&root, path, CONFIG_BYTES_MAX, err);
    if (rc) return rc;
    *j = (struct unet_json){.groups = integer(root, "norm_num_groups", 0),
                            .size_width = integer(root, "addition_time_embed_dim", 0),
                            .upcast_attention =
                                json_is_true(json_object_get(root, "upcast_attention"))};
    read_heads(j, root);
    json_decref(root);
    return 0;
}

int model_json_vae(struct vae_json *j, const char *path, struct error *err)
{
    json_t *root;
    int rc = load(&root, path, CONFIG_BYTES_MAX, err);
    if (rc) return rc;
    const json_t *scale = json_object_get(root, "scaling_factor");
    *j = (struct vae_json){.groups = integer(root, "norm_num_groups", 0),
                           .scale = json_is_number(scale) ? json_number_value(scale) : 0};
    json_decref(root);
    return 0;
}

int model_json_text(struct text_json *j, const char *path, struct error *err)
{
    json_t *root;
    int rc = load(&root, path, CONFIG_BYTES_MAX, err);
    if (rc) return rc;
    const char *act = json_string_value(json_object_get(root, "hidden_act"));
    *j = (struct text_json){.heads = integer(root, "num_attention_heads", 0),
                            .activation_said = act != NULL,
                            .quick_gelu = act && strcmp(act, "quick_gelu") == 0,
                            .pad = integer(root, "pad_token_id", -1),
                            .end = integer(root, "eos_token_id", -1)};
    json_decref(root);
    return 0;
}

int model_json_scheduler(struct scheduler_json *j, const char *path, struct error *err)
{
    json_t *root;
    int rc = load(&root, path, CONFIG_BYTES_MAX, err);
    if (rc) return rc;
    const char *type = json_string_value(json_object_get(root, "prediction_type"));
    *j = (struct scheduler_json){.prediction_said = type != NULL,
                                 .v_prediction = type && strcmp(type, "v_prediction") == 0,
                                 .zero_snr =
                                     json_is_true(json_object_get(root, "rescale_betas_zero_snr"))};
    if (type && strcmp(type, "epsilon") != 0 && !j->v_prediction) {
        char shown[64];
        str_clean(shown, sizeof shown, type);
        rc = error_set(err, ERR_UNSUPPORTED,
                       "%s: prediction type \"%s\" (epsilon and v_prediction "
                       "are known)",
                       path, shown);
    }
    json_decref(root);
    return rc;
}

static bool plain_name(const char *name)
{
    return *name && *name != '.' && strlen(name) < 200 && !strpbrk(name, "/\\:") &&
           !strstr(name, "..");
}

static int add_shard(char **names, size_t *count, const char *path, const char *name,
                     struct error *err)
{
    for (size_t i = 0; i < *count; i++)
        if (strcmp(names[i], name) == 0) return 0;
    if (!plain_name(name)) {
        char shown[64];
        str_clean(shown, sizeof shown, name);
        return error_set(err, ERR_FORMAT, "%s names \"%s\", which is no plain file name", path,
                         shown);
    }
    if (*count == SHARDS_MAX)
        return error_set(err, ERR_FORMAT, "%s names more than %d files", path, SHARDS_MAX);
    names[(*count)++] = alloc_string(name);
    return 0;
}

int model_json_shards(char ***names, size_t *count, const char *path, struct error *err)
{
    json_t *root;
    int rc = load(&root, path, INDEX_BYTES_MAX, err);
    if (rc) return rc;
    char **list = alloc_zero(SHARDS_MAX, sizeof *list);
    size_t n = 0;
    json_t *map = json_object_get(root, "weight_map"), *file;
    const char *key;
    if (!json_is_object(map))
        rc = error_set(err, ERR_FORMAT, "%s has no weight_map", path);
    else
        json_object_foreach(map, key, file)
        {
            if (!rc)
                rc = json_is_string(file) ? add_shard(list, &n, path, json_string_value(file), err)
                                          : error_set(err, ERR_FORMAT,
                                                      "%s: weight_map holds something that is no "
                                                      "file name",
                                                      path);
        }
    json_decref(root);
    if (!rc && n == 0) rc = error_set(err, ERR_FORMAT, "%s names no files", path);
    if (rc) {
        for (size_t i = 0; i < n; i++) free(list[i]);
        free(list);
        return rc;
    }
    *names = list;
    *count = n;
    return 0;
}
