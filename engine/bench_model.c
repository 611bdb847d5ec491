#include "engine/bench_model.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/data_path.h"
#include "base/str.h"
#include "diffusion/text/clip_text.h"
#include "diffusion/unet/unet.h"
#include "diffusion/vae/vae.h"
#include "tensor/safetensors.h"

static const struct vae_config vae_config = {
    .levels = 4,
    .blocks = 2,
    .channels = {128, 256, 512, 512},
    .latent_channels = 4,
    .groups = 32,
    .encoder = true,
    .decoder = true,
    .quant = true,
    .scale = 0.18215,
};

static const struct unet_config unet_sd15 = {
    .levels = 4,
    .blocks = {2, 2, 2, 2},
    .in_channels = 4,
    .out_channels = 4,
    .channels = {320, 640, 1280, 1280},
    .depth_down = {{1, 1}, {1, 1}, {1, 1}},
    .depth_up = {{1, 1, 1}, {1, 1, 1}, {1, 1, 1}},
    .depth_mid = 1,
    .mid_second = true,
    .mid_present = true,
    .heads = {8, 8, 8, 8},
    .context = 768,
    .time = 1280,
    .groups = 32,
    .conv_proj = true,
};

static const struct unet_config unet_sdxl = {
    .levels = 3,
    .blocks = {2, 2, 2},
    .in_channels = 4,
    .out_channels = 4,
    .channels = {320, 640, 1280},
    .depth_down = {{0}, {2, 2}, {10, 10}},
    .depth_up = {{0}, {2, 2, 2}, {10, 10, 10}},
    .depth_mid = 10,
    .mid_second = true,
    .mid_present = true,
    .heads = {5, 10, 20},
    .context = 2048,
    .time = 1280,
    .vector = 2816,
    .groups = 32,
};

static const struct clip_text_config text_l = {.vocab = 49408,
                                               .width = 768,
                                               .layers = 12,
                                               .heads = 12,
                                               .mlp = 3072,
                                               .positions = 77,
                                               .act = ACT_QUICK_GELU};
static const struct clip_text_config text_g = {.vocab = 49408,
                                               .width = 1280,
                                               .layers = 32,
                                               .heads = 20,
                                               .mlp = 5120,
                                               .positions = 77,
                                               .projection = 1280,
                                               .act = ACT_GELU};

/* ---- what torch reads beside the weights ---- */

static const char unet_json_sd15[] =
    "{\"_class_name\": \"UNet2DConditionModel\", \"sample_size\": 64, \"in_channels\": 4,\n"
    " \"out_channels\": 4, \"layers_per_block\": 2, \"block_out_channels\": [320, 640, 1280, "
    "1280],\n"
    " \"down_block_types\": [\"CrossAttnDownBlock2D\", \"CrossAttnDownBlock2D\",\n"
    "  \"CrossAttnDownBlock2D\", \"DownBlock2D\"],\n"
    " \"up_block_types\": [\"UpBlock2D\", \"CrossAttnUpBlock2D\", \"CrossAttnUpBlock2D\",\n"
    "  \"CrossAttnUpBlock2D\"],\n"
    " \"cross_attention_dim\": 768, \"attention_head_dim\": 8}\n";
static const char unet_json_sdxl[] =
    "{\"_class_name\": \"UNet2DConditionModel\", \"sample_size\": 128, \"in_channels\": 4,\n"
    " \"out_channels\": 4, \"layers_per_block\": 2, \"block_out_channels\": [320, 640, 1280],\n"
    " \"down_block_types\": [\"DownBlock2D\", \"CrossAttnDownBlock2D\", "
    "\"CrossAttnDownBlock2D\"],\n"
    " \"up_block_types\": [\"CrossAttnUpBlock2D\", \"CrossAttnUpBlock2D\", \"UpBlock2D\"],\n"
    " \"transformer_layers_per_block\": [1, 2, 10], \"use_linear_projection\": true,\n"
    " \"cross_attention_dim\": 2048, \"attention_head_dim\": [5, 10, 20],\n"
    " \"addition_embed_type\": \"text_time\", \"addition_time_embed_dim\": 256,\n"
    " \"projection_class_embeddings_input_dim\": 2816}\n";
static const char vae_json[] =
    "{\"_class_name\": \"AutoencoderKL\", \"in_channels\": 3, \"out_channels\": 3,\n"
    " \"latent_channels\": 4, \"layers_per_block\": 2, \"block_out_channels\": [128, 256, 512, "
    "512],\n"
    " \"down_block_types\": [\"DownEncoderBlock2D\", \"DownEncoderBlock2D\",\n"
    "  \"DownEncoderBlock2D\", \"DownEncoderBlock2D\"],\n"
    " \"up_block_types\": [\"UpDecoderBlock2D\", \"UpDecoderBlock2D\", \"UpDecoderBlock2D\",\n"
    "  \"UpDecoderBlock2D\"],\n"
    " \"sample_size\": 512, \"scaling_factor\": 0.18215}\n";
