/* diffusion/face against torch and OpenCV (make_faces.py): networks, alignment, the whole way. */
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
#include "diffusion/face/align.h"
#include "diffusion/face/codeformer.h"
#include "diffusion/face/gfpgan.h"
#include "diffusion/face/parsenet.h"
#include "diffusion/face/restorer.h"
#include "diffusion/face/retinaface.h"
#include "image/codec.h"
#include "image/resize.h"
#include "tests/support/drawn.h"

static const char *folder;
static char scratch[] = "/tmp/kiln-faces-XXXXXX";
static struct device *device;

#define CHECK(call)                                                                                \
    do {                                                                                           \
        struct error err = {0};                                                                    \
        if ((call)) fail_msg("%s", err.text);                                                      \
    } while (0)

/* The weights of table NAME as a file; extra words as drawn.h has them. */
static char *drawn(const char *name, const char *as, const char *const *words, int count)
{
    const char *all[8];
    char *table = alloc_printf("%s/%s.txt", folder, name);
    char *path = alloc_printf("%s/%s.safetensors", scratch, as);
    all[0] = table;
    for (int i = 0; i < count; i++) all[i + 1] = words[i];
    CHECK(drawn_write(path, all, count + 1, &err));
    free(table);
    return path;
}

static float *read_floats(const char *name, size_t *count)
{
    struct buf b;
    char *path = alloc_printf("%s/%s.bin", folder, name);
    buf_init(&b, 1 << 20);
    CHECK(buf_read_file(&b, path, &err));
    *count = b.length / sizeof(float);
    free(path);
    size_t bytes;
    return (float *)(void *)buf_take(&b, &bytes);
}

/* Names and shapes of [1,c,h,w] on torch's side, [h,w,c] here. */
static float *drawn_picture(const char *name, int c, int h, int w, double scale)
{
    float *chw = drawn_values(name, (int64_t)c * h * w, scale, 0);
    float *hwc = alloc_zero((size_t)(c * h * w), sizeof *hwc);
    for (int i = 0; i < c * h * w; i++) hwc[(i % (h * w)) * c + i / (h * w)] = chw[i];
    free(chw);
    return hwc;
}

/* The largest difference over the largest value. */
static double apart(const float *have, const float *want, size_t n)
{
    double difference = 0, size = 0;
    for (size_t i = 0; i < n; i++) {
        difference = fmax(difference, fabs((double)have[i] - want[i]));
        size = fmax(size, fabs((double)want[i]));
    }
    return difference / size;
}

static struct weight_store *open_store(const char *path)
{
    struct weight_store *s;
    CHECK(weight_store_open(&s, path, &err));
    return s;
}

static void load(struct weight_store *s, void (*visit)(struct weight_visitor *v, void *m), void *m)
{
    struct error err = {0};
    struct weight_loading l = {.store = s, .prefix = "", .component = "the network"};
    struct weight_visitor v = {.visit = weight_load, .context = &l, .err = &err};
    visit(&v, m);
    if (v.failed || weight_loading_check(&l, &err)) fail_msg("%s", err.text);
}

#define VISITOR(network)                                                                           \
    static void visit_##network(struct weight_visitor *v, void *m)                                 \
    {                                                                                              \
        network##_visit(v, m);                                                                     \
    }
VISITOR(gfpgan)
VISITOR(codeformer)
VISITOR(retinaface)
VISITOR(parsenet)

static void gfpgan_agrees_with_torch(void **state)
{
    static const char *const forms[] = {"gfpgan", "gfpgan-all"};
    for (size_t i = 0; i < COUNT_OF(forms); i++) {
        struct gfpgan m;
        struct pass_memory memory;
        struct pass p;
        size_t n;
        char *path = drawn(forms[i], forms[i], NULL, 0);
        struct weight_store *s = open_store(path);
        assert_true(gfpgan_is(s));
        assert_false(codeformer_is(s));
        CHECK(gfpgan_detect(&m, s, &err));
        assert_int_equal(m.size, 32);
        load(s, visit_gfpgan, &m);
        CHECK(gfpgan_prepare(&m, &err));
        float *want = read_floats(forms[i], &n), *face = drawn_picture("face", 3, 32, 32, 1);
        assert_int_equal(n, 32 * 32 * 3);
        pass_memory_init(&memory, device, 0);
        pass_start(&p, &memory, DTYPE_F32, NULL);
        struct tensor x = pass_input(&p, face, 4, TENSOR_DIM(1, 32, 32, 3));
        pass_output(&p, face, gfpgan_forward(&p, &m, x));
        CHECK(pass_finish(&p, &err));
        printf("%s: %.2g of the largest apart\n", forms[i], apart(face, want, n));
        assert_true(apart(face, want, n) < 2e-5);
        pass_memory_release(&memory);
        gfpgan_release(&m, device);
        weight_store_close(s);
        free(want);
        free(face);
        free(path);
    }
}

