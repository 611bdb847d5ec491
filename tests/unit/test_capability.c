/*
 * proto/capability: one fixture walked through everything that is derived from the table - flags of
 * a pop, refusal of a job, the proposed row, the check of a foreign bridge_agent.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/str.h"
#include "diffusion/control/map.h"
#include "diffusion/sample/noise_levels.h"
#include "diffusion/sample/schedule.h"
#include "proto/capability.h"

/* A job that needs exactly this capability, as payload members; and the pop flag it shows in. */
static const struct need {
    enum capability capability;
    const char *payload, *top; /* members, each with its comma in front */
    size_t flag;               /* offset of the pop's flag, 0: none */
} needs[] = {
#define FLAG(m) offsetof(struct horde_pop, m)
    {CAPABILITY_IMG2IMG, "", ",\"source_image\":\"https://x\"", FLAG(allow_img2img)},
    {CAPABILITY_INPAINTING, "",
     ",\"source_image\":\"https://x\",\"source_processing\":\"inpainting\"", FLAG(allow_painting)},
    {CAPABILITY_KARRAS, ",\"karras\":true", ""},
    {CAPABILITY_CLIP_SKIP, ",\"clip_skip\":2", ""},
    {CAPABILITY_HIRES_FIX, ",\"hires_fix\":true", ""},
    {CAPABILITY_TILING, ",\"tiling\":true", ""},
    {CAPABILITY_LORA, ",\"loras\":[{\"name\":\"a\"}]", "", FLAG(allow_lora)},
    {CAPABILITY_LORA_VERSIONS, ",\"loras\":[{\"name\":\"1\",\"is_version\":true}]", ""},
    {CAPABILITY_TEXTUAL_INVERSION, ",\"tis\":[{\"name\":\"1\"}]", ""},
    {CAPABILITY_CONTROLNET, ",\"control_type\":\"canny\"", "", FLAG(allow_controlnet)},
    {CAPABILITY_IMAGE_IS_CONTROL, ",\"control_type\":\"hed\",\"image_is_control\":true", ""},
    {CAPABILITY_RETURN_CONTROL_MAP, ",\"control_type\":\"seg\",\"return_control_map\":true", ""},
    {CAPABILITY_CONTROL_STRENGTH, ",\"control_type\":\"mlsd\",\"control_strength\":0.5", ""},
    {CAPABILITY_SCHEDULER, ",\"scheduler\":\"beta\"", ""},
    {CAPABILITY_SIGMA_GENERATORS, ",\"scheduler\":\"gits\"", ""},
    {CAPABILITY_SOLVER_OPTIONS, ",\"sampler_s_churn\":1", ""},
    {CAPABILITY_FLOW_SHIFT, ",\"flow_shift\":3", ""},
    {CAPABILITY_EXTRA_SOURCE_IMAGES, "", ",\"extra_source_images\":[{\"image\":\"https://x\"}]"},
    {CAPABILITY_LAYER_DIFFUSE, ",\"transparent\":true", ""},
    {CAPABILITY_QR_CODE,
     ",\"workflow\":\"qr_code\",\"extra_texts\":[{\"text\":\"x\",\"reference\":\"qr_code\"}]", ""},
    {CAPABILITY_WORKFLOW,
     ",\"workflow\":\"qr_code\",\"extra_texts\":[{\"text\":\"x\",\"reference\":\"qr_code\"}]", ""},
    {CAPABILITY_EXTRA_TEXTS, ",\"extra_texts\":[{\"text\":\"a\",\"reference\":\"b\"}]", ""},
    {CAPABILITY_POST_PROCESSING, ",\"post_processing\":[\"GFPGAN\"]", "",
     FLAG(allow_post_processing)},
    {CAPABILITY_REALESRGAN_X4PLUS, ",\"post_processing\":[\"RealESRGAN_x4plus\"]", ""},
    {CAPABILITY_REALESRGAN_X2PLUS, ",\"post_processing\":[\"RealESRGAN_x2plus\"]", ""},
    {CAPABILITY_REALESRGAN_X4PLUS_ANIME, ",\"post_processing\":[\"RealESRGAN_x4plus_anime_6B\"]",
     ""},
    {CAPABILITY_NMKD_SIAX, ",\"post_processing\":[\"NMKD_Siax\"]", ""},
    {CAPABILITY_ANIME_SHARP, ",\"post_processing\":[\"4x_AnimeSharp\"]", ""},
    {CAPABILITY_GFPGAN, ",\"post_processing\":[\"GFPGAN\"]", ""},
    {CAPABILITY_CODEFORMERS, ",\"post_processing\":[\"CodeFormers\"]", ""},
    {CAPABILITY_STRIP_BACKGROUND, ",\"post_processing\":[\"strip_background\"]", ""},
    {CAPABILITY_NOMOS8KSC, ",\"post_processing\":[\"4xNomos8kSC\"]", ""},
    {CAPABILITY_LSDIRPLUS, ",\"post_processing\":[\"4xLSDIRplus\"]", ""},
    {CAPABILITY_NOMOSWEBPHOTO, ",\"post_processing\":[\"4xNomosWebPhoto_RealPLKSR\"]", ""},
    {CAPABILITY_NOMOS2_REALPLKSR, ",\"post_processing\":[\"4xNomos2_realplksr_dysample\"]", ""},
    {CAPABILITY_NOMOS2_HQ_DAT2, ",\"post_processing\":[\"4xNomos2_hq_dat2\"]", ""},
    {CAPABILITY_MODERN_SPANIMATION, ",\"post_processing\":[\"2xModernSpanimationV1\"]", ""},
    {CAPABILITY_GFPGAN_V13, ",\"post_processing\":[\"GFPGANv1.3\"]", ""},
    {CAPABILITY_RESTOREFORMER, ",\"post_processing\":[\"RestoreFormer\"]", ""},
};

