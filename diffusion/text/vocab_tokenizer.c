/* tokenizer.json, the one-file form of newer tokenizer folders: the same two parts inside one object. */
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "base/buf.h"
#include "diffusion/text/vocab.h"

enum { MERGES_MAX = 64 << 20 };

/* Start and end may stand beside the vocabulary. */
static void put_added_tokens(json_t *vocab, const json_t *added)
{
    size_t i;
    json_t *token;
    json_array_foreach(added, i, token)
    {
        const char *text = json_string_value(json_object_get(token, "content"));
        json_t *id = json_object_get(token, "id");
        if (text && json_is_integer(id) && !json_object_get(vocab, text))
            json_object_set(vocab, text, id);
    }
}

/* A merge is "a b", or ["a","b"] in files since 2024. */
static int put_merge(struct buf *list, const json_t *merge, size_t number, struct error *err)
{
    const char *whole = json_string_value(merge);
    const char *left = json_string_value(json_array_get(merge, 0));
    const char *right = json_string_value(json_array_get(merge, 1));
    if (whole) return buf_printf(list, err, "%s\n", whole);
    if (!left || !right || json_array_size(merge) != 2)
        return error_set(err, ERR_FORMAT, "merge %zu is not two symbols", number + 1);
    return buf_printf(list, err, "%s %s\n", left, right);
}

int vocab_parse_tokenizer(struct vocab **v, const char *json, size_t bytes, struct error *err)
{
    json_error_t where;
    json_t *root = json_loadb(json, bytes, JSON_REJECT_DUPLICATES, &where);
    json_t *model = json_object_get(root, "model"), *vocab = json_object_get(model, "vocab");
    json_t *merges = json_object_get(model, "merges"), *merge;
    struct buf list;
    buf_init(&list, MERGES_MAX);
    int rc = 0;
    if (!json_is_object(vocab) || !json_is_array(merges))
        rc = error_set(err, ERR_FORMAT, "tokenizer.json has no model.vocab and model.merges%s%s",
                       root ? "" : ": ", root ? "" : where.text);
    size_t i;
    if (!rc) rc = buf_append_string(&list, "#version\n", err);
    json_array_foreach(merges, i, merge)
    {
        if (rc) break;
        rc = put_merge(&list, merge, i, err);
    }
    if (!rc) {
        put_added_tokens(vocab, json_object_get(root, "added_tokens"));
        char *ids = json_dumps(vocab, JSON_COMPACT);
        rc = ids ? vocab_parse(v, ids, strlen(ids), (const char *)list.data, list.length, err)
                 : error_set(err, ERR_NO_MEMORY, "no memory for a vocabulary");
        free(ids);
    }
    buf_release(&list);
    json_decref(root);
    return rc;
}
