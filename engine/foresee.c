/* foresee.c - the model of the next job, loaded while this one runs. */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "engine/engine.h"

struct wish {
    struct engine *engine;
    char *name, *path, *vae_path;
    enum precision precision;
};

/* Under the channel's lock: copied, and acted upon afterwards. */
static bool wanted(void *context, const struct engine_load *load)
{
    struct wish *w = context;
    if (!load->model || models_resident(&w->engine->models, load->model)) return false;
    if (!precision_find(load->precision && *load->precision ? load->precision : "auto",
                        &w->precision))
        return false;
    w->name = alloc_string(load->model);
    w->path = alloc_string(load->path);
    w->vae_path = alloc_string(load->vae_path);
    return true;
}

void engine_foresee(struct engine *e, bool anew)
{
    struct wish w = {.engine = e};
    models_poll(&e->models);
    if (anew) e->foreseen = 0;
    channel_foresee(&e->channel, &e->foreseen, wanted, &w);
    if (!w.name) return;
    models_foresee(&e->models, &(struct model_wish){w.name, w.path, w.vae_path, w.precision});
    free(w.name);
    free(w.path);
    free(w.vae_path);
}