static const char text_l_json[] =
    "{\"architectures\": [\"CLIPTextModel\"], \"model_type\": \"clip_text_model\",\n"
    " \"hidden_size\": 768, \"intermediate_size\": 3072, \"num_hidden_layers\": 12,\n"
    " \"num_attention_heads\": 12, \"vocab_size\": 49408, \"max_position_embeddings\": 77,\n"
    " \"projection_dim\": 768, \"hidden_act\": \"quick_gelu\", \"bos_token_id\": 49406,\n"
    " \"eos_token_id\": 49407}\n";
static const char text_g_json[] =
    "{\"architectures\": [\"CLIPTextModelWithProjection\"], \"model_type\": "
    "\"clip_text_model\",\n"
    " \"hidden_size\": 1280, \"intermediate_size\": 5120, \"num_hidden_layers\": 32,\n"
    " \"num_attention_heads\": 20, \"vocab_size\": 49408, \"max_position_embeddings\": 77,\n"
    " \"projection_dim\": 1280, \"hidden_act\": \"gelu\", \"bos_token_id\": 49406,\n"
    " \"eos_token_id\": 49407}\n";
static const char index_sd15[] =
    "{\"_class_name\": \"StableDiffusionPipeline\",\n"
    " \"scheduler\": [\"diffusers\", \"PNDMScheduler\"],\n"
    " \"text_encoder\": [\"transformers\", \"CLIPTextModel\"],\n"
    " \"unet\": [\"diffusers\", \"UNet2DConditionModel\"], \"vae\": [\"diffusers\", "
    "\"AutoencoderKL\"]}\n";
static const char index_sdxl[] =
    "{\"_class_name\": \"StableDiffusionXLPipeline\",\n"
    " \"scheduler\": [\"diffusers\", \"EulerDiscreteScheduler\"],\n"
    " \"text_encoder\": [\"transformers\", \"CLIPTextModel\"],\n"
    " \"text_encoder_2\": [\"transformers\", \"CLIPTextModelWithProjection\"],\n"
    " \"unet\": [\"diffusers\", \"UNet2DConditionModel\"], \"vae\": [\"diffusers\", "
    "\"AutoencoderKL\"]}\n";

/* ---- the entries of one file ---- */

/* Normal numbers of one deviation, as long as the largest tensor that wants them. */
struct pool {
    double deviation;
    int64_t count;
    uint16_t *half;
};

struct writing {
    enum dialect dialect;
    enum dtype dtype;
    const char *prefix;
    struct safetensors_entry *entry;
    double *deviation; /* of each entry; 0: all one */
    size_t count;
    struct pool *pool;
    int pools;
};

static int add(struct weight_visitor *v, struct weight *w, const struct weight_site *site,
               struct error *err)
{
    struct writing *x = v->context;
    const char *name = site->name[x->dialect];
    int64_t count = 1;
    struct safetensors_entry e = {.dtype = x->dtype, .rank = site->rank};
    for (int i = 0; i < site->rank; i++) count *= e.dim[i] = site->dim[i];
    /* the VAE's attention has linear layers in diffusers' files */
    bool linear = x->dialect == DIALECT_HF && strstr(name, "mid_block.attentions.0.to_");
    if (linear && e.rank == 4) e.rank = 2;
    e.name = alloc_printf("%s%s", x->prefix, name);
    e.bytes = (size_t)count * dtype_bytes(x->dtype);
    x->entry = alloc_grow(x->entry, x->count + 1, sizeof *x->entry);
    x->deviation = alloc_grow(x->deviation, x->count + 1, sizeof *x->deviation);
    bool one = site->rank == 1 && !site->layer && str_ends(name, ".weight");
    bool matrix = site->rank > 1;
    x->deviation[x->count] = one ? 0 : matrix ? 1 / sqrt((double)(count / site->dim[0])) : 0.1;
    x->entry[x->count++] = e;
    return 0;
}

/* Sums of uniform numbers: near enough to normal, and quick. */
static float normal(uint64_t *state)
{
    float sum = 0;
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    for (int i = 0; i < 4; i++) sum += (float)(*state >> (16 * i) & 0xffff) * 0x1p-16f - 0.5f;
    return sum * 1.7320508f;
}

