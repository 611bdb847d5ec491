/* image/provenance: every fact survives XMP; `parameters` of other programs is read. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "image/provenance.h"

static void every_fact_survives_xmp(void **state)
{
    struct provenance p, q;
    struct image_text text;
    struct error err = {0};
    provenance_init(&p);
    for (int i = 0; i < PROVENANCE_COUNT; i++)
        provenance_set(&p, (enum provenance_fact)i, "<%d> & \"value\", p\xc3\xb6t\nline", i);
    provenance_text(&p, &text);
    assert_non_null(strstr(text.xmp, "trainedAlgorithmicMedia"));
    assert_int_equal(provenance_read(&q, &text, &err), 0);
    for (int i = 0; i < PROVENANCE_COUNT; i++) assert_string_equal(p.value[i], q.value[i]);
    provenance_release(&p);
    provenance_release(&q);
    image_text_release(&text);
}

static void parameters_read_as_other_programs_write_them(void **state)
{
    struct provenance p;
    struct error err = {0};
    struct image_text text = {.parameters =
                                  (char *)(uintptr_t) "a tall vase,\nblue glaze\nNegative prompt: "
                                                      "blurry, text\nSteps: 20, "
                                                      "Sampler: Euler a, CFG scale: 7, Seed: 1234, "
                                                      "Size: 512x768, Model hash: "
                                                      "abcdef0123, Model: pots, Lora hashes: "
                                                      "\"pot: 01ab, x: 2\", Version: v1.9"};
    assert_int_equal(provenance_read(&p, &text, &err), 0);
    assert_string_equal(p.value[PROVENANCE_PROMPT], "a tall vase,\nblue glaze");
    assert_string_equal(p.value[PROVENANCE_NEGATIVE], "blurry, text");
    assert_string_equal(p.value[PROVENANCE_SEED], "1234");
    assert_string_equal(p.value[PROVENANCE_SIZE], "512x768");
    assert_string_equal(p.value[PROVENANCE_LORA_HASHES], "pot: 01ab, x: 2");
    assert_string_equal(p.value[PROVENANCE_PROGRAM], "v1.9");
    provenance_release(&p);
    text.parameters = (char *)(uintptr_t) "only a prompt";
    assert_int_equal(provenance_read(&p, &text, &err), 0);
    assert_string_equal(p.value[PROVENANCE_PROMPT], "only a prompt");
    provenance_release(&p);
    text.parameters = NULL;
    assert_int_equal(provenance_read(&p, &text, &err), ERR_NOT_FOUND);
}

static void parameters_are_written_for_other_programs(void **state)
{
    struct provenance p, q;
    struct image_text text;
    struct error err = {0};
    provenance_init(&p);
    provenance_set(&p, PROVENANCE_PROMPT, "a pot");
    provenance_set(&p, PROVENANCE_NEGATIVE, "text");
    provenance_set(&p, PROVENANCE_STEPS, "20");
    provenance_set(&p, PROVENANCE_SAMPLER, "k_euler");
    provenance_set(&p, PROVENANCE_SEED, "7");
    provenance_set(&p, PROVENANCE_LORA_HASHES, "a: \"b\"");
    provenance_set(&p, PROVENANCE_MODEL_SHA256, "0123456789abcdef");
    provenance_text(&p, &text);
    assert_string_equal(text.parameters,
                        "a pot\nNegative prompt: text\nSteps: 20, Sampler: k_euler, Seed: 7, Lora "
                        "hashes: \"a: \\\"b\\\"\", Model hash: 0123456789");
    free(text.xmp);
    text.xmp = NULL;
    assert_int_equal(provenance_read(&q, &text, &err), 0);
    assert_string_equal(q.value[PROVENANCE_LORA_HASHES], "a: \"b\"");
    provenance_release(&p);
    provenance_release(&q);
    image_text_release(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_fact_survives_xmp),
        cmocka_unit_test(parameters_read_as_other_programs_write_them),
        cmocka_unit_test(parameters_are_written_for_other_programs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
