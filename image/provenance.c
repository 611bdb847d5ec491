#include "image/provenance.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

struct fact_row {
    const char *property, *group, *people, *parameter;
};
static const struct fact_row facts[] = {
#define X(name, property, group, people, parameter) {property, group, people, parameter},
    PROVENANCE_TABLE(X)
#undef X
};

#define TEXT_BYTES_MAX (1u << 20)
#define SOURCE_TYPE "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"

void provenance_init(struct provenance *p)
{
    *p = (struct provenance){0};
}

void provenance_release(struct provenance *p)
{
    if (!p) return;
    for (int i = 0; i < PROVENANCE_COUNT; i++) free(p->value[i]);
    provenance_init(p);
}

void provenance_set(struct provenance *p, enum provenance_fact fact, const char *format, ...)
{
    va_list args;
    char *text = NULL;
    va_start(args, format);
    int length = vasprintf(&text, format, args);
    va_end(args);
    KILN_ASSERT(length >= 0);
    free(p->value[fact]);
    p->value[fact] = text;
}

const char *provenance_group(enum provenance_fact fact)
{
    return facts[fact].group;
}

const char *provenance_label(enum provenance_fact fact)
{
    return facts[fact].people;
}

const char *provenance_property(enum provenance_fact fact)
{
    return facts[fact].property;
}

/* Values with a comma or colon are quoted, as the webui does. */
static void put_parameter(struct buf *b, const char *name, const char *value, bool first)
{
    bool quote = strpbrk(value, ",:\n\"") != NULL;
    buf_printf(b, NULL, "%s%s: ", first ? "" : ", ", name);
    if (quote) buf_append(b, "\"", 1, NULL);
    for (const char *s = value; *s; s++) {
        if (quote && (*s == '"' || *s == '\\')) buf_append(b, "\\", 1, NULL);
        if (*s == '\n')
            buf_append_string(b, "\\n", NULL);
        else
            buf_append(b, s, 1, NULL);
    }
    if (quote) buf_append(b, "\"", 1, NULL);
}

static char *make_parameters(const struct provenance *p)
{
    struct buf b;
    buf_init(&b, TEXT_BYTES_MAX);
    if (p->value[PROVENANCE_PROMPT]) buf_append_string(&b, p->value[PROVENANCE_PROMPT], NULL);
    if (p->value[PROVENANCE_NEGATIVE] && *p->value[PROVENANCE_NEGATIVE])
        buf_printf(&b, NULL, "\nNegative prompt: %s", p->value[PROVENANCE_NEGATIVE]);
    bool first = true;
    for (int i = 0; i < PROVENANCE_COUNT; i++) {
        if (!p->value[i] || !facts[i].parameter) continue;
        if (first) buf_append(&b, "\n", 1, NULL);
        put_parameter(&b, facts[i].parameter, p->value[i], first);
        first = false;
    }
    if (p->value[PROVENANCE_MODEL_SHA256])
        buf_printf(&b, NULL, ", Model hash: %.10s", p->value[PROVENANCE_MODEL_SHA256]);
    size_t length;
    return (char *)buf_take(&b, &length);
}

static void put_xml(struct buf *b, const char *text)
{
    for (const char *s = text; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '&')
            buf_append_string(b, "&amp;", NULL);
        else if (c == '<')
            buf_append_string(b, "&lt;", NULL);
        else if (c == '>')
            buf_append_string(b, "&gt;", NULL);
        else if (c < 0x20 && c != '\n' && c != '\t')
            buf_append(b, " ", 1, NULL);
        else
            buf_append(b, s, 1, NULL);
    }
}

static char *make_xmp(const struct provenance *p)
{
    struct buf b;
    buf_init(&b, TEXT_BYTES_MAX);
    buf_append_string(&b,
                      "<?xpacket begin=\"\xef\xbb\xbf\" id=\"W5M0MpCehiHzreSzNTczkc9d\"?>\n"
                      "<x:xmpmeta xmlns:x=\"adobe:ns:meta/\">\n"
                      " <rdf:RDF xmlns:rdf=\"http://www.w3.org/1999/02/22-rdf-syntax-ns#\">\n"
                      "  <rdf:Description rdf:about=\"\"\n"
                      "    xmlns:xmp=\"http://ns.adobe.com/xap/1.0/\"\n"
                      "    xmlns:Iptc4xmpExt=\"http://iptc.org/std/Iptc4xmpExt/2008-02-29/\"\n"
                      "    xmlns:kiln=\"" PROVENANCE_NAMESPACE "\">\n"
                      "   <Iptc4xmpExt:DigitalSourceType>" SOURCE_TYPE
                      "</Iptc4xmpExt:DigitalSourceType>\n",
                      NULL);
    if (p->value[PROVENANCE_PROGRAM]) {
        buf_append_string(&b, "   <xmp:CreatorTool>", NULL);
        put_xml(&b, p->value[PROVENANCE_PROGRAM]);
        buf_append_string(&b, "</xmp:CreatorTool>\n", NULL);
    }
    for (int i = 0; i < PROVENANCE_COUNT; i++) {
        if (!p->value[i]) continue;
        buf_printf(&b, NULL, "   <kiln:%s>", facts[i].property);
        put_xml(&b, p->value[i]);
        buf_printf(&b, NULL, "</kiln:%s>\n", facts[i].property);
    }
    buf_append_string(&b, "  </rdf:Description>\n </rdf:RDF>\n</x:xmpmeta>\n<?xpacket end=\"w\"?>",
                      NULL);
    size_t length;
    return (char *)buf_take(&b, &length);
}

