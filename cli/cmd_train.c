/* cmd_train.c - trainings on this machine, by an engine of our own. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/json_write.h"
#include "base/now.h"
#include "base/str.h"
#include "cli/command.h"
#include "cli/local_engine.h"
#include "cli/progress.h"

#define JOB "train"

static const char usage[] =
    "usage: kiln train lora --model M --data DIR --trigger WORD --name NAME -o OUT.safetensors\n"
    "                       [OPTIONS]\n"
    "       kiln train pocket -o FOLDER --work FOLDER [OPTIONS]\n"
    "\n"
    "lora teaches a base model (Stable Diffusion 1.x, 2.x, XL, or `pocket`) what a dozen pictures\n"
    "show. Captions are NAME.txt beside NAME.jpg, captions.csv, or the annotations that\n"
    "makesense.ai exports. `kiln dataset check DIR` shows first what would be trained on.\n"
    "A step is one update of the weights: batch x accumulation pictures (Draw Things counts\n"
    "pictures, kohya's trainer counts updates). A run that was stopped goes on where its last\n"
    "checkpoint stood when it is started again with the same options.\n"
    "\n"
    "  --model M            a checkpoint file, a diffusers folder, or `pocket`\n"
    "  --data DIR           the pictures\n"
    "  --annotations FILE   CSV (boxes, points, lines, tags), VGG or COCO JSON, YOLO or VOC (ZIP, "
    "or the\n"
    "                       folder of one; YOLO with labels.txt); the first labels_*.csv, .json "
    "or\n"
    "                       .zip in DIR is found by itself\n"
    "  --kind box|line      what eight columns without header mean\n"
    "  --caption TEXT       template, %s for the words: \"a photo of %s\"\n"
    "  --crops              one more sample for each box; --crop-margin X grows it (0.15)\n"
    "  --trigger WORD       put first in every caption\n"
    "  --name NAME          shown by other programs\n"
    "  -o OUT.safetensors   checkpoints, previews, loss curve and sheet stand beside it\n"
    "  --format kohya|peft  names in the file (kohya: every program reads it)\n"
    "                                          here     Draw Things   kohya sd-scripts\n"
    "  --steps N                               1000     2000 pictures 1600\n"
    "  --rank R                                16       32            4\n"
    "  --alpha A                               rank     rank          1\n"
    "  --targets attention|blocks|all          blocks   all           blocks\n"
    "  --text               branches on the text encoders too (off everywhere)\n"
    "  --lr X                                  1e-4     1e-4          2e-6\n"
    "  --schedule constant|cosine|restarts|tail cosine  constant      constant\n"
    "  --warmup N, --period N                  30, 200  20, 200       0\n"
    "  --batch N, --accumulation N             1, 1     1, 4          1, 1\n"
    "  --resolution PX                         512 (SD2-768: 768, SDXL: 1024, pocket: 128)\n"
    "  --no-buckets                            all pictures square (aspect buckets are on)\n"
    "  --random-crop N      N random cuts of each picture instead of its middle (off everywhere); "
    "each\n"
    "                       enlarged by 1 to --zoom X (1.25)\n"
    "  --mask-loss X        the loss outside marked boxes and polygons weighs X (0 to 1); what is\n"
    "                       labelled `ignore` weighs nothing, with or without this\n"
    "  --flip                                  mirror half of them; bad for text and faces\n"
    "  --caption-dropout X                     0.05     0             0\n"
    "  --min-snr G                             5        1             off\n"
    "  --noise-offset X                        0        0.05          off\n"
    "  --pyramid-noise N, --pyramid-discount X 0, 0.3   -             off\n"
    "  --optimizer adamw|adamw8bit             adamw    adamw         adamw\n"
    "                       adamw8bit keeps the moments in a quarter of the memory\n"
    "  --weight-decay X, --clip X              0.01, 1  0.001, -      0.01, 1\n"
    "  --t-min T, --t-max T                    0, 999\n"
    "  --prior FILE         prompts, one a line, that shall stay what they are: the model draws "
    "each\n"
    "                       beforehand and is held to its own predictions there;\n"
    "                       --prior-weight X (1)\n"
    "  --lean               less memory: blocks are computed again in the backward pass\n"
    "  --save-every N, --preview-every N       250 steps\n"
    "  --prompt TEXT        for previews and the sheet at the end; may be repeated\n"
    "  --preview-steps N, --preview-cfg X      20, 5\n"
    "  --seed N             1; what a run draws depends on it alone\n"
    "  --fresh              do not go on from a checkpoint\n"
    "  --author, --licence, --description TEXT into the file\n"
    "  --card               OUT.md as well: a page to upload with the file\n"
    "\n"
    "pocket trains the small model that comes with Kiln from nothing: VAE, then UNet and text\n"
    "encoder, on pictures of the painter. --pictures, --data-seed, --vae-steps, --vae-batch,\n"
    "--vae-lr, --decoder-steps, --steps, --batch, --lr, --tail, --save-every, --seed.\n"
    "\n"
    "  --device NAME        cpu, cpu:THREADS, cuda:N (cpu)\n"
    "  --precision P        auto, fp32, bf16, fp16 (auto)\n"
    "  --json               say what was made as JSON\n"
    "  -q, --quiet          no progress\n";

static const char *const flags[] = {"crops", "text",       "flip", "lean",
                                    "fresh", "no-buckets", "card", NULL};

#define CURVE_POINTS 512
#define CURVE_WIDTH 60
#define BAR_CELLS 16

struct curve {
    double loss[CURVE_POINTS], sum;
    int count, gathered, each;
};

struct run {
    struct local_engine engine;
    struct progress progress;
    struct engine_train options;
    const char *device, *precision;
    bool json, quiet, begun;
    bool drawn;
    double last_line, first_seconds;
    int first_step;
    struct curve curve;
};

static bool is_flag(const char *name)
{
    for (size_t i = 0; flags[i]; i++)
        if (str_equal(name, flags[i])) return true;
    return false;
}

static int add(struct run *r, const char *name, const char *value, struct error *err)
{
    if (r->options.option_count == ENGINE_OPTIONS_MAX)
        return error_set(err, ERR_INVALID, "more than %d options", ENGINE_OPTIONS_MAX);
    r->options.options[r->options.option_count++] = (struct engine_option){name, value};
    return 0;
}

static int parse(struct run *r, int argc, char **argv, struct error *err)
{
    int rc = argc < 2 || argv[1][0] == '-'
                 ? error_set(err, ERR_INVALID, "say what to train: lora or pocket")
                 : add(r, "what", argv[1], err);
    for (int i = 2; i < argc && !rc; i++) {
        const char *name = argv[i];
        if (str_equal(name, "-q") || str_equal(name, "--quiet")) {
            r->quiet = true;
        } else if (str_equal(name, "--json")) {
            r->json = true;
        } else if (str_equal(name, "-o") || str_starts(name, "--")) {
            name = str_equal(name, "-o") ? "out" : name + 2;
            if (is_flag(name)) {
                rc = add(r, name, "true", err);
                continue;
            }
            if (++i == argc) return error_set(err, ERR_INVALID, "%s needs a value", argv[i - 1]);
            if (str_equal(name, "device"))
                r->device = argv[i];
            else if (str_equal(name, "precision"))
                r->precision = argv[i];
            else
                rc = add(r, name, argv[i], err);
        } else {
            rc = error_set(err, ERR_INVALID, "\"%s\" is no option", name);
        }
    }
    return rc;
}

/* "17 min", "2 h 05 min" */
static void format_span(char *text, size_t room, double seconds)
{
    if (seconds < 90)
        snprintf(text, room, "%.0f s", seconds);
    else if (seconds < 5400)
        snprintf(text, room, "%.0f min", seconds / 60);
    else
        snprintf(text, room, "%d h %02d min", (int)(seconds / 3600), (int)(seconds / 60) % 60);
}

