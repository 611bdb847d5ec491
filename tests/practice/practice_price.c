/* The Horde's fallback formula (horde-api 13.1) and family factors (13.2). */
#include <math.h>
#include <string.h>

#include "base/str.h"
#include "practice.h"

enum family price_family(const char *model)
{
    static const char *const xl[] = {"XL", "xl", "Pony", "pony", "Illustrious", "illustrious"};
    for (size_t i = 0; i < sizeof xl / sizeof xl[0]; i++)
        if (strstr(model, xl[i])) return FAMILY_SDXL;
    return FAMILY_SD1;
}

static const json_t *list_of(const struct image_ask *a, const char *key)
{
    return json_object_get(a->payload, key);
}

int64_t price_job_milli(const struct image_ask *a)
{
    double area = ((double)a->width * a->height - 4096) / (1024.0 * 1024.0 - 4096);
    double ratio = area > 0 ? pow(area, 1.75) : 0;
    double kudos = 0.1232 * a->steps + ratio * 0.1232 * a->steps * 8.75;
    for (size_t i = 0; i < json_array_size(list_of(a, "post_processing")); i++) kudos *= 1.2;
    if (json_object_get(a->payload, "control_type") &&
        !json_is_true(json_object_get(a->payload, "return_control_map")))
        kudos *= 3;
    kudos += 3.0 * (double)json_array_size(list_of(a, "loras"));
    if (json_array_size(list_of(a, "tis"))) kudos += 1;
    kudos = round(kudos * 100) / 100;
    if (price_family(a->model_asked) == FAMILY_SDXL) kudos *= 2;
    return llround(kudos * 1000);
}

int64_t price_request_milli(const struct image_ask *a)
{
    double kudos = (double)price_job_milli(a) / 1000;
    if (a->has_source) kudos *= 1.3;
    if (a->upscale > 1) kudos *= 1.05;
    kudos += 1;
    if (!a->slow_workers) kudos *= 1.2;
    return llround(kudos * 1000);
}

int64_t price_form_milli(const char *form, int tiles)
{
    static const char *const one[] = {"caption",  "nsfw",      "vectorize", "palette",
                                      "describe", "aesthetic", NULL};
    if (str_equal(form, "interrogation")) return 3000;
    for (int i = 0; one[i]; i++)
        if (str_equal(form, one[i])) return 1000;
    return 3000 * tiles;
}
