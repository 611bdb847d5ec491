/* diffusion/text: vocabularies and the tokenizer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "diffusion/text/tokens.h"
#include "diffusion/text/unicode.h"

#define SMALL TEST_DATA "/small_vocab"

/* Lines of "HEX ID ID ...": UTF-8 in hex ("-": empty) and what transformers' CLIPTokenizer makes. */
static size_t check_goldens(const struct vocab *v, const char *path)
{
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    static char line[16384];
    size_t lines = 0;
    while (fgets(line, sizeof line, file)) {
        char text[4096];
        size_t length = 0;
        char *at = line;
        for (; *at != ' ' && *at != '-'; at += 2) {
            unsigned byte;
            assert_int_equal(sscanf(at, "%2x", &byte), 1);
            text[length++] = (char)byte;
        }
        at++;
        struct tokens t;
        tokens_init(&t);
        assert_int_equal(tokens_encode(&t, v, text, length, NULL), 0);
        size_t n = 0;
        for (char *end;; at = end) {
            long id = strtol(at, &end, 10);
            if (end == at) break;
            if (n >= t.count || t.id[n] != id)
                fail_msg("line %zu '%.*s': id %zu is %d, not %ld", lines + 1, (int)length, text, n,
                         n < t.count ? (int)t.id[n] : -1, id);
            n++;
        }
        assert_int_equal(n, t.count);
        if (t.words) {
            assert_int_equal(t.word[0], 0);
            assert_int_equal(t.word[t.words], t.count);
        }
        tokens_release(&t);
        lines++;
    }
    fclose(file);
    return lines;
}

static void small_vocabulary_is_exact(void **state)
{
    struct vocab *v;
    struct error err = {0};
    assert_int_equal(vocab_open_folder(&v, SMALL, &err), 0);
    assert_true(vocab_count(v) > 512);
    assert_string_equal(vocab_symbol(v, vocab_start(v)), "<|startoftext|>");
    assert_null(vocab_symbol(v, vocab_count(v)));
    assert_true(check_goldens(v, TEST_DATA "/tokens_small.txt") > 250);
    vocab_close(v);
}

static void public_vocabulary_is_exact(void **state)
{
    struct vocab *v;
    struct error err = {0};
    int rc = vocab_open_default(&v, &err);
    if (rc == ERR_NOT_FOUND) skip(); /* `./setup build` puts it there */
    if (rc) fail_msg("%s", err.text);
    assert_int_equal(vocab_count(v), 49408);
    assert_int_equal(vocab_start(v), 49406);
    assert_int_equal(vocab_end(v), 49407);
    assert_true(check_goldens(v, TEST_DATA "/tokens_clip.txt") > 250);
    vocab_close(v);
}

/* The public list's form: no ids in it, they follow from the order. */
static void merge_list_makes_the_same_vocabulary(void **state)
{
    struct vocab *folder, *list;
    assert_int_equal(vocab_open_folder(&folder, SMALL, NULL), 0);
    assert_int_equal(vocab_open_merges(&list, SMALL "/merges.txt", NULL), 0);
    assert_int_equal(vocab_count(folder), vocab_count(list));
    for (int32_t id = 0; id < vocab_count(list); id++)
        assert_string_equal(vocab_symbol(folder, id), vocab_symbol(list, id));
    assert_true(check_goldens(list, TEST_DATA "/tokens_small.txt") > 250);
    vocab_close(folder);
    vocab_close(list);
}

/* vocab.json and merges.txt as one tokenizer.json, both forms of a merge, start and end outside. */
static void one_file_makes_the_same_vocabulary(void **state)
{
    struct vocab *two, *one;
    struct error err = {0};
    assert_int_equal(vocab_open_folder(&two, SMALL, NULL), 0);
    struct buf ids, merges, json;
    buf_init(&ids, 1 << 20);
    buf_init(&merges, 1 << 20);
    buf_init(&json, 1 << 20);
    assert_int_equal(buf_read_file(&ids, SMALL "/vocab.json", NULL), 0);
    assert_int_equal(buf_read_file(&merges, SMALL "/merges.txt", NULL), 0);
    char *end = strstr((char *)ids.data, ",\n\"<|startoftext|>");
    assert_non_null(end);
    *end = 0;
    int last = vocab_count(two) - 1;
    buf_printf(
        &json, NULL,
        "{\"added_tokens\":[{\"id\":%d,\"content\":\"<|startoftext|>\"},"
        "{\"id\":%d,\"content\":\"<|endoftext|>\"}],\"model\":{\"type\":\"BPE\",\"vocab\":%s},"
        "\"merges\":[",
        last - 1, last, (char *)ids.data);
    int n = 0;
    for (char *line = strtok(strchr((char *)merges.data, '\n'), "\n"); line;
         line = strtok(NULL, "\n")) {
        char *space = strchr(line, ' ');
        *space = 0;
        buf_printf(&json, NULL, n % 2 ? "%s[\"%s\",\"%s\"]" : "%s\"%s %s\"", n ? "," : "", line,
                   space + 1);
        n++;
    }
    buf_append_string(&json, "]}}", NULL);
    if (vocab_parse_tokenizer(&one, (char *)json.data, json.length, &err)) fail_msg("%s", err.text);
    assert_int_equal(vocab_count(one), vocab_count(two));
    assert_true(check_goldens(one, TEST_DATA "/tokens_small.txt") > 250);
    vocab_close(one);
    static const char bad[] = "{\"model\":{\"vocab\":{},\"merges\":[[1]]}}";
    assert_int_equal(vocab_parse_tokenizer(&one, "{}", 2, &err), ERR_FORMAT);
    assert_non_null(strstr(err.text, "no model.vocab"));
    assert_int_equal(vocab_parse_tokenizer(&one, bad, sizeof bad - 1, &err), ERR_FORMAT);
    assert_non_null(strstr(err.text, "merge 1 is not two symbols"));
    buf_release(&ids);
    buf_release(&merges);
    buf_release(&json);
    vocab_close(two);
}

