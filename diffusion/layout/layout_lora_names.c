/* A place's name with underscores as a path with dots, in diffusers' words. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/str.h"
#include "diffusion/layout/layout.h"

/* Steps of a path that hold underscores themselves. */
static const char *const words[] = {
    "down_blocks",   "up_blocks",       "mid_block",      "transformer_blocks",
    "time_emb_proj", "conv_shortcut",   "time_embedding", "add_embedding",
    "proj_in",       "proj_out",        "to_q",           "to_k",
    "to_v",          "to_out",          "conv_in",        "conv_out",
    "text_model",    "self_attn",       "q_proj",         "k_proj",
    "v_proj",        "out_proj",        "linear_1",       "linear_2",
    "cond_proj",     "text_projection",
};

/* "down_blocks_0_attentions_1_proj_in" -> "down_blocks.0.attentions.1.proj_in". In place: lengths agree. */
void layout_dot(char *path)
{
    for (char *p = path; *p;) {
        size_t step = strcspn(p, "_");
        for (size_t i = 0; i < COUNT_OF(words); i++) {
            size_t n = strlen(words[i]);
            if (strncmp(p, words[i], n) == 0 && (!p[n] || p[n] == '_')) step = n;
        }
        p += step;
        if (*p) *p++ = '.';
    }
}

/* ---- the original code's names of the UNet, two residual blocks a level as all families have ---- */

static const char *residual(const char *name)
{
    static const char *const pair[][2] = {{"in_layers_2", "conv1"},
                                          {"emb_layers_1", "time_emb_proj"},
                                          {"out_layers_3", "conv2"},
                                          {"skip_connection", "conv_shortcut"}};
    for (size_t i = 0; i < COUNT_OF(pair); i++)
        if (str_equal(name, pair[i][0])) return pair[i][1];
    return NULL;
}

static char *block(const char *side, const char *resampler, int n, int k, const char *rest)
{
    int level = n / 3, j = n % 3;
    const char *res = residual(rest);
    if (k == 0 && res) return alloc_printf("%s.%d.resnets.%d.%s", side, level, j, res);
    if (str_equal(rest, "op") || str_equal(rest, "conv"))
        return alloc_printf("%s.%d.%s.0.conv", side, level, resampler);
    char *inner = alloc_string(rest), *path = NULL;
    layout_dot(inner);
    if (k == 1) path = alloc_printf("%s.%d.attentions.%d.%s", side, level, j, inner);
    free(inner);
    return path;
}

char *layout_dotted_unet(const char *name)
{
    static const char *const fixed[][2] = {
        {"input_blocks_0_0", "conv_in"},
        {"out_2", "conv_out"},
        {"time_embed_0", "time_embedding.linear_1"},
        {"time_embed_2", "time_embedding.linear_2"},
        {"label_emb_0_0", "add_embedding.linear_1"},
        {"label_emb_0_2", "add_embedding.linear_2"},
    };
    int n, k, end = 0;
    for (size_t i = 0; i < COUNT_OF(fixed); i++)
        if (str_equal(name, fixed[i][0])) return alloc_string(fixed[i][1]);
    if (sscanf(name, "input_blocks_%d_%d_%n", &n, &k, &end) == 2 && end && n > 0)
        return block("down_blocks", "downsamplers", n - 1, k, name + end);
    if (sscanf(name, "output_blocks_%d_%d_%n", &n, &k, &end) == 2 && end && n >= 0)
        return block("up_blocks", "upsamplers", n, k, name + end);
    if (sscanf(name, "middle_block_%d_%n", &k, &end) == 1 && end) {
        const char *res = residual(name + end);
        if (res) return alloc_printf("mid_block.resnets.%d.%s", k / 2, res);
        char *inner = alloc_string(name + end);
        layout_dot(inner);
        char *path = alloc_printf("mid_block.attentions.0.%s", inner);
        free(inner);
        return path;
    }
    char *path = alloc_string(name);
    layout_dot(path);
    return path;
}
