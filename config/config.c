#include "config/config.h"

#include <cyaml/cyaml.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/str.h"
#include "config/keys.h"
#include "config/secret.h"

/* ---- the table, as data ---- */

enum kind { KIND_TEXT, KIND_LIST, KIND_BOOL, KIND_INT, KIND_OLD, KIND_IGNORED };

struct key {
    const char *name;
    enum kind kind;
    size_t member; /* offset in struct config */
    const char *text;
    int64_t number, least, most;
    const char *meaning;
};

#define K_TEXT(key, m, value, why)                                                                 \
    {#key, KIND_TEXT, offsetof(struct config, m), value, 0, 0, 0, why},
#define K_LIST(key, m, why) {#key, KIND_LIST, offsetof(struct config, m), NULL, 0, 0, 0, why},
#define K_BOOL(key, m, value, why)                                                                 \
    {#key, KIND_BOOL, offsetof(struct config, m), NULL, value, 0, 1, why},
#define K_INT(key, m, value, low, high, why)                                                       \
    {#key, KIND_INT, offsetof(struct config, m), NULL, value, low, high, why},
#define K_OLD(key, m, why) {#key, KIND_OLD, offsetof(struct config, m), NULL, 0, 0, 0, why},
#define K_IGNORED(key) {#key, KIND_IGNORED, 0, NULL, 0, 0, 0, NULL},

static const struct key keys[] = {CONFIG_KEYS(K_TEXT, K_LIST, K_BOOL, K_INT, K_OLD, K_IGNORED){
    "custom_models", KIND_LIST, 0, NULL, 0, 0, 0,
    "local files behind Horde names: name, baseline, filepath"}};

#define KEY_COUNT (sizeof keys / sizeof keys[0])
#define TABLE_COUNT (KEY_COUNT - 1) /* without custom_models, which has a schema of its own */

const char *config_key_name(unsigned index)
{
    return index < KEY_COUNT ? keys[index].name : NULL;
}

const char *config_key_meaning(unsigned index)
{
    return index < KEY_COUNT ? keys[index].meaning : NULL;
}

/* ---- libcyaml: every scalar arrives as text and is judged by the table, because libcyaml takes
 * any word but "false" for true ---- */

struct slot {
    char *text;
    char **items;
    unsigned items_count;
};

struct raw {
    struct slot slots[KEY_COUNT];
    struct config_model *models;
    unsigned models_count;
};

static const cyaml_schema_value_t item_schema = {
    CYAML_VALUE_STRING(CYAML_FLAG_POINTER, char *, 0, 1024)};

static const cyaml_schema_field_t model_fields[] = {
    CYAML_FIELD_STRING_PTR("name", CYAML_FLAG_POINTER, struct config_model, name, 1, 255),
    CYAML_FIELD_STRING_PTR("baseline", CYAML_FLAG_POINTER, struct config_model, baseline, 1, 64),
    CYAML_FIELD_STRING_PTR("filepath", CYAML_FLAG_POINTER, struct config_model, filepath, 1, 4096),
    CYAML_FIELD_END};
static const cyaml_schema_value_t model_schema = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct config_model, model_fields)};

/* an older spelling stands for its key: of the same kind, with the same limits */
static const struct key *meant(const struct key *k)
{
    if (k->kind != KIND_OLD) return k;
    for (unsigned i = 0; i < KEY_COUNT; i++)
        if (keys[i].kind < KIND_OLD && keys[i].member == k->member) return &keys[i];
    return k;
}

static void build_schema(cyaml_schema_field_t fields[KEY_COUNT + 1])
{
    memset(fields, 0, (KEY_COUNT + 1) * sizeof *fields);
    for (uint32_t i = 0; i < TABLE_COUNT; i++) {
        cyaml_schema_field_t *f = &fields[i];
        uint32_t slot = (uint32_t)(offsetof(struct raw, slots) + i * sizeof(struct slot));
        f->key = keys[i].name;
        f->value.flags = CYAML_FLAG_OPTIONAL | CYAML_FLAG_POINTER_NULL_STR;
        switch (meant(&keys[i])->kind) {
        case KIND_IGNORED:
            f->value.type = CYAML_IGNORE;
            f->value.flags = CYAML_FLAG_OPTIONAL;
            break;
        case KIND_LIST:
            f->value.type = CYAML_SEQUENCE;
            f->data_offset = slot + (uint32_t)offsetof(struct slot, items);
            f->count_offset = slot + (uint32_t)offsetof(struct slot, items_count);
            f->count_size = sizeof(unsigned);
            f->value.data_size = sizeof(char *);
            f->value.sequence.entry = &item_schema;
            f->value.sequence.max = 2000;
            break;
        default:
            f->value.type = CYAML_STRING;
            f->data_offset = slot + (uint32_t)offsetof(struct slot, text);
            f->value.data_size = sizeof(char);
            f->value.string.max = 4096;
        }
    }
    fields[TABLE_COUNT] = (cyaml_schema_field_t)CYAML_FIELD_SEQUENCE(
        "custom_models", CYAML_FLAG_OPTIONAL | CYAML_FLAG_POINTER_NULL_STR, struct raw, models,
        &model_schema, 0, 300);
}

/* libcyaml says what it met only through its log: the first line is the reason */
struct complaint {
    char text[256];
    char where[160];
};

static void hear(cyaml_log_t level, void *ctx, const char *format, va_list args)
{
    struct complaint *c = ctx;
    char line[256];
    vsnprintf(line, sizeof line, format, args);
    line[strcspn(line, "\n")] = 0;
    const char *said = str_starts(line, "Load: ") ? line + 6 : line;
    while (*said == ' ') said++;
    if (!c->text[0]) {
        str_clean(c->text, sizeof c->text, said);
    } else if (!c->where[0] && str_starts(said, "in ")) {
        str_clean(c->where, sizeof c->where, said);
    }
}

static int tell_complaint(const struct complaint *c, cyaml_err_t code, struct error *err)
{
    static const char unexpected[] = "Unexpected key: ";
    if (code == CYAML_ERR_ALIAS)
        return error_set(err, ERR_INVALID, "YAML anchors and aliases are not accepted");
    if (code == CYAML_ERR_INVALID_KEY && str_starts(c->text, unexpected)) {
        const char *word = c->text + strlen(unexpected);
        const char *names[KEY_COUNT + 1] = {NULL};
        for (unsigned i = 0; i < KEY_COUNT; i++) names[i] = keys[i].name;
        const char *near = str_nearest(word, names);
        if (near)
            return error_set(err, ERR_INVALID, "unknown key \"%s\"; did you mean %s?", word, near);
        return error_set(err, ERR_INVALID, "unknown key \"%s\"", word);
    }
    return error_set(err, ERR_FORMAT, "not readable as YAML: %s%s%s%s",
                     c->text[0] ? c->text : cyaml_strerror(code), c->where[0] ? " (" : "", c->where,
                     c->where[0] ? ")" : "");
}

/* ---- judging ---- */

static int take_bool(const struct key *k, const char *text, bool *value, struct error *err)
{
    static const char *const yes[] = {"true", "yes", "on"}, *const no[] = {"false", "no", "off"};
    for (unsigned i = 0; i < COUNT_OF(yes); i++) {
        if (str_equal_nocase(text, yes[i])) return *value = true, 0;
        if (str_equal_nocase(text, no[i])) return *value = false, 0;
    }
    return error_set(err, ERR_INVALID, "%s: \"%.40s\" is neither true nor false", k->name, text);
}

static int take_int(const struct key *k, const char *text, int64_t *value, struct error *err)
{
    int64_t number;
    if (!str_parse_i64(text, &number))
        return error_set(err, ERR_INVALID, "%s: \"%.40s\" is not a whole number", k->name, text);
    if (number < k->least || number > k->most)
        return error_set(err, ERR_INVALID, "%s: %lld is not between %lld and %lld", k->name,
                         (long long)number, (long long)k->least, (long long)k->most);
    *value = number;
    return 0;
}

static int take_text(const struct key *k, const char *text, char **value, struct error *err)
{
    for (const char *c = text; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            return error_set(err, ERR_INVALID, "%s holds a control character", k->name);
    free(*value);
    *value = alloc_string(text);
    return 0;
}

static void take_list(struct config_list *list, char **items, unsigned count)
{
    if (list->items && !count) return; /* the other spelling has spoken */
    for (unsigned i = 0; i < list->count; i++) free(list->items[i]);
    free(list->items);
    list->items = alloc_zero(count + 1, sizeof *list->items);
    for (unsigned i = 0; i < count; i++) list->items[i] = alloc_string(items[i] ? items[i] : "");
    list->count = count;
}

static int take_slot(struct config *c, const struct key *k, const struct slot *slot,
                     struct error *err)
{
    void *member = (char *)c + k->member;
    k = meant(k);
    switch (k->kind) {
    case KIND_TEXT: return slot->text ? take_text(k, slot->text, member, err) : 0;
    case KIND_BOOL: return slot->text ? take_bool(k, slot->text, member, err) : 0;
    case KIND_INT: return slot->text ? take_int(k, slot->text, member, err) : 0;
    case KIND_LIST: take_list(member, slot->items, slot->items_count); return 0;
    case KIND_OLD:
    case KIND_IGNORED: return 0;
    }
    return 0;
}

static void take_models(struct config *c, const struct raw *raw)
{
    c->custom_models = alloc_zero(raw->models_count + 1, sizeof *c->custom_models);
    c->custom_model_count = raw->models_count;
    for (unsigned i = 0; i < raw->models_count; i++) {
        c->custom_models[i].name = alloc_string(raw->models[i].name);
        c->custom_models[i].baseline = alloc_string(raw->models[i].baseline);
        c->custom_models[i].filepath = alloc_string(raw->models[i].filepath);
    }
}

static void set_defaults(struct config *c)
{
    memset(c, 0, sizeof *c);
    for (unsigned i = 0; i < TABLE_COUNT; i++) {
        void *member = (char *)c + keys[i].member;
        if (keys[i].kind == KIND_TEXT) *(char **)member = alloc_string(keys[i].text);
        if (keys[i].kind == KIND_BOOL) *(bool *)member = keys[i].number != 0;
        if (keys[i].kind == KIND_INT) *(int64_t *)member = keys[i].number;
    }
}

/* top-level keys of a block mapping start a line; enough to name them once */
static void note_ignored(struct config *c, const char *text, size_t length)
{
    for (unsigned i = 0; i < TABLE_COUNT; i++) {
        if (keys[i].kind != KIND_IGNORED) continue;
        size_t name = strlen(keys[i].name);
        for (const char *at = text; at && (size_t)(at - text) + name < length;) {
            if (!strncmp(at, keys[i].name, name) && at[name] == ':') {
                char *more = alloc_printf("%s%s%s", c->ignored ? c->ignored : "",
                                          c->ignored ? ", " : "", keys[i].name);
                free(c->ignored);
                c->ignored = more;
                break;
            }
            at = memchr(at, '\n', length - (size_t)(at - text));
            if (at) at++;
        }
    }
}

int config_parse(struct config *c, const char *text, size_t length, struct error *err)
{
    if (length > CONFIG_FILE_BYTES_MAX)
        return error_set(err, ERR_INVALID, "%zu bytes, the limit is %d", length,
                         CONFIG_FILE_BYTES_MAX);
    if (memchr(text, 0, length)) return error_set(err, ERR_FORMAT, "it holds a NUL byte");
    cyaml_schema_field_t fields[KEY_COUNT + 1];
    build_schema(fields);
    const cyaml_schema_value_t top = {CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct raw, fields)};
    struct complaint said = {0};
    const cyaml_config_t settings = {.log_level = CYAML_LOG_ERROR,
                                     .log_fn = hear,
                                     .log_ctx = &said,
                                     .mem_fn = cyaml_mem,
                                     .flags = CYAML_CFG_NO_ALIAS};
    struct raw *raw = NULL;
    cyaml_err_t code =
        cyaml_load_data((const uint8_t *)text, length, &settings, &top, (void **)&raw, NULL);
    if (code != CYAML_OK) return tell_complaint(&said, code, err);

    struct config fresh;
    int rc = 0;
    set_defaults(&fresh);
    for (unsigned i = 0; raw && i < TABLE_COUNT && !rc; i++)
        rc = take_slot(&fresh, &keys[i], &raw->slots[i], err);
    if (!rc && raw) take_models(&fresh, raw);
    if (!rc) note_ignored(&fresh, text, length);
    if (raw) {
        for (unsigned i = 0; i < TABLE_COUNT; i++)
            if (raw->slots[i].text) secret_wipe(raw->slots[i].text, strlen(raw->slots[i].text));
        cyaml_free(&settings, &top, raw, 0);
    }
    if (!rc) rc = config_check(&fresh, err);
    if (rc) {
        config_release(&fresh);
        return rc;
    }
    *c = fresh;
    return 0;
}

int config_load(struct config *c, const char *path, bool need_key, struct error *err)
{
    struct buf file;
    struct config fresh = {0};
    buf_init(&file, CONFIG_FILE_BYTES_MAX);
    int rc = buf_read_file(&file, path, err);
    if (rc == ERR_NO_MEMORY)
        rc = error_set(err, ERR_INVALID, "%s is larger than the limit of %d bytes", path,
                       CONFIG_FILE_BYTES_MAX);
    if (!rc && !file.length) rc = error_set(err, ERR_FORMAT, "%s is empty", path);
    if (!rc) {
        rc = config_parse(&fresh, (const char *)file.data, file.length, err);
        if (rc) error_wrap(err, rc, "%s", path);
    }
    if (file.data) secret_wipe(file.data, file.length);
    buf_release(&file);
    if (!rc) rc = secret_complete(&fresh, path, need_key, err);
    if (rc) {
        config_release(&fresh);
        return rc;
    }
    *c = fresh;
    return 0;
}

void config_release(struct config *c)
{
    if (c->api_key) secret_wipe(c->api_key, strlen(c->api_key));
    if (c->civitai_api_token) secret_wipe(c->civitai_api_token, strlen(c->civitai_api_token));
    for (unsigned i = 0; i < TABLE_COUNT; i++) {
        void *member = (char *)c + keys[i].member;
        if (keys[i].kind == KIND_TEXT) free(*(char **)member);
        if (keys[i].kind == KIND_LIST) {
            struct config_list *list = member;
            for (unsigned n = 0; n < list->count; n++) free(list->items[n]);
            free(list->items);
        }
    }
    for (unsigned i = 0; i < c->custom_model_count; i++) {
        free(c->custom_models[i].name);
        free(c->custom_models[i].baseline);
        free(c->custom_models[i].filepath);
    }
    free(c->custom_models);
    free(c->ignored);
    memset(c, 0, sizeof *c);
}

int config_exit_code(int rc)
{
    if (!rc) return 0;
    return rc == ERR_REFUSED ? CONFIG_EXIT_KEY : CONFIG_EXIT_CONFIG;
}
