/* cmd_pocket.c - the pocket model judged by the painter that taught it. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/json_write.h"
#include "base/str.h"
#include "cli/command.h"
#include "cli/local_engine.h"
#include "cli/progress.h"
#include "image/codec.h"
#include "image/resize.h"
#include "painter/pot_reader.h"

#define JOB "score"
#define SHEET_COLUMNS 8
#define SHEET_MAX 64

static const char usage[] =
    "usage: kiln pocket score [OPTIONS]\n"
    "       kiln pocket examples DIR [--count N] [--seed N]\n"
    "\n"
    "score draws captions that the pocket model was never trained on and lets the painter's own\n"
    "measurements read form, glaze, pattern and ground back from the pixels.\n"
    "  --model M            pocket\n"
    "  --count N            captions, at most 256 (256)\n"
    "  --steps N, --cfg X, --sampler NAME, --seed N     20, 3, k_euler, 1\n"
    "  --sheet OUT.png      the first 64 pictures\n"
    "  --lora PATH:STRENGTH, --trigger WORD\n"
    "                       judges a LoRA that was taught the sun pattern: how often WORD brings\n"
    "                       it, and how many attributes change where WORD is not said\n"
    "  --device NAME, --json, -q\n"
    "\n"
    "examples paints pots with a pattern that the pocket model does not know, a sun on the belly,\n"
    "into DIR and annotates them as makesense.ai exports tags (labels_*.csv): something to train\n"
    "a first LoRA on.\n";

struct score {
    const char *model, *sheet_path, *lora, *trigger, *device;
    int64_t count, steps;
    double cfg, lora_strength;
    uint64_t seed;
    enum sampler sampler;
    bool json, quiet;

    struct local_engine engine;
    struct progress progress;
    struct pot_reader *reader;
    struct pixels sheet;
    int drawn, to_draw;
};

/* ---- drawing and reading ---- */

static void put_on_sheet(struct score *s, const struct pixels *picture)
{
    int at = s->drawn++;
    if (!s->sheet_path || at >= SHEET_MAX) return;
    pixels_paste(&s->sheet, picture, at % SHEET_COLUMNS * POT_SIDE_PX,
                 at / SHEET_COLUMNS * POT_SIDE_PX);
}

static int ask(struct score *s, const char *prompt, uint64_t seed, bool lora,
               int read[POT_ATTRIBUTE_COUNT], struct error *err)
{
    struct engine_msg *m = alloc_zero(1, sizeof *m);
    engine_msg_init(m, ENGINE_GENERATE, s->engine.launch_id, JOB);
    struct image_request *q = &m->generate.request;
    free(q->model);
    free(q->prompt);
    q->model = alloc_string(s->model);
    q->prompt = alloc_string(prompt);
    q->width_px = q->height_px = POT_SIDE_PX;
    q->steps = (int)s->steps;
    q->cfg = s->cfg;
    q->sampler = s->sampler;
    q->seed = seed;
    if (lora && s->lora) {
        q->loras[0] = (struct request_lora){alloc_string(s->lora), alloc_string("lora"),
                                            s->lora_strength, s->lora_strength};
        q->lora_count = 1;
    }
    m->generate.format = ENGINE_FORMAT_PNG;
    int rc = local_engine_send(&s->engine, m, err);
    image_request_release(q);
    while (!rc) {
        rc = local_engine_next(&s->engine, m, JOB, err);
        if (rc || m->kind == ENGINE_RESULT) break;
        engine_msg_release(m);
    }
    struct pixels picture, rgb;
    if (!rc) {
        const struct blob *bytes = &m->result.images[0].bytes;
        rc = codec_decode(&picture, NULL, "the engine's picture", bytes->data, bytes->length, err);
        engine_msg_release(m);
    }
    free(m);
    if (rc) return rc;
    rc = pixels_convert(&rgb, &picture, 3, err);
    pixels_release(&picture);
    if (rc) return rc;
    put_on_sheet(s, &rgb);
    pot_reader_read(s->reader, rgb.data, rgb.width, read);
    pixels_release(&rgb);
    progress_show(&s->progress, "draw", s->drawn, s->to_draw);
    return 0;
}

