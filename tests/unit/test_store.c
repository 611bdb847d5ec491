/* The store without a network: names, notes, what a file's state is, listing, verifying, removing. */
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
#include "base/str.h"
#include "proto/model_reference.h"
#include "store/digest.h"
#include "store/fetch.h"
#include "store/known.h"
#include "store/note.h"
#include "store/refusals.h"
#include "store/store.h"

static char folder[64];
static struct store s;
static struct error err;

static int begin(void **state)
{
    strcpy(folder, "/tmp/kiln-store-XXXXXX");
    assert_non_null(mkdtemp(folder));
    return store_open(&s, folder, &err);
}

static int end(void **state)
{
    char *command = alloc_printf("rm -r %s", folder);
    store_close(&s);
    int rc = system(command);
    free(command);
    return rc;
}

static void put(const char *file, const char *text)
{
    char *path = alloc_printf("%s/%s", folder, file);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    free(path);
}

static void test_names(void **state)
{
    static const char *const good[] = {"Deliberate", "It's A (v1) - x", "n\xc3\xa4me", "a.b"};
    static const char *const bad[] = {"", ".", "..", ".x", "a/b", "a\\b", "a\nb", "a\x7f", "\xff"};
    char longest[STORE_NAME_BYTES_MAX + 2];
    memset(longest, 'n', sizeof longest);
    longest[STORE_NAME_BYTES_MAX + 1] = 0;
    for (size_t i = 0; i < COUNT_OF(good); i++)
        assert_int_equal(store_check_name(good[i], &err), 0);
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        assert_int_equal(store_check_name(bad[i], &err), ERR_INVALID);
    assert_int_equal(store_check_name(longest, &err), ERR_INVALID);
    assert_int_equal(store_check_name(longest + 1, &err), 0);
    assert_string_equal(store_extension(STORE_MODEL, "a.CKPT"), "ckpt");
    assert_null(store_extension(STORE_MODEL, "a.pth"));
    assert_null(store_extension(STORE_CONTROLNET, "safetensors"));
}

static void test_note(void **state)
{
    struct note n;
    int fd = store_folder(&s, "models", &err);
    note_init(&n);
    note_set(&n, "source", "first\nstate verified"); /* cannot smuggle a line in */
    note_set(&n, "source", "a\nstate verified");
    note_set_i64(&n, "bytes", -5);
    assert_int_equal(note_write(&n, fd, ".x.note", &err), 0);
    note_release(&n);
    note_read(&n, fd, ".x.note");
    assert_string_equal(note_get(&n, "source"), "a state verified");
    assert_string_equal(note_get(&n, "state"), "");
    assert_int_equal(note_get_i64(&n, "bytes"), -5);
    assert_int_equal(n.count, 2);
    note_release(&n);
    put("models/.y.note", "no space here\n\nk v\nno\n");
    note_read(&n, fd, ".y.note");
    assert_string_equal(note_get(&n, "k"), "v");
    note_release(&n);
    note_read(&n, fd, ".absent");
    assert_int_equal(n.count, 0);
    close(fd);
}

static void test_state(void **state)
{
    char *path = alloc_printf("%s/models/a.ckpt", folder);
    close(store_folder(&s, "models", &err));
    put("models/a.ckpt", "abc");
    assert_int_equal(store_state_of(path), STORE_OWN);
    put("models/.a.ckpt.note", "state unverified\n");
    assert_int_equal(store_state_of(path), STORE_UNVERIFIED);
    put("models/.a.ckpt.note", "state verified\n");
    assert_int_equal(store_state_of(path), STORE_VERIFIED);
    free(path);
    assert_int_equal(store_state_of("nowhere/at.all"), STORE_OWN);
}

