/* cmd_trace.c - what sustains an image: the network behind it, printed and drawn. */
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "base/json_write.h"
#include "base/str.h"
#include "cli/command.h"
#include "cli/picture.h"
#include "image/provenance.h"

static int print_json(const char *path, const struct provenance *p, struct error *err)
{
    struct json_write w;
    struct buf out;
    const char *group = NULL;
    buf_init(&out, 4u << 20);
    json_write_start(&w, &out);
    json_write_object(&w, NULL);
    json_write_text(&w, "path", path);
    for (int i = 0; i < PROVENANCE_COUNT; i++) {
        enum provenance_fact fact = (enum provenance_fact)i;
        if (!str_equal(group, provenance_group(fact))) {
            if (group) json_write_close(&w, '}');
            group = provenance_group(fact);
            json_write_object(&w, group);
        }
        if (p->value[i]) json_write_text(&w, provenance_property(fact), p->value[i]);
    }
    json_write_close(&w, '}');
    json_write_close(&w, '}');
    int rc = json_write_end(&w, err);
    if (!rc) fwrite(out.data, 1, out.length, stdout);
    buf_release(&out);
    return rc;
}

/* The groups as branches of one tree, from the picture down to the network. */
static void print_tree(const char *path, const struct provenance *p)
{
    static const char *const titles[][2] = {
        {"picture", "asked for"}, {"model", "drawn by"},  {"machine", "computed on"},
        {"energy", "with"},       {"network", "through"},
    };
    printf("%s\n", path);
    for (size_t g = 0; g < sizeof titles / sizeof *titles; g++) {
        int known = 0;
        bool last = g == sizeof titles / sizeof *titles - 1;
        printf("%s %s\n", last ? "└──" : "├──", titles[g][1]);
        for (int i = 0; i < PROVENANCE_COUNT; i++) {
            enum provenance_fact fact = (enum provenance_fact)i;
            if (!str_equal(provenance_group(fact), titles[g][0]) || !p->value[i] || !*p->value[i])
                continue;
            char shown[400];
            str_clean(shown, sizeof shown, p->value[i]);
            printf("%s     %-20s %s\n", last ? " " : "│", provenance_label(fact), shown);
            known++;
        }
        if (!known) printf("%s     (the picture does not say)\n", last ? " " : "│");
    }
}

static int run(int argc, char **argv)
{
    static const struct option table[] = {
        {"json", no_argument, NULL, 'j'}, {"show", no_argument, NULL, 's'}, {0}};
    bool json = false, show = false;
    optind = 1;
    opterr = 0;
    for (int id; (id = getopt_long(argc, argv, "", table, NULL)) != -1;) {
        if (id == '?')
            return command_usage(&command_trace, "option %s is unknown", argv[optind - 1]);
        json = json || id == 'j';
        show = show || id == 's';
    }
    if (argc - optind != 1) return command_usage(&command_trace, "one IMAGE is expected");
    const char *path = argv[optind];
    struct pixels pixels;
    struct image_text text = {0};
    struct provenance p = {0};
    struct error err = {0};
    int rc = image_read(&pixels, &text, path, &err);
    if (rc) return command_fail(&command_trace, &err);
    pixels_release(&pixels);
    rc = provenance_read(&p, &text, &err);
    if (rc) error_wrap(&err, rc, "%s", path);
    if (!rc && show) rc = picture_show(path, 0, 0, &err);
    if (!rc && json)
        rc = print_json(path, &p, &err);
    else if (!rc)
        print_tree(path, &p);
    provenance_release(&p);
    image_text_release(&text);
    return rc ? command_fail(&command_trace, &err) : EXIT_DONE;
}

const struct command command_trace = {
    .name = "trace",
    .summary = "what sustains an image",
    .usage =
        "usage: kiln trace IMAGE [--show] [--json]\n\n"
        "Prints what a picture carries about where it comes from: prompt and parameters, model,\n"
        "program and device, energy, and the network it went through. Reads the pictures of other\n"
        "programs too, as far as they say.\n",
    .run = run,
};

static int run_show(int argc, char **argv)
{
    struct error err = {0};
    int rc = 0;
    if (argc < 2) return command_usage(&command_show, "an IMAGE is expected");
    for (int i = 1; i < argc && !rc; i++) {
        if (argv[i][0] == '-') return command_usage(&command_show, "option %s is unknown", argv[i]);
        rc = picture_show(argv[i], 0, 0, &err);
    }
    return rc ? command_fail(&command_show, &err) : EXIT_DONE;
}

const struct command command_show = {
    .name = "show",
    .summary = "draw pictures in the terminal",
    .usage = "usage: kiln show IMAGE...\n",
    .run = run_show,
};