/* Say nothing about a single job: how the server delivers (r2 ...), families we never offer, sets of
 * samplers and control types (tested below by their own names). */
static bool is_delivery(int c)
{
    return c == CAPABILITY_R2 || c == CAPABILITY_R2_SOURCE ||
           c == CAPABILITY_STABLE_CASCADE_2PASS || c == CAPABILITY_FLUX ||
           c == CAPABILITY_EXTENDED_CONTROLNET || c == CAPABILITY_SOLVER_KNOB_SAMPLERS;
}

static void make(struct horde_job *job, const char *payload, const char *top)
{
    struct error err = {0};
    char *text =
        alloc_printf("{\"id\":\"a\",\"ids\":[\"a\"],\"model\":\"m\",\"ttl\":150,\"payload\":"
                     "{\"prompt\":\"x\",\"seed\":\"1\",\"sampler_name\":\"k_euler\"%s}%s}",
                     payload, top);
    if (horde_pop_parse(job, text, strlen(text), &err) || job->refusal.code)
        fail_msg("%s: %s%s", text, err.text, job->refusal.text);
    free(text);
}

static struct capability_set everything(void)
{
    struct capability_set s = capability_built();
    s.features = (UINT64_C(1) << CAPABILITY_COUNT) - 1;
    s.schedules = (UINT64_C(1) << SCHEDULE_COUNT) - 1;
    s.detectors = s.controls;
    return s;
}

static bool in_row(const struct buf *page, const char *name)
{
    char *line = alloc_printf("- `%s`\n", name);
    char *found = strstr((char *)page->data, line),
         *rest = strstr((char *)page->data, "## Not claimed");
    free(line);
    assert_non_null(found); /* on the page it stands in any case */
    return found < rest;
}

static void one_fixture_for_flags_refusals_and_row(void **state)
{
    bool seen[CAPABILITY_COUNT] = {false};
    for (size_t i = 0; i < COUNT_OF(needs); i++) {
        const struct need *n = &needs[i];
        const char *name = capability_name(n->capability);
        struct capability_set with = everything(), without = with;
        struct horde_job job;
        struct horde_pop pop = {0};
        struct error err = {0};
        struct buf page;
        seen[n->capability] = true;
        capability_remove(&without, n->capability);
        make(&job, n->payload, n->top);

        if (capability_refuse(&with, &job, FAMILY_SD1, &err)) fail_msg("%s: %s", name, err.text);
        if (capability_refuse(&without, &job, FAMILY_SD1, &err) != ERR_UNSUPPORTED)
            fail_msg("%s is not missed", name);
        if (!strstr(err.text, name)) fail_msg("%s: \"%s\" does not name it", name, err.text);

        if (n->flag) {
            capability_pop_flags(&with, &pop);
            assert_true(*(bool *)((char *)&pop + n->flag));
            capability_pop_flags(&without, &pop);
            assert_false(*(bool *)((char *)&pop + n->flag));
        }

        buf_init(&page, 1 << 20);
        assert_int_equal(capability_upstream_row(&with, &page, &err), 0);
        assert_true(in_row(&page, name));
        buf_clear(&page);
        assert_int_equal(capability_upstream_row(&without, &page, &err), 0);
        assert_false(in_row(&page, name));
        buf_release(&page);
        horde_job_release(&job);
    }
    for (int c = 0; c < CAPABILITY_COUNT; c++)
        if (!seen[c] && !is_delivery(c))
            fail_msg("%s has no fixture", capability_name((enum capability)c));
}

