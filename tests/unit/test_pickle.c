/* diffusion/pickle: torch files as data (tests/golden/make_pickles.py made them). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "diffusion/pickle.h"

static char *path_of(const char *name)
{
    return alloc_printf("%s/%s", PICKLE_DATA, name);
}

static const struct safetensors_entry *find(const struct pickle *p, const char *name)
{
    for (size_t i = 0; i < p->count; i++)
        if (strcmp(p->entries[i].name, name) == 0) return &p->entries[i];
    fail_msg("no tensor %s", name);
    return NULL;
}

static void check(const struct pickle *p, const char *name, enum dtype dtype, int rank,
                  const int64_t *dim, const double *value)
{
    const struct safetensors_entry *e = find(p, name);
    int64_t count = 1;
    assert_int_equal(e->dtype, dtype);
    assert_int_equal(e->rank, rank);
    for (int i = 0; i < rank; i++) {
        assert_int_equal(e->dim[i], dim[i]);
        count *= dim[i];
    }
    assert_int_equal(e->bytes, (size_t)count * dtype_bytes(dtype));
    for (int64_t i = 0; i < count; i++)
        if (dtype_get(e->data, dtype, i) != value[i]) fail_msg("%s[%d] differs", name, (int)i);
}

static void check_state(const char *file)
{
    struct pickle p;
    struct error err;
    char *path = path_of(file);
    if (pickle_open(&p, path, &err)) fail_msg("%s", err.text);
    double plain[24], turned[24], cut[6];
    for (int i = 0; i < 24; i++) {
        plain[i] = i;
        turned[i] = i % 4 * 6 + i / 4;
    }
    for (int i = 0; i < 6; i++) cut[i] = 5 + i;
    assert_int_equal(p.count, 7);
    check(&p, "plain", DTYPE_F32, 3, (int64_t[]){2, 3, 4}, plain);
    check(&p, "turned", DTYPE_F32, 2, (int64_t[]){6, 4}, turned);
    check(&p, "cut", DTYPE_F32, 1, (int64_t[]){6}, cut);
    check(&p, "half", DTYPE_F16, 1, (int64_t[]){2}, (double[]){1.5, -2});
    check(&p, "whole", DTYPE_I64, 1, (int64_t[]){2}, (double[]){3, 4});
    check(&p, "scalar", DTYPE_F32, 0, NULL, (double[]){7});
    check(&p, "parameter", DTYPE_F32, 1, (int64_t[]){2}, (double[]){1, 1});
    pickle_close(&p);
    free(path);
}

static void both_containers_give_the_state_dict(void **state)
{
    check_state("zip.pt");
    check_state("legacy.pt");
}

static void other_roots_are_found(void **state)
{
    struct pickle p;
    char *path = path_of("nested.pt");
    assert_int_equal(pickle_open(&p, path, NULL), 0);
    assert_int_equal(p.count, 1);
    assert_string_equal(p.entries[0].name, "body.0.weight");
    pickle_close(&p);
    free(path);
    path = path_of("embedding.pt");
    assert_int_equal(pickle_open(&p, path, NULL), 0);
    assert_int_equal(p.count, 1);
    assert_string_equal(p.entries[0].name, "string_to_param.*");
    pickle_close(&p);
    free(path);
}

static void what_is_no_data_is_refused_by_name(void **state)
{
    static const struct {
        const char *file;
        int code;
        const char *word;
    } cases[] = {
        {"evil.pt", ERR_UNSUPPORTED, "system"},
        {"bare.pkl", ERR_UNSUPPORTED, "no torch checkpoint"},
        {"deflated.pt", ERR_UNSUPPORTED, "compressed"},
        {"past.pt", ERR_FORMAT, "body.0.weight reaches past its storage"},
        {"pictures.zip", ERR_FORMAT, "no data.pkl"},
        {"absent.pt", ERR_NOT_FOUND, "absent.pt"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct pickle p;
        struct error err = {0};
        char *path = path_of(cases[i].file);
        int rc = pickle_open(&p, path, &err);
        if (rc != cases[i].code || !strstr(err.text, cases[i].word))
            fail_msg("%s: %d %s", cases[i].file, rc, err.text);
        free(path);
    }
}

/* Every cut and every changed byte is an answer, never a crash. */
static void damage_is_survived(void **state)
{
    static const char *const files[] = {"zip.pt", "legacy.pt", "embedding.pt"};
    for (size_t f = 0; f < COUNT_OF(files); f++) {
        struct buf b;
        char *path = path_of(files[f]);
        buf_init(&b, 1u << 20);
        assert_int_equal(buf_read_file(&b, path, NULL), 0);
        for (size_t cut = 0; cut < b.length; cut += 3) {
            struct pickle p;
            uint8_t *copy = alloc_zero(cut + 1, 1);
            memcpy(copy, b.data, cut);
            if (pickle_parse(&p, "cut", copy, cut, NULL) == 0) pickle_close(&p);
            free(copy);
        }
        for (size_t i = 0; i < b.length; i++)
            for (int k = 0; k < 3; k++) {
                static const uint8_t change[] = {0xff, 0x80, 0x01};
                struct pickle p;
                b.data[i] ^= change[k];
                if (pickle_parse(&p, "changed", b.data, b.length, NULL) == 0) pickle_close(&p);
                b.data[i] ^= change[k];
            }
        buf_release(&b);
        free(path);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_containers_give_the_state_dict),
        cmocka_unit_test(other_roots_are_found),
        cmocka_unit_test(what_is_no_data_is_refused_by_name),
        cmocka_unit_test(damage_is_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