static void long_words_take_no_time(void **state)
{
    enum { LENGTH = 64 * 1024 };
    struct vocab *v;
    char *text = malloc(LENGTH);
    struct tokens t;
    tokens_init(&t);
    assert_int_equal(vocab_open_folder(&v, SMALL, NULL), 0);
    for (int i = 0; i < LENGTH; i++) text[i] = "potvase"[i % 7];
    assert_int_equal(tokens_encode(&t, v, text, LENGTH, NULL), 0);
    assert_int_equal(t.words, 1);
    assert_in_range(t.count, LENGTH / 8, LENGTH);
    free(text);
    tokens_release(&t);
    vocab_close(v);
}

static void broken_vocabularies_are_refused(void **state)
{
    static const struct {
        const char *json, *merges, *says;
    } cases[] = {
        {"[1]", "", "not an object"},
        {"{", "", "not an object"},
        {"{\"a\":0,\"b\":0}", "", "id 0 stands twice"},
        {"{\"a\":0,\"b\":2}", "", "'b' has no id within 0..1"},
        {"{\"a\":0,\"b\":-1}", "", "'b' has no id"},
        {"{\"a\":0,\"b\":1.5}", "", "'b' has no id"},
        {"{\"a\":0,\"a\":1}", "", "duplicate"},
        {"{\"a\":0,\"b\":1}", "", "no <|startoftext|>"},
        {"{\"a\":0,\"b\":1}", "#version\na\n", "merge line 2 is not two symbols"},
        {"{\"a\":0,\"b\":1}", "#version\na b c\n", "merge line 2 is not two symbols"},
        {"{\"a\":0,\"b\":1}", "#version\na b\n", "merge line 2 names a symbol that is not there"},
    };
    for (size_t k = 0; k < COUNT_OF(cases); k++) {
        struct vocab *v;
        struct error err = {0};
        int rc = vocab_parse(&v, cases[k].json, strlen(cases[k].json), cases[k].merges,
                             strlen(cases[k].merges), &err);
        assert_int_equal(rc, ERR_FORMAT);
        if (!strstr(err.text, cases[k].says))
            fail_msg("'%s' does not say '%s'", err.text, cases[k].says);
    }
    struct vocab *v;
    struct error err = {0};
    assert_int_equal(vocab_open_folder(&v, "/nonexistent", &err), ERR_NOT_FOUND);
    assert_non_null(strstr(err.text, "/nonexistent/vocab.json"));
    char path[] = "/tmp/kiln-vocab-XXXXXX";
    int fd = mkstemp(path);
    assert_int_equal(write(fd, "\x1f\x8b\x08\0\0\0\0\0\0\3garbage garbage garbage", 34), 34);
    close(fd);
    assert_int_equal(vocab_open_merges(&v, path, &err), ERR_FORMAT);
    unlink(path);
}

static void utf8_survives_anything(void **state)
{
    static const char *const broken[] = {"\x80",         "\xc3",         "\xc0\xaf",
                                         "\xe0\x80\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80",
                                         "\xff",         "\xe2\x82",     "a\xf0\x9f\x8e"};
    for (size_t k = 0; k < COUNT_OF(broken); k++) {
        size_t length = strlen(broken[k]);
        bool replaced = false;
        for (size_t at = 0; at < length;) replaced |= utf8_next(broken[k], length, &at) == 0xfffd;
        assert_true(replaced);
    }
    for (uint32_t c = 0; c < 0x110000; c += c < 0x3000 ? 1 : 61) {
        if (c >= 0xd800 && c <= 0xdfff) continue;
        char bytes[4];
        size_t length = utf8_put(bytes, c), at = 0;
        assert_int_equal(utf8_next(bytes, length, &at), c);
        assert_int_equal(at, length);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_vocabulary_is_exact),
        cmocka_unit_test(public_vocabulary_is_exact),
        cmocka_unit_test(merge_list_makes_the_same_vocabulary),
        cmocka_unit_test(one_file_makes_the_same_vocabulary),
        cmocka_unit_test(long_words_take_no_time),
        cmocka_unit_test(broken_vocabularies_are_refused),
        cmocka_unit_test(utf8_survives_anything),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
