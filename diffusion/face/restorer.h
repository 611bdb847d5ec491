/*
 * restorer.h - the faces of a picture, found, restored one by one and put back.
 *
 * Place    the Horde's post-processors GFPGAN, GFPGANv1.3 and CodeFormers, and `kiln fix`.
 * Owner    restorer_open / restorer_close; results are the caller's pixels. One thread.
 * Failure  ERR_NOT_FOUND, ERR_IO, ERR_FORMAT, ERR_UNSUPPORTED (files); ERR_NO_MEMORY, ERR_DEVICE;
 *          ERR_CANCELED between faces. A picture without faces comes back as it was.
 * Source   the steps of TencentARC/GFPGAN's GFPGANer, sczhou/CodeFormer's inference and ComfyUI's
 *          facerestore_cf, which the Horde's reference worker runs: faces surer than 0.8 whose eyes
 *          are 5 pixels apart or more; the square's soft edge, and where the parser is there the
 *          face's own. Unlike them, a small picture is enlarged for the finder only and a huge one
 *          (over 1280 a side) is shrunk for it, so that memory is bounded.
 */
#ifndef DIFFUSION_FACE_RESTORER_H
#define DIFFUSION_FACE_RESTORER_H

#include "diffusion/pipeline.h"

struct restorer;

struct restorer_files {
    const char *network; /* a GFPGAN or a CodeFormer, told apart by its tensors */
    const char *finder;  /* a RetinaFace */
    const char *parser;  /* a ParseNet, or NULL */
};

struct restorer_options {
    double strength; /* share of the restored face over the old one, 0 .. 1 */
    double fidelity; /* CodeFormer: 0 trusts its book of codes, 1 the picture */
};
/* strength 1, fidelity 0.5, as the reference worker */
extern const struct restorer_options restorer_defaults;

int restorer_open(struct restorer **r, struct device *device, const struct restorer_files *files,
                  struct error *err);
void restorer_close(struct restorer *r);

/* to: from's size, RGB or RGBA. faces (may be NULL): how many there were. */
int restorer_run(struct restorer *r, struct pixels *to, const struct pixels *from,
                 const struct restorer_options *options, const struct pipeline_hooks *hooks,
                 int *faces, struct error *err);

#endif
