#include "proto/terms.h"

#include <stdio.h>

#include "base/alloc.h"
#include "base/str.h"

struct sampler_row {
    const char *name;
    int calls;
};
static const struct sampler_row samplers[] = {
#define X(name, text, calls) {text, calls},
    SAMPLER_TABLE(X)
#undef X
};
static const char *const schedules[] = {
#define X(name, text) text,
    SCHEDULE_TABLE(X)
#undef X
};
struct family_row {
    const char *name, *old, *people;
};
static const struct family_row families[] = {
#define X(name, text, old, people) {text, old, people},
    FAMILY_TABLE(X)
#undef X
};

const char *sampler_name(enum sampler s)
{
    return samplers[s].name;
}

bool sampler_find(const char *name, enum sampler *s)
{
    for (int i = 0; i < SAMPLER_COUNT; i++)
        if (str_equal_nocase(name, samplers[i].name)) {
            *s = (enum sampler)i;
            return true;
        }
    return false;
}

int sampler_calls(enum sampler s)
{
    return samplers[s].calls;
}

/* every member of a table but the first brings its own comma, so that the list is one literal */
const char *sampler_list(void)
{
#define X(name, text, calls) ", " text
    static const char list[] = SAMPLER_TABLE(X);
#undef X
    return list + 2;
}

const char *schedule_name(enum schedule s)
{
    return schedules[s];
}

bool schedule_find(const char *name, enum schedule *s)
{
    for (int i = 0; i < SCHEDULE_COUNT; i++)
        if (str_equal_nocase(name, schedules[i])) {
            *s = (enum schedule)i;
            return true;
        }
    return false;
}

const char *schedule_list(void)
{
#define X(name, text) ", " text
    static const char list[] = SCHEDULE_TABLE(X);
#undef X
    return list + 2;
}

const char *family_name(enum family f)
{
    return families[f].name;
}

const char *family_people(enum family f)
{
    return families[f].people;
}

bool family_find(const char *name, enum family *f)
{
    for (int i = 0; i < FAMILY_COUNT; i++)
        if (str_equal_nocase(name, families[i].name) || str_equal_nocase(name, families[i].old)) {
            *f = (enum family)i;
            return true;
        }
    return false;
}

int sampler_work_steps(enum sampler s, int steps)
{
    return s == SAMPLER_K_DPM_ADAPTIVE ? 40 : steps * samplers[s].calls;
}

static const struct {
    const char *type, *file;
} annotators[] = {
#define X(name, text, file) {text, file},
    ANNOTATOR_TABLE(X)
#undef X
};

bool annotator_find(const char *type, enum annotator_kind *kind)
{
    for (int i = 0; i < ANNOTATOR_COUNT; i++)
        if (str_equal_nocase(type, annotators[i].type)) {
            *kind = (enum annotator_kind)i;
            return true;
        }
    return false;
}

bool annotator_choice(char file[ANNOTATOR_FILE_BYTES], enum annotator_kind *kind, const char *type,
                      int i)
{
    static const char *const endings[] = {"pth", "safetensors", "pt", "bin"};
    for (int k = 0; k < ANNOTATOR_COUNT; k++) {
        if (!str_equal_nocase(type, annotators[k].type)) continue;
        if (i < (int)COUNT_OF(endings)) {
            snprintf(file, ANNOTATOR_FILE_BYTES, "%s.%s", annotators[k].file, endings[i]);
            if (kind) *kind = (enum annotator_kind)k;
            return true;
        }
        i -= (int)COUNT_OF(endings);
    }
    return false;
}

bool layered_files_of(enum family f, struct layered_files *files)
{
    static const struct layered_files sd1 = {"layer_sd15_transparent_attn",
                                             "layer_sd15_vae_transparent_decoder"},
                                      xl = {"layer_xl_transparent_conv", "vae_transparent_decoder"};
    if (f == FAMILY_SD1) *files = sd1;
    if (f == FAMILY_SDXL) *files = xl;
    return f == FAMILY_SD1 || f == FAMILY_SDXL;
}

const char *annotator_file(enum annotator_kind kind)
{
    return annotators[kind].file;
}