static void codeformer_agrees_with_torch(void **state)
{
    struct codeformer m;
    struct pass_memory memory;
    size_t n;
    char *path = drawn("codeformer", "codeformer", NULL, 0);
    struct weight_store *s = open_store(path);
    assert_true(codeformer_is(s));
    CHECK(codeformer_detect(&m, s, &err));
    assert_int_equal(m.size, 64);
    assert_int_equal(m.fuse_count, 2);
    load(s, visit_codeformer, &m);
    float *want = read_floats("codeformer", &n);
    assert_int_equal(n, 3 * 16 * 16 * 3);
    pass_memory_init(&memory, device, 0);
    for (int i = 0; i < 3; i++) {
        struct pass p;
        float *face = drawn_picture("face", 3, 64, 64, 1), some[16 * 16 * 3];
        pass_start(&p, &memory, DTYPE_F32, NULL);
        struct tensor x = pass_input(&p, face, 4, TENSOR_DIM(1, 64, 64, 3));
        pass_output(&p, face, codeformer_forward(&p, &m, x, i * 0.5));
        CHECK(pass_finish(&p, &err));
        for (int k = 0; k < 16 * 16; k++)
            for (int c = 0; c < 3; c++)
                some[k * 3 + c] = face[((k / 16 * 4) * 64 + k % 16 * 4) * 3 + c];
        double far = apart(some, want + i * 16 * 16 * 3, 16 * 16 * 3);
        printf("fidelity %.1f: %.2g of the largest apart\n", i * 0.5, far);
        assert_true(far < 2e-5);
        free(face);
    }
    pass_memory_release(&memory);
    codeformer_release(&m, device);
    weight_store_close(s);
    free(want);
    free(path);
}

static void retinaface_agrees_with_torch(void **state)
{
    struct retinaface m;
    struct pass_memory memory;
    struct pass p;
    const char *prefix;
    size_t n, at = 0;
    char *path = drawn("retinaface", "retinaface", NULL, 0);
    struct weight_store *s = open_store(path);
    CHECK(retinaface_detect(&m, s, &prefix, &err));
    load(s, visit_retinaface, &m);
    CHECK(retinaface_fold(&m, &err));
    float *want = read_floats("retinaface", &n);
    float *picture = drawn_picture("picture", 3, 90, 101, 100);
    float *raw[3][RETINAFACE_LEVELS];
    pass_memory_init(&memory, device, 0);
    pass_start(&p, &memory, DTYPE_F32, NULL);
    struct tensor x = pass_input(&p, picture, 4, TENSOR_DIM(1, 90, 101, 3));
    struct retinaface_raw found = retinaface_forward(&p, &m, x);
    for (int level = 0; level < RETINAFACE_LEVELS; level++) {
        struct tensor out[] = {found.score[level], found.box[level], found.point[level]};
        for (int k = 0; k < 3; k++) {
            size_t count = (size_t)tensor_count(out[k]);
            raw[k][level] = alloc_zero(count, sizeof(float));
            pass_output(&p, raw[k][level], out[k]);
            assert_true(at + count <= n);
            double far = apart(raw[k][level], want + at, count);
            if (!(far < 2e-5)) fail_msg("level %d part %d: %g apart", level, k, far);
            at += count;
        }
    }
    CHECK(pass_finish(&p, &err));
    assert_int_equal(at, n);

    struct found_face faces[FACES_MAX];
    float *kept = read_floats("retinaface-faces", &n);
    int count = retinaface_decode(faces, raw[0], raw[1], raw[2], 101, 90, 0.55);
    assert_int_equal(count, n / 15);
    for (int i = 0; i < count; i++) {
        float have[15];
        memcpy(have, faces[i].box, 4 * sizeof(float));
        have[4] = faces[i].score;
        memcpy(have + 5, faces[i].point, 10 * sizeof(float));
        for (int k = 0; k < 15; k++)
            if (fabsf(have[k] - kept[i * 15 + k]) > 0.02f)
                fail_msg("face %d value %d: %g, not %g", i, k, have[k], kept[i * 15 + k]);
    }
    printf("%d faces the same\n", count);
    for (int k = 0; k < 3; k++)
        for (int level = 0; level < RETINAFACE_LEVELS; level++) free(raw[k][level]);
    pass_memory_release(&memory);
    retinaface_release(&m, device);
    weight_store_close(s);
    free(kept);
    free(want);
    free(picture);
    free(path);
}

