/* diffusion/alchemy: BLIP's captioner against transformers (make_alchemy.py), and files that are not right. */
#include <jansson.h>
#include <math.h>
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
#include "base/str.h"
#include "diffusion/alchemy/blip.h"
#include "diffusion/alchemy/caption.h"
#include "diffusion/alchemy/wordpiece.h"
#include "tests/golden/answers.h"

#define ROWS (10 * 32)

static int try_open(struct caption **c, const char *model, const char *vocab, struct error *err)
{
    char *model_path = answers_path(model);
    char *vocab_path = answers_path(vocab);
    int rc = caption_open(c, answers.device, model_path, vocab_path, PRECISION_FP32, err);
    free(model_path);
    free(vocab_path);
    return rc;
}

static struct caption *must_open(const char *model)
{
    struct caption *c;
    struct error err = {0};
    if (try_open(&c, model, "vocab.txt", &err)) fail_msg("%s", err.text);
    return c;
}

static int whole(const json_t *o, const char *key)
{
    return (int)json_integer_value(json_object_get(o, key));
}

static double number(const json_t *o, const char *key)
{
    return json_number_value(json_object_get(o, key));
}

static void a_picture_becomes_the_same_rows(void **state)
{
    static const char *const files[] = {"blip.safetensors", "blip.pth"};
    size_t k;
    json_t *picture;
    for (size_t i = 0; i < COUNT_OF(files); i++) {
        struct caption *c = must_open(files[i]);
        json_array_foreach(json_object_get(answers.expected, "pictures"), k, picture)
        {
            float rows[ROWS];
            struct pixels p;
            struct error err;
            const char *name = json_string_value(json_object_get(picture, "name"));
            answers_picture(&p, name);
            assert_int_equal(json_array_size(json_object_get(picture, "rows")), ROWS);
            if (caption_look(c, rows, ROWS, &p, &err)) fail_msg("%s", err.text);
            double d = answers_distance(rows, json_object_get(picture, "rows"));
            printf("%s %s: rows %.1e\n", files[i], name, d);
            assert_true(d < 1e-5);
            assert_int_equal(caption_look(c, rows, ROWS - 1, &p, &err), ERR_INVALID);
            pixels_release(&p);
        }
        caption_close(c);
    }
}

/* ---- searches ---- */

static void compare_search(struct caption *c, const struct pixels *p, const json_t *want,
                           const char *title)
{
    struct search_options o = {.beams = whole(want, "beams"),
                               .min_length = whole(want, "min_length"),
                               .max_length = whole(want, "max_length"),
                               .repetition_penalty = number(want, "repetition_penalty"),
                               .length_penalty = number(want, "length_penalty"),
                               .end = caption_options(c).end};
    const char *prompt = json_string_value(json_object_get(want, "prompt"));
    const json_t *tokens = json_object_get(want, "tokens");
    int32_t token[SEARCH_LENGTH_MAX];
    int count;
    char *text;
    struct error err = {0};
    if (caption_tokens(c, token, &count, p, &o, prompt, NULL, &err))
        fail_msg("%s: %s", title, err.text);
    for (int i = 0; i < count; i++)
        if (token[i] != json_integer_value(json_array_get(tokens, (size_t)i)))
            fail_msg("%s, %d beams: word %d is %d, not %lld", title, o.beams, i, token[i],
                     (long long)json_integer_value(json_array_get(tokens, (size_t)i)));
    assert_int_equal(count, json_array_size(tokens));
    if (caption_run(c, &text, p, &o, prompt, NULL, &err)) fail_msg("%s: %s", title, err.text);
    const char *said = json_string_value(json_object_get(want, "text"));
    if (str_starts(said, prompt)) said += strlen(prompt);
    if (*said == ' ') said++;
    assert_string_equal(text, said);
    free(text);
}

