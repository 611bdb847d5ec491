/* diffusion/alchemy/interrogator against transformers' CLIPModel (make_alchemy.py), and the vectors it keeps. */
#include <dirent.h>
#include <jansson.h>
#include <math.h>
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
#include "base/str.h"
#include "diffusion/alchemy/interrogator.h"
#include "diffusion/alchemy/word_list.h"
#include "tests/golden/answers.h"

static char place[] = "/tmp/kiln-words-XXXXXX"; /* lists are copied here: vectors lie beside them */

static struct clip_pair *open_pair(const char *name)
{
    struct clip_pair *pair;
    struct error err = {0};
    char *path = alloc_printf("%s/../safety/%s", answers.folder, name);
    if (clip_pair_open(&pair, answers.device, path, &err)) fail_msg("%s", err.text);
    free(path);
    return pair;
}

static struct interrogator *open_words(struct clip_pair *pair)
{
    struct interrogator *in;
    struct error err = {0};
    char *vocab = answers_path("../safety/tokenizer");
    if (interrogator_open(&in, pair, place, vocab, &err)) fail_msg("%s", err.text);
    free(vocab);
    return in;
}

static void copy(const char *from, const char *to)
{
    struct buf b;
    struct error err;
    buf_init(&b, 1 << 20);
    if (buf_read_file(&b, from, &err) || buf_write_file(&b, to, 0600, &err))
        fail_msg("%s", err.text);
    buf_release(&b);
}

static void each_file(const char *in, void (*act)(const char *path, const char *name))
{
    DIR *d = opendir(in);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));) {
        if (str_equal(e->d_name, ".") || str_equal(e->d_name, "..")) continue;
        char *path = alloc_printf("%s/%s", in, e->d_name);
        act(path, e->d_name);
        free(path);
    }
    closedir(d);
}

static void copy_here(const char *path, const char *name)
{
    char *to = alloc_printf("%s/%s", place, name);
    copy(path, to);
    free(to);
}

static void take_away(const char *path, const char *name)
{
    (void)name;
    unlink(path);
}

static int fill_place(void **state)
{
    char *lists = answers_path("words");
    (void)state;
    each_file(lists, copy_here);
    free(lists);
    return 0;
}

static int empty_place(void **state)
{
    (void)state;
    each_file(place, take_away);
    return 0;
}

/* Every group of the expectation, word by word. Returns the largest difference in per cent. */
static double compare(struct interrogator *in, const json_t *want)
{
    struct pixels p;
    struct error err = {0};
    struct alchemy_word *words;
    int count, met = 0;
    double worst = 0;
    const char *group;
    json_t *list;
    answers_picture(&p, json_string_value(json_object_get(want, "name")));
    if (interrogator_run(in, &words, &count, &p, INTERROGATOR_TOP, NULL, &err))
        fail_msg("%s", err.text);
    json_object_foreach(json_object_get(want, "groups"), group, list)
    {
        size_t at = 0;
        for (int i = 0; i < count; i++) {
            if (!str_equal(words[i].group, group)) continue;
            const json_t *w = json_array_get(list, at++);
            assert_string_equal(words[i].text, json_string_value(json_object_get(w, "text")));
            double confidence = json_number_value(json_object_get(w, "confidence"));
            worst = fmax(worst, fabs(words[i].confidence - confidence));
            met++;
        }
        assert_int_equal(at, json_array_size(list));
    }
    assert_int_equal(met, count);
    free(words);
    pixels_release(&p);
    return worst;
}

