#include "proto/post_weights.h"

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/str.h"

#define FACES "detection_Resnet50_Final", "parsing_parsenet"

static const struct post_weights table[] = {
    {"RealESRGAN_x4plus", POST_UPSCALER, {"RealESRGAN_x4plus"}, {0}},
    {"RealESRGAN_x2plus", POST_UPSCALER, {"RealESRGAN_x2plus"}, {0}},
    {"RealESRGAN_x4plus_anime_6B", POST_UPSCALER, {"RealESRGAN_x4plus_anime_6B"}, {0}},
    {"NMKD_Siax", POST_UPSCALER, {"NMKD_Siax"}, {0}},
    {"4x_AnimeSharp", POST_UPSCALER, {"4x_AnimeSharp"}, {0}},
    {"GFPGAN", POST_FIXER, {"GFPGAN GFPGANv1.4", FACES}, {false, false, true}},
    {"GFPGANv1.3", POST_FIXER, {"GFPGANv1.3", FACES}, {false, false, true}},
    {"CodeFormers",
     POST_FIXER,
     {"CodeFormers codeformer codeformer-v0.1.0", FACES},
     {false, false, true}},
    {"strip_background", POST_CUTTER, {"strip_background u2net"}, {0}},
};

const struct post_weights *post_weights_at(int index)
{
    return index >= 0 && index < (int)COUNT_OF(table) ? &table[index] : NULL;
}

const struct post_weights *post_weights_find(const char *name)
{
    for (size_t i = 0; i < COUNT_OF(table); i++)
        if (str_equal(table[i].name, name)) return &table[i];
    return NULL;
}

bool post_weights_file(char file[POST_FILE_BYTES], const struct post_weights *w, int part, int i)
{
    static const char *const endings[] = {"safetensors", "pth", "onnx"};
    const char *stem = w->part[part];
    for (int skip = i / (int)COUNT_OF(endings); stem && skip > 0; skip--) {
        stem = strchr(stem, ' ');
        stem = stem ? stem + 1 : NULL;
    }
    if (!stem) return false;
    snprintf(file, POST_FILE_BYTES, "%.*s.%s", (int)strcspn(stem, " "), stem,
             endings[i % (int)COUNT_OF(endings)]);
    return true;
}
