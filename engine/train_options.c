#include "engine/train_options.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/str.h"

#define PRIOR_BYTES_MAX (1u << 20)

enum kind { KIND_TEXT, KIND_INT, KIND_I64, KIND_U64, KIND_REAL, KIND_FLAG, KIND_OWN };

struct row {
    const char *name;
    enum kind kind;
    size_t at; /* in struct train_options */
    int (*own)(struct train_options *o, const char *value, struct error *err);
};

static int bad(struct error *err, const char *name, const char *value, const char *what)
{
    char shown[80];
    str_clean(shown, sizeof shown, value);
    return error_set(err, ERR_INVALID, "--%s \"%s\": %s", name, shown, what);
}

static int own_cover(struct train_options *o, const char *value, struct error *err)
{
    if (lora_cover_find(value, &o->lora.lora.cover)) return 0;
    return bad(err, "targets", value, "attention, blocks (kohya's set) or all");
}

static int own_schedule(struct train_options *o, const char *value, struct error *err)
{
    if (rate_shape_find(value, &o->lora.rate.shape)) return 0;
    return bad(err, "schedule", value, "constant, cosine, restarts or tail");
}

static int own_format(struct train_options *o, const char *value, struct error *err)
{
    if (str_equal(value, "kohya"))
        o->lora.format = LORA_KOHYA;
    else if (str_equal(value, "peft"))
        o->lora.format = LORA_PEFT;
    else
        return bad(err, "format", value, "kohya or peft");
    return 0;
}

static int own_optimizer(struct train_options *o, const char *value, struct error *err)
{
    if (optimizer_find(value, &o->lora.optimizer)) return 0;
    return bad(err, "optimizer", value, "adamw or adamw8bit");
}

static int own_mask(struct train_options *o, const char *value, struct error *err)
{
    double outside;
    if (!str_parse_f64(value, &outside) || !(outside >= 0 && outside <= 1))
        return bad(err, "mask-loss", value, "the weight outside marked regions, 0 to 1");
    o->lora.mask = outside;
    return 0;
}

static int own_kind(struct train_options *o, const char *value, struct error *err)
{
    if (str_equal(value, "box"))
        o->data.hint = ANNOTATIONS_ARE_BOXES;
    else if (str_equal(value, "line"))
        o->data.hint = ANNOTATIONS_ARE_LINES;
    else
        return bad(err, "kind", value, "box or line");
    return 0;
}

static int own_prompt(struct train_options *o, const char *value, struct error *err)
{
    if (o->lora.prompt_count == TRAIN_PROMPTS_MAX)
        return error_set(err, ERR_INVALID, "--prompt: at most %d", TRAIN_PROMPTS_MAX);
    o->lora.prompts[o->lora.prompt_count++] = value;
    return 0;
}

static int own_no_buckets(struct train_options *o, const char *value, struct error *err)
{
    o->lora.buckets = false;
    return 0;
}

static int own_seed(struct train_options *o, const char *value, struct error *err)
{
    uint64_t seed;
    if (!str_parse_u64(value, &seed)) return bad(err, "seed", value, "a whole number from 0 on");
    o->lora.seed = o->pocket.seed = seed;
    return 0;
}

static int own_steps(struct train_options *o, const char *value, struct error *err)
{
    int64_t steps;
    if (!str_parse_i64(value, &steps) || steps < 1 || steps > 1000000)
        return bad(err, "steps", value, "1 to 1000000");
    o->lora.steps = o->pocket.steps = steps;
    return 0;
}

static int own_batch(struct train_options *o, const char *value, struct error *err)
{
    int64_t batch;
    if (!str_parse_i64(value, &batch) || batch < 1 || batch > 256)
        return bad(err, "batch", value, "1 to 256");
    o->lora.batch = o->pocket.batch = (int)batch;
    return 0;
}

static int own_out(struct train_options *o, const char *value, struct error *err)
{
    o->lora.out = o->pocket.out = value;
    return 0;
}

static int own_lr(struct train_options *o, const char *value, struct error *err)
{
    double rate;
    if (!str_parse_f64(value, &rate) || !(rate > 0 && rate < 1))
        return bad(err, "lr", value, "between 0 and 1");
    o->lora.rate.peak = o->pocket.rate = rate;
    o->lora.rate.low = rate / 100;
    return 0;
}

static int own_save(struct train_options *o, const char *value, struct error *err)
{
    int64_t every;
    if (!str_parse_i64(value, &every) || every < 0 || every > 1000000)
        return bad(err, "save-every", value, "0 to 1000000 steps");
    o->lora.save_every = every;
    o->pocket.save_every = every ? (int)every : 1000000;
    return 0;
}