static void ranks_and_shares_agree_with_torch(void **state)
{
    static const char *const files[] = {"model.safetensors", "openclip.safetensors"};
    json_t *expected = answers.expected, *picture;
    size_t k;
    for (size_t i = 0; i < COUNT_OF(files); i++) {
        struct clip_pair *pair = open_pair(files[i]);
        struct interrogator *in = open_words(pair);
        json_array_foreach(expected, k, picture)
        {
            double d = compare(in, picture);
            printf("%s %s: shares differ by %.1e per cent\n", files[i],
                   json_string_value(json_object_get(picture, "name")), d);
            assert_true(
                d <
                1e-3); /* of up to 100: cosines agree to 1e-6, and 100 x them is exponentiated */
        }
        interrogator_close(in);
        clip_pair_close(pair);
    }
}

/* ---- what is kept on disk ---- */

struct counted {
    int calls, last, all;
    int stop_after; /* 0: never */
};

static void count_phrases(void *context, const struct pipeline_progress *progress)
{
    struct counted *c = context;
    c->calls++;
    c->last = progress->step;
    c->all = progress->steps;
}

static bool enough(void *context)
{
    struct counted *c = context;
    return c->stop_after && c->calls >= c->stop_after;
}

static struct counted prepare(const char *model, int stop_after, int want)
{
    struct clip_pair *pair = open_pair(model);
    struct interrogator *in = open_words(pair);
    struct counted c = {.stop_after = stop_after};
    struct pipeline_hooks hooks = {&c, count_phrases, enough};
    struct error err = {0}, unkept;
    assert_int_equal(interrogator_prepare(in, &hooks, &unkept, &err), want);
    assert_int_equal(unkept.code, 0);
    interrogator_close(in);
    clip_pair_close(pair);
    return c;
}

static void phrases_are_read_once(void **state)
{
    struct counted first = prepare("model.safetensors", 0, 0);
    assert_true(first.calls > 10 && first.last == first.all && first.all > 200);
    assert_int_equal(prepare("model.safetensors", 0, 0).calls, 0);
    /* the same network under other names has the same vectors, but its file says nothing of that */
    struct counted other = prepare("openclip.safetensors", 0, 0);
    assert_int_equal(other.all, first.all);

    /* one list changes: that one is read again, and the sum of files does not grow */
    char *path = alloc_printf("%s/mediums.txt", place);
    FILE *f = fopen(path, "a");
    fputs("  blue vase \n\n", f);
    fclose(f);
    free(path);
    struct counted again = prepare("openclip.safetensors", 0, 0);
    assert_int_equal(again.all, 5);
    assert_int_equal(prepare("openclip.safetensors", 0, 0).calls, 0);
}

static void what_was_read_before_a_stop_is_kept(void **state)
{
    struct counted whole = prepare("model.safetensors", 0, 0);
    empty_place(NULL);
    fill_place(NULL);
    struct counted cut = prepare("model.safetensors", whole.calls - 1, ERR_CANCELED);
    struct counted rest = prepare("model.safetensors", 0, 0);
    assert_true(cut.calls == whole.calls - 1);
    assert_true(rest.all > 0 && rest.all < whole.all);
}

static void spoil_vectors(const char *path, const char *name)
{
    if (!str_ends(name, ".vectors")) return;
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    fseek(f, 64, SEEK_SET);
    fputs("no numbers at all", f);
    fclose(f);
}

static void shorten_vectors(const char *path, const char *name)
{
    if (str_ends(name, ".vectors")) assert_int_equal(truncate(path, 100), 0);
}

static void torn_vectors_are_made_again(void **state)
{
    struct counted first = prepare("model.safetensors", 0, 0);
    each_file(place, spoil_vectors);
    assert_int_equal(prepare("model.safetensors", 0, 0).all, first.all);
    each_file(place, shorten_vectors);
    assert_int_equal(prepare("model.safetensors", 0, 0).all, first.all);
    json_t *expected = answers.expected;
    struct clip_pair *pair = open_pair("model.safetensors");
    struct interrogator *in = open_words(pair);
    assert_true(compare(in, json_array_get(expected, 0)) < 1e-3);
    interrogator_close(in);
    clip_pair_close(pair);
}

