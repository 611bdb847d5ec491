/* Meta commands of models_to_load against a small list with every kind of record. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/str.h"
#include "proto/model_choice.h"

#define FILE_OF(name) "\"config\":{\"files\":[{\"path\":\"" name "\"}],\"download\":[]}"

static const char
    list_text[] =
        "{\"Deliberate\":{\"name\":\"Deliberate\",\"baseline\":\"stable diffusion "
        "1\",\"type\":\"ckpt\","
        "\"style\":\"generalist\",\"nsfw\":false,\"inpainting\":false," FILE_OF(
            "d.ckpt") "},"
                      "\"Waifu\":{\"name\":\"Waifu\",\"baseline\":\"stable diffusion "
                      "1\",\"type\":\"ckpt\","
                      "\"style\":\"anime\",\"nsfw\":true,\"inpainting\":false," FILE_OF(
                          "w.ckpt") "},"
                                    "\"Fill\":{\"name\":\"Fill\",\"baseline\":\"stable diffusion "
                                    "1\",\"type\":\"ckpt\","
                                    "\"style\":\"other\",\"nsfw\":false,\"inpainting\":"
                                    "true," FILE_OF(
                                        "f.ckpt") "},"
                                                  "\"Two\":{\"name\":\"Two\",\"baseline\":\"stable "
                                                  "diffusion 2\",\"type\":\"ckpt\","
                                                  "\"style\":\"generalist\",\"nsfw\":false,"
                                                  "\"inpainting\":false," FILE_OF(
                                                      "t.ckpt") "},"
                                                                "\"Albedo\":{\"name\":\"Albedo\","
                                                                "\"baseline\":\"stable_diffusion_"
                                                                "xl\",\"type\":\"ckpt\","
                                                                "\"style\":\"generalist\",\"nsfw\":"
                                                                "false,\"inpainting\":"
                                                                "false," FILE_OF(
                                                                    "a.safetensors") "},"
                                                                                     "\"Flux\":{"
                                                                                     "\"name\":"
                                                                                     "\"Flux\","
                                                                                     "\"baseline\":"
                                                                                     "\"flux_1\","
                                                                                     "\"type\":"
                                                                                     "\"ckpt\","
                                                                                     "\"style\":"
                                                                                     "\"generalist"
                                                                                     "\",\"nsfw\":"
                                                                                     "false,"
                                                                                     "\"inpainting"
                                                                                     "\":"
                                                                                     "false"
                                                                                     "," FILE_OF(
                                                                                         "x."
                                                                                         "safetenso"
                                                                                         "rs") "}}";
static const char month_text[] =
    "{\"day\":{},\"total\":{},\"month\":{\"Flux\":9000,\"Albedo\":500,\"Gone\":400,\"Waifu\":300,"
    "\"Deliberate\":300,\"Two\":1}}";

static struct model_reference list;
static struct horde_models month;

static int make(void **state)
{
    (void)state;
    struct error err;
    assert_int_equal(model_reference_parse(&list, "list", list_text, strlen(list_text), &err), 0);
    assert_int_equal(horde_model_stats_parse(&month, month_text, strlen(month_text), &err), 0);
    return 0;
}

static int drop(void **state)
{
    (void)state;
    model_reference_release(&list);
    horde_models_release(&month);
    return 0;
}

static void means(const char *words, const char *expected)
{
    struct model_choice c;
    struct error err;
    const char *name[16];
    char text[200] = "";
    assert_int_equal(model_choice_parse(&c, words, &err), 0);
    int n = model_choice_of(&c, &list, &month, name, 16, &err);
    assert_true(n >= 0);
    for (int i = 0; i < n; i++) {
        if (i) strcat(text, " ");
        strcat(text, name[i]);
    }
    assert_string_equal(text, expected);
}

static void commands_mean_what_kiln_can_read(void **state)
{
    (void)state;
    means("TOP 2", "Albedo Waifu");            /* Flux is no family of ours, Gone is in no list */
    means("top 3", "Albedo Waifu Deliberate"); /* equals in the server's order */
    means("Bottom 2 models", "Two Waifu");
    means("TOP 100", "Albedo Waifu Deliberate Two");
    means("ALL", "Deliberate Waifu Fill Two Albedo");
    means("all models", "Deliberate Waifu Fill Two Albedo");
    means("ALL SDXL MODELS", "Albedo");
    means("ALL SD15", "Deliberate Waifu Fill");
    means("ALL SD21 models", "Two");
    means("ALL NSFW", "Waifu");
    means("ALL  SFW", "Deliberate Fill Two Albedo");
    means("all inpainting models", "Fill");
    means("ALL anime MODELS", "Waifu");
    means("Deliberate", ""); /* a name is no command */
}

static void a_list_cut_short_is_cut_not_overrun(void **state)
{
    (void)state;
    struct model_choice c;
    struct error err;
    const char *name[2] = {NULL, "untouched"};
    assert_int_equal(model_choice_parse(&c, "ALL", &err), 0);
    assert_int_equal(model_choice_of(&c, &list, &month, name, 1, &err), 1);
    assert_int_equal(model_choice_parse(&c, "TOP 4", &err), 0);
    assert_int_equal(model_choice_of(&c, &list, &month, name, 1, &err), 1);
    assert_string_equal(name[1], "untouched");
    assert_int_equal(model_choice_of(&c, &list, NULL, name, 1, &err), 0); /* nobody knows yet */
}

static void what_is_no_command_is_said(void **state)
{
    (void)state;
    struct model_choice c;
    struct error err;
    const char *name[4];
    assert_int_equal(model_choice_parse(&c, "TOP 0", &err), ERR_INVALID);
    assert_non_null(strstr(err.text, "TOP 0"));
    assert_int_equal(model_choice_parse(&c, "bottom 501", &err), ERR_INVALID);
    assert_int_equal(model_choice_parse(&c, "Top Gun", &err), 0);
    assert_int_equal(c.kind, CHOICE_NAME);
    assert_int_equal(model_choice_parse(&c, "ALL watercolour", &err), 0);
    assert_int_equal(model_choice_of(&c, &list, &month, name, 4, &err), ERR_INVALID);
    assert_non_null(strstr(err.text, "watercolour"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(commands_mean_what_kiln_can_read),
        cmocka_unit_test(a_list_cut_short_is_cut_not_overrun),
        cmocka_unit_test(what_is_no_command_is_said),
    };
    return cmocka_run_group_tests(tests, make, drop);
}
