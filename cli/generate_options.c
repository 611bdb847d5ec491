#include "cli/generate_options.h"

#include <getopt.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/str.h"

#define SOURCE_BYTES_MAX (16u << 20)

const char generate_usage[] =
    "usage: kiln generate --model PATH|NAME --prompt TEXT [OPTIONS] -o OUT.png\n"
    "\n"
    "Makes pictures on this machine: a Stable Diffusion 1.x, 2.x or XL checkpoint (one "
    ".safetensors\n"
    "or .ckpt file, or a diffusers folder), or `pocket`, the small model that comes with Kiln.\n"
    "\n"
    "  -m, --model PATH|NAME    the checkpoint\n"
    "  -p, --prompt TEXT        what to draw; (word:1.2) weighs, `###` begins the negative part\n"
    "  -n, --negative TEXT      what to avoid\n"
    "  -o, --output OUT.png     .png or .webp; with --count, OUT.png, OUT-2.png, OUT-3.png ...\n"
    "  -W, --width W            64 to 3072, a multiple of 64 (512)\n"
    "  -H, --height H           the same (512)\n"
    "  -s, --steps N            1 to 500 (30)\n"
    "  -g, --cfg X              guidance, 0 to 100 (7.5); 1 is without\n"
    "      --sampler NAME       k_euler_a unless given; see below\n"
    "      --karras             the Karras noise schedule\n"
    "      --schedule NAME      any noise schedule; see below\n"
    "      --seed N             a number; chosen and shown unless given\n"
    "      --count N            pictures of one batch from one seed, 1 to 20\n"
    "      --clip-skip N        1 last layer of the text encoder, 2 the one before ...\n"
    "      --lora PATH:STRENGTH one more LoRA, strength -10 to 10 (1)\n"
    "      --embedding PATH     one more textual inversion; its file name is its word\n"
    "      --init IMAGE         begin from a picture (with --denoise)\n"
    "      --denoise X          how much of it is redrawn, 0.01 to 1 (0.75 with --init)\n"
    "      --mask IMAGE         redraw only where it is white\n"
    "      --control TYPE:PATH  one more ControlNet and its weights; the next three are of it\n"
    "      --control-image IMAGE\n"
    "      --control-strength X 0 to 3 (1)\n"
    "      --image-is-control   the control image is a ready-made map\n"
    "      --qr TEXT            hide a QR code, with --control qr_code:PATH; then of use:\n"
    "      --qr-prompt TEXT     for its three large squares; --qr-style square, gapped square,\n"
    "                           circle, rounded, vertical bars, horizontal bars; --qr-at X,Y;\n"
    "                           --qr-border N\n"
    "      --hires-fix          compose small, then redraw large\n"
    "      --tiling             edges that meet when tiled\n"
    "      --transparent        things without background, with alpha (SD 1.x and SDXL; kiln "
    "models\n"
    "                           get layer_diffuse)\n"
    "      --variation-seed N, --variation-strength X\n"
    "      --guidance-rescale X 0 to 1 (0)\n"
    "      --eta X              noise of the ancestral samplers\n"
    "      --rng cpu|cuda|horde whose noise: torch's on the CPU (default), on a GPU, or as a "
    "Horde\n"
    "                           worker with a GPU draws it\n"
    "      --vae PATH           another VAE\n"
    "      --precision P        auto, fp32, bf16, fp16 (auto); int8: the UNet in 8 bits, CPU only\n"
    "      --device NAME        cpu, cpu:THREADS, cuda:N (cpu)\n"
    "      --horde              let workers of the AI Horde draw it, for kudos; --model is a Horde "
    "name\n"
    "      --style NAME|ID      with --horde: a style of the Horde (kiln horde styles), which "
    "decides\n"
    "                           model, steps, sampler and the rest around the prompt, not the "
    "size\n"
    "      --mine               with --horde: inline results, which reach workers of new names "
    "too\n"
    "      --dry-run            with --horde: only the quote\n"
    "      --config FILE        with --horde: the bridgeData.yaml that holds the key\n"
    "      --horde-url URL      with --horde: another server\n"
    "      --no-provenance      write no parameters and no trace into the picture\n"
    "      --preview FILE.png   the picture as it grows, written again and again; -: the terminal\n"
    "      --preview-every N    steps between previews (1)\n"
    "      --show               draw the picture in the terminal\n"
    "      --json               say what was made as JSON\n"
    "  -q, --quiet              no progress\n"
    "\n"
    "Samplers: k_euler k_euler_a k_heun k_lms k_dpm_2 k_dpm_2_a k_dpm_fast k_dpm_adaptive\n"
    "k_dpmpp_2s_a k_dpmpp_2m k_dpmpp_sde dpmsolver DDIM lcm uni_pc uni_pc_bh2 dpmpp_2m_sde\n"
    "dpmpp_3m_sde ddpm deis ipndm res_multistep heunpp2 er_sde\n"
    "Schedules: normal karras exponential sgm_uniform simple ddim_uniform beta linear_quadratic\n"
    "kl_optimal align_your_steps gits\n";