static bool form_in_row(const struct buf *page, const char *name)
{
    char *line = alloc_printf("- `%s`\n", name);
    const char *forms = strstr((char *)page->data, "## Alchemy forms");
    assert_non_null(forms);
    const char *found = strstr(forms, line), *rest = strstr(forms, "## Forms that are never");
    free(line);
    assert_non_null(found);
    return found < rest;
}

/* Pop, refusal and page of one form; `wanted` as the configuration writes it. */
static void check_form(enum alchemy_form f, const char *wanted)
{
    struct capability_set with = everything(), without;
    const char *name = alchemy_form_name(f), *names[HORDE_FORMS_MAX];
    struct horde_form form = {.form = f, .form_name = name};
    struct error err = {0};
    struct buf page;
    with.forms = (1u << ALCHEMY_COUNT) - 1;
    without = with;
    without.forms &= ~(1u << f);
    bool offered = false;
    int count = capability_pop_forms(&with, &wanted, 1, names);
    for (int i = 0; i < count; i++) offered = offered || str_equal(names[i], name);
    if (!offered) fail_msg("%s is not offered for %s", name, wanted);
    int fewer = capability_pop_forms(&without, &wanted, 1, names);
    assert_int_equal(fewer, count - 1);
    for (int i = 0; i < fewer; i++) assert_string_not_equal(names[i], name);
    assert_int_equal(capability_refuse_form(&with, &form, &err), 0);
    assert_int_equal(capability_refuse_form(&without, &form, &err), ERR_UNSUPPORTED);
    assert_non_null(strstr(err.text, name));
    buf_init(&page, 1 << 20);
    assert_int_equal(capability_upstream_row(&with, &page, &err), 0);
    assert_true(form_in_row(&page, name));
    buf_clear(&page);
    assert_int_equal(capability_upstream_row(&without, &page, &err), 0);
    assert_false(form_in_row(&page, name));
    buf_release(&page);
    struct capability_set both = capability_intersect(&with, &without);
    assert_false(capability_has_form(&both, f));
}

static void one_fixture_for_forms_refusals_and_row(void **state)
{
    struct capability_set built = capability_built();
    struct horde_form strange = {.form = alchemy_form_find("\033[1mpalmistry"),
                                 .form_name = "\033[1mpalmistry"};
    struct error err = {0};
    const char *names[HORDE_FORMS_MAX];
    for (int f = 0; f < ALCHEMY_COUNT; f++) {
        bool image = alchemy_form_result((enum alchemy_form)f) == ALCHEMY_IMAGE;
        enum capability post;
        const char *name = alchemy_form_name((enum alchemy_form)f);
        check_form((enum alchemy_form)f, name);
        if (image) check_form((enum alchemy_form)f, "post-process");
        /* one network, one row: what is a post-processor is a form when it is built */
        if (image && capability_find_post(name, &post))
            assert_int_equal(capability_has_form(&built, (enum alchemy_form)f),
                             capability_has(&built, post));
    }
    assert_int_equal(capability_pop_forms(&built, NULL, 0, names), 0);
    assert_int_equal(capability_refuse_form(&built, &strange, &err), ERR_UNSUPPORTED);
    assert_non_null(strstr(err.text, "palmistry\" is not known"));
    assert_null(strchr(err.text, '\033'));
    assert_true(capability_has_form(&built, ALCHEMY_CAPTION));
    assert_true(capability_has_form(&built, ALCHEMY_NSFW));
    assert_true(capability_has_form(&built, ALCHEMY_INTERROGATION));
}