static void greedy_and_beams_find_the_same_words(void **state)
{
    static const char *const files[] = {"blip.safetensors", "blip.pth"};
    size_t k, n;
    json_t *picture, *search;
    int compared = 0;
    for (size_t i = 0; i < COUNT_OF(files); i++) {
        struct caption *c = must_open(files[i]);
        json_array_foreach(json_object_get(answers.expected, "pictures"), k, picture)
        {
            struct pixels p;
            const char *name = json_string_value(json_object_get(picture, "name"));
            answers_picture(&p, name);
            json_array_foreach(json_object_get(picture, "searches"), n, search)
            {
                compare_search(c, &p, search, name);
                compared++;
            }
            pixels_release(&p);
        }
        caption_close(c);
    }
    assert_int_equal(compared, 48);
}

/* ---- the network alone: logits of a given text, and rows that change places ---- */

static struct pass_memory memory;

static void open_net(struct blip *m, struct weight_store **store)
{
    struct blip_config config;
    enum dialect dialect;
    struct error err = {0};
    char *path = answers_path("blip.safetensors");
    assert_int_equal(weight_store_open(store, path, &err), 0);
    assert_int_equal(blip_detect(&config, *store, &dialect, &err), 0);
    assert_int_equal(config.grid, 3);
    assert_int_equal(config.patch, 8);
    assert_int_equal(blip_init(m, &config, &err), 0);
    struct weight_loading loading = {
        .store = *store, .prefix = "", .component = "BLIP", .dialect = dialect};
    struct weight_visitor v = {.visit = weight_load, .context = &loading, .err = &err};
    blip_visit(&v, m);
    assert_int_equal(weight_loading_check(&loading, &err), 0);
    const char *left = "nothing";
    if (weight_store_ignored(*store, &left)) fail_msg("%s is not used", left);
    blip_prepare(m);
    free(path);
}

