/* The vocabulary as the two files of a tokenizer folder. */
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/str.h"
#include "diffusion/layout/layout.h"
#include "diffusion/text/vocab.h"

#define FILE_MAX (64u << 20)

struct join {
    int32_t left, right; /* 0, 0: none of this rank */
    bool known;
};

/* A symbol comes of one pair: the cut between its characters that the vocabulary knows. */
static void find_join(struct join *joins, int32_t count, const struct vocab *v, int32_t id)
{
    const char *symbol = vocab_symbol(v, id);
    size_t length = strlen(symbol);
    for (size_t cut = 1; cut < length; cut++) {
        int32_t joined;
        if (((unsigned char)symbol[cut] & 0xc0) == 0x80) continue; /* inside a character */
        int32_t left = vocab_find(v, symbol, cut),
                right = vocab_find(v, symbol + cut, length - cut);
        if (left < 0 || right < 0) continue;
        int32_t rank = vocab_merge(v, left, right, &joined);
        if (rank < 0 || rank >= count || joined != id) continue;
        joins[rank] = (struct join){left, right, true};
    }
}

static int write_text(struct buf *b, const char *folder, const char *name, int rc,
                      struct error *err)
{
    char *path = alloc_printf("%s/%s", folder, name);
    if (!rc) rc = buf_write_file(b, path, 0644, err);
    free(path);
    buf_release(b);
    return rc;
}

static int write_merges(const struct vocab *v, const char *folder, struct error *err)
{
    int32_t count = vocab_count(v);
    struct join *joins = alloc_zero((size_t)count + 1, sizeof *joins);
    struct buf b;
    for (int32_t id = 0; id < count; id++) find_join(joins, count, v, id);
    buf_init(&b, FILE_MAX);
    int rc = buf_append_string(&b, "#version: 0.2\n", err);
    for (int32_t i = 0; !rc && i < count; i++)
        if (joins[i].known)
            rc = buf_printf(&b, err, "%s %s\n", vocab_symbol(v, joins[i].left),
                            vocab_symbol(v, joins[i].right));
    free(joins);
    return write_text(&b, folder, "merges.txt", rc, err);
}

static int write_json(json_t *root, const char *folder, const char *name, struct error *err)
{
    char *text = json_dumps(root, JSON_INDENT(1));
    struct buf b;
    buf_init(&b, FILE_MAX);
    int rc = text ? buf_append_string(&b, text, err)
                  : error_set(err, ERR_NO_MEMORY, "no memory for %s/%s", folder, name);
    free(text);
    json_decref(root);
    return write_text(&b, folder, name, rc, err);
}

int layout_write_tokenizer(const struct model *m, const char *folder, const char *pad,
                           struct error *err)
{
    const struct vocab *v = m->vocab;
    const char *start = vocab_symbol(v, vocab_start(v)), *end = vocab_symbol(v, vocab_end(v));
    json_t *words = json_object(), *config = json_object();
    for (int32_t id = 0; id < vocab_count(v); id++)
        json_object_set_new(words, vocab_symbol(v, id), json_integer(id));
    json_object_set_new(config, "tokenizer_class", json_string("CLIPTokenizer"));
    json_object_set_new(config, "model_max_length", json_integer(77));
    json_object_set_new(config, "add_prefix_space", json_false());
    json_object_set_new(config, "do_lower_case", json_true());
    json_object_set_new(config, "bos_token", json_string(start));
    json_object_set_new(config, "eos_token", json_string(end));
    json_object_set_new(config, "unk_token", json_string(end));
    json_object_set_new(config, "pad_token",
                        json_string(vocab_find(v, pad, strlen(pad)) < 0 ? end : pad));
    int rc = write_json(words, folder, "vocab.json", err);
    if (rc)
        json_decref(config);
    else
        rc = write_json(config, folder, "tokenizer_config.json", err);
    return rc ? rc : write_merges(v, folder, err);
}