static void samplers_controls_and_families(void **state)
{
    struct capability_set s = everything();
    struct horde_job job;
    struct error err = {0};
    for (int i = 0; i < SAMPLER_COUNT; i++) {
        for (int karras = 0; karras < 2; karras++) {
            char *payload = alloc_printf(",\"karras\":%s", karras ? "true" : "false");
            make(&job, payload, "");
            job.request.sampler = (enum sampler)i;
            struct capability_set less = s;
            *(karras ? &less.karras_samplers : &less.samplers) &= ~(UINT64_C(1) << i);
            assert_int_equal(capability_refuse(&s, &job, FAMILY_SDXL, &err), 0);
            assert_int_equal(capability_refuse(&less, &job, FAMILY_SDXL, &err), ERR_UNSUPPORTED);
            assert_non_null(strstr(err.text, sampler_name((enum sampler)i)));
            horde_job_release(&job);
            free(payload);
        }
    }
    for (int i = 0; capability_control_names[i]; i++) {
        char *payload = alloc_printf(",\"control_type\":\"%s\"", capability_control_names[i]);
        make(&job, payload, "");
        struct capability_set less = s;
        less.controls &= ~(1u << i);
        assert_int_equal(capability_refuse(&s, &job, FAMILY_SD1, &err), 0);
        assert_int_equal(capability_refuse(&less, &job, FAMILY_SD1, &err), ERR_UNSUPPORTED);
        assert_int_equal(capability_refuse(&s, &job, FAMILY_SDXL, &err), ERR_UNSUPPORTED);
        less = s;
        less.detectors &= ~(1u << i); /* a finished map is still welcome */
        assert_int_equal(capability_refuse(&less, &job, FAMILY_SD1, &err), ERR_UNSUPPORTED);
        assert_false(capability_claims(&less, CAPABILITY_CONTROLNET));
        job.request.image_is_control = true;
        assert_int_equal(capability_refuse(&less, &job, FAMILY_SD1, &err), 0);
        assert_true(capability_claims(&s, CAPABILITY_CONTROLNET));
        horde_job_release(&job);
        free(payload);
    }
    make(&job, ",\"control_type\":\"palm_reading\"", "");
    assert_int_equal(capability_refuse(&s, &job, FAMILY_SD1, &err), ERR_UNSUPPORTED);
    assert_non_null(strstr(err.text, "\"palm_reading\" is not known"));
    horde_job_release(&job);
    make(&job, ",\"post_processing\":[\"varnish\"]", "");
    assert_int_equal(capability_refuse(&s, &job, FAMILY_SD1, &err), ERR_UNSUPPORTED);
    assert_non_null(strstr(err.text, "\"varnish\" is not known"));
    horde_job_release(&job);
    make(&job, ",\"transparent\":true", "");
    assert_int_equal(capability_refuse(&s, &job, FAMILY_SD1, &err), 0);
    assert_int_equal(capability_refuse(&s, &job, FAMILY_SD2_768, &err), ERR_UNSUPPORTED);
    assert_non_null(strstr(err.text, "transparent pictures of SD 2.x"));
    s.layered &= ~(1u << FAMILY_SD1);
    assert_int_equal(capability_refuse(&s, &job, FAMILY_SD1, &err), ERR_UNSUPPORTED);
    assert_int_equal(capability_refuse(&s, &job, FAMILY_SDXL, &err), 0);
    horde_job_release(&job);
    make(&job, ",\"special\":{\"x\":1}", "");
    assert_int_equal(capability_refuse(&s, &job, FAMILY_SD1, &err), ERR_UNSUPPORTED);
    horde_job_release(&job);
    make(&job, "", "");
    s.families &= ~(1u << FAMILY_SD2_768);
    assert_int_equal(capability_refuse(&s, &job, FAMILY_SD2_768, &err), ERR_UNSUPPORTED);
    assert_int_equal(capability_refuse(&s, &job, FAMILY_SD1, &err), 0);
    horde_job_release(&job);
}

static void foreign_names_need_everything_they_promise(void **state)
{
    struct capability_set s = everything(), built = capability_built(), less;
    struct error err = {0};
    assert_int_equal(capability_check_agent(&built, "kiln:0.1.0:https://x", &err), 0);
    assert_int_equal(capability_check_agent(&built, "AI Horde Worker reGen", &err), 0); /* unread */
    assert_int_equal(capability_check_agent(&s, "AI Horde Worker reGen:10.1.1:https://x", &err), 0);
    assert_int_equal(capability_check_agent(&built, "AI Horde Worker reGen:10.1.1:https://x", &err),
                     ERR_UNSUPPORTED);
    assert_non_null(strstr(err.text, "flux"));
    assert_non_null(strstr(err.text, "stable_cascade_2pass"));
    assert_null(strstr(err.text, "img2img"));
    /* the extended samplers of version 17 go beyond the table of names we know */
    assert_int_equal(capability_check_agent(&s, "AI Horde Worker reGen:17:x", &err),
                     ERR_UNSUPPORTED);
    assert_non_null(strstr(err.text, "euler_cfg_pp"));
    /* each promise of the versions below is needed */
    for (int c = 0; c < CAPABILITY_COUNT; c++) {
        less = s;
        capability_remove(&less, (enum capability)c);
        int rc = capability_check_agent(&less, "AI Horde Worker reGen:13:x", &err);
        bool promised = c != CAPABILITY_SCHEDULER && c != CAPABILITY_SIGMA_GENERATORS &&
                        c != CAPABILITY_SOLVER_OPTIONS && c != CAPABILITY_SOLVER_KNOB_SAMPLERS &&
                        c != CAPABILITY_FLOW_SHIFT && c != CAPABILITY_EXTENDED_CONTROLNET &&
                        c != CAPABILITY_CONTROL_STRENGTH;
        if ((rc != 0) != promised) fail_msg("%s: %d", capability_name((enum capability)c), rc);
    }
    less = s;
    less.karras_samplers &= ~(UINT64_C(1) << SAMPLER_K_DPM_FAST);
    assert_int_equal(capability_check_agent(&less, "AI Horde Worker:24:x", &err), ERR_UNSUPPORTED);
    assert_non_null(strstr(err.text, "k_dpm_fast"));
}

