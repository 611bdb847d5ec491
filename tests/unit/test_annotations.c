/* dataset/annotations: what makesense.ai writes, and what spreadsheets make of it. */
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
#include "dataset/annotations.h"

static char folder[] = "/tmp/kiln-annotations-XXXXXX";

static char *write_file(const char *name, const char *text)
{
    char *path = alloc_printf("%s/%s", folder, name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
    return path;
}

static struct annotations read_text(const char *name, const char *text, enum annotation_hint hint)
{
    struct annotations a;
    struct error err;
    char *path = write_file(name, text);
    if (annotations_open(&a, path, hint, &err)) fail_msg("%s", err.text);
    unlink(path);
    free(path);
    return a;
}

static const struct annotated *image_named(const struct annotations *a, const char *name)
{
    for (int i = 0; i < a->count; i++)
        if (!strcmp(a->item[i].image, name)) return &a->item[i];
    fail_msg("no image %s", name);
    return NULL;
}

static void check_region(const struct region *r, enum region_kind kind, const char *label, double x,
                         double y, double w, double h)
{
    assert_int_equal(r->kind, kind);
    if (label)
        assert_string_equal(r->label, label);
    else
        assert_null(r->label);
    assert_float_equal(r->x, x, 1e-3);
    assert_float_equal(r->y, y, 1e-3);
    assert_float_equal(r->w, w, 1e-3);
    assert_float_equal(r->h, h, 1e-3);
}

static void boxes_with_header(void **state)
{
    struct annotations a = read_text(
        "a.csv",
        "label_name,bbox_x,bbox_y,bbox_width,bbox_height,image_name,image_width,image_height\n"
        "oven,120,86,340,255,kitchen-03.jpg,1024,768\n"
        "table, round,40,12,210,700,my, kitchen.jpg,1024,768\n"
        ",5,6,7,8,kitchen-03.jpg,1024,768",
        ANNOTATIONS_GUESS);
    assert_int_equal(a.count, 2);
    const struct annotated *k = image_named(&a, "kitchen-03.jpg");
    assert_int_equal(k->width, 1024);
    assert_int_equal(k->region_count, 2);
    check_region(&k->region[0], REGION_BOX, "oven", 120, 86, 340, 255);
    check_region(&k->region[1], REGION_BOX, NULL, 5, 6, 7, 8);
    const struct annotated *m = image_named(&a, "my, kitchen.jpg");
    check_region(&m->region[0], REGION_BOX, "table, round", 40, 12, 210, 700);
    assert_int_equal(a.problem_count, 1); /* the empty label */
    assert_false(a.lines_guessed);
    annotations_release(&a);
}

static void boxes_without_header_and_lines(void **state)
{
    struct annotations a =
        read_text("b.csv", "oven,120,86,340,255,k.jpg,1024,768\n", ANNOTATIONS_GUESS);
    assert_int_equal(a.item[0].region[0].kind, REGION_BOX);
    assert_true(a.lines_guessed);
    annotations_release(&a);
    const char *lines = "kerb,10,400,900,412,s.jpg,1024,768\nkerb,500,20,90,40,s.jpg,1024,768\n";
    a = read_text("c.csv", lines, ANNOTATIONS_GUESS); /* 400 + 412 > 768: no box */
    check_region(&a.item[0].region[0], REGION_LINE, "kerb", 10, 400, 890, 12);
    check_region(&a.item[0].region[1], REGION_LINE, "kerb", 90, 20, 410, 20);
    annotations_release(&a);
    a = read_text("c.csv", lines, ANNOTATIONS_ARE_BOXES);
    assert_int_equal(a.item[0].region[0].kind, REGION_BOX);
    annotations_release(&a);
}

static void points_and_a_spreadsheet(void **state)
{
    struct annotations a =
        read_text("p.csv", "chimney,312,44,street-01.jpg,1024,768", ANNOTATIONS_GUESS);
    check_region(&a.item[0].region[0], REGION_POINT, "chimney", 312, 44, 0, 0);
    annotations_release(&a);
    a = read_text("q.csv",
                  "\xef\xbb\xbflabel_name;bbox_x;bbox_y;bbox_width;bbox_height;image_name;"
                  "image_width;image_height\r\n\"oven; \"\"old\"\"\";1;2;3;4;\"k.jpg\";10;20\r\n"
                  "not a row\r\n",
                  ANNOTATIONS_GUESS);
    check_region(&image_named(&a, "k.jpg")->region[0], REGION_BOX, "oven; \"old\"", 1, 2, 3, 4);
    assert_int_equal(a.problem_count, 1);
    annotations_release(&a);
}

static void tags(void **state)
{
    struct annotations a = read_text(
        "t.csv", "kitchen-03.jpg,\"[oven,woman,tiles]\"\n\na, b.jpg,\"[oven]\"", ANNOTATIONS_GUESS);
    assert_int_equal(a.format, ANNOTATIONS_TAGS_CSV);
    assert_int_equal(a.count, 2);
    assert_int_equal(image_named(&a, "kitchen-03.jpg")->tag_count, 3);
    assert_string_equal(image_named(&a, "kitchen-03.jpg")->tag[1], "woman");
    assert_string_equal(image_named(&a, "a, b.jpg")->tag[0], "oven");
    annotations_release(&a);
    a = read_text("t.json", "[{\"image\":\"k.jpg\",\"annotations\":[\"oven\",\"tiles\"]}]",
                  ANNOTATIONS_GUESS);
    assert_int_equal(a.item[0].tag_count, 2);
    annotations_release(&a);
}

static void vgg_and_coco(void **state)
{
    struct annotations a = read_text(
        "v.json",
        "{\"street-01.jpg\":{\"fileref\":\"\",\"size\":204800,\"filename\":\"street-01.jpg\","
        "\"base64_img_data\":\"\",\"file_attributes\":{},\"regions\":{\"0\":{\"shape_attributes\":"
        "{\"name\":\"polygon\",\"all_points_x\":[10,90.5,50,10],\"all_points_y\":[5,5,80,5]},"
        "\"region_attributes\":{\"label\":\"street\"}}}}}",
        ANNOTATIONS_GUESS);
    assert_int_equal(a.format, ANNOTATIONS_VGG);
    check_region(&a.item[0].region[0], REGION_POLYGON, "street", 10, 5, 80.5, 75);
    annotations_release(&a);
    a = read_text(
        "c.json",
        "{\"info\":{\"description\":\"p\"},\"images\":[{\"id\":1,\"width\":100,"
        "\"height\":80,\"file_name\":\"s.jpg\"}],\"annotations\":[{\"id\":0,\"iscrowd\":0,"
        "\"image_id\":1,\"category_id\":2,\"segmentation\":[[1,2,30,2,30,40]],\"bbox\":"
        "[1,2,29,38],\"area\":1},{\"id\":1,\"image_id\":1,\"segmentation\":[[1,2,3,4,5,6]],"
        "\"bbox\":[1,2,4,4]}],\"categories\":[{\"id\":2,\"name\":\"street\"}]}",
        ANNOTATIONS_GUESS);
    assert_int_equal(a.format, ANNOTATIONS_COCO);
    check_region(&a.item[0].region[0], REGION_POLYGON, "street", 1, 2, 29, 38);
    check_region(&a.item[0].region[1], REGION_POLYGON, NULL, 1, 2, 4, 4);
    assert_int_equal(a.problem_count, 1);
    annotations_release(&a);
}

static void yolo_and_voc(void **state)
{
    char *labels = write_file("labels.txt", "oven\nwoman\n");
    char *box = write_file("k.txt", "1 0.5 0.5 0.25 0.5\n7 0.5 0.5 0.1 0.1\nrubbish\n");
    struct annotations a;
    struct error err;
    assert_int_equal(annotations_open(&a, folder, ANNOTATIONS_GUESS, &err), 0);
    assert_int_equal(a.format, ANNOTATIONS_YOLO);
    assert_true(a.item[0].stem);
    check_region(&a.item[0].region[0], REGION_BOX, "woman", .375, .25, .25, .5);
    assert_string_equal(a.item[0].region[1].label, "class 7");
    assert_int_equal(a.problem_count, 2);
    annotations_release(&a);
    unlink(labels);
    unlink(box);
    free(labels);
    free(box);
    char *voc = write_file(
        "k.xml", "<annotation>\n\t<folder>p</folder>\n\t<filename>pots & pans.jpg</filename>\n"
                 "\t<size><width>640</width><height>480</height><depth>3</depth></size>\n"
                 "\t<object>\n\t\t<name>oven < old</name>\n\t\t<bndbox><xmin>120</xmin>"
                 "<ymin>86</ymin><xmax>460</xmax><ymax>341</ymax></bndbox>\n\t</object>\n"
                 "</annotation>\n");
    assert_int_equal(annotations_open(&a, folder, ANNOTATIONS_GUESS, &err), 0);
    assert_int_equal(a.format, ANNOTATIONS_VOC);
    const struct annotated *k = image_named(&a, "pots & pans.jpg");
    assert_int_equal(k->width, 640);
    check_region(&k->region[0], REGION_BOX, "oven < old", 120, 86, 340, 255);
    annotations_release(&a);
    unlink(voc);
    free(voc);
}

static void what_is_no_export(void **state)
{
    static const char *const bad[] = {"", "hello\n", "{\"a\":", "a,b,c\n1,2,3\n", "PK\3\4rest"};
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        struct annotations a;
        struct error err = {0};
        char *path = write_file("bad", bad[i]);
        int rc = annotations_open(&a, path, ANNOTATIONS_GUESS, &err);
        assert_int_equal(rc, ERR_FORMAT);
        assert_non_null(strstr(err.text, path));
        unlink(path);
        free(path);
    }
}

static int make_folder(void **state)
{
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(boxes_with_header),
        cmocka_unit_test(boxes_without_header_and_lines),
        cmocka_unit_test(points_and_a_spreadsheet),
        cmocka_unit_test(tags),
        cmocka_unit_test(vgg_and_coco),
        cmocka_unit_test(yolo_and_voc),
        cmocka_unit_test(what_is_no_export),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
