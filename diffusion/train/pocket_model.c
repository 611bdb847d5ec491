#include "diffusion/train/pocket_model.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/now.h"

#define TEXT_WIDTH 96
#define TEXT_LAYERS 2
#define HEADS 2
#define UNET_GROUPS 16
#define VAE_GROUPS 8

static const struct vae_config vae_config = {
    .levels = 4,
    .blocks = 1,
    .channels = {16, 32, 48, 64},
    .latent_channels = POCKET_LATENT_CHANNELS,
    .groups = VAE_GROUPS,
    .encoder = true,
    .decoder = true,
    .quant = true,
    .scale = POCKET_SCALE,
};

static const struct unet_config unet_config = {
    .levels = 4,
    .blocks = {1, 1, 1, 1},
    .in_channels = POCKET_LATENT_CHANNELS,
    .out_channels = POCKET_LATENT_CHANNELS,
    .channels = {32, 64, 128, 128},
    .depth_down = {{1}, {1}, {1}, {0}},
    .depth_up = {{1, 1}, {1, 1}, {1, 1}, {0, 0}},
    .depth_mid = 1,
    .mid_second = true,
    .mid_present = true,
    .heads = {HEADS, HEADS, HEADS, HEADS},
    .context = TEXT_WIDTH,
    .time = 128,
    .groups = UNET_GROUPS,
    .conv_proj = true,
};

static void walk_vae(struct weight_visitor *v, void *model)
{
    vae_visit(v, model);
}

static void walk_unet(struct weight_visitor *v, void *model)
{
    unet_visit(v, model);
}

static void walk_text(struct weight_visitor *v, void *model)
{
    clip_text_visit(v, model);
}

static int init_networks(struct pocket *m, struct error *err)
{
    uint64_t seed = m->options->seed;
    struct clip_text_config text = {.vocab = m->vocab_text.count,
                                    .width = TEXT_WIDTH,
                                    .layers = TEXT_LAYERS,
                                    .heads = HEADS,
                                    .mlp = 4 * TEXT_WIDTH,
                                    .positions = POCKET_TOKENS,
                                    .act = ACT_QUICK_GELU};
    int rc = vae_init(&m->vae, &vae_config, err);
    if (!rc) rc = unet_init(&m->unet, &unet_config, err);
    if (!rc) rc = clip_text_init(&m->text, &text, err);
    if (!rc) rc = network_start(&m->vae_params, walk_vae, &m->vae, "vae", seed, err);
    if (!rc) rc = network_start(&m->denoiser_params, walk_unet, &m->unet, "unet", seed, err);
    if (!rc) rc = network_start(&m->denoiser_params, walk_text, &m->text, "text", seed, err);
    return rc;
}

static int make_folder(const char *path, struct error *err)
{
    if (mkdir(path, 0777) == 0 || errno == EEXIST) return 0;
    return error_set_errno(err, ERR_IO, errno, "making the folder %s", path);
}

int pocket_init(struct pocket *m, struct device *device, const struct pocket_options *options,
                const struct pocket_hooks *hooks, struct error *err)
{
    memset(m, 0, sizeof *m);
    m->options = options;
    m->hooks = hooks;
    m->device = device;
    m->started = now_seconds();
    m->tape = tape_new();
    tape_recompute(m->tape, false);
    pass_memory_init(&m->memory, device, 0);
    params_init(&m->vae_params, device, true);
    params_init(&m->denoiser_params, device, true);
    pocket_vocab_make(&m->vocab_text, pocket_words);
    int rc = vocab_parse(&m->vocab, m->vocab_text.json, strlen(m->vocab_text.json),
                         m->vocab_text.merges, strlen(m->vocab_text.merges), err);
    if (!rc) rc = make_folder(options->work, err);
    if (!rc) rc = init_networks(m, err);
    size_t count = (size_t)options->pictures;
    m->pots = alloc_try(count, sizeof *m->pots);
    m->pictures = alloc_try(count, POCKET_PICTURE_BYTES);
    m->latents = alloc_try(count, POCKET_LATENT_COUNT * sizeof(float));
    if (!rc && (!m->pots || !m->pictures || !m->latents))
        rc = error_set(err, ERR_NO_MEMORY, "no memory for %d pictures", options->pictures);
    for (size_t i = 0; i < count && !rc; i++) {
        m->pots[i] = pot_draw(options->data_seed, i);
        pot_paint(m->pictures + i * POCKET_PICTURE_BYTES, POT_SIDE_PX, &m->pots[i]);
    }
    if (rc) pocket_release(m);
    return rc;
}

void pocket_release(struct pocket *m)
{
    tape_free(m->tape);
    params_release(&m->vae_params);
    params_release(&m->denoiser_params);
    vae_release(&m->vae, m->device);
    unet_release(&m->unet, m->device);
    clip_text_release(&m->text, m->device);
    pass_memory_release(&m->memory);
    vocab_close(m->vocab);
    pocket_vocab_release(&m->vocab_text);
    free(m->pots);
    free(m->pictures);
    free(m->latents);
    memset(m, 0, sizeof *m);
}

