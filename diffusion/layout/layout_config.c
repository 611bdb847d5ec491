/* What a diffusers folder says in JSON: the configurations from which its networks are built. */
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "diffusion/layout/layout.h"
#include "diffusion/text/clip_text.h"
#include "diffusion/text/vocab.h"

#define CONFIG_MAX (1u << 20)

static int write_json(json_t *root, const char *folder, const char *name, struct error *err)
{
    char *path = alloc_printf("%s/%s", folder, name), *text = json_dumps(root, JSON_INDENT(2));
    struct buf b;
    buf_init(&b, CONFIG_MAX);
    int rc = text ? buf_printf(&b, err, "%s\n", text)
                  : error_set(err, ERR_NO_MEMORY, "no memory for %s", path);
    if (!rc) rc = buf_write_file(&b, path, 0644, err);
    buf_release(&b);
    json_decref(root);
    free(text);
    free(path);
    return rc;
}

static int write_component(json_t *root, const char *folder, const char *component,
                           const char *name, struct error *err)
{
    char *path = alloc_printf("%s/%s", folder, component);
    int rc = layout_make_folder(path, err);
    if (rc)
        json_decref(root);
    else
        rc = write_json(root, path, name, err);
    free(path);
    return rc;
}

static void set(json_t *o, const char *key, int64_t value)
{
    json_object_set_new(o, key, json_integer(value));
}

static void set_text(json_t *o, const char *key, const char *value)
{
    json_object_set_new(o, key, json_string(value));
}

static void set_truth(json_t *o, const char *key, bool value)
{
    json_object_set_new(o, key, json_boolean(value));
}

static json_t *integers(const int64_t *value, int count)
{
    json_t *list = json_array();
    for (int i = 0; i < count; i++) json_array_append_new(list, json_integer(value[i]));
    return list;
}

static bool is_xl(const struct model *m)
{
    return m->unet.config.vector > 0;
}

/* ---- the UNet ---- */

/* diffusers counts transformer blocks by level; 0 where a level has none. */
static int level_depths(int64_t depth[UNET_LEVELS_MAX], const struct model *m, struct error *err)
{
    const struct unet_config *c = &m->unet.config;
    bool fits = c->mid_second;
    for (int i = 0; i < c->levels; i++) {
        depth[i] = c->depth_down[i][0];
        fits &= c->blocks[i] == c->blocks[0];
        for (int j = 0; j < c->blocks[i]; j++) fits &= c->depth_down[i][j] == depth[i];
        for (int j = 0; j <= c->blocks[i]; j++) fits &= c->depth_up[i][j] == depth[i];
    }
    int64_t last = depth[c->levels - 1];
    fits &= c->depth_mid > 0 && (!last || last == c->depth_mid);
    if (fits) return 0;
    return error_set(
        err, ERR_UNSUPPORTED,
        "%s: a UNet whose blocks differ within a level (a pruned one, as SSD-1B), which "
        "Kiln writes as a single file only",
        m->info.path);
}

static json_t *block_types(const int64_t *depth, int levels, bool up)
{
    json_t *list = json_array();
    for (int k = 0; k < levels; k++) {
        int i = up ? levels - 1 - k : k;
        json_array_append_new(list, json_string(up ? depth[i] ? "CrossAttnUpBlock2D" : "UpBlock2D"
                                                : depth[i] ? "CrossAttnDownBlock2D"
                                                           : "DownBlock2D"));
    }
    return list;
}

static int64_t usual_latents(const struct model *m)
{
    return is_xl(m) ? 128 : m->info.family == FAMILY_SD2_768 ? 96 : 64;
}