/* As recorded of a real server: which names are handed the default request. */
static void names_are_read_as_the_server_reads_them(void **state)
{
    static const struct {
        const char *agent;
        bool known;
        int factor;
    } cases[] = {
        {"kiln", false, 750},
        {"kiln:0.1.0:https://example.org/kiln", false, 750},
        {"unknown:0:unknown", false, 750},
        {"AI Horde Worker reGen", false, 750},
        {"AI Horde Worker reGen:10.1.1", false, 750},
        {"AI Horde Worker reGen:10:https://example.org/kiln", true, 900},
        {"AI Horde Worker reGen:10.1:https://example.org/kiln", true, 900},
        {"AI Horde Worker reGen:v10.1.1:https://example.org/kiln", false, 750},
        {"AI Horde Worker reGen:10.1.1:https://example.org/kiln", true, 900},
        {"AI Horde Worker reGen:0.1.0:https://example.org/kiln", false, 900},
        {"ai horde worker regen:10.1.1:https://example.org/kiln", false, 750},
        {" AI Horde Worker reGen:10.1.1:x", true, 900},
        {"AI Horde Worker reGen (kiln):10.1.1:https://example.org/kiln", false, 750},
        {"AI Horde Worker reGen:13.0.0:x", true, 1000},
        {"AI Horde Worker:24:x", true, 1000},
        {"SD-WebUI Stable Horde Worker Bridge:4:x", true, 750},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        if (capability_agent_known(cases[i].agent) != cases[i].known)
            fail_msg("%s is%s known", cases[i].agent, cases[i].known ? " not" : "");
        if (capability_agent_factor_milli(cases[i].agent) != cases[i].factor)
            fail_msg("%s: factor %d", cases[i].agent,
                     capability_agent_factor_milli(cases[i].agent));
    }
}

/* The table says "built" of what the code really has. */
static void the_table_is_true(void **state)
{
    struct capability_set s = capability_built();
    for (int i = 0; capability_control_names[i]; i++)
        if (control_map_known(capability_control_names[i]) != (s.detectors >> i & 1))
            fail_msg("%s: the table and diffusion/control disagree", capability_control_names[i]);
    for (int i = 0; i < SCHEDULE_COUNT; i++) {
        struct sigmas sigmas = {0};
        struct noise_levels levels;
        struct error err = {0};
        noise_levels_init(&levels, false);
        int rc = schedule_make(&sigmas, (enum schedule)i, &levels, FAMILY_SD1, 20, &err);
        if (!rc) sigmas_release(&sigmas);
        if ((rc == 0) != (s.schedules >> i & 1))
            fail_msg("%s: %s", schedule_name((enum schedule)i), err.text);
    }
}

static void the_page_in_docs_is_the_tables(void **state)
{
    struct capability_set s = capability_built();
    struct buf page, file;
    struct error err = {0};
    buf_init(&page, 1 << 20);
    buf_init(&file, 1 << 20);
    assert_int_equal(capability_upstream_row(&s, &page, &err), 0);
    if (buf_read_file(&file, TEST_DATA "/../../docs/upstream-row.md", &err))
        fail_msg("%s", err.text);
    if (!str_equal((char *)page.data, (char *)file.data))
        fail_msg("docs/upstream-row.md is out of date: kiln-upstream-row > docs/upstream-row.md");
    buf_release(&page);
    buf_release(&file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_fixture_for_flags_refusals_and_row),
        cmocka_unit_test(one_fixture_for_forms_refusals_and_row),
        cmocka_unit_test(samplers_controls_and_families),
        cmocka_unit_test(foreign_names_need_everything_they_promise),
        cmocka_unit_test(names_are_read_as_the_server_reads_them),
        cmocka_unit_test(the_table_is_true),
        cmocka_unit_test(the_page_in_docs_is_the_tables),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