/* The losses of the run so far as one row of blocks, each the mean of a stretch of steps. */
static void format_curve(char *text, size_t room, const struct curve *c, int width)
{
    static const char *const block[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
    double mean[CURVE_WIDTH], low = INFINITY, high = -INFINITY;
    int count = c->count < width ? c->count : width;
    *text = 0;
    for (int i = 0; i < count; i++) {
        int from = i * c->count / count, to = (i + 1) * c->count / count;
        mean[i] = 0;
        for (int k = from; k < to; k++) mean[i] += c->loss[k] / (to - from);
        low = fmin(low, mean[i]);
        high = fmax(high, mean[i]);
    }
    for (int i = 0; i < count; i++) {
        int level = high > low ? (int)((mean[i] - low) / (high - low) * 7.99) : 3;
        size_t at = strlen(text);
        snprintf(text + at, room - at, "%s", block[level]);
    }
}

/* Halves its resolution when it is full. */
static void curve_add(struct curve *c, double loss)
{
    if (!isfinite(loss)) return;
    c->sum += loss;
    if (++c->gathered < c->each) return;
    if (c->count == CURVE_POINTS) {
        for (int i = 0; i < CURVE_POINTS / 2; i++)
            c->loss[i] = (c->loss[2 * i] + c->loss[2 * i + 1]) / 2;
        c->count /= 2;
        c->each *= 2;
        if (c->gathered < c->each) return;
    }
    c->loss[c->count++] = c->sum / c->gathered;
    c->sum = 0;
    c->gathered = 0;
}

/* "step 120 of 1000, loss 0.0821, 1.20 s a step, 17 min left, 3.4 Wh": time from the steps of this
 * run, so that one which goes on is not taken for a fast one. */
static void show(struct run *r, const struct engine_progress *p)
{
    char left[32], energy[32] = "", text[256], curve[CURVE_WIDTH * 3 + 1];
    if (p->phase != ENGINE_PHASE_TRAIN) {
        const char *what = p->phase == ENGINE_PHASE_TEXT ? "reading pictures" : "drawing";
        if (r->progress.terminal) progress_show(&r->progress, what, p->step, p->steps);
        return;
    }
    if (!r->first_seconds || p->step <= r->first_step) {
        r->first_step = p->step;
        r->first_seconds = now_seconds();
    }
    if (!p->step || isnan(p->loss)) return;
    curve_add(&r->curve, p->loss);
    double each = p->step > r->first_step
                      ? (now_seconds() - r->first_seconds) / (p->step - r->first_step)
                      : NAN;
    format_span(left, sizeof left, each * (p->steps - p->step));
    if (isfinite(p->joules)) snprintf(energy, sizeof energy, ", %.2f Wh", p->joules / 3600);
    bool last = p->step == p->steps;
    if (isnan(each))
        snprintf(text, sizeof text, "loss %.4f", p->loss);
    else if (last)
        snprintf(text, sizeof text, "loss %.4f, %.2f s a step%s", p->loss, each, energy);
    else
        snprintf(text, sizeof text, "loss %.4f, %.2f s a step, %s left%s", p->loss, each, left,
                 energy);
    if (r->progress.terminal && !r->quiet && (last || now_seconds() - r->last_line > .1)) {
        r->last_line = now_seconds();
        format_curve(curve, sizeof curve, &r->curve, 8);
        fputs("\r\033[K", stderr);
        for (int i = 0; i < BAR_CELLS; i++)
            fputs(i < (int64_t)p->step * BAR_CELLS / p->steps ? "█" : "░", stderr);
        fprintf(stderr, " %d/%d  %s %s", p->step, p->steps, curve, text);
        r->drawn = true;
    } else if (!r->progress.terminal && !r->quiet && (now_seconds() - r->last_line > 30 || last)) {
        r->last_line = now_seconds();
        fprintf(stderr, "step %d of %d, %s\n", p->step, p->steps, text);
    }
}

/* Clears the line of a terminal and leaves the curve. */
static void show_end(struct run *r)
{
    char curve[CURVE_WIDTH * 3 + 1];
    progress_end(&r->progress);
    if (r->drawn) fputs("\r\033[K", stderr);
    if (r->quiet || r->curve.count < 2) return;
    format_curve(curve, sizeof curve, &r->curve, CURVE_WIDTH);
    fprintf(stderr, "loss %s %.4f to %.4f\n", curve, r->curve.loss[0],
            r->curve.loss[r->curve.count - 1]);
}

static int wait_for_end(struct run *r, struct engine_msg *m, struct error *err)
{
    for (;;) {
        int rc = local_engine_next(&r->engine, m, JOB, err);
        if (rc) return rc;
        if (m->kind == ENGINE_TRAINED) return 0;
        if (m->kind == ENGINE_PROGRESS) {
            if (m->progress.phase == ENGINE_PHASE_TRAIN) r->begun = true;
            show(r, &m->progress);
        }
        engine_msg_release(m);
    }
}

static const char *option(const struct run *r, const char *name)
{
    for (int i = 0; i < r->options.option_count; i++)
        if (str_equal(r->options.options[i].name, name)) return r->options.options[i].value;
    return NULL;
}

/* How to use what was made, and how to share it. */
static void print_next(const struct run *r, const char *path)
{
    const char *trigger = option(r, "trigger"), *model = option(r, "model");
    bool card = option(r, "card");
    if (!str_equal(option(r, "what"), "lora")) return;
    int stem = (int)(strlen(path) - strlen(".safetensors"));
    fprintf(stderr,
            "\nuse it:    kiln generate --model %s --lora %s:0.8 --prompt \"%s%s...\"\n"
            "look at it: kiln lora show %s\n"
            "share it:  CivitAI: upload the file as a LoRA%s%s%s; Horde workers then load it by "
            "its number\n",
            model ? model : "MODEL", path, trigger ? trigger : "", trigger ? ", " : "", path,
            trigger ? ", trained words \"" : "", trigger ? trigger : "", trigger ? "\"" : "");
    if (card)
        fprintf(stderr,
                "           Hugging Face: upload it with %.*s.md as README.md and the sheet\n",
                stem, path);
    else
        fputs("           Hugging Face: upload it with a README.md (--card writes one)\n", stderr);
}

static int print(const struct run *r, const struct engine_trained *t, struct error *err)
{
    if (!r->json) {
        puts(t->path);
        if (!r->quiet && isnan(t->joules))
            fprintf(stderr, "%d steps in %.0f s; energy not measured\n", t->steps, t->seconds);
        else if (!r->quiet)
            fprintf(stderr, "%d steps in %.0f s, %.1f Wh\n", t->steps, t->seconds,
                    t->joules / 3600);
        if (!r->quiet) print_next(r, t->path);
        return 0;
    }
    struct json_write w;
    struct buf out;
    buf_init(&out, 1 << 16);
    json_write_start(&w, &out);
    json_write_object(&w, NULL);
    json_write_text(&w, "path", t->path);
    json_write_int(&w, "steps", t->steps);
    json_write_number(&w, "seconds", t->seconds);
    json_write_number(&w, "loss", t->final_loss);
    json_write_number(&w, "joules", t->joules);
    json_write_close(&w, '}');
    int rc = json_write_end(&w, err);
    if (!rc) fwrite(out.data, 1, out.length, stdout);
    buf_release(&out);
    return rc;
}

static int work(struct run *r, struct error *err)
{
    struct engine_msg *m = alloc_zero(1, sizeof *m);
    int rc = local_engine_start(&r->engine, r->device, r->precision, err);
    if (!rc) {
        engine_msg_init(m, ENGINE_TRAIN, r->engine.launch_id, JOB);
        m->train = r->options; /* borrowed for the encoding */
        rc = local_engine_send(&r->engine, m, err);
        if (!rc) rc = wait_for_end(r, m, err);
        show_end(r);
        if (!rc) {
            rc = print(r, &m->trained, err);
            engine_msg_release(m);
        }
        local_engine_stop(&r->engine);
    }
    free(m);
    return rc;
}

static int run(int argc, char **argv)
{
    struct run *r = alloc_zero(1, sizeof *r);
    struct error err = {0};
    int rc = parse(r, argc, argv, &err);
    if (!rc) {
        progress_start(&r->progress, r->quiet);
        r->curve.each = 1;
        rc = work(r, &err);
    }
    int code = rc ? command_fail(&command_train, &err) : EXIT_DONE;
    if (rc && r->begun) code = EXIT_FAILED; /* not the words were wrong, but what came of them */
    free(r);
    return code;
}

const struct command command_train = {
    .name = "train",
    .summary = "teach a model new pictures: a LoRA of your own",
    .usage = usage,
    .run = run,
};