int pocket_tell(struct pocket *m, const char *part, int64_t step, int64_t steps, double loss,
                struct error *err)
{
    const struct pocket_hooks *h = m->hooks;
    struct pocket_progress progress = {part, step, steps, loss, now_seconds() - m->started};
    if (h && h->progress) h->progress(h->context, &progress);
    if (h && h->canceled && h->canceled(h->context))
        return error_set(err, ERR_CANCELED, "training stopped at step %lld of %s", (long long)step,
                         part);
    return 0;
}

/* ---- the folder ---- */

static const char model_index[] =
    "{\n  \"_class_name\": \"StableDiffusionPipeline\",\n  \"_diffusers_version\": \"0.21.0\",\n"
    "  \"feature_extractor\": [null, null],\n  \"requires_safety_checker\": false,\n"
    "  \"safety_checker\": [null, null],\n"
    "  \"scheduler\": [\"diffusers\", \"PNDMScheduler\"],\n"
    "  \"text_encoder\": [\"transformers\", \"CLIPTextModel\"],\n"
    "  \"tokenizer\": [\"transformers\", \"CLIPTokenizer\"],\n"
    "  \"unet\": [\"diffusers\", \"UNet2DConditionModel\"],\n"
    "  \"vae\": [\"diffusers\", \"AutoencoderKL\"]\n}\n";

static const char scheduler_config[] =
    "{\n  \"_class_name\": \"PNDMScheduler\",\n  \"_diffusers_version\": \"0.21.0\",\n"
    "  \"beta_end\": 0.012,\n  \"beta_schedule\": \"scaled_linear\",\n  \"beta_start\": 0.00085,\n"
    "  \"clip_sample\": false,\n  \"num_train_timesteps\": 1000,\n"
    "  \"prediction_type\": \"epsilon\",\n  \"set_alpha_to_one\": false,\n"
    "  \"skip_prk_steps\": true,\n  \"steps_offset\": 1,\n  \"trained_betas\": null\n}\n";

static const char tokenizer_config[] =
    "{\n  \"add_prefix_space\": false,\n  \"bos_token\": \"<|startoftext|>\",\n"
    "  \"do_lower_case\": true,\n  \"eos_token\": \"<|endoftext|>\",\n  \"errors\": \"replace\",\n"
    "  \"model_max_length\": 77,\n  \"pad_token\": \"<|endoftext|>\",\n"
    "  \"tokenizer_class\": \"CLIPTokenizer\",\n  \"unk_token\": \"<|endoftext|>\"\n}\n";

static const char special_tokens[] =
    "{\n  \"bos_token\": \"<|startoftext|>\",\n  \"eos_token\": \"<|endoftext|>\",\n"
    "  \"pad_token\": \"<|endoftext|>\",\n  \"unk_token\": \"<|endoftext|>\"\n}\n";

static int write_text(const struct pocket *m, const char *name, const char *text, struct error *err)
{
    struct buf b;
    char *path = alloc_printf("%s/%s", m->options->out, name);
    buf_init(&b, 1 << 22);
    int rc = buf_append_string(&b, text, err);
    if (!rc) rc = buf_write_file(&b, path, 0644, err);
    buf_release(&b);
    free(path);
    return rc;
}

static char *list(const int64_t *values, int count)
{
    char *text = alloc_string("[");
    for (int i = 0; i < count; i++) {
        char *longer = alloc_printf("%s%s%lld", text, i ? ", " : "", (long long)values[i]);
        free(text);
        text = longer;
    }
    char *closed = alloc_printf("%s]", text);
    free(text);
    return closed;
}

