/*
 * People as dots and sticks against controlnet_aux (make_openpose.py): what the network is shown,
 * what it says, and what is drawn out of it.
 *
 * usage: test_openpose DATA PICTURE.png
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "diffusion/control/body_pose.h"
#include "image/codec.h"

static const char *data, *picture;
static struct device *device;
static struct weight_store *golden;

static void read_picture(struct pixels *p, const char *name)
{
    struct error err;
    char *path = alloc_printf("%s/%s.png", data, name);
    if (image_read(p, NULL, path, &err)) fail_msg("%s", err.text);
    free(path);
}

/* Every `step`th number against a golden: relative error of all, largest error of one. */
static double compare(const float *have, int64_t n, int step, const char *name, double *most)
{
    const struct safetensors_entry *e = weight_store_find(golden, name);
    assert_non_null(e);
    assert_int_equal(e->dim[0], (n + step - 1) / step);
    double off = 0, norm = 0;
    *most = 0;
    for (int64_t i = 0; i < e->dim[0]; i++) {
        double want = ((const float *)e->data)[i], d = fabs(have[i * step] - want);
        off += d * d;
        norm += want * want;
        *most = fmax(*most, d);
    }
    print_message("%s: %.3g relative, %.3g at most\n", name, sqrt(off / norm), *most);
    return sqrt(off / norm);
}

/* Every pixel four times. */
static void doubled(struct pixels *to, const struct pixels *from)
{
    assert_int_equal(pixels_new(to, 2 * from->width, 2 * from->height, 3, NULL), 0);
    for (int i = 0; i < to->width * to->height; i++) {
        int at = i / to->width / 2 * from->width + i % to->width / 2;
        memcpy(to->data + i * 3, from->data + at * 3, 3);
    }
}

static void the_network_is_shown_the_reference_s_picture(void **state)
{
    struct pixels small, large;
    if (image_read(&small, NULL, picture, NULL)) fail_msg("%s", picture);
    doubled(&large, &small);
    for (int i = 0; i < 2; i++) {
        int columns, rows, w, h;
        double most;
        float *in = pose_input(i ? &large : &small, &columns, &rows, &w, &h);
        assert_non_null(in);
        assert_int_equal(columns, 280);
        assert_int_equal(rows, 184);
        assert_int_equal(w, 276);
        assert_int_equal(h, 184);
        compare(in, (int64_t)columns * rows * 3, 307, i ? "shrunk" : "enlarged", &most);
        /* bytes are rounded by fixed point numbers there: one level may tip */
        assert_true(most <= 1.001 / 256);
        free(in);
    }
    pixels_release(&small);
    pixels_release(&large);
}

static void the_network_says_the_same(void **state)
{
    struct annotator a = {.device = device};
    struct pixels p;
    struct error err;
    double most;
    char *path = alloc_printf("%s/body_pose_model.safetensors", data);
    if (image_read(&p, NULL, picture, &err)) fail_msg("%s", err.text);
    if (weight_store_open(&a.store, path, &err)) fail_msg("%s", err.text);
    pass_memory_init(&a.memory, device, 0);
    int n = p.width * p.height, cells = n / 64;
    float *in = alloc_zero((size_t)n * 3, sizeof *in);
    float *fields = alloc_zero((size_t)cells * POSE_FIELDS, sizeof *fields);
    float *heats = alloc_zero((size_t)cells * POSE_HEATS, sizeof *heats);
    for (int i = 0; i < n * 3; i++) in[i] = (float)p.data[i / 3 * 3 + 2 - i % 3] / 256 - 0.5f;
    if (pose_network(&a, fields, heats, in, p.width, p.height, &err)) fail_msg("%s", err.text);
    assert_true(compare(fields, cells * POSE_FIELDS, 41, "fields", &most) <= 1e-5);
    assert_true(compare(heats, cells * POSE_HEATS, 41, "heats", &most) <= 1e-5);
    weight_store_close(a.store);
    a.store = golden;
    assert_int_equal(pose_network(&a, fields, heats, in, 8, 8, &err), ERR_FORMAT);
    assert_non_null(strstr(err.text, "golden.safetensors holds no body network"));
    free(in);
    free(fields);
    free(heats);
    pass_memory_release(&a.memory);
    pixels_release(&p);
    free(path);
}

