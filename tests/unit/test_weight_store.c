/* diffusion/weight_store, file_kind: what is a model file, what fits, what is missing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/error.h"
#include "diffusion/file_kind.h"
#include "diffusion/weight_store.h"

static char folder[64];

static int make_folder(void **state)
{
    strcpy(folder, "/tmp/kiln-store-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int drop_folder(void **state)
{
    char *command = alloc_printf("rm -r '%s'", folder);
    int rc = system(command);
    free(command);
    return rc;
}

static char *write_bytes(const char *name, const void *bytes, size_t length)
{
    char *path = alloc_printf("%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, length, f), length);
    fclose(f);
    return path;
}

static void other_files_are_refused_by_name(void **state)
{
    static const struct {
        const char *bytes;
        size_t length;
        int code;
        const char *word;
    } cases[] = {
        {"GGUF\3\0\0\0", 8, ERR_UNSUPPORTED, "GGUF"},
        {"SQLite format 3\0......", 22, ERR_UNSUPPORTED, "Draw Things"},
        {"version https://git-lfs.github.com/spec/v1\n", 43, ERR_UNSUPPORTED, "git lfs pull"},
        {"<!DOCTYPE html><html>Not\x1b[31m here", 33, ERR_UNSUPPORTED, "web page"},
        {"{\"error\":\"no such model\"}", 25, ERR_UNSUPPORTED, "error message"},
        {"hello, I am a text", 18, ERR_FORMAT, "no model file"},
        {"", 0, ERR_FORMAT, "empty"},
        {"\xff\xff\xff\0\0\0\0\0{\"a\":1}", 15, ERR_FORMAT, "cut short"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct weight_store *s;
        struct error err = {0};
        char *path = write_bytes("odd.safetensors", cases[i].bytes, cases[i].length);
        int rc = weight_store_open(&s, path, &err);
        if (rc != cases[i].code || !strstr(err.text, cases[i].word))
            fail_msg("case %zu: %d %s", i, rc, err.text);
        assert_null(strchr(err.text, 0x1b));
        free(path);
    }
    struct error err;
    struct weight_store *s;
    assert_int_equal(weight_store_open(&s, "/nowhere/x.safetensors", &err), ERR_NOT_FOUND);
    assert_int_equal(weight_store_open(&s, "/tmp", &err), ERR_INVALID);
}

/* a model of two layers and a norm, with a stacked and a transposed matrix */
struct toy {
    struct layer linear, conv, stacked;
    struct weight turned;
    struct norm norm;
};

static void visit_toy(struct weight_visitor *v, struct toy *m)
{
    struct visit_mark mark = visit_open(v, "a", "b.c");
    visit_linear(v, &m->linear, "lin", "proj", 2, 3, true);
    visit_conv(v, &m->conv, "conv", "conv", 2, 2, 1, false);
    visit_close(v, mark);
    visit_norm(v, &m->norm, "n", "norm", 2);
    struct weight_site site = {.name = {"qkv", "k.weight"},
                               .rank = 2,
                               .dim = {2, 2},
                               .stacked_from = {2, 0},
                               .stacked_of = {6, 0},
                               .layer = &m->stacked};
    visit_site(v, &m->stacked.w, &site);
    site = (struct weight_site){
        .name = {"p", "p.weight"}, .rank = 2, .dim = {2, 3}, .transposed = {true, false}};
    visit_site(v, &m->turned, &site);
}

static const float numbers[12] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};

static struct safetensors_entry entry(const char *name, int rank, int64_t a, int64_t b)
{
    size_t count = (size_t)a * (rank > 1 ? (size_t)b : 1);
    return (struct safetensors_entry){.name = name,
                                      .dtype = DTYPE_F32,
                                      .rank = rank,
                                      .dim = {a, b},
                                      .data = numbers,
                                      .bytes = 4 * count};
}

static struct weight_store *open_toy(struct safetensors_entry *entries, size_t count)
{
    struct weight_store *s;
    struct error err;
    char *path = alloc_printf("%s/toy.safetensors", folder);
    if (safetensors_write(path, entries, count, NULL, 0, &err)) fail_msg("%s", err.text);
    if (weight_store_open(&s, path, &err)) fail_msg("%s", err.text);
    free(path);
    return s;
}