void provenance_text(const struct provenance *p, struct image_text *text)
{
    *text = (struct image_text){.parameters = make_parameters(p), .xmp = make_xmp(p)};
}

static char *unescape_xml(const char *from, size_t length)
{
    static const struct {
        const char *entity;
        char c;
    } entities[] = {
        {"&amp;", '&'}, {"&lt;", '<'}, {"&gt;", '>'}, {"&quot;", '"'}, {"&apos;", '\''}};
    char *to = alloc_zero(length + 1, 1);
    size_t used = 0;
    for (size_t i = 0; i < length;) {
        size_t step = 1;
        char c = from[i];
        for (size_t j = 0; j < COUNT_OF(entities) && c == '&'; j++) {
            size_t n = strlen(entities[j].entity);
            if (length - i >= n && memcmp(from + i, entities[j].entity, n) == 0) {
                c = entities[j].c;
                step = n;
                break;
            }
        }
        to[used++] = c;
        i += step;
    }
    return to;
}

static int read_xmp(struct provenance *p, const char *xmp)
{
    int found = 0;
    for (int i = 0; i < PROVENANCE_COUNT; i++) {
        char open[64], close[64];
        snprintf(open, sizeof open, "<kiln:%s>", facts[i].property);
        snprintf(close, sizeof close, "</kiln:%s>", facts[i].property);
        const char *from = strstr(xmp, open);
        const char *to = from ? strstr(from, close) : NULL;
        if (!to) continue;
        from += strlen(open);
        free(p->value[i]);
        p->value[i] = unescape_xml(from, (size_t)(to - from));
        found++;
    }
    return found;
}

/* One "Name: value" of the last line; returns what follows the comma, or NULL at the end. */
static const char *read_pair(struct provenance *p, const char *at)
{
    while (*at == ' ' || *at == ',') at++;
    const char *colon = strchr(at, ':');
    if (!colon) return NULL;
    const char *value = colon + 1;
    while (*value == ' ') value++;
    struct buf b;
    buf_init(&b, TEXT_BYTES_MAX);
    const char *end = value;
    if (*end == '"') {
        for (end++; *end && *end != '"'; end++) {
            if (*end == '\\' && end[1]) end++;
            buf_append(&b, *end == 'n' && end[-1] == '\\' ? "\n" : end, 1, NULL);
        }
        if (*end) end++;
    } else {
        while (*end && *end != ',') buf_append(&b, end++, 1, NULL);
    }
    size_t length;
    char *text = (char *)buf_take(&b, &length);
    for (int i = 0; i < PROVENANCE_COUNT; i++)
        if (facts[i].parameter && strlen(facts[i].parameter) == (size_t)(colon - at) &&
            strncmp(facts[i].parameter, at, (size_t)(colon - at)) == 0) {
            free(p->value[i]);
            p->value[i] = alloc_string(text);
        }
    free(text);
    return *end ? end : NULL;
}

static int read_parameters(struct provenance *p, const char *text)
{
    const char *last = strrchr(text, '\n');
    const char *line = last ? last + 1 : text;
    if (!strstr(line, "Steps: ") && !strstr(line, "Seed: ")) {
        line = text + strlen(text);
        last = line;
    }
    const char *negative = strstr(text, "\nNegative prompt: ");
    const char *end = last ? last : text;
    const char *prompt_end = negative && negative < end ? negative : end;
    p->value[PROVENANCE_PROMPT] = alloc_string_n(text, (size_t)(prompt_end - text));
    if (negative && negative < end) {
        negative += strlen("\nNegative prompt: ");
        p->value[PROVENANCE_NEGATIVE] = alloc_string_n(negative, (size_t)(end - negative));
    }
    for (const char *at = line; at && *at;) at = read_pair(p, at);
    return 1;
}

int provenance_read(struct provenance *p, const struct image_text *text, struct error *err)
{
    struct provenance found;
    provenance_init(&found);
    int count = text->xmp ? read_xmp(&found, text->xmp) : 0;
    if (!count && text->parameters) count = read_parameters(&found, text->parameters);
    if (!count) {
        provenance_release(&found);
        return error_set(err, ERR_NOT_FOUND, "the picture says nothing about where it comes from");
    }
    *p = found;
    return 0;
}