static void parsenet_agrees_with_torch(void **state)
{
    struct parsenet m;
    struct pass_memory memory;
    struct pass p;
    size_t n;
    char *path = drawn("parsenet", "parsenet", NULL, 0);
    struct weight_store *s = open_store(path);
    CHECK(parsenet_detect(&m, s, &err));
    assert_int_equal(m.classes, 19);
    load(s, visit_parsenet, &m);
    CHECK(parsenet_fold(&m, &err));
    float *want = read_floats("parsenet", &n), *face = drawn_picture("face", 3, 48, 40, 1);
    float *all = alloc_zero(48 * 40 * 19, sizeof *all), *some = alloc_zero(n, sizeof *some);
    assert_int_equal(n, 24 * 20 * 19);
    pass_memory_init(&memory, device, 0);
    pass_start(&p, &memory, DTYPE_F32, NULL);
    struct tensor x = pass_input(&p, face, 4, TENSOR_DIM(1, 48, 40, 3));
    pass_output(&p, all, parsenet_forward(&p, &m, x));
    CHECK(pass_finish(&p, &err));
    for (int i = 0; i < 24 * 20; i++)
        memcpy(some + i * 19, all + ((i / 20 * 2) * 40 + i % 20 * 2) * 19, 19 * sizeof *some);
    printf("%.2g of the largest apart\n", apart(some, want, n));
    assert_true(apart(some, want, n) < 2e-5);
    pass_memory_release(&memory);
    parsenet_release(&m, device);
    weight_store_close(s);
    free(all);
    free(some);
    free(want);
    free(face);
    free(path);
}

static void read_picture(struct pixels *p, const char *name)
{
    char *path = alloc_printf("%s/%s", folder, name);
    CHECK(image_read(p, NULL, path, &err));
    free(path);
}

/* OpenCV rounds positions to 1/32 of a pixel and shares to 1/32, we do not: levels of one or two. */
static double mean_difference(const struct pixels *a, const struct pixels *b, int *most)
{
    int64_t sum = 0, n = (int64_t)a->width * a->height * 3;
    assert_int_equal(a->width, b->width);
    assert_int_equal(a->height, b->height);
    *most = 0;
    for (int64_t i = 0; i < n; i++) {
        int d = abs(a->data[i / 3 * a->channels + i % 3] - b->data[i / 3 * b->channels + i % 3]);
        sum += d;
        *most = d > *most ? d : *most;
    }
    return (double)sum / (double)n;
}

static void faces_are_cut_and_laid_as_opencv_does(void **state)
{
    struct pixels picture = {0};
    size_t n;
    float *numbers = read_floats("align", &n);
    assert_int_equal(n, 3 * 10 + 3 * 6);
    read_picture(&picture, "align.png");
    for (int i = 0; i < 3; i++) {
        float point[5][2];
        const float *matrix = numbers + 30 + i * 6;
        struct similarity s;
        struct pixels face = {0}, want = {0}, small = {0}, laid = {0};
        char *name = alloc_printf("align-%d-face.png", i), *whole = alloc_printf("align-%d.png", i);
        int most;
        memcpy(point, numbers + i * 10, sizeof point);
        assert_true(align_find(&s, point, 512));
        assert_true(fabs(s.a - matrix[0]) < 1e-3 && fabs(s.b - matrix[3]) < 1e-3);
        assert_true(fabs(s.dx - matrix[2]) < 0.05 && fabs(s.dy - matrix[5]) < 0.05);
        CHECK(align_cut(&face, &picture, s, 512, &err));
        read_picture(&want, name);
        CHECK(pixels_new(&small, 64, 64, 3, &err));
        for (int k = 0; k < 64 * 64; k++)
            memcpy(small.data + k * 3, face.data + ((k / 64 * 8) * 512 + k % 64 * 8) * 3, 3);
        double mean = mean_difference(&small, &want, &most);
        printf("cut %d: mean %.3f, most %d\n", i, mean, most);
        assert_true(mean < 0.5 && most <= 6);
        for (int k = 0; k < 512 * 512 * 3; k++) face.data[k] = (uint8_t)(255 - face.data[k]);
        CHECK(pixels_convert(&laid, &picture, 4, &err));
        CHECK(align_paste(&laid, &face, s, NULL, 1, &err));
        pixels_release(&want);
        read_picture(&want, whole);
        mean = mean_difference(&laid, &want, &most);
        printf("laid %d: mean %.3f, most %d\n", i, mean, most);
        assert_true(mean < 0.5 && most <= 6);
        struct pixels *every[] = {&face, &want, &small, &laid};
        for (size_t k = 0; k < COUNT_OF(every); k++) pixels_release(every[k]);
        free(name);
        free(whole);
    }
    pixels_release(&picture);
    free(numbers);
}