enum option_id {
    OPT_SAMPLER = 256,
    OPT_KARRAS,
    OPT_SCHEDULE,
    OPT_SEED,
    OPT_COUNT,
    OPT_CLIP_SKIP,
    OPT_LORA,
    OPT_EMBEDDING,
    OPT_INIT,
    OPT_DENOISE,
    OPT_MASK,
    OPT_CONTROL,
    OPT_CONTROL_IMAGE,
    OPT_CONTROL_STRENGTH,
    OPT_IMAGE_IS_CONTROL,
    OPT_QR,
    OPT_QR_PROMPT,
    OPT_QR_STYLE,
    OPT_QR_AT,
    OPT_QR_BORDER,
    OPT_HIRES,
    OPT_TILING,
    OPT_TRANSPARENT,
    OPT_VARIATION_SEED,
    OPT_VARIATION_STRENGTH,
    OPT_RESCALE,
    OPT_ETA,
    OPT_RNG,
    OPT_VAE,
    OPT_PRECISION,
    OPT_DEVICE,
    OPT_HORDE,
    OPT_MINE,
    OPT_STYLE,
    OPT_DRY_RUN,
    OPT_CONFIG,
    OPT_HORDE_URL,
    OPT_NO_PROVENANCE,
    OPT_PREVIEW,
    OPT_PREVIEW_EVERY,
    OPT_SHOW,
    OPT_JSON
};

static const struct option options[] = {
    {"model", required_argument, NULL, 'm'},
    {"prompt", required_argument, NULL, 'p'},
    {"negative", required_argument, NULL, 'n'},
    {"output", required_argument, NULL, 'o'},
    {"width", required_argument, NULL, 'W'},
    {"height", required_argument, NULL, 'H'},
    {"steps", required_argument, NULL, 's'},
    {"cfg", required_argument, NULL, 'g'},
    {"quiet", no_argument, NULL, 'q'},
    {"sampler", required_argument, NULL, OPT_SAMPLER},
    {"karras", no_argument, NULL, OPT_KARRAS},
    {"schedule", required_argument, NULL, OPT_SCHEDULE},
    {"scheduler", required_argument, NULL, OPT_SCHEDULE},
    {"seed", required_argument, NULL, OPT_SEED},
    {"count", required_argument, NULL, OPT_COUNT},
    {"clip-skip", required_argument, NULL, OPT_CLIP_SKIP},
    {"lora", required_argument, NULL, OPT_LORA},
    {"embedding", required_argument, NULL, OPT_EMBEDDING},
    {"init", required_argument, NULL, OPT_INIT},
    {"denoise", required_argument, NULL, OPT_DENOISE},
    {"mask", required_argument, NULL, OPT_MASK},
    {"control", required_argument, NULL, OPT_CONTROL},
    {"control-image", required_argument, NULL, OPT_CONTROL_IMAGE},
    {"control-strength", required_argument, NULL, OPT_CONTROL_STRENGTH},
    {"image-is-control", no_argument, NULL, OPT_IMAGE_IS_CONTROL},
    {"qr", required_argument, NULL, OPT_QR},
    {"qr-prompt", required_argument, NULL, OPT_QR_PROMPT},
    {"qr-style", required_argument, NULL, OPT_QR_STYLE},
    {"qr-at", required_argument, NULL, OPT_QR_AT},
    {"qr-border", required_argument, NULL, OPT_QR_BORDER},
    {"hires-fix", no_argument, NULL, OPT_HIRES},
    {"tiling", no_argument, NULL, OPT_TILING},
    {"transparent", no_argument, NULL, OPT_TRANSPARENT},
    {"variation-seed", required_argument, NULL, OPT_VARIATION_SEED},
    {"variation-strength", required_argument, NULL, OPT_VARIATION_STRENGTH},
    {"guidance-rescale", required_argument, NULL, OPT_RESCALE},
    {"eta", required_argument, NULL, OPT_ETA},
    {"rng", required_argument, NULL, OPT_RNG},
    {"vae", required_argument, NULL, OPT_VAE},
    {"precision", required_argument, NULL, OPT_PRECISION},
    {"device", required_argument, NULL, OPT_DEVICE},
    {"horde", no_argument, NULL, OPT_HORDE},
    {"mine", no_argument, NULL, OPT_MINE},
    {"style", required_argument, NULL, OPT_STYLE},
    {"dry-run", no_argument, NULL, OPT_DRY_RUN},
    {"config", required_argument, NULL, OPT_CONFIG},
    {"horde-url", required_argument, NULL, OPT_HORDE_URL},
    {"no-provenance", no_argument, NULL, OPT_NO_PROVENANCE},
    {"preview", required_argument, NULL, OPT_PREVIEW},
    {"preview-every", required_argument, NULL, OPT_PREVIEW_EVERY},
    {"show", no_argument, NULL, OPT_SHOW},
    {"json", no_argument, NULL, OPT_JSON},
    {0},
};