static void test_verify_and_remove(void **state)
{
    /* FIPS 180-4, the example "abc" */
    const char *abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    struct store_list l;
    const struct store_entry *e;
    enum store_state found;
    char hex[65];
    close(store_folder(&s, "models", &err));
    close(store_folder(&s, "loras", &err));
    put("models/a.ckpt", "abc");
    put("loras/a.safetensors", "abc");
    put("models/readme.txt", "no model");
    assert_int_equal(store_read_list(&l, &s, &err), 0);
    assert_int_equal(l.count, 2);
    assert_int_equal(store_find(&e, &l, "a", &err), ERR_INVALID); /* two of them */
    assert_int_equal(store_find(&e, &l, "b", &err), ERR_NOT_FOUND);
    assert_int_equal(store_find(&e, &l, "models/a", &err), 0);
    assert_int_equal(store_verify(&s, e, NULL, NULL, NULL, &found, hex, &err), 0);
    assert_int_equal(found, STORE_OWN); /* a hash alone says nothing */
    assert_string_equal(hex, abc);
    assert_int_equal(store_verify(&s, e, abc, NULL, NULL, &found, hex, &err), 0);
    assert_int_equal(found, STORE_VERIFIED);
    put("models/a.ckpt", "abd");
    store_list_release(&l);
    assert_int_equal(store_read_list(&l, &s, &err), 0);
    assert_int_equal(store_find(&e, &l, "models/a", &err), 0);
    assert_int_equal(store_verify(&s, e, NULL, NULL, NULL, &found, hex, &err), ERR_FORMAT);
    store_list_release(&l);
    assert_int_equal(store_read_list(&l, &s, &err), 0);
    assert_int_equal(store_find(&e, &l, "models/a", &err), 0);
    assert_int_equal(e->state, STORE_BAD);
    assert_int_equal(store_remove(&s, e, &err), 0);
    store_list_release(&l);
    assert_int_equal(store_read_list(&l, &s, &err), 0);
    assert_int_equal(l.count, 1);
    store_list_release(&l);
}

static void test_refusals(void **state)
{
    const char *url = "https://huggingface.co/a?x=hidden";
    assert_int_equal(refusal_check(&s, url, &err), 0);
    refusal_remember(&s, url, 503); /* passes */
    assert_int_equal(refusal_check(&s, url, &err), 0);
    refusal_remember(&s, url, 451);
    assert_int_equal(refusal_check(&s, url, &err), ERR_REFUSED);
    assert_null(strstr(err.text, "hidden"));
    refusal_remember(&s, url, 404);
    assert_int_equal(refusal_check(&s, url, &err), ERR_NOT_FOUND);
    refusal_forget(&s, url);
    assert_int_equal(refusal_check(&s, url, &err), 0);
}

/* Each row can be asked for, fetched from a listed host and put where its programs look. */
static void test_known(void **state)
{
    struct fetch_client c = {0};
    int rows = 0, in_groups = 0;
    if (fetch_open(&c, NULL, NULL, &err)) fail_msg("%s", err.text);
    for (const struct known_file *k; (k = known_at(rows)); rows++) {
        char normal[65];
        char *file = alloc_printf("%s.%s", k->file ? k->file : k->name, k->extension);
        assert_ptr_equal(known_find(k->name), k);
        assert_string_equal(store_extension(k->kind, file), k->extension);
        assert_int_equal(store_check_name(k->file ? k->file : k->name, &err), 0);
        assert_true(sha256_normalise(normal, k->sha256));
        assert_string_equal(normal, k->sha256);
        if (fetch_check_url(&c, k->url, &err)) fail_msg("%s: %s", k->name, err.text);
        for (int i = 0; i < rows; i++) {
            assert_string_not_equal(known_at(i)->sha256, k->sha256);
            assert_string_not_equal(known_at(i)->name, k->name);
        }
        free(file);
    }
    const char *word;
    for (int g = 0; (word = known_group_word(g)); g++) {
        const struct known_file *files[KNOWN_GROUP_MAX];
        int count = known_group(word, files);
        assert_true(count > 0);
        for (int i = 0; i < count; i++) assert_non_null(files[i]);
        in_groups += count;
    }
    assert_true(rows >= 11 && in_groups >= rows);
    const struct known_file *files[KNOWN_GROUP_MAX];
    assert_int_equal(known_group("interrogation", files), 8);
    assert_int_equal(known_group("Caption", files), 2);
    assert_int_equal(known_group("annotators", files), 5);
    assert_int_equal(known_group("annotator-seg", files), 1);
    assert_string_equal(files[0]->name, "upernet_global_small");
    assert_non_null(known_in_store(STORE_ANNOTATOR, "res101"));
    assert_int_equal(known_group("palmistry", files), 0);
    assert_non_null(known_in_store(STORE_SAFETY, "model"));
    assert_null(known_in_store(STORE_WORDS, "tags"));
    assert_null(known_in_store(STORE_MODEL, "model"));
    fetch_close(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_names, begin, end),
        cmocka_unit_test_setup_teardown(test_note, begin, end),
        cmocka_unit_test_setup_teardown(test_state, begin, end),
        cmocka_unit_test_setup_teardown(test_verify_and_remove, begin, end),
        cmocka_unit_test_setup_teardown(test_refusals, begin, end),
        cmocka_unit_test(test_known),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