static int fill(struct writing *x, struct error *err)
{
    for (size_t i = 0; i < x->count; i++) {
        int64_t count = (int64_t)(x->entry[i].bytes / dtype_bytes(x->dtype));
        int k = 0;
        while (k < x->pools && x->pool[k].deviation != x->deviation[i]) k++;
        if (k == x->pools) {
            x->pool = alloc_grow(x->pool, (size_t)k + 1, sizeof *x->pool);
            x->pool[x->pools++] = (struct pool){.deviation = x->deviation[i]};
        }
        if (count > x->pool[k].count) x->pool[k].count = count;
    }
    float *row = alloc_zero(4096, sizeof *row);
    int rc = 0;
    for (int k = 0; k < x->pools && !rc; k++) {
        struct pool *p = &x->pool[k];
        uint64_t state = 20261124;
        size_t each = dtype_bytes(x->dtype);
        p->half = alloc_try((size_t)p->count, each);
        if (!p->half) rc = error_set(err, ERR_NO_MEMORY, "no memory for random weights");
        for (int64_t i = 0; i < p->count && !rc; i += 4096) {
            int64_t n = p->count - i < 4096 ? p->count - i : 4096;
            for (int64_t j = 0; j < n; j++)
                row[j] = p->deviation > 0 ? (float)p->deviation * normal(&state) : 1;
            dtype_convert((char *)p->half + (size_t)i * each, x->dtype, row, DTYPE_F32, n);
        }
    }
    free(row);
    for (size_t i = 0; i < x->count && !rc; i++)
        for (int k = 0; k < x->pools; k++)
            if (x->pool[k].deviation == x->deviation[i]) x->entry[i].data = x->pool[k].half;
    return rc;
}

static void writing_release(struct writing *x)
{
    for (size_t i = 0; i < x->count; i++) free((void *)(uintptr_t)x->entry[i].name);
    for (int k = 0; k < x->pools; k++) free(x->pool[k].half);
    free(x->pool);
    free(x->entry);
    free(x->deviation);
    *x = (struct writing){.dialect = x->dialect, .dtype = x->dtype};
}

static int writing_end(struct writing *x, const char *path, struct error *err)
{
    const struct safetensors_meta meta = {"format", "pt"};
    int rc = fill(x, err);
    if (!rc) rc = safetensors_write(path, x->entry, x->count, &meta, 1, err);
    writing_release(x);
    return rc;
}

static int add_unet(struct writing *x, const struct unet_config *config, struct error *err)
{
    struct unet m;
    struct weight_visitor v = {.visit = add, .context = x, .err = err};
    int rc = unet_init(&m, config, err);
    if (rc) return rc;
    unet_visit(&v, &m);
    unet_release(&m, NULL);
    return v.failed;
}

static int add_vae(struct writing *x, struct error *err)
{
    struct vae m;
    struct weight_visitor v = {.visit = add, .context = x, .err = err};
    int rc = vae_init(&m, &vae_config, err);
    if (rc) return rc;
    vae_visit(&v, &m);
    vae_release(&m, NULL);
    return v.failed;
}

static int add_text(struct writing *x, const struct clip_text_config *config, struct error *err)
{
    struct clip_text m;
    struct weight_visitor v = {.visit = add, .context = x, .err = err};
    int rc = clip_text_init(&m, config, err);
    if (rc) return rc;
    clip_text_visit(&v, &m);
    clip_text_release(&m, NULL);
    return v.failed;
}

/* ---- one file, or a folder ---- */

static int make_file(const char *path, enum dtype dtype, struct error *err)
{
    struct writing x = {.dialect = DIALECT_LDM, .dtype = dtype};
    x.prefix = "model.diffusion_model.";
    int rc = add_unet(&x, &unet_sd15, err);
    x.prefix = "first_stage_model.";
    if (!rc) rc = add_vae(&x, err);
    x.dialect = DIALECT_HF;
    x.prefix = "cond_stage_model.transformer.";
    if (!rc) rc = add_text(&x, &text_l, err);
    if (rc) {
        writing_release(&x);
        return rc;
    }
    return writing_end(&x, path, err);
}

static int make_folder(const char *path, struct error *err)
{
    for (char *copy = alloc_string(path), *end = copy; end;) {
        end = strchr(end + 1, '/');
        if (end) *end = 0;
        bool failed = mkdir(copy, 0777) && errno != EEXIST;
        int saved = errno;
        if (end) *end = '/';
        if (failed || !end) free(copy);
        if (failed) return error_set_errno(err, ERR_IO, saved, "making the folder %s", path);
    }
    return 0;
}