/* fields of 38 planes, then heats of 19, as bytes one below the other */
static void read_maps(struct pose_maps *m, const char *name)
{
    struct pixels p;
    char *file = alloc_printf("%s_maps", name);
    read_picture(&p, file);
    m->columns = p.width;
    m->rows = p.height / (POSE_FIELDS + POSE_HEATS);
    int cells = m->columns * m->rows;
    m->fields = alloc_zero((size_t)cells * POSE_FIELDS, sizeof *m->fields);
    m->heats = alloc_zero((size_t)cells * POSE_HEATS, sizeof *m->heats);
    for (int c = 0; c < POSE_FIELDS + POSE_HEATS; c++)
        for (int i = 0; i < cells; i++) {
            float v = p.data[(c * cells + i) * p.channels];
            if (c < POSE_FIELDS)
                m->fields[i * POSE_FIELDS + c] = (v - 128) / 127;
            else
                m->heats[i * POSE_HEATS + c - POSE_FIELDS] = v / 255;
        }
    pixels_release(&p);
    free(file);
}

static int differing(const struct pixels *a, const struct pixels *b)
{
    int n = 0;
    assert_int_equal(a->width, b->width);
    assert_int_equal(a->height, b->height);
    for (int i = 0; i < a->width * a->height; i++) {
        const uint8_t *x = a->data + i * 3, *y = b->data + i * b->channels;
        bool same = true;
        for (int c = 0; c < 3; c++) same = same && x[c] == y[b->channels < 3 ? 0 : c];
        n += !same;
    }
    return n;
}

static void people_are_found_and_drawn(void **state)
{
    static const struct {
        const char *name;
        int people, width;
    } cases[] = {{"people", 3, 230}, {"small", 3, 276}, {"nobody", 0, 184}};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct pose_maps maps = {.width = cases[i].width, .height = 184};
        struct poses poses;
        struct pixels want, have;
        struct error err;
        read_maps(&maps, cases[i].name);
        read_picture(&want, cases[i].name);
        if (poses_find(&poses, &maps, want.width, want.height, &err)) fail_msg("%s", err.text);
        assert_int_equal(poses.body_count, cases[i].people);
        if (poses_draw(&have, &poses, want.width, want.height, &err)) fail_msg("%s", err.text);
        int off = differing(&have, &want);
        print_message("%s: %d people, %d pixels differ\n", cases[i].name, poses.body_count, off);
        assert_int_equal(off, 0);
        poses_release(&poses);
        pixels_release(&want);
        pixels_release(&have);
        free(maps.fields);
        free(maps.heats);
    }
}

/* A network gone wild: a nose in every fourth cell, or no numbers at all. */
static void noise_is_refused(void **state)
{
    enum { SIDE = 80, CELLS = SIDE * SIDE, PX = SIDE * POSE_STRIDE };
    static float fields[CELLS * POSE_FIELDS], heats[CELLS * POSE_HEATS];
    struct pose_maps maps = {fields, heats, SIDE, SIDE, PX, PX};
    struct poses poses;
    struct error err;
    for (int i = 0; i < CELLS; i++) heats[i * POSE_HEATS] = i % SIDE % 2 == 0 && i / SIDE % 2 == 0;
    assert_int_equal(poses_find(&poses, &maps, PX, PX, &err), ERR_UNSUPPORTED);
    assert_non_null(strstr(err.text, "more than 1024"));
    for (int i = 0; i < CELLS * POSE_HEATS; i++) heats[i] = NAN;
    assert_int_equal(poses_find(&poses, &maps, 256, 256, &err), 0);
    assert_int_equal(poses.body_count, 0);
    poses_release(&poses);
}

/* This small network sees people in everything: dozens of them. */
static void the_whole_way_is_walked(void **state)
{
    struct pixels small, from, map, want;
    struct error err;
    if (image_read(&small, NULL, picture, &err)) fail_msg("%s", err.text);
    doubled(&from, &small);
    read_picture(&want, "shrunk");
    assert_true(annotator_available("OpenPose", data));
    assert_int_equal(annotator_map(&map, &from, "hed", device, data, &err), ERR_NOT_FOUND);
    if (annotator_map(&map, &from, "openpose", device, data, &err)) fail_msg("%s", err.text);
    int off = differing(&map, &want);
    print_message("%d of %d pixels differ\n", off, map.width * map.height);
    assert_int_equal(off, 0);
    pixels_release(&map);
    pixels_release(&want);
    pixels_release(&small);
    pixels_release(&from);
}

int main(int argc, char **argv)
{
    struct error err;
    if (argc < 3) return 2;
    data = argv[1];
    picture = argv[2];
    char *path = alloc_printf("%s/golden.safetensors", data);
    if (device_open(&device, "cpu", NULL) || weight_store_open(&golden, path, &err)) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_network_is_shown_the_reference_s_picture),
        cmocka_unit_test(the_network_says_the_same), cmocka_unit_test(people_are_found_and_drawn),
        cmocka_unit_test(noise_is_refused), cmocka_unit_test(the_whole_way_is_walked)};
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    weight_store_close(golden);
    device_close(device);
    free(path);
    return rc;
}
