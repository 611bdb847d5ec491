/*
 * control_net.h - a second encoder that steers the UNet by a picture.
 *
 * Place    beside unet/: guidance.c calls it before each network call, its residuals are added to
 *          the UNet's skips and middle.
 * Owner    control_net_open / control_net_close; weights of a difference file are merged with the
 *          model's once. One thread.
 * Failure  ERR_NOT_FOUND, ERR_IO, ERR_FORMAT; ERR_INVALID when it was made for another family,
 *          naming both; in calls through the pass.
 * Source   Zhang et al. 2023; lllyasviel/ControlNet cldm.py (LDM names), diffusers ControlNetModel.
 */
#ifndef DIFFUSION_CONTROL_CONTROL_NET_H
#define DIFFUSION_CONTROL_CONTROL_NET_H

#include "diffusion/model.h"

struct control_net;

int control_net_open(struct control_net **net, struct model *m, const char *path,
                     struct error *err);
void control_net_close(struct control_net *net);
const char *control_net_path(const struct control_net *net);

/* Seamless tiling, as the UNet's. */
void control_net_set_circular(struct control_net *net, bool circular);

/* The hint picture [N,8h,8w,3] in [0,1], circular as the UNet; made once for all steps: [N,h,w,C]. */
struct tensor control_net_hint(struct pass *p, struct control_net *net, struct tensor picture);
int control_net_context(struct unet_context *c, struct pass *p, struct control_net *net,
                        struct tensor text, struct tensor vector);
struct unet_time control_net_time(struct pass *p, const struct control_net *net, const double *time,
                                  int64_t n);
/* x [N,h,w,4] as the UNet gets it; hint [N,h,w,C]; residuals are scaled by strength. */
void control_net_forward(struct pass *p, struct control_net *net, struct tensor x,
                         struct unet_time time, const struct unet_context *c, struct tensor hint,
                         double strength, struct unet_residuals *r);

#endif
