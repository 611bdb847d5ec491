/* JSON exports: VGG and COCO polygons, and whole-image tags. */
#include <jansson.h>
#include <math.h>
#include <string.h>

#include "dataset/annotations.h"

/* Adds one ring; a ring of fewer than three points has no inside and is left out. */
static void add_ring(struct region *r, const json_t *xs, const json_t *ys, size_t stride,
                     size_t from)
{
    size_t count = json_array_size(xs) / stride;
    if (count < 3) return;
    if (r->point_count) annotations_point(r, NAN, NAN);
    for (size_t i = 0; i < count; i++)
        annotations_point(r, json_number_value(json_array_get(xs, i * stride)),
                          json_number_value(json_array_get(ys, i * stride + from)));
}

/* Encloses the points of the region; false when there are none or they are no numbers. */
static bool enclose(struct region *r)
{
    double low[2] = {INFINITY, INFINITY}, high[2] = {-INFINITY, -INFINITY};
    for (int i = 0; i < r->point_count; i++) {
        if (isnan(r->point[2 * i])) continue;
        for (int k = 0; k < 2; k++) {
            low[k] = fmin(low[k], r->point[2 * i + k]);
            high[k] = fmax(high[k], r->point[2 * i + k]);
        }
    }
    if (!(high[0] >= low[0]) || !isfinite(high[0] + high[1] + low[0] + low[1])) {
        r->point_count = 0;
        return false;
    }
    r->x = low[0];
    r->y = low[1];
    r->w = high[0] - low[0];
    r->h = high[1] - low[1];
    return true;
}

static void vgg_regions(struct annotations *a, const char *name, const json_t *regions)
{
    struct annotated *image = annotations_image(a, name, false);
    size_t count = json_is_array(regions) ? json_array_size(regions) : json_object_size(regions);
    void *iter = json_is_object(regions) ? json_object_iter((json_t *)regions) : NULL;
    for (size_t i = 0; i < count; i++) {
        const json_t *one = iter ? json_object_iter_value(iter) : json_array_get(regions, i);
        if (iter) iter = json_object_iter_next((json_t *)regions, iter);
        const json_t *shape = json_object_get(one, "shape_attributes");
        const json_t *label = json_object_get(json_object_get(one, "region_attributes"), "label");
        struct region *r = annotations_region(image, REGION_POLYGON, json_string_value(label), 0);
        const json_t *xs = json_object_get(shape, "all_points_x");
        const json_t *ys = json_object_get(shape, "all_points_y");
        if (json_array_size(xs) == json_array_size(ys)) add_ring(r, xs, ys, 1, 0);
        if (!enclose(r)) annotations_problem(a, "region %zu of %s has no points", i, name);
        if (!r->label) annotations_problem(a, "region %zu of %s has no label", i, name);
    }
}

static int read_vgg(struct annotations *a, const json_t *root)
{
    const char *key;
    json_t *value;
    a->format = ANNOTATIONS_VGG;
    json_object_foreach((json_t *)root, key, value)
    {
        const char *name = json_string_value(json_object_get(value, "filename"));
        vgg_regions(a, name ? name : key, json_object_get(value, "regions"));
    }
    return 0;
}

static const json_t *by_id(const json_t *list, const json_t *id)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *one = json_array_get(list, i);
        if (id && json_equal(json_object_get(one, "id"), id)) return one;
    }
    return NULL;
}

static int read_coco(struct annotations *a, const json_t *root)
{
    const json_t *images = json_object_get(root, "images");
    const json_t *categories = json_object_get(root, "categories");
    const json_t *list = json_object_get(root, "annotations");
    a->format = ANNOTATIONS_COCO;
    for (size_t i = 0; i < json_array_size(images); i++) {
        const json_t *one = json_array_get(images, i);
        const char *name = json_string_value(json_object_get(one, "file_name"));
        if (!name) continue;
        struct annotated *image = annotations_image(a, name, false);
        image->width = (int)json_integer_value(json_object_get(one, "width"));
        image->height = (int)json_integer_value(json_object_get(one, "height"));
    }
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *one = json_array_get(list, i);
        const json_t *owner = by_id(images, json_object_get(one, "image_id"));
        const char *name = json_string_value(json_object_get(owner, "file_name"));
        if (!name) {
            annotations_problem(a, "annotation %zu belongs to no image of the file", i);
            continue;
        }
        const json_t *category = by_id(categories, json_object_get(one, "category_id"));
        const char *label = json_string_value(json_object_get(category, "name"));
        struct region *r =
            annotations_region(annotations_image(a, name, false), REGION_POLYGON, label, 0);
        const json_t *rings = json_object_get(one, "segmentation");
        const json_t *box = json_object_get(one, "bbox");
        for (size_t k = 0; k < json_array_size(rings); k++) {
            const json_t *ring = json_array_get(rings, k);
            add_ring(r, ring, ring, 2, 1);
        }
        bool shaped = enclose(r);
        if (json_array_size(box) == 4) {
            r->x = json_number_value(json_array_get(box, 0));
            r->y = json_number_value(json_array_get(box, 1));
            r->w = json_number_value(json_array_get(box, 2));
            r->h = json_number_value(json_array_get(box, 3));
            if (!shaped) r->kind = REGION_BOX;
        } else if (!shaped) {
            annotations_problem(a, "annotation %zu in %s has neither box nor points", i, name);
        }
        if (!r->label) annotations_problem(a, "annotation %zu in %s has no label", i, name);
    }
    return 0;
}

static int read_tags(struct annotations *a, const json_t *root)
{
    a->format = ANNOTATIONS_TAGS_JSON;
    for (size_t i = 0; i < json_array_size(root); i++) {
        const json_t *one = json_array_get(root, i);
        const char *name = json_string_value(json_object_get(one, "image"));
        const json_t *list = json_object_get(one, "annotations");
        if (!name) {
            annotations_problem(a, "entry %zu names no image", i);
            continue;
        }
        struct annotated *image = annotations_image(a, name, false);
        for (size_t j = 0; j < json_array_size(list); j++)
            annotations_tag(image, json_string_value(json_array_get(list, j)));
    }
    return 0;
}

int annotations_read_json(struct annotations *a, const char *text, const char *path,
                          struct error *err)
{
    json_error_t where;
    json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, &where);
    if (!root) root = json_loads(text, 0, &where);
    if (!root)
        return error_set(err, ERR_FORMAT, "%s is broken JSON: line %d: %s", path, where.line,
                         where.text);
    int rc = 0;
    if (json_is_array(root))
        rc = read_tags(a, root);
    else if (json_is_array(json_object_get(root, "images")))
        rc = read_coco(a, root);
    else
        rc = read_vgg(a, root);
    json_decref(root);
    return rc;
}