static int write_text(const char *folder, const char *name, const char *text, struct error *err)
{
    struct buf b;
    char *path = alloc_printf("%s/%s", folder, name);
    buf_init(&b, 1 << 16);
    int rc = buf_append_string(&b, text, err);
    if (!rc) rc = buf_write_file(&b, path, 0644, err);
    buf_release(&b);
    free(path);
    return rc;
}

struct component {
    const char *name, *file, *json;
    const struct unet_config *unet;
    const struct clip_text_config *text; /* neither: the VAE */
};

static int make_component(const char *folder, const struct component *c, enum dtype dtype,
                          struct error *err)
{
    struct writing x = {.dialect = DIALECT_HF, .dtype = dtype, .prefix = ""};
    char *path = alloc_printf("%s/%s", folder, c->name);
    char *file = alloc_printf("%s/%s", path, c->file);
    int rc = make_folder(path, err);
    if (!rc) rc = write_text(path, "config.json", c->json, err);
    if (!rc)
        rc = c->unet   ? add_unet(&x, c->unet, err)
             : c->text ? add_text(&x, c->text, err)
                       : add_vae(&x, err);
    if (rc)
        writing_release(&x);
    else
        rc = writing_end(&x, file, err);
    free(file);
    free(path);
    return rc;
}

#define DIFFUSERS_FILE "diffusion_pytorch_model.safetensors"

int bench_model_make(const char *layout, const char *path, enum dtype dtype, struct error *err)
{
    bool xl = str_equal(layout, "sdxl");
    if (!xl && !str_equal(layout, "sd15"))
        return error_set(err, ERR_INVALID, "\"%s\" is none of sd15, sdxl", layout);
    if (str_ends(path, ".safetensors")) {
        if (xl) return error_set(err, ERR_INVALID, "sdxl is written as a folder only");
        return make_file(path, dtype, err);
    }
    const struct component parts[] = {
        {"text_encoder", "model.safetensors", text_l_json, NULL, &text_l},
        {"vae", DIFFUSERS_FILE, vae_json, NULL, NULL},
        {"unet", DIFFUSERS_FILE, xl ? unet_json_sdxl : unet_json_sd15, xl ? &unet_sdxl : &unet_sd15,
         NULL},
        {"text_encoder_2", "model.safetensors", text_g_json, NULL, &text_g},
    };
    int rc = make_folder(path, err);
    for (size_t i = 0; i < (xl ? 4 : 3) && !rc; i++)
        rc = make_component(path, &parts[i], dtype, err);
    /* last: a folder without it was not finished */
    return rc ? rc : write_text(path, "model_index.json", xl ? index_sdxl : index_sd15, err);
}

char *bench_model_find(const char *layout, struct error *err)
{
    char *cache = data_path_cache();
    if (!cache) {
        error_set(err, ERR_NOT_FOUND, "there is no cache folder: HOME is not set");
        return NULL;
    }
    char *path = alloc_printf("%s/bench/%s", cache, layout);
    char *index = alloc_printf("%s/model_index.json", path);
    struct stat st;
    int rc = 0;
    if (stat(index, &st)) {
        fprintf(stderr, "writing random weights of full size to %s\n", path);
        rc = bench_model_make(layout, path, DTYPE_F16, err);
    }
    free(index);
    free(cache);
    if (!rc) return path;
    free(path);
    return NULL;
}

static const char usage[] =
    "usage: kiln bench make sd15|sdxl PATH [--precision fp32|bf16|fp16]\n"
    "\n"
    "Writes a checkpoint of full size with random weights, for measuring: a diffusers folder, or\n"
    "(sd15) one file when PATH ends in .safetensors. Its pictures are noise.\n";

int bench_make_main(int argc, char **argv)
{
    static const struct option table[] = {
        {"precision", required_argument, NULL, 'p'}, {"help", no_argument, NULL, 'h'}, {0}};
    enum dtype dtype = DTYPE_F16;
    bool ok = true;
    for (int c; ok && (c = getopt_long(argc, argv, "", table, NULL)) != -1;) {
        if (c == 'h') {
            fputs(usage, stdout);
            return 0;
        }
        if (c == 'p' && str_equal(optarg, "fp32"))
            dtype = DTYPE_F32;
        else if (c == 'p' && str_equal(optarg, "bf16"))
            dtype = DTYPE_BF16;
        else if (c != 'p' || !str_equal(optarg, "fp16"))
            ok = false;
    }
    if (!ok || argc - optind != 2) {
        fputs(usage, stderr);
        return 2;
    }
    struct error err = {0};
    int rc = bench_model_make(argv[optind], argv[optind + 1], dtype, &err);
    if (rc) fprintf(stderr, "kiln bench make: %s\n", err.text);
    return rc == ERR_INVALID ? 2 : rc ? 1 : 0;
}