void generate_options_init(struct generate_options *o)
{
    *o = (struct generate_options){.precision = "auto", .preview_every = 1};
    image_request_init(&o->request);
    o->request.expert_prompt = o->request.strict = true;
}

void generate_options_release(struct generate_options *o)
{
    image_request_release(&o->request);
}

static int take_int(int *to, const char *option, const char *text, struct error *err)
{
    int64_t value;
    if (!str_parse_i64(text, &value) || value < INT32_MIN || value > INT32_MAX)
        return error_set(err, ERR_INVALID, "--%s %s: a whole number is expected", option, text);
    *to = (int)value;
    return 0;
}

static int take_number(double *to, const char *option, const char *text, struct error *err)
{
    if (!str_parse_f64(text, to))
        return error_set(err, ERR_INVALID, "--%s %s: a number is expected", option, text);
    return 0;
}

static int take_u64(uint64_t *to, const char *option, const char *text, struct error *err)
{
    if (!str_parse_u64(text, to))
        return error_set(err, ERR_INVALID, "--%s %s: a whole number from 0 to 2^64-1 is expected",
                         option, text);
    return 0;
}

static void take_text(char **to, const char *text)
{
    free(*to);
    *to = alloc_string(text);
}

static int take_file(struct blob *to, const char *path, struct error *err)
{
    struct buf b;
    buf_init(&b, SOURCE_BYTES_MAX);
    int rc = buf_read_file(&b, path, err);
    if (rc) {
        buf_release(&b);
        return rc;
    }
    free(to->data);
    to->data = buf_take(&b, &to->length);
    return 0;
}

static int take_lora(struct image_request *r, const char *text, struct error *err)
{
    if (r->lora_count == REQUEST_LORAS_MAX)
        return error_set(err, ERR_INVALID, "more than %d LoRAs", REQUEST_LORAS_MAX);
    struct request_lora *l = &r->loras[r->lora_count];
    const char *colon = strrchr(text, ':');
    double strength = 1;
    size_t length = strlen(text);
    if (colon && str_parse_f64(colon + 1, &strength))
        length = (size_t)(colon - text);
    else if (colon && !strchr(colon, '/'))
        return error_set(err, ERR_INVALID, "--lora %s: the strength after the colon is no number",
                         text);
    l->path = alloc_string_n(text, length);
    l->name = str_stem(l->path);
    l->model_strength = l->clip_strength = strength;
    r->lora_count++;
    return 0;
}

