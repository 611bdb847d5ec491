#include "store/known.h"

#include "base/alloc.h"
#include "base/str.h"

static const struct known_file table[] = {
    {"GFPGANv1.4", "pth",
     "https://github.com/TencentARC/GFPGAN/releases/download/v1.3.4/GFPGANv1.4.pth",
     "e2cd4703ab14f4d01fd1383a8a8b266f9a5833dacee8e6a79d3bf21a1b6be5ad", 0, STORE_POST, NULL},
    {"GFPGANv1.3", "pth",
     "https://github.com/TencentARC/GFPGAN/releases/download/v1.3.0/GFPGANv1.3.pth",
     "c953a88f2727c85c3d9ae72e2bd4846bbaf59fe6972ad94130e23e7017524a70", 348632874, STORE_POST,
     NULL},
    {"codeformer", "pth",
     "https://github.com/sczhou/CodeFormer/releases/download/v0.1.0/codeformer.pth",
     "1009e537e0c2a07d4cabce6355f53cb66767cd4b4297ec7a4a64ca4b8a5684b7", 376637898, STORE_POST,
     NULL},
    {"detection_Resnet50_Final", "pth",
     "https://github.com/xinntao/facexlib/releases/download/v0.1.0/detection_Resnet50_Final.pth",
     "6d1de9c2944f2ccddca5f5e010ea5ae64a39845a86311af6fdf30841b0a5a16d", 109497761, STORE_POST,
     NULL},
    {"parsing_parsenet", "pth",
     "https://github.com/xinntao/facexlib/releases/download/v0.2.2/parsing_parsenet.pth",
     "3d558d8d0e42c20224f13cf5a29c79eba2d59913419f945545d8cf7b72920de2", 85331193, STORE_POST,
     NULL},
    {"u2net", "onnx", "https://github.com/danielgatis/rembg/releases/download/v0.0.0/u2net.onnx",
     "8d10d2f3bb75ae3b6d527c77944fc5e7dcd94b29809d47a739a7a728a912b491", 175997641, STORE_POST,
     NULL},
    {"BLIP_Large", "pth",
     "https://storage.googleapis.com/sfr-vision-language-research/BLIP/models/"
     "model_large_caption.pth",
     "0d79b3b7c41478b5fe55c35b73ca6f3525a09708289371c6c0fac641e588287e", 0, STORE_CAPTION, NULL},
    {"BLIP", "pth",
     "https://storage.googleapis.com/sfr-vision-language-research/BLIP/models/"
     "model*_base_caption.pth",
     "96ac8749bd0a568c274ebe302b3a3748ab9be614c737f3d8c529697139174086", 0, STORE_CAPTION, NULL},
    {"bert-base-uncased-vocab", "txt",
     "https://huggingface.co/google-bert/bert-base-uncased/resolve/"
     "86b5e0934494bd15c9632b12f734a8a67f723594/vocab.txt",
     "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3", 231508, STORE_CAPTION,
     "vocab"},
    {"clip-vit-large-patch14", "safetensors",
     "https://huggingface.co/openai/clip-vit-large-patch14/resolve/"
     "32bd64288804d66eefd0ccbe215aa642df71cc41/model.safetensors",
     "a2bf730a0c7debf160f7a6b50b3aaf3703e7e88ac73de7a314903141db026dcb", 1710540580, STORE_SAFETY,
     "model"},
#define LAYERED "https://huggingface.co/LayerDiffusion/layerdiffusion-v1/resolve/main/"
    {"layer_sd15_transparent_attn", "safetensors",
     LAYERED "layer_sd15_transparent_attn.safetensors",
     "cc9ee87452bf1ccdd419035bf9618f6bdcaac1a2d3e23694d62e5a9c721da295", 0, STORE_LAYERED, NULL},
    {"layer_sd15_vae_transparent_decoder", "safetensors",
     LAYERED "layer_sd15_vae_transparent_decoder.safetensors",
     "6df4712dfbb3783231b22f869a5da5cbfea782ebb05f782bd9e8744bfb0cdf03", 0, STORE_LAYERED, NULL},
    {"layer_xl_transparent_conv", "safetensors", LAYERED "layer_xl_transparent_conv.safetensors",
     "5ee958d80dcd515fa7ac915274c536fadd3db5d919adeb5ff45107b6169aacc7", 0, STORE_LAYERED, NULL},
    {"vae_transparent_decoder", "safetensors", LAYERED "vae_transparent_decoder.safetensors",
     "59dc8feefe40d26b6cb7186aed7af70c60d94ac4f9db8ebe7f121a01ba27a2fc", 0, STORE_LAYERED, NULL},
#undef LAYERED
#define ANNOTATORS "https://huggingface.co/lllyasviel/Annotators/resolve/main/"
    {"ControlNetHED", "pth", ANNOTATORS "ControlNetHED.pth",
     "5ca93762ffd68a29fee1af9d495bf6aab80ae86f08905fb35472a083a4c7a8fa", 0, STORE_ANNOTATOR, NULL},
    {"res101", "pth", ANNOTATORS "res101.pth",
     "1d696b2ef3e8336b057d0c15bc82d2fecef821bfebe5ef9d7671a5ec5dde520b", 0, STORE_ANNOTATOR, NULL},
    {"body_pose_model", "pth", ANNOTATORS "body_pose_model.pth",
     "25a948c16078b0f08e236bda51a385d855ef4c153598947c28c0d47ed94bb746", 0, STORE_ANNOTATOR, NULL},
    {"upernet_global_small", "pth", ANNOTATORS "upernet_global_small.pth",
     "bebfa1264c10381e389d8065056baaadbdadee8ddc6e36770d1ec339dc84d970", 0, STORE_ANNOTATOR, NULL},
    {"mlsd_large_512_fp32", "pth", ANNOTATORS "mlsd_large_512_fp32.pth",
     "5696f168eb2c30d4374bbfd45436f7415bb4d88da29bea97eea0101520fba082", 0, STORE_ANNOTATOR, NULL},
#undef ANNOTATORS
#define WORDS                                                                                      \
    "https://raw.githubusercontent.com/db0/nataili/"                                               \
    "3cfc46fc81734293292778f35bb9f636839db5ef/nataili/"
    {"words-tags", "txt", WORDS "tags.txt",
     "bce437adae05fda6ab3fd0e53fd59a4ec00dd77c4449b51fe13dfe8c3c3f0d14", 22260, STORE_WORDS,
     "tags"},
    {"words-sites", "txt", WORDS "sites.txt",
     "3317750c75587a708353d76ac9ac93976a14f3cb5f388057277747a21dfaa9da", 167, STORE_WORDS, "sites"},
    {"words-artists", "txt", WORDS "artists.txt",
     "d6fff6fd1ae4b37a18878c30cec6e7405e834ffd2543f7cefe9a990143a5ed19", 80572, STORE_WORDS,
     "artists"},
    {"words-flavors", "txt", WORDS "flavors.txt",
     "13ab1845e0bb6bdad9d32378db167194e6961d3f089725a854cd8ea260ee14ae", 2429, STORE_WORDS,
     "flavors"},
    {"words-mediums", "txt", WORDS "mediums.txt",
     "e1573c06e3ce32d79e848aec49a153395036d39aa6abf9205ed2d9a9dcc6d5ba", 1090, STORE_WORDS,
     "mediums"},
    {"words-movements", "txt", WORDS "movements.txt",
     "3e1a08b1d1e1bfa963b346e0d56d8e2ef5d09ecffe5bd0cd7d4f1f49f8b9a2d5", 2682, STORE_WORDS,
     "movements"},
    {"words-techniques", "txt", WORDS "techniques.txt",
     "45dd58cec66a0d92218bf5778f2481e0fa0d555866621ef6bc9804a866e8f1f6", 586, STORE_WORDS,
     "techniques"},
#undef WORDS
};