/* One prompt a line; the model draws each before the training and is held to them. */
static int own_prior(struct train_options *o, const char *value, struct error *err)
{
    struct buf b;
    size_t length;
    buf_init(&b, PRIOR_BYTES_MAX);
    int rc = buf_read_file(&b, value, err);
    if (rc) return rc;
    free(o->prior_text);
    o->prior_text = (char *)buf_take(&b, &length);
    o->lora.prior_count = 0;
    for (char *save, *line = strtok_r(o->prior_text, "\r\n", &save); line;
         line = strtok_r(NULL, "\r\n", &save)) {
        if (o->lora.prior_count == (int)COUNT_OF(o->lora.prior))
            return error_set(err, ERR_INVALID, "%s: more than %zu prompts", value,
                             COUNT_OF(o->lora.prior));
        o->lora.prior[o->lora.prior_count++] = line;
    }
    return 0;
}

#define AT(member) offsetof(struct train_options, member)
static const struct row rows[] = {
    {"what", KIND_TEXT, AT(what), NULL},
    {"model", KIND_TEXT, AT(model), NULL},
    {"data", KIND_TEXT, AT(data.folder), NULL},
    {"annotations", KIND_TEXT, AT(data.annotations), NULL},
    {"kind", KIND_OWN, 0, own_kind},
    {"caption", KIND_TEXT, AT(data.caption), NULL},
    {"crops", KIND_FLAG, AT(data.crops), NULL},
    {"crop-margin", KIND_REAL, AT(data.crop_margin), NULL},
    {"trigger", KIND_TEXT, AT(lora.trigger), NULL},
    {"name", KIND_TEXT, AT(lora.name), NULL},
    {"out", KIND_OWN, 0, own_out},
    {"steps", KIND_OWN, 0, own_steps},
    {"rank", KIND_INT, AT(lora.lora.rank), NULL},
    {"alpha", KIND_REAL, AT(lora.lora.alpha), NULL},
    {"targets", KIND_OWN, 0, own_cover},
    {"text", KIND_FLAG, AT(lora.lora.text), NULL},
    {"lr", KIND_OWN, 0, own_lr},
    {"schedule", KIND_OWN, 0, own_schedule},
    {"warmup", KIND_I64, AT(lora.rate.warmup), NULL},
    {"period", KIND_I64, AT(lora.rate.period), NULL},
    {"optimizer", KIND_OWN, 0, own_optimizer},
    {"random-crop", KIND_INT, AT(lora.cuts), NULL},
    {"zoom", KIND_REAL, AT(lora.zoom), NULL},
    {"mask-loss", KIND_OWN, 0, own_mask},
    {"pyramid-noise", KIND_INT, AT(lora.pyramid), NULL},
    {"pyramid-discount", KIND_REAL, AT(lora.pyramid_discount), NULL},
    {"description", KIND_TEXT, AT(lora.description), NULL},
    {"card", KIND_FLAG, AT(lora.card), NULL},
    {"weight-decay", KIND_REAL, AT(lora.weight_decay), NULL},
    {"clip", KIND_REAL, AT(lora.clip), NULL},
    {"batch", KIND_OWN, 0, own_batch},
    {"accumulation", KIND_INT, AT(lora.accumulation), NULL},
    {"resolution", KIND_INT, AT(lora.resolution), NULL},
    {"no-buckets", KIND_OWN, 0, own_no_buckets},
    {"flip", KIND_FLAG, AT(lora.flip), NULL},
    {"caption-dropout", KIND_REAL, AT(lora.caption_dropout), NULL},
    {"min-snr", KIND_REAL, AT(lora.min_snr), NULL},
    {"noise-offset", KIND_REAL, AT(lora.noise_offset), NULL},
    {"t-min", KIND_INT, AT(lora.t_min), NULL},
    {"t-max", KIND_INT, AT(lora.t_max), NULL},
    {"lean", KIND_FLAG, AT(lora.lean), NULL},
    {"save-every", KIND_OWN, 0, own_save},
    {"preview-every", KIND_I64, AT(lora.preview_every), NULL},
    {"prompt", KIND_OWN, 0, own_prompt},
    {"preview-steps", KIND_INT, AT(lora.preview_steps), NULL},
    {"preview-cfg", KIND_REAL, AT(lora.preview_cfg), NULL},
    {"prior", KIND_OWN, 0, own_prior},
    {"prior-weight", KIND_REAL, AT(lora.prior_weight), NULL},
    {"seed", KIND_OWN, 0, own_seed},
    {"fresh", KIND_FLAG, AT(lora.fresh), NULL},
    {"format", KIND_OWN, 0, own_format},
    {"author", KIND_TEXT, AT(lora.author), NULL},
    {"licence", KIND_TEXT, AT(lora.licence), NULL},
    {"work", KIND_TEXT, AT(pocket.work), NULL},
    {"data-seed", KIND_U64, AT(pocket.data_seed), NULL},
    {"pictures", KIND_INT, AT(pocket.pictures), NULL},
    {"vae-steps", KIND_INT, AT(pocket.vae_steps), NULL},
    {"decoder-steps", KIND_INT, AT(pocket.decoder_steps), NULL},
    {"vae-batch", KIND_INT, AT(pocket.vae_batch), NULL},
    {"vae-lr", KIND_REAL, AT(pocket.vae_rate), NULL},
    {"tail", KIND_I64, AT(pocket.tail), NULL},
};
#undef AT

