/* cmd_dataset.c - what a training would be trained on, before it is. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/json_write.h"
#include "base/str.h"
#include "cli/command.h"
#include "dataset/contact.h"
#include "image/codec.h"

static const char usage[] =
    "usage: kiln dataset check DIR [OPTIONS]\n"
    "\n"
    "Lists each picture with the caption it would be trained with, draws all of them on a contact\n"
    "sheet with what was marked in them, and names every picture and row that does not fit.\n"
    "Exit status 1 when a picture was left out or a row belongs to none.\n"
    "\n"
    "  --annotations FILE   an export of makesense.ai; labels_*.csv|json|zip in DIR is found\n"
    "                       by itself\n"
    "  --kind box|line      what eight columns without header mean\n"
    "  --trigger WORD       put first in every caption\n"
    "  --caption TEXT       template, %s for the words\n"
    "  --crops              one more sample for each box\n"
    "  --size PX            training size (512)\n"
    "  --sheet OUT.png      where the contact sheet goes (contact-sheet.png here)\n"
    "  --no-sheet           none\n"
    "  --write-captions     DIR/NAME.txt for each picture without one, to be corrected by hand\n"
    "  --json               the same as JSON\n";

struct check {
    struct dataset_options options;
    const char *sheet;
    bool no_sheet, write, json;
};

static int parse(struct check *c, int argc, char **argv, struct error *err)
{
    c->options = (struct dataset_options){
        .annotations = "", .crop_margin = .15, .min_side_px = 256, .warn_side_px = 512};
    if (argc < 3 || !str_equal(argv[1], "check"))
        return error_set(err, ERR_INVALID, "say: kiln dataset check DIR");
    c->options.folder = argv[2];
    for (int i = 3; i < argc; i++) {
        const char *name = argv[i];
        if (str_equal(name, "--crops"))
            c->options.crops = true;
        else if (str_equal(name, "--no-sheet"))
            c->no_sheet = true;
        else if (str_equal(name, "--write-captions"))
            c->write = true;
        else if (str_equal(name, "--json"))
            c->json = true;
        else if (i + 1 == argc)
            return error_set(err, ERR_INVALID, "%s needs a value or is no option", name);
        else if (str_equal(name, "--annotations"))
            c->options.annotations = argv[++i];
        else if (str_equal(name, "--trigger"))
            c->options.trigger = argv[++i];
        else if (str_equal(name, "--caption"))
            c->options.caption = argv[++i];
        else if (str_equal(name, "--sheet"))
            c->sheet = argv[++i];
        else if (str_equal(name, "--kind") && str_equal(argv[i + 1], "box"))
            c->options.hint = ANNOTATIONS_ARE_BOXES, i++;
        else if (str_equal(name, "--kind") && str_equal(argv[i + 1], "line"))
            c->options.hint = ANNOTATIONS_ARE_LINES, i++;
        else if (str_equal(name, "--size")) {
            int64_t size;
            if (!str_parse_i64(argv[++i], &size) || size < 64 || size > 2048)
                return error_set(err, ERR_INVALID, "--size %s: 64 to 2048", argv[i]);
            c->options.warn_side_px = (int)size;
            c->options.min_side_px = size < 256 ? (int)size / 2 : 256;
        } else {
            return error_set(err, ERR_INVALID, "there is no option %s %s", name, argv[i + 1]);
        }
    }
    return 0;
}

static const char *const sources[] = {"caption file", "captions.csv", "annotations",
                                      "folder's name", "trigger alone"};

static void print_plain(const struct dataset *d, const char *sheet)
{
    for (int i = 0; i < d->count; i++) {
        const struct sample *s = &d->sample[i];
        char caption[400];
        str_clean(caption, sizeof caption, s->caption);
        printf("%3d  %-28s %4dx%-4d %-13s %s\n", i + 1, s->name, s->is_crop ? s->w : s->width,
               s->is_crop ? s->h : s->height, s->is_crop ? "crop" : sources[s->source], caption);
    }
    struct label_count *labels;
    int count = dataset_labels(d, &labels);
    if (count) fputs("\nlabels:", stdout);
    for (int i = 0; i < count; i++)
        printf("%s %s (%d)", i ? "," : "", labels[i].label, labels[i].count);
    if (count) puts("");
    free(labels);
    if (d->problem_count) printf("\n%d to look at:\n", d->problem_count);
    for (int i = 0; i < d->problem_count; i++) printf("  - %s\n", d->problem[i]);
    printf("\n%d pictures, %d samples, %d left out\n", d->pictures, d->count, d->skipped);
    if (sheet) printf("contact sheet: %s\n", sheet);
}

static int print_json(const struct dataset *d, const char *sheet, struct error *err)
{
    struct json_write w;
    struct buf out;
    buf_init(&out, 16u << 20);
    json_write_start(&w, &out);
    json_write_object(&w, NULL);
    json_write_array(&w, "samples");
    for (int i = 0; i < d->count; i++) {
        const struct sample *s = &d->sample[i];
        json_write_object(&w, NULL);
        json_write_text(&w, "picture", s->name);
        json_write_text(&w, "caption", s->caption);
        json_write_text(&w, "source", sources[s->source]);
        json_write_int(&w, "width", s->is_crop ? s->w : s->width);
        json_write_int(&w, "height", s->is_crop ? s->h : s->height);
        json_write_close(&w, '}');
    }
    json_write_close(&w, ']');
    json_write_array(&w, "problems");
    for (int i = 0; i < d->problem_count; i++) json_write_text(&w, NULL, d->problem[i]);
    json_write_close(&w, ']');
    json_write_int(&w, "pictures", d->pictures);
    json_write_int(&w, "left_out", d->skipped);
    if (sheet) json_write_text(&w, "sheet", sheet);
    json_write_close(&w, '}');
    int rc = json_write_end(&w, err);
    if (!rc) fwrite(out.data, 1, out.length, stdout);
    buf_release(&out);
    return rc;
}

/* NAME.txt for pictures that have none; the trigger is not part of it, training puts it first. */
static int write_captions(const struct dataset *d, const struct dataset_options *o,
                          struct error *err)
{
    for (int i = 0; i < d->count; i++) {
        const struct sample *s = &d->sample[i];
        if (s->is_crop || s->source == CAPTION_FILE || s->source == CAPTION_NONE) continue;
        const char *words = s->caption;
        if (o->trigger && str_starts(words, o->trigger)) words += strlen(o->trigger);
        while (*words == ',' || *words == ' ') words++;
        char *path = alloc_printf("%.*s.txt", (int)(strrchr(s->path, '.') - s->path), s->path);
        struct buf b;
        buf_init(&b, 1 << 16);
        int rc = buf_printf(&b, err, "%s\n", words);
        if (!rc) rc = buf_write_file(&b, path, 0644, err);
        buf_release(&b);
        free(path);
        if (rc) return rc;
    }
    return 0;
}

static int run(int argc, char **argv)
{
    struct check c = {0};
    struct dataset d;
    struct error err = {0};
    int rc = parse(&c, argc, argv, &err);
    if (!rc) rc = dataset_open(&d, &c.options, &err);
    if (rc) return command_fail(&command_dataset, &err);
    char *path = c.no_sheet ? NULL
                 : c.sheet  ? alloc_string(c.sheet)
                            : alloc_string("contact-sheet.png");
    if (path) {
        struct pixels sheet;
        rc = contact_sheet(&sheet, &d, &err);
        if (!rc) rc = image_write(&sheet, NULL, path, 100, &err);
        if (!rc) pixels_release(&sheet);
    }
    if (!rc && c.write) rc = write_captions(&d, &c.options, &err);
    if (!rc && c.json)
        rc = print_json(&d, path, &err);
    else if (!rc)
        print_plain(&d, path);
    int code = rc ? command_fail(&command_dataset, &err) : d.skipped ? EXIT_FAILED : EXIT_DONE;
    free(path);
    dataset_release(&d);
    return code;
}

const struct command command_dataset = {
    .name = "dataset",
    .summary = "check pictures, captions and annotations before training",
    .usage = usage,
    .run = run,
};
