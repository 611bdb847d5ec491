/* The tuner over the emulator's clock: the fastest way is taken, kept, found again by another device,
 * measured anew when kernels change or the file is damaged; libraries are candidates; the reproducible
 * mode measures nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/emulator/emulator.h"

static char folder[] = "/tmp/kiln-tune-XXXXXX";
static const char *fastest;
static int products;

static double clock_of(const char *kernel, uint64_t blocks)
{
    if (strncmp(kernel, "GEMM_", 5) == 0) products++;
    return strcmp(kernel, fastest) == 0 ? 0.5 : 2;
}

static struct device *open_device(void)
{
    struct device *d;
    struct error err;
    if (cuda_device_open(&d, NULL, &err)) fail_msg("%s", err.text);
    return d;
}

enum { M = 70, K = 64, OUT = 80 };

/* y = x w^T + bias with add, checked against plain sums. Returns how many products ran. */
static int linear(struct device *d, bool in_place)
{
    struct error err;
    double x[M * K], w[OUT * K], bias[OUT], y[M * OUT], old[M * OUT];
    uint16_t half[M * OUT > M * K ? M * OUT : M * K], weight[OUT * K];
    void *dx, *dy, *db;
    for (int i = 0; i < M * K; i++) x[i] = (i * 7 % 13 - 6) / 8.0;
    for (int i = 0; i < OUT * K; i++) w[i] = (i * 5 % 11 - 5) / 8.0;
    for (int i = 0; i < OUT; i++) bias[i] = i % 5;
    for (int i = 0; i < M * OUT; i++) old[i] = i % 3;
    dtype_convert(weight, DTYPE_F16, w, DTYPE_F64, OUT * K);
    assert_int_equal(d->kernels->alloc(d, &dx, sizeof half, &err), 0);
    assert_int_equal(d->kernels->alloc(d, &dy, sizeof half, &err), 0);
    assert_int_equal(d->kernels->alloc(d, &db, sizeof half, &err), 0);
    dtype_convert(half, DTYPE_F16, x, DTYPE_F64, M * K);
    assert_int_equal(d->kernels->upload(d, dx, half, M * K * 2, &err), 0);
    dtype_convert(half, DTYPE_F16, old, DTYPE_F64, M * OUT);
    assert_int_equal(d->kernels->upload(d, dy, half, M * OUT * 2, &err), 0);
    dtype_convert(half, DTYPE_F16, bias, DTYPE_F64, OUT);
    assert_int_equal(d->kernels->upload(d, db, half, OUT * 2, &err), 0);
    struct kernel_weight kw = {.data = weight, .dtype = DTYPE_F16, .rank = 2, .dim = {OUT, K}};
    struct linear_args a = {.y = dy,
                            .x = dx,
                            .w = &kw,
                            .m = M,
                            .k = K,
                            .out = OUT,
                            .ldx = K,
                            .ldy = OUT,
                            .dtype = DTYPE_F16,
                            .epilogue = {.bias = db, .bias_dtype = DTYPE_F16}};
    if (in_place) a.epilogue.add = dy;
    products = 0;
    assert_int_equal(d->kernels->linear(d, &a, &err), 0);
    int ran = products;
    assert_int_equal(d->kernels->download(d, half, dy, M * OUT * 2, &err), 0);
    dtype_convert(y, DTYPE_F64, half, DTYPE_F16, M * OUT);
    for (int i = 0; i < M * OUT; i++) {
        double want = bias[i % OUT] + (in_place ? old[i] : 0);
        for (int k = 0; k < K; k++) want += x[i / OUT * K + k] * w[i % OUT * K + k];
        assert_true(want - y[i] < 0.02 && y[i] - want < 0.02);
    }
    d->kernels->unpack(d, &kw);
    d->kernels->free(d, dx);
    d->kernels->free(d, dy);
    d->kernels->free(d, db);
    return ran;
}