static int unet_config(json_t **root, const struct model *m, struct error *err)
{
    const struct unet_config *c = &m->unet.config;
    int64_t depth[UNET_LEVELS_MAX];
    int rc = level_depths(depth, m, err);
    if (rc) return rc;
    json_t *o = *root = json_object();
    set_text(o, "_class_name", "UNet2DConditionModel");
    set(o, "sample_size", usual_latents(m));
    set(o, "in_channels", c->in_channels);
    set(o, "out_channels", c->out_channels);
    json_object_set_new(o, "down_block_types", block_types(depth, c->levels, false));
    set_text(o, "mid_block_type", "UNetMidBlock2DCrossAttn");
    json_object_set_new(o, "up_block_types", block_types(depth, c->levels, true));
    json_object_set_new(o, "block_out_channels", integers(c->channels, c->levels));
    set(o, "layers_per_block", c->blocks[0]);
    for (int i = 0; i < c->levels; i++)
        if (!depth[i]) depth[i] = i + 1 == c->levels ? c->depth_mid : 1;
    json_object_set_new(o, "transformer_layers_per_block", integers(depth, c->levels));
    /* the number of heads: a historical misnomer of the format */
    json_object_set_new(o, "attention_head_dim", integers(c->heads, c->levels));
    set(o, "cross_attention_dim", c->context);
    set_truth(o, "use_linear_projection", !c->conv_proj);
    set(o, "norm_num_groups", c->groups);
    set_text(o, "act_fn", "silu");
    set_truth(o, "flip_sin_to_cos", true);
    set(o, "freq_shift", 0);
    set_truth(o, "upcast_attention", m->info.family == FAMILY_SD2_768);
    if (c->time != 4 * c->channels[0]) set(o, "time_embedding_dim", c->time);
    if (c->guidance) set(o, "time_cond_proj_dim", c->guidance);
    if (c->vector) {
        set_text(o, "addition_embed_type", "text_time");
        set(o, "addition_time_embed_dim", m->size_width);
        set(o, "projection_class_embeddings_input_dim", c->vector);
    }
    return 0;
}

/* ---- the others ---- */

static json_t *vae_config(const struct model *m)
{
    const struct vae_config *c = &m->vae.config;
    json_t *o = json_object(), *down = json_array(), *up = json_array();
    for (int i = 0; i < c->levels; i++) {
        json_array_append_new(down, json_string("DownEncoderBlock2D"));
        json_array_append_new(up, json_string("UpDecoderBlock2D"));
    }
    set_text(o, "_class_name", "AutoencoderKL");
    set(o, "in_channels", 3);
    set(o, "out_channels", 3);
    json_object_set_new(o, "down_block_types", down);
    json_object_set_new(o, "up_block_types", up);
    json_object_set_new(o, "block_out_channels", integers(c->channels, c->levels));
    set(o, "layers_per_block", c->blocks);
    set(o, "latent_channels", c->latent_channels);
    set(o, "norm_num_groups", c->groups);
    set(o, "sample_size", usual_latents(m) * 8);
    json_object_set_new(o, "scaling_factor", json_real(c->scale));
    set_truth(o, "force_upcast", true);
    set_truth(o, "use_quant_conv", c->quant);
    set_truth(o, "use_post_quant_conv", c->quant);
    set_text(o, "act_fn", "silu");
    return o;
}

static json_t *text_config(const struct model *m, int i)
{
    const struct clip_text_config *c = &m->encoders[i]->config;
    json_t *o = json_object(), *architectures = json_array();
    bool projects = layout_text_projects(m, i);
    json_array_append_new(architectures,
                          json_string(projects ? "CLIPTextModelWithProjection" : "CLIPTextModel"));
    json_object_set_new(o, "architectures", architectures);
    set_text(o, "model_type", "clip_text_model");
    set(o, "vocab_size", c->vocab);
    set(o, "hidden_size", c->width);
    set(o, "intermediate_size", c->mlp);
    set(o, "projection_dim", c->projection ? c->projection : c->width);
    set(o, "num_hidden_layers", layout_text_layers(m, i));
    set(o, "num_attention_heads", c->heads);
    set(o, "max_position_embeddings", c->positions);
    set_text(o, "hidden_act", c->act == ACT_QUICK_GELU ? "quick_gelu" : "gelu");
    json_object_set_new(o, "layer_norm_eps", json_real(1e-5));
    set(o, "bos_token_id", vocab_start(m->vocab));
    set(o, "eos_token_id", vocab_end(m->vocab));
    set(o, "pad_token_id", c->act == ACT_QUICK_GELU ? vocab_end(m->vocab) : 0);
    return o;
}