static void a_disk_that_keeps_nothing_is_no_failure(void **state)
{
    json_t *expected = answers.expected;
    struct clip_pair *pair = open_pair("model.safetensors");
    struct interrogator *in = open_words(pair);
    struct error err = {0}, unkept;
    char *aside = alloc_printf("%s-aside", place);
    assert_int_equal(rename(place, aside),
                     0); /* the folder is gone when vectors are to be written */
    assert_int_equal(interrogator_prepare(in, NULL, &unkept, &err), 0);
    assert_int_equal(rename(aside, place), 0);
    assert_true(unkept.code != 0);
    assert_true(compare(in, json_array_get(expected, 1)) < 1e-3);
    interrogator_close(in);
    clip_pair_close(pair);
    free(aside);
}

/* ---- what is not right ---- */

static int try_list(const char *name, const char *text, size_t bytes, struct error *err)
{
    struct word_list l;
    char *path = alloc_printf("%s/%s", place, name);
    FILE *f = fopen(path, "wb");
    fwrite(text, 1, bytes, f);
    fclose(f);
    int rc = word_list_open(&l, path, err);
    word_list_close(&l);
    unlink(path);
    free(path);
    return rc;
}

static void lists_are_text(void **state)
{
    struct error err = {0};
    char line[WORD_BYTES_MAX + 2];
    memset(line, 'a', sizeof line);
    assert_int_equal(try_list("x.txt", "a\nb\r\n", 5, &err), 0);
    assert_int_equal(try_list("x.txt", "", 0, &err), ERR_FORMAT);
    assert_int_equal(try_list("x.txt", " \n\n\t\n", 5, &err), ERR_FORMAT);
    assert_non_null(strstr(err.text, "is empty"));
    assert_int_equal(try_list("x.txt", "a\0b\n", 4, &err), ERR_FORMAT);
    assert_int_equal(try_list("x.txt", "a\n\xff\xfe\n", 5, &err), ERR_FORMAT);
    assert_non_null(strstr(err.text, "line 2"));
    assert_int_equal(try_list("x.txt", line, WORD_BYTES_MAX, &err), 0);
    assert_int_equal(try_list("x.txt", line, WORD_BYTES_MAX + 1, &err), ERR_FORMAT);
    assert_non_null(strstr(err.text, "500 bytes"));
}

static void without_lists_there_is_nothing_to_ask(void **state)
{
    struct interrogator *in = NULL;
    struct error err = {0};
    struct clip_pair *pair = open_pair("model.safetensors");
    assert_true(interrogator_present(place));
    empty_place(NULL);
    assert_false(interrogator_present(place));
    assert_int_equal(interrogator_open(&in, pair, place, NULL, &err), ERR_NOT_FOUND);
    assert_null(in);
    fill_place(NULL);
    in = open_words(pair);
    struct pixels p;
    struct alchemy_word *words = NULL;
    int count;
    answers_picture(&p, "wide");
    assert_int_equal(interrogator_run(in, &words, &count, &p, 0, NULL, &err), ERR_INVALID);
    assert_int_equal(interrogator_run(in, &words, &count, &p, 101, NULL, &err), ERR_INVALID);
    assert_null(words);
    pixels_release(&p);
    interrogator_close(in);
    clip_pair_close(pair);
}

int main(int argc, char **argv)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, fill_place, empty_place)
    const struct CMUnitTest tests[] = {
        TEST(ranks_and_shares_agree_with_torch),       TEST(phrases_are_read_once),
        TEST(what_was_read_before_a_stop_is_kept),     TEST(torn_vectors_are_made_again),
        TEST(a_disk_that_keeps_nothing_is_no_failure), TEST(lists_are_text),
        TEST(without_lists_there_is_nothing_to_ask),
    };
    if (!mkdtemp(place) || !answers_open(argc, argv, "interrogation.json")) return 2;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    answers_close();
    rmdir(place);
    return failed;
}