static int take(struct train_options *o, const struct row *row, const char *value,
                struct error *err)
{
    char *to = (char *)o + row->at;
    int64_t whole = 0;
    switch (row->kind) {
    case KIND_TEXT: *(const char **)(void *)to = value; return 0;
    case KIND_FLAG: *(bool *)to = !str_equal(value, "false"); return 0;
    case KIND_OWN: return row->own(o, value, err);
    case KIND_U64:
        return str_parse_u64(value, (uint64_t *)(void *)to)
                   ? 0
                   : bad(err, row->name, value, "a number");
    case KIND_REAL:
        return str_parse_f64(value, (double *)(void *)to) ? 0
                                                          : bad(err, row->name, value, "a number");
    case KIND_I64:
    case KIND_INT: break;
    }
    if (!str_parse_i64(value, &whole) || whole < 0 || whole > 1 << 30)
        return bad(err, row->name, value, "a whole number from 0 on");
    if (row->kind == KIND_I64)
        *(int64_t *)(void *)to = whole;
    else
        *(int *)(void *)to = (int)whole;
    return 0;
}

static const struct row *find_row(const char *name)
{
    for (size_t i = 0; i < COUNT_OF(rows); i++)
        if (str_equal(rows[i].name, name)) return &rows[i];
    return NULL;
}

static int unknown(const char *name, struct error *err)
{
    const char *names[COUNT_OF(rows) + 1] = {0};
    char shown[64];
    for (size_t i = 0; i < COUNT_OF(rows); i++) names[i] = rows[i].name;
    const char *nearest = str_nearest(name, names);
    str_clean(shown, sizeof shown, name);
    return error_set(err, ERR_INVALID, "there is no option --%s%s%s%s", shown,
                     nearest ? "; did you mean --" : "", nearest ? nearest : "",
                     nearest ? "?" : "");
}

static int check_lora(struct train_options *o, struct error *err)
{
    if (!o->model) return error_set(err, ERR_INVALID, "--model names no base model");
    if (!o->data.folder) return error_set(err, ERR_INVALID, "--data names no folder of pictures");
    if (!o->lora.out) return error_set(err, ERR_INVALID, "-o names no file for the LoRA");
    if (!str_ends(o->lora.out, ".safetensors"))
        return error_set(err, ERR_INVALID, "-o %s: the name must end in .safetensors", o->lora.out);
    o->data.trigger = o->lora.trigger;
    if (!o->data.annotations) o->data.annotations = "";
    return 0;
}

int train_options_parse(struct train_options *o, const struct engine_train *message,
                        struct error *err)
{
    bool alpha = false;
    *o = (struct train_options){.what = "lora", .data = {.crop_margin = .15}};
    lora_train_defaults(&o->lora);
    pocket_options_init(&o->pocket);
    o->lora.lora.alpha = 0;
    int rc = 0;
    for (int i = 0; i < message->option_count && !rc; i++) {
        const struct engine_option *option = &message->options[i];
        const struct row *row = find_row(option->name);
        rc = row ? take(o, row, option->value, err) : unknown(option->name, err);
        if (str_equal(option->name, "alpha")) alpha = true;
    }
    if (!alpha) o->lora.lora.alpha = o->lora.lora.rank;
    if (!rc && str_equal(o->what, "lora"))
        rc = check_lora(o, err);
    else if (!rc && !str_equal(o->what, "pocket"))
        rc = error_set(err, ERR_INVALID, "kiln trains lora or pocket, not %s", o->what);
    if (rc) train_options_release(o);
    return rc;
}

void train_options_release(struct train_options *o)
{
    free(o->prior_text);
    *o = (struct train_options){0};
}