static struct tuner_choice only_choice(struct device *d)
{
    struct tuner_key key = {M, OUT, K, K, 1, 1u << 12};
    const struct tuner_choice *c = tuner_find(cuda_state(d)->tuner, &key);
    assert_non_null(c);
    return *c;
}

/* The one file in the folder; "" when there is none. */
static void table_file(char path[512])
{
    struct dirent *e;
    DIR *dir = opendir(folder);
    path[0] = 0;
    while ((e = readdir(dir)))
        if (e->d_name[0] != '.') snprintf(path, 512, "%s/%s", folder, e->d_name);
    closedir(dir);
}

static int forget(void **state)
{
    char path[512];
    for (table_file(path); path[0]; table_file(path)) unlink(path);
    setenv("KILN_CUBLASLT", "", 1);
    setenv("KILN_CUDNN", "", 1);
    unsetenv("KILN_CUDA_REPRODUCIBLE");
    fastest = "GEMM_128X80";
    return 0;
}

static void fastest_is_kept(void **state)
{
    struct device *d = open_device();
    assert_true(linear(d, false) > 5); /* all were tried */
    assert_int_equal(only_choice(d).tile, GEMM_128X80);
    assert_int_equal(linear(d, false), 1);
    /* trying must not add to what is there more than once */
    assert_true(linear(d, true) > 5);
    device_close(d);
    fastest = "GEMM_64X80"; /* another device believes the file */
    d = open_device();
    assert_int_equal(tuner_count(cuda_state(d)->tuner), 2);
    assert_int_equal(linear(d, false), 1);
    assert_int_equal(only_choice(d).tile, GEMM_128X80);
    device_close(d);
}

static void reproducible_measures_nothing(void **state)
{
    char path[512];
    setenv("KILN_CUDA_REPRODUCIBLE", "1", 1);
    struct device *d = open_device();
    assert_null(cuda_state(d)->tuner);
    assert_int_equal(linear(d, false), 1);
    device_close(d);
    table_file(path);
    assert_string_equal(path, "");
}

static void other_kernels_begin_anew(void **state)
{
    struct error why;
    char path[512];
    snprintf(path, sizeof path, "%s/table", folder);
    struct tuner_identity id = {"card", 13000, 1}, other = id;
    struct tuner_key key = {1, 2, 3, 4, 5, 6};
    struct tuner *t = tuner_open(&id, path, &why);
    assert_int_equal(why.code, 0);
    tuner_add(t, &key, (struct tuner_choice){TUNER_OWN, 3, 4});
    assert_int_equal(tuner_save(t, &why), 0);
    tuner_close(t);
    t = tuner_open(&id, path, &why);
    assert_int_equal(tuner_count(t), 1);
    assert_int_equal(tuner_find(t, &key)->splits, 4);
    tuner_close(t);
    for (int i = 0; i < 3; i++) {
        other = id;
        if (i == 0) other.kernels++;
        if (i == 1) other.driver++;
        if (i == 2) other.card[0] = 'C';
        t = tuner_open(&other, path, &why);
        assert_int_equal(why.code, ERR_NOT_FOUND);
        assert_int_equal(tuner_count(t), 0);
        tuner_close(t);
    }
}