static int take_embedding(struct image_request *r, const char *text, struct error *err)
{
    if (r->embedding_count == REQUEST_EMBEDDINGS_MAX)
        return error_set(err, ERR_INVALID, "more than %d embeddings", REQUEST_EMBEDDINGS_MAX);
    struct request_embedding *e = &r->embeddings[r->embedding_count++];
    e->path = alloc_string(text);
    e->name = str_stem(text);
    e->strength = 1;
    return 0;
}

static int take_control(struct image_request *r, const char *text, struct error *err)
{
    const char *colon = strchr(text, ':');
    if (!colon || colon == text || !colon[1])
        return error_set(err, ERR_INVALID, "--control %s: TYPE:PATH is expected", text);
    char **type = &r->control_type, **path = &r->control_path;
    if (r->control_type) {
        if (r->more_control_count == (int)COUNT_OF(r->more_controls))
            return error_set(err, ERR_INVALID, "more than %d ControlNets", REQUEST_CONTROLS_MAX);
        struct request_control *more = &r->more_controls[r->more_control_count++];
        more->strength = 1;
        type = &more->type;
        path = &more->path;
    }
    *type = alloc_string_n(text, (size_t)(colon - text));
    *path = alloc_string(colon + 1);
    return 0;
}

/* What an option about a ControlNet is about: the one named last. */
static struct request_control *last_control(struct image_request *r)
{
    return r->more_control_count ? &r->more_controls[r->more_control_count - 1] : NULL;
}

static int take_qr_style(struct request_qr *q, const char *text, struct error *err)
{
    for (int i = 0; request_qr_drawers[i]; i++)
        if (str_equal_nocase(text, request_qr_drawers[i])) {
            q->drawer = (enum qr_drawer)i;
            return 0;
        }
    return error_set(err, ERR_INVALID,
                     "--qr-style \"%s\" is unknown; there are square, gapped square, circle, "
                     "rounded, vertical bars and horizontal bars",
                     text);
}

static int take_qr_place(struct request_qr *q, const char *text, struct error *err)
{
    int64_t x, y;
    const char *comma = strchr(text, ',');
    char *first = alloc_string_n(text, comma ? (size_t)(comma - text) : 0);
    bool both = comma && str_parse_i64(first, &x) && str_parse_i64(comma + 1, &y);
    free(first);
    if (!both || x < 0 || y < 0 || x > REQUEST_SIDE_MAX_PX || y > REQUEST_SIDE_MAX_PX)
        return error_set(err, ERR_INVALID, "--qr-at %s: X,Y in pixels is expected", text);
    q->x_px = (int)x;
    q->y_px = (int)y;
    return 0;
}

