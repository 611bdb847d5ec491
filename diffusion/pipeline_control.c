/* The ControlNets of a request: their maps, their networks, kept with the model from job to job. */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/str.h"
#include "diffusion/control/annotator.h"
#include "diffusion/control/control_net.h"
#include "diffusion/control/frame.h"
#include "diffusion/control/map.h"
#include "diffusion/pipeline_run.h"
#include "image/apart.h"
#include "image/resize.h"

/* The request's first ControlNet stands beside the others there; here they are all alike. */
struct wanted {
    const char *type, *path;
    const struct blob *image;
    double strength;
    bool is_map;
};

static int list_wanted(const struct image_request *r, struct wanted list[REQUEST_CONTROLS_MAX])
{
    int n = 0;
    if (r->control_type && !r->qr.text)
        list[n++] = (struct wanted){.type = r->control_type,
                                    .path = r->control_path,
                                    .image = &r->control_image,
                                    .strength = r->control_strength,
                                    .is_map = r->image_is_control};
    for (int i = 0; i < r->more_control_count; i++) {
        const struct request_control *c = &r->more_controls[i];
        list[n++] = (struct wanted){.type = c->type,
                                    .path = c->path,
                                    .image = &c->image,
                                    .strength = c->strength,
                                    .is_map = c->is_map};
    }
    return n;
}

static int sized_rgb(struct pixels *to, const struct pixels *from, int width, int height,
                     struct error *err)
{
    struct pixels rgb = {0};
    int rc = pixels_convert(&rgb, from, 3, err);
    if (!rc) rc = pixels_resize(to, &rgb, width, height, RESIZE_LANCZOS, err);
    pixels_release(&rgb);
    return rc;
}

/* By a network where its checkpoint is there, else drawn without one. */
static int draw(const struct run *run, struct pixels *map, const struct pixels *from,
                const char *type, struct error *err)
{
    const char *folder = run->hooks ? run->hooks->annotators : NULL;
    if (control_map_known(type) && !annotator_available(type, folder))
        return control_map(map, from, type, err);
    return annotator_map(map, from, type, run->m->device, folder, err);
}

static int annotate(const struct run *run, struct pixels *map, const struct pixels *from,
                    const char *type, struct error *err)
{
    struct pixels frame = {0}, drawn = {0};
    int side = run->r->width_px < run->r->height_px ? run->r->width_px : run->r->height_px, w, h;
    int rc = control_frame(&frame, &w, &h, from, type, side, err);
    if (!rc) rc = draw(run, &drawn, &frame, type, err);
    if (!rc) rc = pixels_crop(map, &drawn, 0, 0, w, h, err);
    pixels_release(&frame);
    pixels_release(&drawn);
    return rc;
}

static int make_map(const struct run *run, struct pixels *map, const struct wanted *wanted,
                    struct error *err)
{
    const struct image_request *r = run->r;
    const struct blob *blob = wanted->image->data ? wanted->image : &r->source;
    struct pixels raw = {0}, sized = {0};
    int w, h;
    if (!wanted->type) return error_set(err, ERR_INVALID, "a ControlNet without a control type");
    if (!blob->data)
        return error_set(err, ERR_INVALID, "control type %s needs a picture", wanted->type);
    int rc = apart_decode(&raw, "the control image", blob->data, blob->length, err);
    control_source_size(run->m->info.family, r->width_px, r->height_px, &w, &h);
    if (!rc) rc = sized_rgb(&sized, &raw, w, h, err);
    if (!rc && !wanted->is_map) rc = annotate(run, map, &sized, wanted->type, err);
    if (!rc && wanted->is_map) {
        *map = sized;
        sized = (struct pixels){0};
    }
    pixels_release(&raw);
    pixels_release(&sized);
    return rc;
}

/* Makes room: closes what a request with ControlNets does not use. */
static void drop_others(struct model *m, const struct image_request *r, const struct wanted *list,
                        int count)
{
    for (int i = 0; (count || r->qr.text) && i < REQUEST_CONTROLS_MAX; i++) {
        bool used = r->qr.text && str_equal(m->control_paths[i], r->control_path);
        for (int k = 0; k < count; k++) used = used || str_equal(m->control_paths[i], list[k].path);
        if (used || !m->control_paths[i]) continue;
        control_net_close(m->controls[i]);
        m->layers_changed++;
        free(m->control_paths[i]);
        m->controls[i] = NULL;
        m->control_paths[i] = NULL;
    }
}

int run_open_control_net(struct run *run, struct control_net **net, const char *path,
                         struct error *err)
{
    struct model *m = run->m;
    int at = -1;
    for (int i = 0; i < REQUEST_CONTROLS_MAX; i++)
        if (str_equal(m->control_paths[i], path)) at = i;
    for (int i = 0; at < 0 && i < REQUEST_CONTROLS_MAX; i++) {
        if (m->control_paths[i]) continue;
        int rc = control_net_open(&m->controls[i], m, path, err);
        if (rc) return rc;
        m->control_paths[i] = alloc_string(path);
        at = i;
    }
    KILN_ASSERT(at >= 0, "no place for %s", path);
    control_net_set_circular(m->controls[at], run->r->tiling);
    *net = m->controls[at];
    return 0;
}

int run_open_controls(struct run *run, struct error *err)
{
    const struct image_request *r = run->r;
    struct wanted list[REQUEST_CONTROLS_MAX];
    int count = list_wanted(r, list), rc = 0;
    drop_others(run->m, r, list, count);
    for (int i = 0; i < count && !rc; i++) {
        struct run_control *c = &run->controls[i];
        rc = make_map(run, &c->map, &list[i], err);
        if (rc) break;
        run->control_count = i + 1;
        c->strength = list[i].strength;
        if (r->return_control_map) return 0;
        if (!list[i].path)
            rc = error_set(err, ERR_INVALID, "control type %s needs a ControlNet file",
                           list[i].type);
        if (!rc) rc = run_open_control_net(run, &c->net, list[i].path, err);
    }
    return rc;
}

void run_release_controls(struct run *run)
{
    for (int i = 0; i < run->control_count; i++) pixels_release(&run->controls[i].map);
    run->control_count = 0;
}
