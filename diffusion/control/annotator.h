/*
 * annotator.h - control maps that a network draws, when its checkpoint is there.
 *
 * Place    before control_net.h, in place of map.h's drawings; the table of names and files is
 *          proto/terms.h's, the one of functions is here.
 * Owner    a network is opened for one map and closed after it. Results are the caller's pixels,
 *          RGB, the source's size. One thread.
 * Failure  ERR_NOT_FOUND naming the file that is missing; ERR_IO, ERR_FORMAT (file);
 *          ERR_UNSUPPORTED for types without a network; ERR_NO_MEMORY, ERR_DEVICE.
 * Source   the annotators of lllyasviel/ControlNet and comfyui_controlnet_aux, which the Horde's
 *          worker runs at the request's size.
 */
#ifndef DIFFUSION_CONTROL_ANNOTATOR_H
#define DIFFUSION_CONTROL_ANNOTATOR_H

#include "diffusion/conv_norm.h"
#include "image/pixels.h"

/* folder: where checkpoints lie (NAME.pth, .pt, .bin or .safetensors). */
int annotator_map(struct pixels *to, const struct pixels *from, const char *type,
                  struct device *device, const char *folder, struct error *err);
/* Whether the type has a network and its checkpoint is there. */
bool annotator_available(const char *type, const char *folder);

/* What one annotator works with. */
struct annotator {
    struct device *device;
    struct weight_store *store;
    struct pass_memory memory;
    char prefix[WEIGHT_NAME_BYTES]; /* in front of every name in the file; usually empty */
};
typedef int annotator_function(struct annotator *a, struct pixels *to, const struct pixels *from,
                               struct error *err);
/* One file a network. */
annotator_function annotate_hed, annotate_softedge, annotate_fakescribbles, annotate_mlsd,
    annotate_depth, annotate_normal, annotate_openpose, annotate_seg, annotate_leres;

/* Loads by visitor, checks for missing tensors. */
int annotator_load(struct annotator *a, void (*visit)(struct weight_visitor *v, void *net),
                   void *net, const char *component, struct error *err);
/* dim[i] of a tensor of the checkpoint; 0 when it or the axis is absent. */
int64_t annotator_dim(const struct annotator *a, const char *name, int axis);
/* Sets the prefix to what the file writes before `name` (the wrappers that training left there). */
void annotator_find_prefix(struct annotator *a, const char *name);

/* Twice as large, linear between corners that stay corners (torch's align_corners). On the host. */
struct tensor annotator_enlarge(struct pass *p, struct tensor x);

/* One filter a channel: m->w [C,1,k,k] with its bias, stride 1, same size, zeros outside. On the host. */
struct tensor annotator_depthwise(struct pass *p, const struct layer *m, struct tensor x);

/* Planes of floats. to [oh,ow], from [h,w]: between pixel centres (cv2's INTER_LINEAR). */
void plane_resize(float *to, int ow, int oh, const float *from, int w, int h);
/* The same by area (cv2's INTER_AREA, no axis may grow), by Lanczos' four lobes or by cubics with
 * a = -0.75, the border repeated. false without memory. */
enum plane_way { PLANE_AREA, PLANE_LANCZOS, PLANE_CUBIC };
bool plane_resample(float *to, int ow, int oh, const float *from, int w, int h, enum plane_way way);
/* Bytes between pixel centres in fixed point, as cv2's INTER_LINEAR; channels 3. by_area: as its
 * INTER_AREA enlarges, every pixel keeping its share. */
int pixels_resize_linear(struct pixels *to, const struct pixels *from, int width, int height,
                         bool by_area, struct error *err);

#define ADE_CLASSES 150
extern const uint8_t ade_palette[ADE_CLASSES][3];

#endif