static int take_option(struct generate_options *o, int id, const char *arg, struct error *err)
{
    struct image_request *r = &o->request;
    struct request_control *more = last_control(r);
    switch (id) {
    case 'm': take_text(&r->model, arg); return 0;
    case 'p': take_text(&r->prompt, arg); return 0;
    case 'n': take_text(&r->negative, arg); return 0;
    case 'o': o->output = arg; return 0;
    case 'W': return take_int(&r->width_px, "width", arg, err);
    case 'H': return take_int(&r->height_px, "height", arg, err);
    case 's': return take_int(&r->steps, "steps", arg, err);
    case 'g': return take_number(&r->cfg, "cfg", arg, err);
    case 'q': o->quiet = true; return 0;
    case OPT_SAMPLER:
        if (sampler_find(arg, &r->sampler)) return 0;
        return error_set(err, ERR_INVALID, "sampler \"%s\" is unknown; there are %s", arg,
                         sampler_list());
    case OPT_KARRAS: r->schedule = SCHEDULE_KARRAS; return 0;
    case OPT_SCHEDULE:
        if (schedule_find(arg, &r->schedule)) return 0;
        return error_set(err, ERR_INVALID, "schedule \"%s\" is unknown; there are %s", arg,
                         schedule_list());
    case OPT_SEED: o->seed_given = true; return take_u64(&r->seed, "seed", arg, err);
    case OPT_COUNT: return take_int(&r->count, "count", arg, err);
    case OPT_CLIP_SKIP: return take_int(&r->clip_skip, "clip-skip", arg, err);
    case OPT_LORA: return take_lora(r, arg, err);
    case OPT_EMBEDDING: return take_embedding(r, arg, err);
    case OPT_INIT: return take_file(&r->source, arg, err);
    case OPT_DENOISE: return take_number(&r->denoise, "denoise", arg, err);
    case OPT_MASK: return take_file(&r->mask, arg, err);
    case OPT_CONTROL: return take_control(r, arg, err);
    case OPT_CONTROL_IMAGE: return take_file(more ? &more->image : &r->control_image, arg, err);
    case OPT_CONTROL_STRENGTH:
        return take_number(more ? &more->strength : &r->control_strength, "control-strength", arg,
                           err);
    case OPT_IMAGE_IS_CONTROL: *(more ? &more->is_map : &r->image_is_control) = true; return 0;
    case OPT_QR: take_text(&r->qr.text, arg); return 0;
    case OPT_QR_PROMPT: take_text(&r->qr.prompt, arg); return 0;
    case OPT_QR_STYLE: return take_qr_style(&r->qr, arg, err);
    case OPT_QR_AT: return take_qr_place(&r->qr, arg, err);
    case OPT_QR_BORDER: return take_int(&r->qr.border_modules, "qr-border", arg, err);
    case OPT_HIRES: r->hires_fix = true; return 0;
    case OPT_TILING: r->tiling = true; return 0;
    case OPT_TRANSPARENT: r->transparent = true; return 0;
    case OPT_VARIATION_SEED: return take_u64(&r->variation_seed, "variation-seed", arg, err);
    case OPT_VARIATION_STRENGTH:
        return take_number(&r->variation_strength, "variation-strength", arg, err);
    case OPT_RESCALE: return take_number(&r->guidance_rescale, "guidance-rescale", arg, err);
    case OPT_ETA: return take_number(&r->eta, "eta", arg, err);
    case OPT_RNG:
        if (str_equal(arg, "cpu"))
            r->noise = NOISE_CPU;
        else if (str_equal(arg, "cuda"))
            r->noise = NOISE_CUDA;
        else if (str_equal(arg, "horde"))
            r->noise = NOISE_HORDE;
        else
            return error_set(err, ERR_INVALID, "--rng %s: cpu, cuda or horde is expected", arg);
        return 0;
    case OPT_VAE: o->vae = arg; return 0;
    case OPT_PRECISION: o->precision = arg; return 0;
    case OPT_DEVICE: o->device = arg; return 0;
    case OPT_HORDE: o->horde = true; return 0;
    case OPT_MINE: o->mine = true; return 0;
    case OPT_STYLE: o->style = arg; return 0;
    case OPT_DRY_RUN: o->dry_run = true; return 0;
    case OPT_CONFIG: o->config = arg; return 0;
    case OPT_HORDE_URL: o->horde_url = arg; return 0;
    case OPT_NO_PROVENANCE: o->no_provenance = true; return 0;
    case OPT_PREVIEW: o->preview = arg; return 0;
    case OPT_PREVIEW_EVERY: return take_int(&o->preview_every, "preview-every", arg, err);
    case OPT_SHOW: o->show = true; return 0;
    case OPT_JSON: o->json = true; return 0;
    default: return error_set(err, ERR_INVALID, "an option is unknown or lacks its value");
    }
}

static size_t characters(const char *text)
{
    size_t n = 0;
    for (; *text; text++) n += ((unsigned char)*text & 0xc0) != 0x80;
    return n;
}

static int check_prompt(const char *name, const char *text, struct error *err)
{
    size_t n = characters(text);
    if (n > GENERATE_PROMPT_CHARACTERS_MAX)
        return error_set(err, ERR_INVALID, "the %s has %zu characters, the limit is %d", name, n,
                         GENERATE_PROMPT_CHARACTERS_MAX);
    return 0;
}

/* "positive ### negative", as Horde prompts are written */
static void split_prompt(struct image_request *r)
{
    char *hashes = strstr(r->prompt, "###");
    if (!hashes) return;
    *hashes = 0;
    if (!*r->negative) take_text(&r->negative, hashes + 3);
}

