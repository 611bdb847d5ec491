/* OUT.md: a page about the LoRA for people and for the site that it is uploaded to. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "diffusion/train/lora_run.h"
#include "proto/terms.h"

static const char *file_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

/* A YAML scalar in double quotes. */
static void yaml_text(struct buf *b, const char *key, const char *text)
{
    buf_printf(b, NULL, "%s: \"", key);
    for (const char *p = text; *p; p++) {
        if (*p == '"' || *p == '\\') buf_append(b, "\\", 1, NULL);
        buf_append(b, (unsigned char)*p < ' ' ? " " : p, 1, NULL);
    }
    buf_append_string(b, "\"\n", NULL);
}

static void add_header(struct buf *b, const struct lora_run *r)
{
    const struct lora_train_options *o = r->o;
    bool xl = r->model->info.family == FAMILY_SDXL;
    buf_append_string(b, "---\n", NULL);
    if (o->licence) yaml_text(b, "license", o->licence);
    yaml_text(b, "base_model", file_name(r->model->info.path));
    if (o->trigger && *o->trigger) yaml_text(b, "instance_prompt", o->trigger);
    buf_printf(b, NULL, "tags:\n- text-to-image\n- %s\n- lora\n- diffusers\n---\n\n",
               xl ? "stable-diffusion-xl" : "stable-diffusion");
}

static void add_training(struct buf *b, const struct lora_run *r, double seconds)
{
    const struct lora_train_options *o = r->o;
    double joules = r->hooks && r->hooks->joules ? r->hooks->joules(r->hooks->context) : NAN;
    buf_printf(b, NULL, "## How it was made\n\n| | |\n| --- | --- |\n");
    buf_printf(b, NULL, "| base model | %s (%s) |\n", file_name(r->model->info.path),
               family_people(r->model->info.family));
    if (*r->model->info.sha256)
        buf_printf(b, NULL, "| its SHA-256 | `%s` |\n", r->model->info.sha256);
    buf_printf(b, NULL, "| pictures | %d, %d samples |\n", r->data->pictures, r->cache.count);
    buf_printf(b, NULL, "| steps | %lld of %d picture%s |\n", (long long)o->steps,
               o->batch * o->accumulation, o->batch * o->accumulation == 1 ? "" : "s");
    buf_printf(b, NULL, "| rank, alpha | %d, %g on %s%s |\n", o->lora.rank, o->lora.alpha,
               lora_cover_name(o->lora.cover), o->lora.text ? " and the text encoders" : "");
    buf_printf(b, NULL, "| rate | %g, %s, %s |\n", o->rate.peak, rate_shape_name(o->rate.shape),
               optimizer_kohya(o->optimizer));
    buf_printf(b, NULL, "| resolution | %d |\n| seed | %llu |\n", r->resolution,
               (unsigned long long)o->seed);
    buf_printf(b, NULL, "| time | %.0f s |\n", seconds);
    if (isfinite(joules))
        buf_printf(b, NULL, "| energy | %.1f Wh |\n", joules / 3600);
    else
        buf_append_string(b, "| energy | not measured |\n", NULL);
    buf_append_string(b, "| program | Kiln " KILN_VERSION " |\n\n", NULL);
}

int lora_run_card(const struct lora_run *r, const char *sheet, double seconds, struct error *err)
{
    const struct lora_train_options *o = r->o;
    bool trigger = o->trigger && *o->trigger;
    struct lora_file_hash hash;
    struct buf b;
    int rc = lora_file_hashes(&hash, o->out, err);
    if (rc) return rc;
    char *path = lora_run_path(r, ".md");
    buf_init(&b, 1 << 18);
    add_header(&b, r);
    buf_printf(&b, NULL, "# %s\n\n", o->name);
    if (o->description) buf_printf(&b, NULL, "%s\n\n", o->description);
    if (o->author) buf_printf(&b, NULL, "By %s.\n\n", o->author);
    if (sheet)
        buf_printf(&b, NULL, "![without the LoRA and at strengths 0.5, 0.8 and 1](%s)\n\n",
                   file_name(sheet));
    if (trigger)
        buf_printf(&b, NULL, "Begin the prompt with **%s**; strength 0.5 to 1.\n\n", o->trigger);
    add_training(&b, r, seconds);
    buf_printf(&b, NULL, "## The file\n\n`%s`\n\n| | |\n| --- | --- |\n| SHA-256 | `%s` |\n",
               file_name(o->out), hash.whole);
    buf_printf(&b, NULL, "| AutoV2, AutoV3 | `%.10s`, `%.12s` |\n", hash.whole, hash.data);
    buf_printf(&b, NULL, "| names | %s |\n\n",
               o->format == LORA_KOHYA ? "kohya's (ComfyUI, A1111, Draw Things, diffusers)"
                                       : "PEFT's (diffusers)");
    buf_printf(&b, NULL,
               "```python\npipe.load_lora_weights(\".\", weight_name=\"%s\")\n```\n\n"
               "```sh\nkiln generate --model MODEL --lora %s:0.8 --prompt \"%s%sa ...\"\n```\n",
               file_name(o->out), file_name(o->out), trigger ? o->trigger : "",
               trigger ? ", " : "");
    rc = buf_write_file(&b, path, 0644, err);
    buf_release(&b);
    free(path);
    return rc;
}