static const struct {
    const char *words[3];
    const char *files[KNOWN_GROUP_MAX];
} groups[] = {
    {{"gfpgan"}, {"GFPGANv1.4", "detection_Resnet50_Final", "parsing_parsenet"}},
    {{"gfpganv1.3"}, {"GFPGANv1.3", "detection_Resnet50_Final", "parsing_parsenet"}},
    {{"codeformers", "codeformer"}, {"codeformer", "detection_Resnet50_Final", "parsing_parsenet"}},
    {{"u2net", "strip_background"}, {"u2net"}},
    {{"caption", "blip_large"}, {"BLIP_Large", "bert-base-uncased-vocab"}},
    {{"caption-base", "blip"}, {"BLIP", "bert-base-uncased-vocab"}},
    {{"interrogation", "interrogate"},
     {"clip-vit-large-patch14", "words-tags", "words-sites", "words-artists", "words-flavors",
      "words-mediums", "words-movements", "words-techniques"}},
    {{"words"},
     {"words-tags", "words-sites", "words-artists", "words-flavors", "words-mediums",
      "words-movements", "words-techniques"}},
    {{"layer_diffuse"},
     {"layer_sd15_transparent_attn", "layer_sd15_vae_transparent_decoder",
      "layer_xl_transparent_conv", "vae_transparent_decoder"}},
    {{"layer_diffuse_sd15"}, {"layer_sd15_transparent_attn", "layer_sd15_vae_transparent_decoder"}},
    {{"layer_diffuse_sdxl"}, {"layer_xl_transparent_conv", "vae_transparent_decoder"}},
    {{"nsfw", "clip"}, {"clip-vit-large-patch14"}},
    {{"annotators"},
     {"ControlNetHED", "res101", "body_pose_model", "upernet_global_small", "mlsd_large_512_fp32"}},
    {{"annotator-hed", "annotator-fakescribbles"}, {"ControlNetHED"}},
    {{"annotator-depth"}, {"res101"}},
    {{"annotator-openpose"}, {"body_pose_model"}},
    {{"annotator-seg"}, {"upernet_global_small"}},
    {{"annotator-hough", "annotator-mlsd"}, {"mlsd_large_512_fp32"}},
};

const struct known_file *known_find(const char *name)
{
    for (size_t i = 0; i < COUNT_OF(table); i++)
        if (str_equal(table[i].name, name)) return &table[i];
    return NULL;
}

const struct known_file *known_in_store(enum store_kind kind, const char *file)
{
    /* captioners come in two layouts, and one's own lists are welcome */
    if (kind == STORE_CAPTION || kind == STORE_WORDS) return NULL;
    for (size_t i = 0; i < COUNT_OF(table); i++)
        if (table[i].kind == kind && str_equal(table[i].file ? table[i].file : table[i].name, file))
            return &table[i];
    return NULL;
}

const struct known_file *known_at(int i)
{
    return i < (int)COUNT_OF(table) ? &table[i] : NULL;
}

const char *known_group_word(int i)
{
    return i < (int)COUNT_OF(groups) ? groups[i].words[0] : NULL;
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