static void masks_are_softened_as_opencv_does(void **state)
{
    struct pixels mask = {0};
    size_t n;
    float *want = read_floats("soften", &n);
    assert_int_equal(n, 16 * 16);
    CHECK(pixels_new(&mask, 256, 256, 1, &err));
    for (int i = 0; i < 256 * 256; i++) {
        int x = i % 256 - 120, y = i / 256 - 140;
        mask.data[i] = x * x + y * y < 5000 ? 255 : 0;
    }
    CHECK(align_soften(&mask, &err));
    for (int i = 17; i < 256; i++) { /* the first of each row and column are the cleared edge */
        int x = i % 16, y = i / 16;
        if (!x || !y) continue;
        int have = mask.data[y * 16 * 256 + x * 16];
        if (fabsf((float)have - want[i]) > 1.01f)
            fail_msg("%d %d: %d, not %g", x, y, have, want[i]);
    }
    assert_int_equal(mask.data[9 * 256 + 120], 0);
    pixels_release(&mask);
    free(want);
}

static void points_without_direction_are_no_face(void **state)
{
    struct similarity s;
    float same[5][2] = {{7, 7}, {7, 7}, {7, 7}, {7, 7}, {7, 7}};
    float broken[5][2] = {{NAN, 7}, {1, NAN}, {NAN, NAN}, {NAN, 1}, {2, NAN}};
    assert_false(align_find(&s, same, 512));
    assert_false(align_find(&s, broken, 512));
}

/* A finder that sees one large face wherever it looks: its eyes, nose and mouth where FFHQ's are. */
static char *one_face_finder(void)
{
    static const char *const words[] = {"ClassHead.0.conv1x1.weight=0",
                                        "ClassHead.1.conv1x1.weight=0",
                                        "ClassHead.0.conv1x1.bias=0", "ClassHead.1.conv1x1.bias=0"};
    return drawn("retinaface", "finder", words, 4);
}

struct counted {
    int last, steps, cancel_at;
};

static void on_progress(void *context, const struct pipeline_progress *progress)
{
    struct counted *c = context;
    assert_true(progress->step > c->last && progress->step <= progress->steps);
    c->last = progress->step;
    c->steps = progress->steps;
}

static bool on_canceled(void *context)
{
    struct counted *c = context;
    return c->cancel_at && c->last >= c->cancel_at;
}

/* The whole way with random networks: size and alpha stay, strength 0 changes nothing, the same twice. */
static void pictures_keep_their_form(void **state)
{
    char *finder = one_face_finder(), *network = drawn("gfpgan", "gfpgan", NULL, 0);
    struct restorer *r;
    struct restorer_options none = {.strength = 0}, wrong = {.strength = 1.5};
    struct pixels source = {0}, rgba = {0}, first = {0}, again = {0}, same = {0};
    struct counted counted = {0};
    struct pipeline_hooks hooks = {&counted, on_progress, on_canceled};
    struct error e = {0};
    int faces = 0, most;
    read_picture(&source, "align.png");
    CHECK(pixels_convert(&rgba, &source, 4, &err));
    for (int i = 0; i < rgba.width * rgba.height; i++) rgba.data[i * 4 + 3] = (uint8_t)(i % 251);
    CHECK(restorer_open(&r, device, &(struct restorer_files){network, finder, NULL}, &err));
    CHECK(restorer_run(r, &first, &rgba, NULL, &hooks, &faces, &err));
    CHECK(restorer_run(r, &again, &rgba, NULL, NULL, NULL, &err));
    printf("%d faces, %d steps\n", faces, counted.steps);
    assert_true(faces >= 1 && counted.last == counted.steps);
    assert_int_equal(first.channels, 4);
    assert_true(mean_difference(&first, &again, &most) == 0);
    assert_true(mean_difference(&first, &rgba, &most) > 0.01);
    for (int k = 0; k < rgba.width * rgba.height; k++)
        assert_int_equal(first.data[k * 4 + 3], rgba.data[k * 4 + 3]);
    CHECK(restorer_run(r, &same, &source, &none, NULL, NULL, &err));
    assert_true(mean_difference(&same, &source, &most) == 0);
    assert_int_equal(restorer_run(r, &same, &source, &wrong, NULL, NULL, &e), ERR_INVALID);
    counted = (struct counted){.cancel_at = 1};
    assert_int_equal(restorer_run(r, &same, &source, NULL, &hooks, NULL, &e), ERR_CANCELED);
    struct pixels *every[] = {&source, &rgba, &first, &again, &same};
    for (size_t k = 0; k < COUNT_OF(every); k++) pixels_release(every[k]);
    restorer_close(r);
    free(network);
    free(finder);
}

