/* What adapters say in JSON: whose rank and alpha a pattern is, and words that are no pattern. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "diffusion/lora/lora_config.h"

static const char path[] = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k";

static double alpha(const char *json, const char *component, const char *module)
{
    struct lora_config c = {0};
    assert_int_equal(lora_config_parse(&c, json, "the test", NULL), 0);
    double value = lora_config_alpha(&c, component, module);
    lora_config_release(&c);
    return value;
}

static void with_key(char *json, size_t size, const char *key)
{
    char escaped[128], *to = escaped;
    for (; *key; *to++ = *key++)
        if (*key == '\\') *to++ = '\\';
    *to = 0;
    snprintf(json, size, "{\"lora_alpha\": 4, \"alpha_pattern\": {\"%s\": 7}}", escaped);
}

static void test_patterns(void **state)
{
    static const struct {
        const char *key;
        bool matches;
    } cases[] = {
        {"to_k", true},         {"attn2.to_k", true},       {"tn2.to_k", false}, /* from a dot on */
        {"to_k.", false},       {"attn.\\.to_(q|k)", true}, {"^down_blocks.\\d.*to_k", true},
        {"^attn2.to_k", false}, {".*attn1.*", false},       {"(?:attn2).to_[kv]", true},
        {"to_k(", false}, /* no expressions */
        {"a{1,9999}.*", false}, {"(.)\\1", false},
    };
    char json[256];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        with_key(json, sizeof json, cases[i].key);
        double found = alpha(json, "unet", path);
        if (found != (cases[i].matches ? 7 : 4)) fail_msg("%s: %g", cases[i].key, found);
    }
}

static void test_components(void **state)
{
    const char json[] = "{\"unet.lora_alpha\": 3, \"unet.r\": 2, \"unet.use_rslora\": true,"
                        " \"text_encoder.alpha\": 5, \"unet.rank_pattern\": {\"to_k\": 6},"
                        " \"text_encoder.alpha_pattern\": {\"q_proj\": 9}}";
    struct lora_config c = {0};
    assert_int_equal(lora_config_parse(&c, json, "the test", NULL), 0);
    assert_int_equal((int)lora_config_alpha(&c, "unet", path), 3);
    assert_int_equal((int)lora_config_rank(&c, "unet", path), 6);
    assert_int_equal((int)lora_config_rank(&c, "unet", "conv_in"), 2);
    assert_true(lora_config_root_rank(&c, "unet"));
    assert_false(lora_config_root_rank(&c, "text_encoder"));
    assert_int_equal((int)lora_config_alpha(&c, "text_encoder", "encoder.layers.0.mlp.fc1"), 5);
    assert_int_equal((int)lora_config_alpha(&c, "text_encoder", "self_attn.q_proj"), 9);
    assert_int_equal((int)lora_config_alpha(&c, "unet", "self_attn.q_proj"), 3);
    assert_int_equal((int)lora_config_rank(&c, "text_encoder", "x"), 0);
    lora_config_release(&c);
}

static void test_not_said(void **state)
{
    struct error err = {0};
    struct lora_config c = {0};
    assert_int_equal(lora_config_parse(&c, "[1]", "x.safetensors", &err), ERR_FORMAT);
    assert_non_null(strstr(err.text, "x.safetensors"));
    assert_int_equal(lora_config_read(&c, "/nonexistent/adapter_config.json", NULL), ERR_NOT_FOUND);
    assert_false(c.known);
    lora_config_release(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_patterns),
        cmocka_unit_test(test_components),
        cmocka_unit_test(test_not_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
