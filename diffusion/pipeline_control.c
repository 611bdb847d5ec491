/* The ControlNet of a request: its map, its network, kept with the model from job to job. */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "diffusion/control/control_net.h"
#include "diffusion/control/map.h"
#include "diffusion/pipeline_run.h"
#include "image/apart.h"
#include "image/resize.h"

static int sized_rgb(struct pixels *to, const struct pixels *from, int width, int height,
                     struct error *err)
{
    struct pixels rgb = {0};
    int rc = pixels_convert(&rgb, from, 3, err);
    if (!rc) rc = pixels_resize(to, &rgb, width, height, RESIZE_LANCZOS, err);
    pixels_release(&rgb);
    return rc;
}

static int make_map(struct run *run, struct error *err)
{
    const struct image_request *r = run->r;
    const struct blob *blob = r->control_image.data ? &r->control_image : &r->source;
    struct pixels raw = {0}, sized = {0};
    if (!blob->data)
        return error_set(err, ERR_INVALID, "control type %s needs a picture", r->control_type);
    int rc = apart_decode(&raw, "the control image", blob->data, blob->length, err);
    if (!rc) rc = sized_rgb(&sized, &raw, r->width_px, r->height_px, err);
    if (!rc && !r->image_is_control)
        rc = control_map(&run->control_map, &sized, r->control_type, err);
    if (!rc && r->image_is_control) {
        run->control_map = sized;
        sized = (struct pixels){0};
    }
    pixels_release(&raw);
    pixels_release(&sized);
    return rc;
}

int run_open_control(struct run *run, struct error *err)
{
    const struct image_request *r = run->r;
    struct model *m = run->m;
    if (!r->control_type) return 0;
    int rc = make_map(run, err);
    if (rc || r->return_control_map) return rc;
    if (!r->control_path)
        return error_set(err, ERR_INVALID, "control type %s needs a ControlNet file",
                         r->control_type);
    if (!m->control || strcmp(m->control_path, r->control_path) != 0) {
        control_net_close(m->control);
        free(m->control_path);
        m->control = NULL;
        m->control_path = NULL;
        rc = control_net_open(&m->control, m, r->control_path, err);
        if (rc) return rc;
        m->control_path = alloc_string(r->control_path);
    }
    control_net_set_circular(m->control, r->tiling);
    run->control = m->control;
    return 0;
}

int run_control_picture(const struct run *run, int width, int height, float **picture,
                        struct error *err)
{
    struct pixels sized = {0};
    size_t n = (size_t)width * (size_t)height * 3;
    int rc = pixels_resize(&sized, &run->control_map, width, height, RESIZE_LANCZOS, err);
    if (rc) return rc;
    float *made = alloc_try(n, sizeof *made);
    for (size_t i = 0; made && i < n; i++) made[i] = (float)sized.data[i] / 255.0f;
    pixels_release(&sized);
    if (!made) return error_set(err, ERR_NO_MEMORY, "no memory for the control image");
    *picture = made;
    return 0;
}
