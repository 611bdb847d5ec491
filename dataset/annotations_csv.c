/* CSV from makesense.ai: fields are written without quotes whatever they hold, so a row is read from both
 * ends and a label or file name with commas in it survives. */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/str.h"
#include "dataset/annotations.h"

#define FIELDS_MAX 64

struct row {
    char *field[FIELDS_MAX];
    int count;
    char separator;
};

/* Splits in place; a field in double quotes (from a spreadsheet) loses them. */
static void split(struct row *row, char *line, char separator)
{
    row->count = 0;
    row->separator = separator;
    while (row->count < FIELDS_MAX) {
        char *to = line;
        row->field[row->count++] = line;
        if (*line == '"') {
            char *from = line + 1;
            while (*from && !(*from == '"' && from[1] != '"')) {
                if (*from == '"') from++;
                *to++ = *from++;
            }
            line = *from ? from + 1 : from;
        } else {
            while (*line && *line != separator) line++;
            to = line;
        }
        bool last = *line != separator;
        if (*line) line++;
        *to = 0;
        if (last) break;
    }
}

static char *join(const struct row *row, int from, int to)
{
    char *text = alloc_string(from < to ? row->field[from] : "");
    for (int i = from + 1; i < to; i++) {
        char *longer = alloc_printf("%s%c%s", text, row->separator, row->field[i]);
        free(text);
        text = longer;
    }
    return text;
}

static bool is_number(const char *text, double *value)
{
    while (*text == ' ') text++;
    return *text && str_parse_f64(text, value);
}

/* Where the coordinates begin: the first run of `run` numbers after the label that leaves at least one
 * field for the file name before the two sizes; -1: none. */
static int find_run(const struct row *row, int run)
{
    double value;
    for (int i = 1; i + run < row->count - 2; i++) {
        int n = 0;
        while (n < run && is_number(row->field[i + n], &value)) n++;
        if (n == run) return i;
    }
    return -1;
}

struct parsed {
    char *label, *image;
    double number[4];
    int run;
    double width, height;
};

static bool parse_region(struct parsed *p, const struct row *row)
{
    if (row->count < 6 || !is_number(row->field[row->count - 2], &p->width) ||
        !is_number(row->field[row->count - 1], &p->height) || p->width < 1 || p->height < 1 ||
        p->width > 1e6 || p->height > 1e6)
        return false;
    p->run = 4;
    int at = find_run(row, 4);
    if (at < 0) {
        p->run = 2;
        at = find_run(row, 2);
    }
    if (at < 0) return false;
    for (int i = 0; i < p->run; i++) is_number(row->field[at + i], &p->number[i]);
    p->label = join(row, 0, at);
    p->image = join(row, at + p->run, row->count - 2);
    return true;
}

static bool parse_line(struct parsed *p, char *line)
{
    struct row row;
    char *copy = alloc_string(line);
    split(&row, copy, ',');
    bool ok = parse_region(p, &row);
    if (!ok && strchr(line, ';')) {
        free(copy);
        copy = alloc_string(line);
        split(&row, copy, ';');
        ok = parse_region(p, &row);
    }
    free(copy);
    return ok;
}

/* kitchen-03.jpg,"[oven,woman,tiles]" */
static bool parse_tags(struct annotations *a, char *line)
{
    size_t length = strlen(line);
    while (length && line[length - 1] == '"') line[--length] = 0;
    if (!length || line[length - 1] != ']') return false;
    char *open = strstr(line, "\"[");
    char *list = open ? open + 2 : strchr(line, '[');
    if (!list || (!open && list == line)) return false;
    if (!open) list++;
    char *end = open ? open : list - 1;
    while (end > line && (end[-1] == ',' || end[-1] == ';' || end[-1] == '"')) end--;
    if (end == line) return false;
    line[length - 1] = 0;
    *end = 0;
    if (*line == '"') line++;
    struct annotated *image = annotations_image(a, line, false);
    for (char *save, *tag = strtok_r(list, ",", &save); tag; tag = strtok_r(NULL, ",", &save))
        annotations_tag(image, tag);
    return true;
}

static void add_region(struct annotations *a, const struct parsed *p, bool lines, int number)
{
    struct annotated *image = annotations_image(a, p->image, false);
    image->width = (int)p->width;
    image->height = (int)p->height;
    enum region_kind kind = p->run == 2 ? REGION_POINT : lines ? REGION_LINE : REGION_BOX;
    struct region *r = annotations_region(image, kind, p->label, number);
    const double *n = p->number;
    r->x = n[0];
    r->y = n[1];
    if (kind == REGION_BOX) {
        r->w = n[2];
        r->h = n[3];
    } else if (kind == REGION_LINE) {
        r->x = n[0] < n[2] ? n[0] : n[2];
        r->y = n[1] < n[3] ? n[1] : n[3];
        r->w = n[0] < n[2] ? n[2] - n[0] : n[0] - n[2];
        r->h = n[1] < n[3] ? n[3] - n[1] : n[1] - n[3];
    }
    if (!r->label)
        annotations_problem(a,
                            "line %d: a %s in %s has no label (deleted in the editor?); it counts "
                            "as unlabelled",
                            number, region_kind_name(kind), p->image);
}

struct rows {
    struct parsed *item;
    int *number;
    int count;
};

static bool looks_like_lines(const struct rows *rows)
{
    for (int i = 0; i < rows->count; i++) {
        const struct parsed *p = &rows->item[i];
        if (p->run == 4 && (p->number[0] + p->number[2] > p->width + 1 ||
                            p->number[1] + p->number[3] > p->height + 1))
            return true;
    }
    return false;
}

int annotations_read_csv(struct annotations *a, char *text, enum annotation_hint hint,
                         struct error *err)
{
    struct rows rows = {0};
    bool header = false;
    int number = 0, tag_lines = 0;
    a->format = ANNOTATIONS_CSV;
    for (char *next = text; next && *next;) {
        char *line = next, *end = strpbrk(line, "\r\n");
        next = end ? end + 1 + (*end == '\r' && end[1] == '\n') : NULL;
        if (end) *end = 0;
        number++;
        if (!*line) continue;
        struct parsed p;
        if (strstr(line, "label_name") && strstr(line, "bbox_x")) {
            header = true;
        } else if (parse_line(&p, line)) {
            rows.item = alloc_grow(rows.item, (size_t)rows.count + 1, sizeof *rows.item);
            rows.number = alloc_grow(rows.number, (size_t)rows.count + 1, sizeof *rows.number);
            rows.number[rows.count] = number;
            rows.item[rows.count++] = p;
        } else if (parse_tags(a, line)) {
            tag_lines++;
        } else {
            annotations_problem(a, "line %d is no annotation: '%.80s'", number, line);
        }
    }
    bool lines = hint == ANNOTATIONS_ARE_LINES;
    if (hint == ANNOTATIONS_GUESS && !header && rows.count) {
        lines = looks_like_lines(&rows);
        a->lines_guessed = true;
    }
    for (int i = 0; i < rows.count; i++) {
        add_region(a, &rows.item[i], lines, rows.number[i]);
        free(rows.item[i].label);
        free(rows.item[i].image);
    }
    if (tag_lines && !rows.count) a->format = ANNOTATIONS_TAGS_CSV;
    free(rows.item);
    free(rows.number);
    return 0;
}