/* Every byte of a table changed, every length cut: never believed, never a crash. */
static void damage_is_noticed(void **state)
{
    struct error why;
    struct tuner_identity id = {"card", 13000, 1};
    char path[512], text[4096];
    snprintf(path, sizeof path, "%s/table", folder);
    struct tuner *t = tuner_open(&id, path, &why);
    for (int i = 0; i < 3; i++)
        tuner_add(t, &(struct tuner_key){10 + i, 2, 3, 4, 5, 6}, (struct tuner_choice){0, i, 1});
    assert_int_equal(tuner_save(t, &why), 0);
    tuner_close(t);
    FILE *f = fopen(path, "rb");
    size_t length = fread(text, 1, sizeof text, f);
    fclose(f);
    for (size_t at = 0; at <= 2 * length; at++) {
        char bad[4096];
        memcpy(bad, text, length);
        size_t kept = at < length ? length : at - length;
        if (at < length) bad[at] = (char)(bad[at] ^ (1 + at % 7));
        if (kept == length && at >= length) break;
        f = fopen(path, "wb");
        fwrite(bad, 1, kept, f);
        fclose(f);
        t = tuner_open(&id, path, &why);
        if (why.code == 0) fail_msg("change %zu was believed", at);
        assert_int_equal(tuner_count(t), 0);
        tuner_close(t);
    }
    /* too large, and a folder in its place */
    f = fopen(path, "wb");
    for (int i = 0; i < 300 << 10; i++) fputc('1', f);
    fclose(f);
    t = tuner_open(&id, path, &why);
    assert_true(why.code != 0 && tuner_count(t) == 0);
    tuner_close(t);
    unlink(path);
    mkdir(path, 0755);
    t = tuner_open(&id, path, &why);
    assert_true(why.code != 0 && tuner_count(t) == 0);
    tuner_add(t, &(struct tuner_key){1, 2, 3, 4, 5, 6}, (struct tuner_choice){0, 1, 1});
    assert_int_not_equal(tuner_save(t, &why), 0);
    assert_int_equal(tuner_save(t, &why), 0); /* not asked again */
    tuner_close(t);
    rmdir(path);
}

static void table_is_bounded(void **state)
{
    struct tuner *t = tuner_open(&(struct tuner_identity){"card", 1, 1}, NULL, NULL);
    for (int i = 0; i < 3 * TUNER_SHAPES_MAX; i++)
        tuner_add(t, &(struct tuner_key){i, 1, 1, 1, 1, 0}, (struct tuner_choice){0, 0, 1});
    assert_int_equal(tuner_count(t), TUNER_SHAPES_MAX);
    assert_non_null(tuner_find(t, &(struct tuner_key){5, 1, 1, 1, 1, 0}));
    assert_null(tuner_find(t, &(struct tuner_key){2 * TUNER_SHAPES_MAX, 1, 1, 1, 1, 0}));
    tuner_close(t);
}

static void library_wins_or_loses(void **state)
{
    setenv("KILN_CUBLASLT", FAKE_CUBLASLT, 1);
    setenv("FAKE_CUBLASLT_MS", "0.01", 1);
    struct device *d = open_device();
    assert_true(linear(d, false) > 5);
    assert_int_equal(only_choice(d).kind, TUNER_CUBLASLT);
    assert_int_equal(linear(d, false), 0); /* no product of ours */
    linear(d, true);
    assert_int_equal(linear(d, true), 0);
    device_close(d);
    /* the table names a library that is gone: own kernels do it */
    setenv("KILN_CUBLASLT", "", 1);
    d = open_device();
    assert_int_equal(linear(d, false), 1);
    device_close(d);
    forget(NULL);
    setenv("KILN_CUBLASLT", FAKE_CUBLASLT, 1);
    setenv("FAKE_CUBLASLT_MS", "50", 1);
    d = open_device();
    linear(d, false);
    assert_int_equal(only_choice(d).kind, TUNER_OWN);
    device_close(d);
}

int main(void)
{
    if (!mkdtemp(folder)) return 1;
    setenv("KILN_CUDA_TUNE_DIR", folder, 1);
    setenv("KILN_EMULATOR_TUNE", "1", 1);
    emulator_set_clock(clock_of);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(fastest_is_kept, forget),
        cmocka_unit_test_setup(reproducible_measures_nothing, forget),
        cmocka_unit_test_setup(other_kernels_begin_anew, forget),
        cmocka_unit_test_setup(damage_is_noticed, forget),
        cmocka_unit_test_setup(table_is_bounded, forget),
        cmocka_unit_test_setup(library_wins_or_loses, forget),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    forget(NULL);
    rmdir(folder);
    return failed;
}