static int write_configs(const struct pocket *m, struct error *err)
{
    const struct unet_config *u = &unet_config;
    char *channels = list(u->channels, u->levels);
    char *unet = alloc_printf(
        "{\n  \"_class_name\": \"UNet2DConditionModel\",\n  \"_diffusers_version\": \"0.21.0\",\n"
        "  \"act_fn\": \"silu\",\n  \"attention_head_dim\": %d,\n  \"block_out_channels\": %s,\n"
        "  \"center_input_sample\": false,\n  \"cross_attention_dim\": %d,\n"
        "  \"down_block_types\": [\"CrossAttnDownBlock2D\", \"CrossAttnDownBlock2D\", "
        "\"CrossAttnDownBlock2D\", \"DownBlock2D\"],\n"
        "  \"downsample_padding\": 1,\n  \"flip_sin_to_cos\": true,\n  \"freq_shift\": 0,\n"
        "  \"in_channels\": 4,\n  \"layers_per_block\": %d,\n  \"mid_block_scale_factor\": 1,\n"
        "  \"norm_eps\": 1e-05,\n  \"norm_num_groups\": %d,\n  \"out_channels\": 4,\n"
        "  \"sample_size\": %d,\n"
        "  \"up_block_types\": [\"UpBlock2D\", \"CrossAttnUpBlock2D\", \"CrossAttnUpBlock2D\", "
        "\"CrossAttnUpBlock2D\"]\n}\n",
        HEADS, channels, TEXT_WIDTH, u->blocks[0], UNET_GROUPS, POCKET_LATENT_PX);
    free(channels);
    channels = list(vae_config.channels, vae_config.levels);
    char *vae = alloc_printf(
        "{\n  \"_class_name\": \"AutoencoderKL\",\n  \"_diffusers_version\": \"0.21.0\",\n"
        "  \"act_fn\": \"silu\",\n  \"block_out_channels\": %s,\n"
        "  \"down_block_types\": [\"DownEncoderBlock2D\", \"DownEncoderBlock2D\", "
        "\"DownEncoderBlock2D\", \"DownEncoderBlock2D\"],\n"
        "  \"in_channels\": 3,\n  \"latent_channels\": 4,\n  \"layers_per_block\": %d,\n"
        "  \"norm_num_groups\": %d,\n  \"out_channels\": 3,\n  \"sample_size\": %d,\n"
        "  \"scaling_factor\": %g,\n"
        "  \"up_block_types\": [\"UpDecoderBlock2D\", \"UpDecoderBlock2D\", \"UpDecoderBlock2D\", "
        "\"UpDecoderBlock2D\"]\n}\n",
        channels, vae_config.blocks, VAE_GROUPS, POT_SIDE_PX, POCKET_SCALE);
    char *text = alloc_printf(
        "{\n  \"architectures\": [\"CLIPTextModel\"],\n  \"attention_dropout\": 0.0,\n"
        "  \"bos_token_id\": %d,\n  \"dropout\": 0.0,\n  \"eos_token_id\": %d,\n"
        "  \"hidden_act\": \"quick_gelu\",\n  \"hidden_size\": %d,\n  \"initializer_factor\": "
        "1.0,\n"
        "  \"initializer_range\": 0.02,\n  \"intermediate_size\": %d,\n"
        "  \"layer_norm_eps\": 1e-05,\n  \"max_position_embeddings\": %d,\n"
        "  \"model_type\": \"clip_text_model\",\n  \"num_attention_heads\": %d,\n"
        "  \"num_hidden_layers\": %d,\n  \"pad_token_id\": %d,\n  \"projection_dim\": %d,\n"
        "  \"torch_dtype\": \"float16\",\n  \"vocab_size\": %d\n}\n",
        m->vocab_text.count - 2, m->vocab_text.count - 1, TEXT_WIDTH, 4 * TEXT_WIDTH, POCKET_TOKENS,
        HEADS, TEXT_LAYERS, m->vocab_text.count - 1, TEXT_WIDTH, m->vocab_text.count);
    int rc = write_text(m, "unet/config.json", unet, err);
    if (!rc) rc = write_text(m, "vae/config.json", vae, err);
    if (!rc) rc = write_text(m, "text_encoder/config.json", text, err);
    free(channels);
    free(unet);
    free(vae);
    free(text);
    return rc;
}

static int save_network(const struct pocket *m, const struct params *params, const char *prefix,
                        const char *name, struct error *err)
{
    char *path = alloc_printf("%s/%s", m->options->out, name);
    int rc = network_save(params, prefix, path, err);
    free(path);
    return rc;
}

int pocket_save(struct pocket *m, struct error *err)
{
    static const char *const folders[] = {"",           "/unet",     "/vae", "/text_encoder",
                                          "/tokenizer", "/scheduler"};
    int rc = 0;
    for (size_t i = 0; i < COUNT_OF(folders) && !rc; i++) {
        char *path = alloc_printf("%s%s", m->options->out, folders[i]);
        rc = make_folder(path, err);
        free(path);
    }
    if (!rc) rc = write_configs(m, err);
    if (!rc) rc = write_text(m, "model_index.json", model_index, err);
    if (!rc) rc = write_text(m, "scheduler/scheduler_config.json", scheduler_config, err);
    if (!rc) rc = write_text(m, "tokenizer/vocab.json", m->vocab_text.json, err);
    if (!rc) rc = write_text(m, "tokenizer/merges.txt", m->vocab_text.merges, err);
    if (!rc) rc = write_text(m, "tokenizer/tokenizer_config.json", tokenizer_config, err);
    if (!rc) rc = write_text(m, "tokenizer/special_tokens_map.json", special_tokens, err);
    if (!rc)
        rc = save_network(m, &m->vae_params, "vae", "vae/diffusion_pytorch_model.safetensors", err);
    if (!rc)
        rc = save_network(m, &m->denoiser_params, "unet",
                          "unet/diffusion_pytorch_model.safetensors", err);
    return rc ? rc
              : save_network(m, &m->denoiser_params, "text", "text_encoder/model.safetensors", err);
}
