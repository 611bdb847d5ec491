/* serve_load.c - a model is named, loaded, or dropped. */
#include <math.h>

#include "engine/engine.h"

static int load(struct engine *e, const struct engine_load *l, struct engine_loaded *loaded,
                struct error *err)
{
    enum precision precision;
    struct model *model;
    if (!precision_find(l->precision && *l->precision ? l->precision : "auto", &precision))
        return error_set(err, ERR_INVALID, "precision \"%s\" is none of auto, fp32, bf16, fp16, int8",
                         l->precision);
    int rc = models_name(&e->models, l->model, l->path, l->vae_path, precision, err);
    if (!rc) rc = models_get(&e->models, l->model, &model, err);
    if (rc) return rc;
    /* with a job behind it the weights come while that one begins */
    if (e->device->fetches && !channel_waiting(&e->channel)) rc = model_fetch(model, err);
    if (rc) return rc;
    const struct model_info *info = model_info(model);
    loaded->model = l->model;
    loaded->family = family_name(info->family);
    loaded->sha256 = models_hash(&e->models, l->model, 0);
    loaded->bytes = (int64_t)info->weight_bytes;
    loaded->seconds = info->load_seconds;
    loaded->inpainting = info->inpainting;
    loaded->v_prediction = info->v_prediction;
    return 0;
}

int serve_load(struct engine *e, const struct engine_msg *job)
{
    struct error err = {0};
    if (job->kind == ENGINE_UNLOAD) {
        models_unload(&e->models, job->load.model);
        return 0;
    }
    struct engine_msg m;
    engine_msg_init(&m, ENGINE_LOADED, e->channel.launch_id, job->job_id);
    int rc = load(e, &job->load, &m.loaded, &err);
    if (rc)
        channel_send_error(&e->channel, job->job_id, &err, rc == ERR_DEVICE);
    else
        channel_send(&e->channel, &m, NULL);
    return rc == ERR_DEVICE ? rc : 0;
}