/* With a parser less of the face shows than without; half the strength is half of the way. */
static void masks_and_strength_are_heeded(void **state)
{
    char *finder = one_face_finder(), *parser = drawn("parsenet", "parser", NULL, 0);
    char *network = drawn("codeformer", "codeformer", NULL, 0);
    struct pixels source = {0}, square = {0}, half = {0}, parsed = {0};
    struct restorer_options some = {.strength = 0.5, .fidelity = 0.5};
    struct restorer *r;
    int most;
    read_picture(&source, "align.png");
    CHECK(restorer_open(&r, device, &(struct restorer_files){network, finder, NULL}, &err));
    CHECK(restorer_run(r, &square, &source, NULL, NULL, NULL, &err));
    CHECK(restorer_run(r, &half, &source, &some, NULL, NULL, &err));
    restorer_close(r);
    CHECK(restorer_open(&r, device, &(struct restorer_files){network, finder, parser}, &err));
    CHECK(restorer_run(r, &parsed, &source, NULL, NULL, NULL, &err));
    restorer_close(r);
    double whole = mean_difference(&square, &source, &most);
    double less = mean_difference(&half, &source, &most);
    double masked = mean_difference(&parsed, &source, &most);
    printf("changed by %.2f, at half strength %.2f, with a parser %.2f\n", whole, less, masked);
    assert_true(less > 0 && less < whole);
    assert_true(masked > 0 && masked < whole);
    struct pixels *every[] = {&source, &square, &half, &parsed};
    for (size_t k = 0; k < COUNT_OF(every); k++) pixels_release(every[k]);
    free(network);
    free(finder);
    free(parser);
}

static void other_files_are_refused(void **state)
{
    char *finder = one_face_finder(), *parser = drawn("parsenet", "parser", NULL, 0);
    struct restorer *r;
    struct error err = {0};
    assert_int_equal(
        restorer_open(&r, device, &(struct restorer_files){parser, finder, NULL}, &err),
        ERR_FORMAT);
    assert_non_null(strstr(err.text, "no GFPGAN and no CodeFormer"));
    assert_int_equal(
        restorer_open(&r, device, &(struct restorer_files){finder, parser, NULL}, &err),
        ERR_FORMAT);
    assert_non_null(strstr(err.text, "no RetinaFace"));
    free(finder);
    free(parser);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gfpgan_agrees_with_torch),
        cmocka_unit_test(codeformer_agrees_with_torch),
        cmocka_unit_test(retinaface_agrees_with_torch),
        cmocka_unit_test(parsenet_agrees_with_torch),
        cmocka_unit_test(faces_are_cut_and_laid_as_opencv_does),
        cmocka_unit_test(masks_are_softened_as_opencv_does),
        cmocka_unit_test(points_without_direction_are_no_face),
        cmocka_unit_test(pictures_keep_their_form),
        cmocka_unit_test(masks_and_strength_are_heeded),
        cmocka_unit_test(other_files_are_refused),
    };
    if (argc < 2) {
        fprintf(stderr, "usage: test_faces FOLDER\n");
        return 2;
    }
    folder = argv[1];
    if (!mkdtemp(scratch) || device_open(&device, "cpu", NULL)) return 1;
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    device_close(device);
    char *clean = alloc_printf("rm -rf %s", scratch);
    if (system(clean)) rc = 1;
    free(clean);
    return rc;
}