static int start(struct score *s, struct error *err)
{
    int rows =
        (s->to_draw < SHEET_MAX ? s->to_draw + SHEET_COLUMNS - 1 : SHEET_MAX) / SHEET_COLUMNS;
    int rc = local_engine_start(&s->engine, s->device, NULL, err);
    if (rc) return rc;
    s->reader = pot_reader_new();
    if (s->sheet_path)
        rc = pixels_new(&s->sheet, SHEET_COLUMNS * POT_SIDE_PX, rows * POT_SIDE_PX, 3, err);
    return rc;
}

static int stop(struct score *s, int rc, struct error *err)
{
    progress_end(&s->progress);
    local_engine_stop(&s->engine);
    if (!rc && s->sheet_path) rc = image_write(&s->sheet, NULL, s->sheet_path, 100, err);
    pixels_release(&s->sheet);
    pot_reader_free(s->reader);
    return rc;
}

/* ---- the pocket model ---- */

static int write_json(const struct buf *out)
{
    fwrite(out->data, 1, out->length, stdout);
    return 0;
}

static int tell_score(const struct score *s, const int right[POT_ATTRIBUTE_COUNT], int all,
                      struct error *err)
{
    double count = (double)s->count, sum = 0;
    for (int a = 0; a < POT_ATTRIBUTE_COUNT; a++) sum += right[a] / count / POT_ATTRIBUTE_COUNT;
    if (!s->json) {
        for (int a = 0; a < POT_ATTRIBUTE_COUNT; a++)
            printf("%-8s %5.1f %%\n", pot_attribute_name((enum pot_attribute)a),
                   100 * right[a] / count);
        printf(
            "all      %5.1f %% of the attributes of %lld held-out captions, all four in %.1f %%\n",
            100 * sum, (long long)s->count, 100 * all / count);
        return 0;
    }
    struct json_write w;
    struct buf out;
    buf_init(&out, 1 << 16);
    json_write_start(&w, &out);
    json_write_object(&w, NULL);
    json_write_int(&w, "captions", s->count);
    for (int a = 0; a < POT_ATTRIBUTE_COUNT; a++)
        json_write_number(&w, pot_attribute_name((enum pot_attribute)a), right[a] / count);
    json_write_number(&w, "attributes", sum);
    json_write_number(&w, "all_four", all / count);
    json_write_close(&w, '}');
    int rc = json_write_end(&w, err);
    if (!rc) write_json(&out);
    buf_release(&out);
    return rc;
}

static int score_model(struct score *s, struct error *err)
{
    int right[POT_ATTRIBUTE_COUNT] = {0}, all = 0, done = 0;
    s->to_draw = (int)s->count;
    int rc = start(s, err);
    for (int i = 0; i < POT_COMBINATION_COUNT && done < s->count && !rc; i++) {
        int index = i * 7 % POT_COMBINATION_COUNT; /* 7 is prime to 1,200: a mixed order */
        if (!pot_held_out(index)) continue;
        struct pot pot = pot_combination(index);
        char caption[POT_CAPTION_BYTES];
        int read[POT_ATTRIBUTE_COUNT], agree = 0;
        pot_caption(&pot, caption);
        rc = ask(s, caption, s->seed + (uint64_t)done++, false, read, err);
        for (int a = 0; a < POT_ATTRIBUTE_COUNT && !rc; a++) {
            right[a] += read[a] == pot.attribute[a];
            agree += read[a] == pot.attribute[a];
        }
        all += agree == POT_ATTRIBUTE_COUNT;
    }
    rc = stop(s, rc, err);
    return rc ? rc : tell_score(s, right, all, err);
}

/* ---- a LoRA on it ---- */

static int tell_lora(const struct score *s, int shown, int before, int changed, struct error *err)
{
    double count = (double)s->count, attributes = count * POT_ATTRIBUTE_COUNT;
    if (!s->json) {
        printf("with \"%s\": the sun in %.1f %% of %lld pictures (without the LoRA %.1f %%)\n",
               s->trigger, 100 * shown / count, (long long)s->count, 100 * before / count);
        printf("without: %.1f %% of the attributes changed\n", 100 * changed / attributes);
        return 0;
    }
    struct json_write w;
    struct buf out;
    buf_init(&out, 1 << 16);
    json_write_start(&w, &out);
    json_write_object(&w, NULL);
    json_write_int(&w, "seeds", s->count);
    json_write_number(&w, "triggered", shown / count);
    json_write_number(&w, "triggered_without_lora", before / count);
    json_write_number(&w, "untriggered_changed", changed / attributes);
    json_write_close(&w, '}');
    int rc = json_write_end(&w, err);
    if (!rc) write_json(&out);
    buf_release(&out);
    return rc;
}