static void logits_do_not_depend_on_the_row(void **state)
{
    struct weight_store *store;
    struct blip m;
    struct error err = {0};
    struct blip_writing w;
    open_net(&m, &store);
    int64_t vocab = m.config.vocab;
    float *patches = alloc_zero(3 * 24 * 24, sizeof *patches);
    float *alone = alloc_zero((size_t)vocab, sizeof *alone);
    float *many = alloc_zero((size_t)(3 * vocab), sizeof *many);
    for (int i = 0; i < 3 * 24 * 24; i++) patches[i] = (float)((i * 37 % 101) / 50.0 - 1);
    const int32_t text[] = {5, 9, 14};
    pass_memory_init(&memory, answers.device, 0);
    assert_int_equal(blip_start(&w, &m, &memory, DTYPE_F32, patches, &err), 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(blip_step(&w, alone, &text[i], &(int){0}, 1, &err), 0);
    blip_stop(&w);
    /* the same text in row 1, then in row 2, beside other ones */
    assert_int_equal(blip_start(&w, &m, &memory, DTYPE_F32, patches, &err), 0);
    assert_int_equal(blip_step(&w, many, (int32_t[]){5}, (int[]){0}, 1, &err), 0);
    assert_int_equal(blip_step(&w, many, (int32_t[]){8, 9}, (int[]){0, 0}, 2, &err), 0);
    assert_int_equal(blip_step(&w, many, (int32_t[]){3, 4, 14}, (int[]){1, 0, 1}, 3, &err), 0);
    blip_stop(&w);
    double worst = 0, other = 0;
    for (int64_t i = 0; i < vocab; i++) {
        worst = fmax(worst, fabsf(many[2 * vocab + i] - alone[i]));
        other = fmax(other, fabsf(many[i] - alone[i]));
    }
    printf("row 2 differs by %.1e, row 0 by %.1e\n", worst, other);
    assert_true(worst < 1e-4 && other > 0.1);
    free(patches);
    free(alone);
    free(many);
    blip_release(&m, answers.device);
    pass_memory_release(&memory);
    weight_store_close(store);
}

static void logits_of_a_given_text_agree(void **state)
{
    const json_t *forced = json_object_get(answers.expected, "forced");
    size_t k;
    json_t *picture;
    struct weight_store *store;
    struct blip m;
    struct error err = {0};
    open_net(&m, &store);
    pass_memory_init(&memory, answers.device, 0);
    float *logits = alloc_zero((size_t)m.config.vocab, sizeof *logits);
    json_array_foreach(json_object_get(answers.expected, "pictures"), k, picture)
    {
        float patches[3 * 24 * 24];
        struct pixels p;
        struct blip_writing w;
        answers_picture(&p, json_string_value(json_object_get(picture, "name")));
        assert_int_equal(caption_patches(patches, &m.config, &p, &err), 0);
        assert_int_equal(blip_start(&w, &m, &memory, DTYPE_F32, patches, &err), 0);
        for (size_t i = 0; i < json_array_size(forced); i++) {
            int32_t token = (int32_t)json_integer_value(json_array_get(forced, i));
            assert_int_equal(blip_step(&w, logits, &token, &(int){0}, 1, &err), 0);
        }
        blip_stop(&w);
        double d = answers_distance(logits, json_object_get(picture, "logits"));
        printf("%s: logits %.1e\n", json_string_value(json_object_get(picture, "name")), d);
        assert_true(d < 1e-5);
        pixels_release(&p);
    }
    free(logits);
    blip_release(&m, answers.device);
    pass_memory_release(&memory);
    weight_store_close(store);
}

/* ---- what is not right ---- */

static bool stop(void *context)
{
    int *left = context;
    return (*left)-- == 0;
}

static void it_can_be_stopped_between_words(void **state)
{
    struct caption *c = must_open("blip.safetensors");
    struct search_options o = caption_options(c);
    struct pixels p;
    struct error err = {0};
    char *text = NULL;
    answers_picture(&p, "wide");
    for (int after = 0; after < 6; after++) {
        int left = after;
        struct pipeline_hooks hooks = {&left, NULL, stop};
        assert_int_equal(caption_run(c, &text, &p, &o, CAPTION_PROMPT, &hooks, &err), ERR_CANCELED);
        assert_null(text);
    }
    assert_int_equal(caption_run(c, &text, &p, &o, CAPTION_PROMPT, NULL, &err), 0);
    free(text);
    pixels_release(&p);
    caption_close(c);
}

static void bounds_are_named(void **state)
{
    struct caption *c = must_open("blip.safetensors");
    struct search_options good = caption_options(c), o = good;
    struct pixels p;
    struct error err = {0};
    char *text = NULL;
    answers_picture(&p, "square");
    o.beams = 17;
    assert_int_equal(caption_run(c, &text, &p, &o, "", NULL, &err), ERR_INVALID);
    assert_non_null(strstr(err.text, "17 beams"));
    o = good;
    o.max_length = 65; /* the tiny model has 64 places */
    assert_int_equal(caption_run(c, &text, &p, &o, "", NULL, &err), ERR_INVALID);
    assert_non_null(strstr(err.text, "64 words"));
    o = good;
    o.max_length = 4; /* no longer than the prompt */
    assert_int_equal(caption_run(c, &text, &p, &o, CAPTION_PROMPT, NULL, &err), ERR_INVALID);
    assert_int_equal(caption_run(c, &text, &p, &good, "a xylophone", NULL, &err), ERR_INVALID);
    assert_non_null(strstr(err.text, "xylophone"));
    pixels_release(&p);
    caption_close(c);
}

/* A copy of the model, cut or with its end spoilt. */
static char *spoil(const char *name, size_t cut, size_t spoilt)
{
    struct buf b;
    struct error err;
    char *from = answers_path("blip.safetensors"),
         *to = alloc_printf("/tmp/kiln-caption-%d-%s", (int)getpid(), name);
    buf_init(&b, 1 << 20);
    assert_int_equal(buf_read_file(&b, from, &err), 0);
    memset(b.data + b.length - spoilt, 0xff, spoilt);
    buf_truncate(&b, b.length - cut);
    assert_int_equal(buf_write_file(&b, to, 0600, &err), 0);
    buf_release(&b);
    free(from);
    return to;
}

static void what_is_not_whole_is_refused(void **state)
{
    struct caption *c = NULL;
    struct error err = {0};
    assert_int_equal(try_open(&c, "none.safetensors", "vocab.txt", &err), ERR_NOT_FOUND);
    assert_int_equal(try_open(&c, "blip.pth", "none.txt", &err), ERR_NOT_FOUND);
    assert_int_equal(try_open(&c, "../safety/model.safetensors", "vocab.txt", &err), ERR_FORMAT);
    assert_non_null(strstr(err.text, "no BLIP captioner"));
    assert_int_equal(try_open(&c, "blip.pth", "blip.safetensors", &err), ERR_FORMAT);
    assert_int_equal(try_open(&c, "blip.pth", "../safety/rules.tsv", &err), ERR_FORMAT);
    assert_non_null(strstr(err.text, "[SEP]"));
    char *shorter = spoil("short.safetensors", 4000, 0);
    assert_int_equal(try_open(&c, shorter, "vocab.txt", &err), ERR_FORMAT);
    unlink(shorter);
    free(shorter);
    assert_null(c);
}

/* Weights that are no numbers end in a sentence, not in a caption. */
static void numbers_that_are_none_are_no_words(void **state)
{
    char *path = spoil("nan.safetensors", 0, 2048), *text = NULL;
    struct caption *c;
    struct pixels p;
    struct error err = {0};
    assert_int_equal(try_open(&c, path, "vocab.txt", &err), 0);
    struct search_options o = caption_options(c);
    answers_picture(&p, "tall");
    assert_int_equal(caption_run(c, &text, &p, &o, CAPTION_PROMPT, NULL, &err), ERR_FORMAT);
    assert_non_null(strstr(err.text, "no number"));
    assert_null(text);
    pixels_release(&p);
    caption_close(c);
    unlink(path);
    free(path);
}

/* ---- word pieces ---- */

static void pieces_are_joined_as_bert_does(void **state)
{
    static const char vocab[] = "[PAD]\n[SEP]\nit\n'\ns\nread\n##ing\n##s\n.\nt\nn\nve\nthe\n";
    struct wordpiece *w;
    struct error err = {0};
    int32_t id[8];
    int count;
    assert_int_equal(wordpiece_parse(&w, vocab, strlen(vocab), "v", &err), 0);
    assert_int_equal(wordpiece_count(w), 13);
    char *text = wordpiece_decode(w, (int32_t[]){2, 3, 4, 5, 6, 8, 1, 0, 99, -4}, 10);
    assert_string_equal(text, "it's reading.");
    free(text);
    text = wordpiece_decode(w, (int32_t[]){7, 5, 7, 7}, 4);
    assert_string_equal(text, "##s readss");
    free(text);
    text = wordpiece_decode(w, NULL, 0);
    assert_string_equal(text, "");
    free(text);
    assert_int_equal(wordpiece_encode(w, id, &count, 8, "the  readings.", &err), 0);
    assert_int_equal(count, 5);
    assert_memory_equal(id, ((int32_t[]){12, 5, 6, 7, 8}), 5 * sizeof *id);
    assert_int_equal(wordpiece_encode(w, id, &count, 4, "the readings.", &err), ERR_INVALID);
    assert_int_equal(wordpiece_encode(w, id, &count, 8, "the cup", &err), ERR_INVALID);
    wordpiece_close(w);
    assert_int_equal(wordpiece_parse(&w, "a\n\nb\n", 5, "v", &err), ERR_FORMAT);
    assert_non_null(strstr(err.text, "line 2"));
    assert_int_equal(wordpiece_parse(&w, "a\0b\n", 4, "v", &err), ERR_FORMAT);
    assert_int_equal(wordpiece_parse(&w, "", 0, "v", &err), ERR_FORMAT);
    assert_int_equal(wordpiece_parse(&w, "a\r\nb\r\n", 6, "v", &err), 0);
    assert_int_equal(wordpiece_find(w, "b"), 1);
    wordpiece_close(w);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_picture_becomes_the_same_rows),
        cmocka_unit_test(logits_of_a_given_text_agree),
        cmocka_unit_test(logits_do_not_depend_on_the_row),
        cmocka_unit_test(greedy_and_beams_find_the_same_words),
        cmocka_unit_test(it_can_be_stopped_between_words),
        cmocka_unit_test(bounds_are_named),
        cmocka_unit_test(what_is_not_whole_is_refused),
        cmocka_unit_test(numbers_that_are_none_are_no_words),
        cmocka_unit_test(pieces_are_joined_as_bert_does),
    };
    if (!answers_open(argc, argv, "expected.json")) return 2;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    answers_close();
    return failed;
}