/* What the server takes from a style, whatever else was asked: said rather than lost. */
static int check_style(const struct generate_options *o, const bool *given, struct error *err)
{
    if (!o->style) return 0;
    if (!o->horde) return error_set(err, ERR_INVALID, "--style needs --horde");
    for (size_t i = 0; options[i].name; i++) {
        int id = options[i].val;
        bool decided = id == 'm' || id == 's' || id == 'g' || (id >= OPT_SAMPLER && id <= OPT_RNG);
        bool ours = id == OPT_COUNT || id == OPT_INIT || id == OPT_MASK;
        if (given[id] && decided && !ours)
            return error_set(err, ERR_INVALID,
                             "--%s: the style decides that; leave out one of them",
                             options[i].name);
    }
    return 0;
}

static int finish(struct generate_options *o, bool denoise_given, struct error *err)
{
    struct image_request *r = &o->request;
    int rc = 0;
    if (!r->model && !o->horde) return error_set(err, ERR_INVALID, "--model is missing");
    if (!*r->prompt) return error_set(err, ERR_INVALID, "--prompt is missing");
    if (!o->output) return error_set(err, ERR_INVALID, "-o OUT.png is missing");
    if (!str_ends(o->output, ".png") && !str_ends(o->output, ".webp"))
        return error_set(err, ERR_INVALID, "-o %s: the name must end in .png or .webp", o->output);
    if (o->preview && o->preview_every < 1)
        return error_set(err, ERR_INVALID, "--preview-every %d is not at least 1",
                         o->preview_every);
    if (o->preview && !str_equal(o->preview, "-") && !str_ends(o->preview, ".png"))
        return error_set(err, ERR_INVALID, "--preview %s: FILE.png or - is expected", o->preview);
    static const char *const precisions[] = {"auto", "fp32", "bf16", "fp16", "int8", NULL};
    bool known = false;
    for (int i = 0; precisions[i]; i++) known = known || str_equal(o->precision, precisions[i]);
    if (!known)
        return error_set(err, ERR_INVALID, "--precision %s: auto, fp32, bf16, fp16 or int8 is expected",
                         o->precision);
    if (!rc) rc = check_prompt("prompt", r->prompt, err);
    if (!rc) rc = check_prompt("negative prompt", r->negative, err);
    if (rc) return rc;
    split_prompt(r);
    if (r->mask.data && !r->source.data)
        return error_set(err, ERR_INVALID, "--mask needs --init: a picture to redraw");
    if (r->qr.text && !r->control_path && !o->horde)
        return error_set(err, ERR_INVALID, "--qr needs --control qr_code:PATH");
    bool bare = r->control_type && !r->control_image.data && !r->qr.text;
    for (int i = 0; i < r->more_control_count; i++) bare = bare || !r->more_controls[i].image.data;
    if (bare && !r->source.data)
        return error_set(err, ERR_INVALID, "each --control needs its --control-image");
    if (r->source.data) {
        r->source_use = r->mask.data ? SOURCE_INPAINTING : SOURCE_IMG2IMG;
        if (!denoise_given) r->denoise = r->mask.data ? 1.0 : 0.75;
    }
    if (!o->seed_given) {
        uint32_t chosen;
        if (getrandom(&chosen, sizeof chosen, 0) != sizeof chosen) chosen = 1;
        r->seed = chosen;
    }
    return image_request_check(r, err);
}

int generate_options_parse(struct generate_options *o, int argc, char **argv, struct error *err)
{
    bool given[OPT_JSON + 1] = {false};
    optind = 1;
    opterr = 0;
    for (int id; (id = getopt_long(argc, argv, "m:p:n:o:W:H:s:g:q", options, NULL)) != -1;) {
        if (id == '?')
            return error_set(err, ERR_INVALID, "option %s is unknown or lacks its value",
                             argv[optind - 1]);
        given[id] = true;
        int rc = take_option(o, id, optarg, err);
        if (rc) return rc;
    }
    if (optind < argc)
        return error_set(err, ERR_INVALID, "\"%s\" belongs to no option", argv[optind]);
    int rc = check_style(o, given, err);
    return rc ? rc : finish(o, given[OPT_DENOISE], err);
}