/* The words that `examples` annotates with, in the order of a caption that the model knows. */
static void example_words(const struct pot *pot, char text[POT_CAPTION_BYTES])
{
    char caption[POT_CAPTION_BYTES];
    pot_caption(pot, caption); /* "a tall vase with a blue glaze, dotted, on a grey ground" */
    const char *comma = strchr(caption, ','), *last = strrchr(caption, ',');
    snprintf(text, POT_CAPTION_BYTES, "%.*s%s", (int)(comma - caption), caption, last);
}

static int score_lora(struct score *s, struct error *err)
{
    int shown = 0, before = 0, changed = 0;
    if (!s->trigger) return error_set(err, ERR_INVALID, "--lora needs --trigger WORD");
    s->to_draw = (int)s->count * 4;
    int rc = start(s, err);
    for (int i = 0; i < s->count && !rc; i++) {
        struct pot pot = pot_draw(s->seed + 1000, (uint64_t)i);
        char words[POT_CAPTION_BYTES], caption[POT_CAPTION_BYTES];
        int with[POT_ATTRIBUTE_COUNT], without[POT_ATTRIBUTE_COUNT];
        uint64_t seed = s->seed + (uint64_t)i;
        example_words(&pot, words);
        char *prompt = alloc_printf("%s, %s", s->trigger, words);
        rc = ask(s, prompt, seed, true, with, err);
        if (!rc) rc = ask(s, prompt, seed, false, without, err);
        free(prompt);
        if (rc) break;
        shown += with[POT_PATTERN] == PATTERN_SUN;
        before += without[POT_PATTERN] == PATTERN_SUN;
        pot_caption(&pot, caption);
        rc = ask(s, caption, seed, true, with, err);
        if (!rc) rc = ask(s, caption, seed, false, without, err);
        for (int a = 0; a < POT_ATTRIBUTE_COUNT && !rc; a++) changed += with[a] != without[a];
    }
    rc = stop(s, rc, err);
    return rc ? rc : tell_lora(s, shown, before, changed, err);
}

/* ---- examples ---- */

static int write_example(const char *folder, int index, uint64_t seed, struct buf *csv,
                         struct error *err)
{
    struct pot pot = pot_draw(seed + 77, (uint64_t)index); /* its jitter */
    struct pixels picture;
    char words[POT_CAPTION_BYTES];
    /* A dozen as varied as a careful person picks it: every form twice, every glaze, every ground. */
    pot.attribute[POT_FORM] = index % FORM_COUNT;
    pot.attribute[POT_GLAZE] = index * 3 % GLAZE_COUNT;
    pot.attribute[POT_GROUND] = index * 2 % GROUND_COUNT;
    pot.attribute[POT_PATTERN] = PATTERN_SUN;
    int rc = pixels_new(&picture, POT_SIDE_PX, POT_SIDE_PX, 3, err);
    if (rc) return rc;
    pot_paint(picture.data, POT_SIDE_PX, &pot);
    char *path = alloc_printf("%s/pot-%02d.png", folder, index + 1);
    rc = image_write(&picture, NULL, path, 100, err);
    free(path);
    pixels_release(&picture);
    example_words(&pot, words);
    char tags[POT_CAPTION_BYTES], *to = tags;
    for (const char *p = words; *p; p++)
        if (!(*p == ' ' && p > words && p[-1] == ',')) *to++ = *p;
    *to = 0;
    return rc ? rc
              : buf_printf(csv, err, "%spot-%02d.png,\"[%s]\"", index ? "\n" : "", index + 1, tags);
}

