#include "store/known.h"

#include "base/alloc.h"
#include "base/str.h"

static const struct known_file table[] = {
    {"GFPGANv1.4", "pth",
     "https://github.com/TencentARC/GFPGAN/releases/download/v1.3.4/GFPGANv1.4.pth",
     "e2cd4703ab14f4d01fd1383a8a8b266f9a5833dacee8e6a79d3bf21a1b6be5ad", 0},
    {"GFPGANv1.3", "pth",
     "https://github.com/TencentARC/GFPGAN/releases/download/v1.3.0/GFPGANv1.3.pth",
     "c953a88f2727c85c3d9ae72e2bd4846bbaf59fe6972ad94130e23e7017524a70", 348632874},
    {"codeformer", "pth",
     "https://github.com/sczhou/CodeFormer/releases/download/v0.1.0/codeformer.pth",
     "1009e537e0c2a07d4cabce6355f53cb66767cd4b4297ec7a4a64ca4b8a5684b7", 376637898},
    {"detection_Resnet50_Final", "pth",
     "https://github.com/xinntao/facexlib/releases/download/v0.1.0/detection_Resnet50_Final.pth",
     "6d1de9c2944f2ccddca5f5e010ea5ae64a39845a86311af6fdf30841b0a5a16d", 109497761},
    {"parsing_parsenet", "pth",
     "https://github.com/xinntao/facexlib/releases/download/v0.2.2/parsing_parsenet.pth",
     "3d558d8d0e42c20224f13cf5a29c79eba2d59913419f945545d8cf7b72920de2", 85331193},
    {"u2net", "onnx", "https://github.com/danielgatis/rembg/releases/download/v0.0.0/u2net.onnx",
     "8d10d2f3bb75ae3b6d527c77944fc5e7dcd94b29809d47a739a7a728a912b491", 175997641},
};

static const struct {
    const char *words[3];
    const char *files[KNOWN_GROUP_MAX];
} groups[] = {
    {{"gfpgan"}, {"GFPGANv1.4", "detection_Resnet50_Final", "parsing_parsenet"}},
    {{"gfpganv1.3"}, {"GFPGANv1.3", "detection_Resnet50_Final", "parsing_parsenet"}},
    {{"codeformers", "codeformer"}, {"codeformer", "detection_Resnet50_Final", "parsing_parsenet"}},
    {{"u2net", "strip_background"}, {"u2net"}},
};

const struct known_file *known_find(const char *name)
{
    for (size_t i = 0; i < COUNT_OF(table); i++)
        if (str_equal(table[i].name, name)) return &table[i];
    return NULL;
}

int known_group(const char *word, const struct known_file *files[KNOWN_GROUP_MAX])
{
    int count = 0;
    for (size_t g = 0; g < COUNT_OF(groups) && !count; g++)
        for (size_t w = 0; w < COUNT_OF(groups[g].words) && !count; w++) {
            if (!groups[g].words[w] || !str_equal_nocase(groups[g].words[w], word)) continue;
            while (count < KNOWN_GROUP_MAX && groups[g].files[count]) {
                files[count] = known_find(groups[g].files[count]);
                count++;
            }
        }
    if (!count && (files[0] = known_find(word))) count = 1;
    return count;
}