static void weights_take_their_tensors(void **state)
{
    struct safetensors_entry ldm[] = {entry("x.a.lin.weight", 2, 2, 3),
                                      entry("x.a.lin.bias", 1, 2, 0),
                                      entry("x.a.conv.weight", 2, 2, 2),
                                      entry("x.n.weight", 1, 2, 0),
                                      entry("x.n.bias", 1, 2, 0),
                                      entry("x.qkv", 2, 6, 2),
                                      entry("x.p", 2, 3, 2),
                                      entry("model_ema.x", 1, 2, 0),
                                      entry("x.extra", 1, 2, 0)};
    struct weight_store *s = open_toy(ldm, COUNT_OF(ldm));
    struct toy m = {0};
    struct weight_loading l = {.store = s, .prefix = "x.", .component = "the toy"};
    struct error err = {0};
    struct weight_visitor v = {.visit = weight_load, .context = &l, .err = &err};
    visit_toy(&v, &m);
    if (v.failed || weight_loading_check(&l, &err)) fail_msg("%s", err.text);
    assert_int_equal(l.count, 7);
    assert_int_equal(m.conv.w.k.rank, 4); /* stored as a matrix, used as a 1x1 convolution */
    assert_true(dtype_get(m.stacked.w.k.data, DTYPE_F32, 0) == 4);
    assert_true(dtype_get(m.turned.k.data, DTYPE_F32, 1) == 2);
    assert_true(dtype_get(m.turned.k.data, DTYPE_F32, 3) == 1);
    const char *example = NULL;
    assert_int_equal(weight_store_ignored(s, &example), 1);
    assert_string_equal(example, "x.extra");
    weight_store_close(s);
}

static void missing_and_misshapen_tensors_are_named(void **state)
{
    struct safetensors_entry few[] = {entry("a.lin.weight", 2, 2, 3), entry("p", 2, 3, 2)};
    struct weight_store *s = open_toy(few, COUNT_OF(few));
    struct toy m = {0};
    struct error err = {0};
    struct weight_loading l = {.store = s, .prefix = "", .component = "the toy"};
    struct weight_visitor v = {.visit = weight_load, .context = &l, .err = &err};
    visit_toy(&v, &m);
    assert_int_equal(v.failed, 0);
    assert_int_equal(weight_loading_check(&l, &err), ERR_FORMAT);
    if (!strstr(err.text, "lacks 5 tensors of the toy: a.lin.bias, a.conv.weight, n.weight"))
        fail_msg("%s", err.text);
    weight_store_close(s);

    struct safetensors_entry wide[] = {entry("a.lin.weight", 2, 3, 3)};
    s = open_toy(wide, 1);
    l = (struct weight_loading){.store = s, .prefix = "", .component = "the toy"};
    v = (struct weight_visitor){.visit = weight_load, .context = &l, .err = &err};
    visit_toy(&v, &m);
    assert_int_equal(v.failed, ERR_FORMAT);
    if (!strstr(err.text, "a.lin.weight is [3,3], the toy needs [2,3]")) fail_msg("%s", err.text);
    weight_store_close(s);
}

static void shards_are_one_store(void **state)
{
    struct safetensors_entry one[] = {entry("a", 1, 2, 0)}, two[] = {entry("b", 1, 3, 0)};
    char *first = alloc_printf("%s/m-00001-of-00002.safetensors", folder);
    char *second = alloc_printf("%s/m-00002-of-00002.safetensors", folder);
    assert_int_equal(safetensors_write(first, one, 1, NULL, 0, NULL), 0);
    assert_int_equal(safetensors_write(second, two, 1, NULL, 0, NULL), 0);
    static const char good[] = "{\"metadata\":{\"total_size\":20},\"weight_map\":{"
                               "\"a\":\"m-00001-of-00002.safetensors\","
                               "\"b\":\"m-00002-of-00002.safetensors\"}}";
    char *index = write_bytes("m.safetensors.index.json", good, sizeof good - 1);
    struct weight_store *s;
    struct error err = {0};
    if (weight_store_open(&s, index, &err)) fail_msg("%s", err.text);
    assert_int_equal(weight_store_count(s), 2);
    assert_non_null(weight_store_find(s, "b"));
    assert_true(weight_store_has_prefix(s, "a"));
    assert_false(weight_store_has_prefix(s, "c"));
    weight_store_close(s);
    free(index);

    static const char *const bad[] = {"../m.safetensors", "/etc/passwd", "a\\\\b", "..", "c:x"};
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        char *text = alloc_printf("{\"weight_map\":{\"a\":\"%s\"}}", bad[i]);
        index = write_bytes("m.safetensors.index.json", text, strlen(text));
        assert_int_equal(weight_store_open(&s, index, &err), ERR_FORMAT);
        if (!strstr(err.text, "no plain file name")) fail_msg("%s", err.text);
        free(index);
        free(text);
    }
    free(first);
    free(second);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(other_files_are_refused_by_name),
        cmocka_unit_test(weights_take_their_tensors),
        cmocka_unit_test(missing_and_misshapen_tensors_are_named),
        cmocka_unit_test(shards_are_one_store),
    };
    return cmocka_run_group_tests(tests, make_folder, drop_folder);
}