static int examples(int argc, char **argv, struct error *err)
{
    int64_t count = 12;
    uint64_t seed = 1;
    if (argc < 3 || argv[2][0] == '-')
        return error_set(err, ERR_INVALID, "say: kiln pocket examples DIR");
    for (int i = 3; i < argc; i += 2) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        bool ok = str_equal(argv[i], "--count")
                      ? str_parse_i64(value, &count) && count > 0 && count <= 1000
                  : str_equal(argv[i], "--seed") ? str_parse_u64(value, &seed)
                                                 : false;
        if (!ok)
            return error_set(err, ERR_INVALID, "%s %s: --count 1 to 1000, --seed N", argv[i],
                             value);
    }
    if (mkdir(argv[2], 0777) && errno != EEXIST)
        return error_set_errno(err, ERR_IO, errno, "making the folder %s", argv[2]);
    struct buf csv;
    buf_init(&csv, 1 << 20);
    int rc = 0;
    for (int i = 0; i < count && !rc; i++) rc = write_example(argv[2], i, seed, &csv, err);
    char *path = alloc_printf("%s/labels_pots_2026-11-24-09-00-00.csv", argv[2]);
    if (!rc) rc = buf_write_file(&csv, path, 0644, err);
    if (!rc) puts(path);
    free(path);
    buf_release(&csv);
    return rc;
}

/* ---- the command ---- */

static int parse_lora(struct score *s, char *value, struct error *err)
{
    char *colon = strrchr(value, ':');
    s->lora_strength = 1;
    if (colon && str_parse_f64(colon + 1, &s->lora_strength)) *colon = 0;
    if (!(s->lora_strength >= -10 && s->lora_strength <= 10))
        return error_set(err, ERR_INVALID, "--lora: the strength is outside -10 to 10");
    s->lora = value;
    return 0;
}

static int parse(struct score *s, int argc, char **argv, struct error *err)
{
    *s = (struct score){.model = "pocket",
                        .count = POT_HELD_OUT_COUNT,
                        .steps = 20,
                        .cfg = 3,
                        .seed = 1,
                        .sampler = SAMPLER_K_EULER};
    for (int i = 2; i < argc; i++) {
        const char *name = argv[i];
        char *value = i + 1 < argc ? argv[i + 1] : NULL;
        bool ok = true;
        if (str_equal(name, "--json")) {
            s->json = true;
            continue;
        }
        if (str_equal(name, "-q") || str_equal(name, "--quiet")) {
            s->quiet = true;
            continue;
        }
        if (!value) return error_set(err, ERR_INVALID, "%s needs a value or is no option", name);
        i++;
        if (str_equal(name, "--model"))
            s->model = value;
        else if (str_equal(name, "--device"))
            s->device = value;
        else if (str_equal(name, "--sheet"))
            s->sheet_path = value;
        else if (str_equal(name, "--trigger"))
            s->trigger = value;
        else if (str_equal(name, "--lora"))
            ok = !parse_lora(s, value, err);
        else if (str_equal(name, "--count"))
            ok = str_parse_i64(value, &s->count) && s->count >= 1 && s->count <= POT_HELD_OUT_COUNT;
        else if (str_equal(name, "--steps"))
            ok = str_parse_i64(value, &s->steps) && s->steps >= 1 && s->steps <= REQUEST_STEPS_MAX;
        else if (str_equal(name, "--cfg"))
            ok = str_parse_f64(value, &s->cfg) && s->cfg >= 0 && s->cfg <= REQUEST_CFG_MAX;
        else if (str_equal(name, "--seed"))
            ok = str_parse_u64(value, &s->seed);
        else if (str_equal(name, "--sampler"))
            ok = sampler_find(value, &s->sampler);
        else
            return error_set(err, ERR_INVALID, "there is no option %s", name);
        if (!ok) return error_set(err, ERR_INVALID, "%s %s is outside its range", name, value);
    }
    return 0;
}

static int run(int argc, char **argv)
{
    struct error err = {0};
    int rc;
    if (argc >= 2 && str_equal(argv[1], "examples")) {
        rc = examples(argc, argv, &err);
    } else if (argc >= 2 && str_equal(argv[1], "score")) {
        struct score s;
        rc = parse(&s, argc, argv, &err);
        if (!rc) {
            progress_start(&s.progress, s.quiet);
            rc = s.lora ? score_lora(&s, &err) : score_model(&s, &err);
        }
    } else {
        rc = error_set(&err, ERR_INVALID, "say: kiln pocket score, or kiln pocket examples DIR");
    }
    return rc ? command_fail(&command_pocket, &err) : EXIT_DONE;
}

const struct command command_pocket = {
    .name = "pocket",
    .summary = "score the pocket model, or paint examples to train on",
    .usage = usage,
    .run = run,
};