static json_t *scheduler_config(const struct model *m)
{
    json_t *o = json_object();
    set_text(o, "_class_name", "EulerDiscreteScheduler");
    set(o, "num_train_timesteps", 1000);
    json_object_set_new(o, "beta_start", json_real(0.00085));
    json_object_set_new(o, "beta_end", json_real(0.012));
    set_text(o, "beta_schedule", "scaled_linear");
    set_text(o, "prediction_type", m->info.v_prediction ? "v_prediction" : "epsilon");
    set_text(o, "timestep_spacing", m->zero_snr ? "trailing" : "leading");
    set(o, "steps_offset", 1);
    set_truth(o, "rescale_betas_zero_snr", m->zero_snr);
    return o;
}

static int write_tokenizers(const struct model *m, const char *folder, struct error *err)
{
    static const char *const names[] = {"tokenizer", "tokenizer_2"};
    bool refiner = m->info.family == FAMILY_SDXL_REFINER;
    int rc = 0;
    for (int i = 0; !rc && i < m->text.encoders; i++) {
        bool gelu = m->encoders[i]->config.act == ACT_GELU;
        char *path = alloc_printf("%s/%s", folder, names[i || refiner]);
        rc = layout_make_folder(path, err);
        if (!rc) rc = layout_write_tokenizer(m, path, gelu ? "!" : "<|endoftext|>", err);
        free(path);
    }
    return rc;
}

int layout_write_configs(const struct model *m, const char *folder, struct error *err)
{
    json_t *unet;
    bool refiner = m->info.family == FAMILY_SDXL_REFINER;
    int rc = unet_config(&unet, m, err);
    if (rc) return rc;
    rc = layout_make_folder(folder, err);
    if (rc)
        json_decref(unet);
    else
        rc = write_component(unet, folder, "unet", "config.json", err);
    if (!rc) rc = write_component(vae_config(m), folder, "vae", "config.json", err);
    for (int i = 0; !rc && i < m->text.encoders; i++)
        rc = write_component(text_config(m, i), folder,
                             i || refiner ? "text_encoder_2" : "text_encoder", "config.json", err);
    if (!rc)
        rc =
            write_component(scheduler_config(m), folder, "scheduler", "scheduler_config.json", err);
    return rc ? rc : write_tokenizers(m, folder, err);
}

/* ---- what puts them together ---- */

static void component(json_t *o, const char *name, const char *library, const char *class)
{
    json_t *pair = json_array();
    json_array_append_new(pair, library ? json_string(library) : json_null());
    json_array_append_new(pair, class ? json_string(class) : json_null());
    json_object_set_new(o, name, pair);
}

static const char *pipeline_class(const struct model *m)
{
    bool xl = is_xl(m);
    if (m->info.family == FAMILY_SDXL_REFINER) return "StableDiffusionXLImg2ImgPipeline";
    if (m->info.inpainting)
        return xl ? "StableDiffusionXLInpaintPipeline" : "StableDiffusionInpaintPipeline";
    return xl ? "StableDiffusionXLPipeline" : "StableDiffusionPipeline";
}

int layout_write_index(const struct model *m, const char *folder, struct error *err)
{
    const char *text = "CLIPTextModel", *tokens = "CLIPTokenizer", *with = "transformers";
    bool refiner = m->info.family == FAMILY_SDXL_REFINER;
    json_t *o = json_object();
    set_text(o, "_class_name", pipeline_class(m));
    component(o, "unet", "diffusers", "UNet2DConditionModel");
    component(o, "vae", "diffusers", "AutoencoderKL");
    component(o, "scheduler", "diffusers", "EulerDiscreteScheduler");
    component(o, "text_encoder", refiner ? NULL : with, refiner ? NULL : text);
    component(o, "tokenizer", refiner ? NULL : with, refiner ? NULL : tokens);
    component(o, "feature_extractor", NULL, NULL);
    if (is_xl(m)) {
        component(o, "text_encoder_2", with, "CLIPTextModelWithProjection");
        component(o, "tokenizer_2", with, tokens);
        component(o, "image_encoder", NULL, NULL);
        set_truth(o, "force_zeros_for_empty_prompt", !refiner);
        if (refiner) set_truth(o, "requires_aesthetics_score", true);
    } else {
        component(o, "safety_checker", NULL, NULL);
        set_truth(o, "requires_safety_checker", false);
    }
    return write_json(o, folder, "model_index.json", err);
}
