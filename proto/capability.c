#include "proto/capability.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/str.h"

static const struct {
    const char *name;
    bool built;
} table[] = {
#define X(name, text, built) {text, built},
    CAPABILITY_TABLE(X)
#undef X
};

const char *const capability_control_names[] = {"canny",    "hed", "depth",    "normal",
                                                "openpose", "seg", "scribble", "fakescribbles",
                                                "hough",    NULL};

/* those whose map is made without a network: diffusion/control/map.c */
static const char *const built_detectors[] = {"canny", "scribble", "fakescribbles", "hough", NULL};

const char *capability_name(enum capability c)
{
    return table[c].name;
}

bool capability_find(const char *name, enum capability *c)
{
    for (int i = 0; i < CAPABILITY_COUNT; i++)
        if (str_equal(table[i].name, name)) {
            *c = (enum capability)i;
            return true;
        }
    return false;
}

bool capability_find_post(const char *name, enum capability *c)
{
    enum capability found;
    if (!capability_find(name, &found) || found <= CAPABILITY_POST_PROCESSING) return false;
    *c = found;
    return true;
}

static bool form_built(enum alchemy_form f)
{
    static const struct {
        enum alchemy_form form;
        bool built;
    } in_words[] = {
#define X(name, built) {ALCHEMY_##name, built},
        CAPABILITY_FORM_TABLE(X)
#undef X
    };
    enum capability post;
    for (size_t i = 0; i < COUNT_OF(in_words); i++)
        if (in_words[i].form == f) return in_words[i].built;
    return capability_find_post(alchemy_form_name(f), &post) && table[post].built;
}

struct capability_set capability_built(void)
{
    struct capability_set s = {0};
    for (int i = 0; i < CAPABILITY_COUNT; i++)
        if (table[i].built) s.features |= UINT64_C(1) << i;
    s.samplers = s.karras_samplers = (UINT64_C(1) << SAMPLER_COUNT) - 1;
    s.schedules = (UINT64_C(1) << SCHEDULE_COUNT) - 1;
    if (!capability_has(&s, CAPABILITY_SIGMA_GENERATORS))
        s.schedules &= ~(UINT64_C(1) << SCHEDULE_ALIGN_YOUR_STEPS | UINT64_C(1) << SCHEDULE_GITS);
    s.families = (1u << FAMILY_COUNT) - 1;
    for (int f = 0; f < FAMILY_COUNT; f++) {
        struct layered_files files;
        if (layered_files_of((enum family)f, &files)) s.layered |= 1u << f;
    }
    for (int f = 0; f < ALCHEMY_COUNT; f++)
        if (form_built((enum alchemy_form)f)) s.forms |= 1u << f;
    for (int i = 0; capability_control_names[i]; i++) {
        s.controls |= 1u << i;
        for (int k = 0; built_detectors[k]; k++)
            if (str_equal(built_detectors[k], capability_control_names[i])) s.detectors |= 1u << i;
    }
    return s;
}

bool capability_claims(const struct capability_set *s, enum capability c)
{
    bool all = true;
    for (int i = 0; capability_control_names[i]; i++)
        all = all && (s->detectors >> i & 1) && (s->controls >> i & 1);
    if ((c == CAPABILITY_CONTROLNET || c == CAPABILITY_RETURN_CONTROL_MAP) && !all) return false;
    return capability_has(s, c);
}

void capability_add(struct capability_set *s, enum capability c)
{
    s->features |= UINT64_C(1) << c;
}

void capability_remove(struct capability_set *s, enum capability c)
{
    s->features &= ~(UINT64_C(1) << c);
}

struct capability_set capability_intersect(const struct capability_set *a,
                                           const struct capability_set *b)
{
    return (struct capability_set){
        .features = a->features & b->features,
        .samplers = a->samplers & b->samplers,
        .karras_samplers = a->karras_samplers & b->karras_samplers,
        .schedules = a->schedules & b->schedules,
        .families = a->families & b->families,
        .controls = a->controls & b->controls,
        .detectors = a->detectors & b->detectors,
        .layered = a->layered & b->layered,
        .forms = a->forms & b->forms,
    };
}

/* ---- (a) pop ---------------------------------------------------------------------------- */

void capability_pop_flags(const struct capability_set *s, struct horde_pop *pop)
{
    pop->allow_img2img = capability_has(s, CAPABILITY_IMG2IMG);
    pop->allow_painting = capability_has(s, CAPABILITY_INPAINTING);
    pop->allow_post_processing = capability_has(s, CAPABILITY_POST_PROCESSING);
    pop->allow_controlnet = capability_has(s, CAPABILITY_CONTROLNET) && s->controls;
    /* the flag stands for layer diffusion and the QR workflow on SDXL, horde-api 6.1 */
    pop->allow_sdxl_controlnet =
        capability_has(s, CAPABILITY_LAYER_DIFFUSE) && capability_has(s, CAPABILITY_QR_CODE);
    pop->allow_lora = capability_has(s, CAPABILITY_LORA);
    pop->allow_extended_controlnet = capability_has(s, CAPABILITY_EXTENDED_CONTROLNET);
}

int capability_pop_forms(const struct capability_set *s, const char *const *wanted,
                         int wanted_count, const char *names[HORDE_FORMS_MAX])
{
    int count = 0;
    for (int f = 0; f < ALCHEMY_COUNT && count < HORDE_FORMS_MAX; f++) {
        const char *name = alchemy_form_name((enum alchemy_form)f);
        bool image = alchemy_form_result((enum alchemy_form)f) == ALCHEMY_IMAGE, asked = false;
        for (int i = 0; i < wanted_count; i++)
            asked = asked || str_equal(wanted[i], name) ||
                    (image && str_equal(wanted[i], "post-process"));
        if (asked && capability_has_form(s, (enum alchemy_form)f)) names[count++] = name;
    }
    return count;
}

/* ---- (b) refusal ------------------------------------------------------------------------ */

static bool any_version(const struct horde_job *job)
{
    for (int i = 0; i < job->lora_count; i++)
        if (job->loras[i].is_version) return true;
    return false;
}

static bool table_schedule(const struct image_request *q)
{
    return q->schedule == SCHEDULE_ALIGN_YOUR_STEPS || q->schedule == SCHEDULE_GITS;
}

/* What a job asks for beyond plain text to image. */
static struct capability_set asked(const struct horde_job *job)
{
    const struct image_request *q = &job->request;
    struct capability_set s = {0};
    const struct {
        bool asked;
        enum capability capability;
    } list[] = {
        {q->source_use == SOURCE_IMG2IMG, CAPABILITY_IMG2IMG},
        {q->source_use == SOURCE_INPAINTING || q->source_use == SOURCE_OUTPAINTING,
         CAPABILITY_INPAINTING},
        {q->schedule == SCHEDULE_KARRAS, CAPABILITY_KARRAS},
        {q->clip_skip > 1, CAPABILITY_CLIP_SKIP},
        {q->hires_fix, CAPABILITY_HIRES_FIX},
        {q->tiling, CAPABILITY_TILING},
        {job->lora_count > 0, CAPABILITY_LORA},
        {any_version(job), CAPABILITY_LORA_VERSIONS},
        {job->ti_count > 0, CAPABILITY_TEXTUAL_INVERSION},
        {q->control_type != NULL, CAPABILITY_CONTROLNET},
        {q->image_is_control, CAPABILITY_IMAGE_IS_CONTROL},
        {q->return_control_map, CAPABILITY_RETURN_CONTROL_MAP},
        {job->has_control_strength, CAPABILITY_CONTROL_STRENGTH},
        {job->has_scheduler, CAPABILITY_SCHEDULER},
        {table_schedule(q), CAPABILITY_SIGMA_GENERATORS},
        {job->has_solver_options, CAPABILITY_SOLVER_OPTIONS},
        {job->has_flow_shift, CAPABILITY_FLOW_SHIFT},
        {job->extra_source_count > 0, CAPABILITY_EXTRA_SOURCE_IMAGES},
        {q->transparent, CAPABILITY_LAYER_DIFFUSE},
        {job->workflow != NULL, CAPABILITY_WORKFLOW},
        {str_equal(job->workflow, "qr_code"), CAPABILITY_QR_CODE},
        {job->text_count > 0, CAPABILITY_EXTRA_TEXTS},
        {job->post_count > 0, CAPABILITY_POST_PROCESSING},
    };
    for (size_t i = 0; i < COUNT_OF(list); i++)
        if (list[i].asked) capability_add(&s, list[i].capability);
    return s;
}

static int refuse_posts(const struct capability_set *s, const struct horde_job *job,
                        struct error *err)
{
    for (int i = 0; i < job->post_count; i++) {
        enum capability c;
        char shown[80];
        str_clean(shown, sizeof shown, job->post_processing[i]);
        if (!capability_find_post(job->post_processing[i], &c))
            return error_set(err, ERR_UNSUPPORTED, "post-processor \"%s\" is not known", shown);
        if (!capability_has(s, c))
            return error_set(err, ERR_UNSUPPORTED, "this worker cannot do %s", shown);
    }
    return 0;
}

static int refuse_control(const struct capability_set *s, const struct horde_job *job,
                          enum family family, struct error *err)
{
    const char *type = job->request.control_type;
    if (!type) return 0;
    char shown[80];
    str_clean(shown, sizeof shown, type);
    if (family == FAMILY_SDXL || family == FAMILY_SDXL_REFINER)
        return error_set(err, ERR_UNSUPPORTED, "this worker has no ControlNet for %s",
                         family_people(family));
    if (str_equal(type, "mlsd")) type = "hough"; /* two spellings of one detector */
    for (int i = 0; capability_control_names[i]; i++)
        if (str_equal(type, capability_control_names[i])) {
            bool map = job->request.return_control_map; /* the map alone needs no ControlNet */
            if (!job->request.image_is_control && !(s->detectors >> i & 1))
                return error_set(err, ERR_UNSUPPORTED, "this worker cannot make a %s map", shown);
            if (!map && !(s->controls >> i & 1))
                return error_set(err, ERR_UNSUPPORTED, "this worker has no ControlNet for %s",
                                 shown);
            return 0;
        }
    return error_set(err, ERR_UNSUPPORTED, "control type \"%s\" is not known", shown);
}

int capability_refuse(const struct capability_set *s, const struct horde_job *job,
                      enum family family, struct error *err)
{
    const struct image_request *q = &job->request;
    if (job->refusal.code) return error_set(err, job->refusal.code, "%s", job->refusal.text);
    if (!(s->families >> family & 1))
        return error_set(err, ERR_UNSUPPORTED, "this worker cannot run %s models",
                         family_people(family));
    if (job->workflow && !str_equal(job->workflow, "qr_code")) {
        char shown[80];
        str_clean(shown, sizeof shown, job->workflow);
        return error_set(err, ERR_UNSUPPORTED, "workflow \"%s\" is not known", shown);
    }
    if (job->workflow && family != FAMILY_SD1 && family != FAMILY_SDXL)
        return error_set(err, ERR_UNSUPPORTED, "workflow qr_code is for SD 1.x and SDXL, not %s",
                         family_people(family));
    if (q->transparent && !(s->layered >> family & 1))
        return error_set(err, ERR_UNSUPPORTED, "this worker cannot do transparent pictures of %s",
                         family_people(family));
    struct capability_set want = asked(job);
    for (int c = 0; c < CAPABILITY_COUNT; c++)
        if (capability_has(&want, (enum capability)c) && !capability_has(s, (enum capability)c))
            return error_set(err, ERR_UNSUPPORTED, "this worker cannot do %s",
                             capability_name((enum capability)c));
    uint64_t samplers = q->schedule == SCHEDULE_KARRAS ? s->karras_samplers : s->samplers;
    if (!(samplers >> q->sampler & 1))
        return error_set(err, ERR_UNSUPPORTED, "this worker cannot do %s%s",
                         sampler_name(q->sampler),
                         q->schedule == SCHEDULE_KARRAS ? " with karras" : "");
    if (!(s->schedules >> q->schedule & 1))
        return error_set(err, ERR_UNSUPPORTED, "this worker cannot do the schedule %s",
                         schedule_name(q->schedule));
    if (job->has_special)
        return error_set(err, ERR_UNSUPPORTED, "this worker knows no `special` payload");
    if (job->workflow && !str_equal(job->workflow, "qr_code")) {
        char shown[80];
        str_clean(shown, sizeof shown, job->workflow);
        return error_set(err, ERR_UNSUPPORTED, "workflow \"%s\" is not known", shown);
    }
    int rc = refuse_control(s, job, family, err);
    return rc ? rc : refuse_posts(s, job, err);
}

int capability_refuse_form(const struct capability_set *s, const struct horde_form *form,
                           struct error *err)
{
    char shown[80];
    str_clean(shown, sizeof shown, form->form_name ? form->form_name : "");
    if (form->form >= ALCHEMY_UNKNOWN)
        return error_set(err, ERR_UNSUPPORTED, "form \"%s\" is not known", shown);
    if (!capability_has_form(s, form->form))
        return error_set(err, ERR_UNSUPPORTED, "this worker cannot do the form %s", shown);
    return 0;
}

/* ---- (c) the row for the server --------------------------------------------------------- */

static int list_samplers(uint64_t set, struct buf *page, struct error *err)
{
    int rc = 0;
    bool first = true;
    for (int i = 0; i < SAMPLER_COUNT && !rc; i++) {
        if (!(set >> i & 1)) continue;
        rc = buf_printf(page, err, "%s`%s`", first ? "" : ", ", sampler_name((enum sampler)i));
        first = false;
    }
    return rc ? rc : buf_append_string(page, first ? "none\n" : "\n", err);
}

static int list_capabilities(const struct capability_set *s, bool has, struct buf *page,
                             struct error *err)
{
    int rc = 0;
    for (int i = 0; i < CAPABILITY_COUNT && !rc; i++)
        if (capability_claims(s, (enum capability)i) == has)
            rc = buf_printf(page, err, "- `%s`\n", table[i].name);
    return rc;
}

static int list_forms(const struct capability_set *s, bool has, struct buf *page, struct error *err)
{
    int rc = 0;
    for (int f = 0; f < ALCHEMY_COUNT && !rc; f++)
        if (capability_has_form(s, (enum alchemy_form)f) == has)
            rc = buf_printf(page, err, "- `%s`\n", alchemy_form_name((enum alchemy_form)f));
    return rc;
}

int capability_upstream_row(const struct capability_set *s, struct buf *page, struct error *err)
{
    int rc = buf_printf(page, err,
                        "# The row Kiln proposes to the AI Horde\n\n"
                        "Made from the table in `proto/capability.h` by `kiln-upstream-row`; a "
                        "test compares the two.\n"
                        "\n"
                        "The Horde hands out jobs by the name in front of `bridge_agent`. A name "
                        "its table lacks gets\n"
                        "plain text-to-image requests with `r2: false` only, and 0.75 of the "
                        "reward. This is what the\n"
                        "name `%s` can be trusted with from version 0 on: what is not in the list, "
                        "Kiln refuses before\n"
                        "it starts.\n\n"
                        "## Capabilities of `%s`, version 0 and up\n\n",
                        CAPABILITY_AGENT_NAME, CAPABILITY_AGENT_NAME);
    if (!rc) rc = list_capabilities(s, true, page, err);
    if (!rc) rc = buf_append_string(page, "\n## Samplers with karras\n\n", err);
    if (!rc) rc = list_samplers(s->karras_samplers, page, err);
    if (!rc) rc = buf_append_string(page, "\n## Samplers only without karras\n\n", err);
    if (!rc) rc = list_samplers(s->samplers & ~s->karras_samplers, page, err);
    if (!rc) rc = buf_append_string(page, "\n## Not claimed\n\n", err);
    if (!rc) rc = list_capabilities(s, false, page, err);
    if (!rc)
        rc = buf_append_string(page,
                               "\n## Alchemy forms\n\nNo name is asked for these; each is offered "
                               "while its weights are there.\n\n",
                               err);
    if (!rc) rc = list_forms(s, true, page, err);
    if (!rc) rc = buf_append_string(page, "\n## Forms that are never offered\n\n", err);
    if (!rc) rc = list_forms(s, false, page, err);
    return rc;
}

/* ---- (d) somebody else's name ----------------------------------------------------------- */

struct promise {
    const char *agent;
    int version;       /* from this one on */
    const char *names; /* blanks between */
};

/* horde-api 5.2; "painting" is the older word for inpainting. */
static const char regen[] = "AI Horde Worker reGen", worker[] = "AI Horde Worker",
                  webui[] = "SD-WebUI Stable Horde Worker Bridge",
                  automatic[] = "HordeAutoWebBridge";
static const struct promise promises[] = {
    {regen, 1,
     "img2img inpainting karras post-processing r2 r2_source clip_skip controlnet "
     "return_control_map image_is_control hires_fix tiling strip_background GFPGAN CodeFormers "
     "RealESRGAN_x4plus RealESRGAN_x2plus RealESRGAN_x4plus_anime_6B NMKD_Siax 4x_AnimeSharp"},
    {regen, 2, "lora textual_inversion"},
    {regen, 3, "lora_versions"},
    {regen, 5, "extra_source_images"},
    {regen, 6, "stable_cascade_2pass"},
    {regen, 7, "qr_code extra_texts workflow"},
    {regen, 8, "layer_diffuse"},
    {regen, 9, "flux"},
    {regen, 13,
     "4xNomos8kSC 4xLSDIRplus 4xNomosWebPhoto_RealPLKSR 4xNomos2_realplksr_dysample "
     "4xNomos2_hq_dat2 2xModernSpanimationV1 GFPGANv1.3 RestoreFormer"},
    {regen, 17,
     "extended_controlnet scheduler solver_options sigma_generators flow_shift "
     "solver_knob_samplers"},
    {regen, 18, "control_strength"},
    {worker, 3, "img2img"},
    {worker, 4, "inpainting"},
    {worker, 6, "karras"},
    {worker, 7, "post-processing GFPGAN RealESRGAN_x4plus"},
    {worker, 8, "r2"},
    {worker, 9, "CodeFormers"},
    {worker, 13, "hires_fix clip_skip"},
    {worker, 14, "r2_source"},
    {worker, 15, "controlnet"},
    {worker, 18, "strip_background return_control_map RealESRGAN_x4plus_anime_6B"},
    {worker, 19, "NMKD_Siax 4x_AnimeSharp"},
    {worker, 21, "RealESRGAN_x2plus"},
    {worker, 22, "lora"},
    {worker, 23, "image_is_control"},
    {worker, 24, "textual_inversion"},
    {webui, 1, "inpainting karras r2 CodeFormers"},
    {webui, 2, "tiling"},
    {webui, 3, "r2_source"},
    {webui, 4, "clip_skip"},
    {automatic, 1, "inpainting img2img karras"},
    {automatic, 2, "tiling"},
};

#define CLASSIC                                                                                    \
    "k_lms k_heun k_euler k_euler_a k_dpm_2 k_dpm_2_a k_dpm_fast k_dpm_adaptive k_dpmpp_2s_a "     \
    "k_dpmpp_2m"
/* Samplers under karras; those without it are the same or fewer than we have. */
static const struct promise sampler_promises[] = {
    {regen, 2, CLASSIC " k_dpmpp_sde dpmsolver DDIM"},
    {regen, 3, "lcm"},
    {regen, 17,
     "uni_pc uni_pc_bh2 dpmpp_2m_sde dpmpp_3m_sde ddpm deis ipndm res_multistep "
     "gradient_estimation heunpp2 er_sde sa_solver euler_cfg_pp euler_ancestral_cfg_pp "
     "exp_heun_2_x0 exp_heun_2_x0_sde dpmpp_2s_ancestral_cfg_pp dpmpp_2m_cfg_pp "
     "dpmpp_2m_sde_heun ipndm_v res_multistep_cfg_pp res_multistep_ancestral "
     "res_multistep_ancestral_cfg_pp gradient_estimation_cfg_pp seeds_2 seeds_3 sa_solver_pece"},
    {worker, 11, CLASSIC " dpmsolver"},
    {worker, 12, "k_dpmpp_sde"},
    {webui, 1, CLASSIC " k_dpmpp_sde"},
    {automatic, 1, "k_lms k_dpm_2 k_dpm_2_a k_dpmpp_2s_a k_dpmpp_2m dpmsolver"},
};

/* "name:version:url", split at the first two colons; false when the server would not read it. */
static bool split_agent(const char *agent, char name[128], int *version)
{
    while (*agent == ' ') agent++;
    const char *first = strchr(agent, ':');
    const char *second = first ? strchr(first + 1, ':') : NULL;
    if (!second || (size_t)(first - agent) >= 128) return false;
    memcpy(name, agent, (size_t)(first - agent));
    name[first - agent] = '\0';
    char *end;
    if (first[1] < '0' || first[1] > '9') return false;
    long value = strtol(first + 1, &end, 10);
    if (value > 1000000 || (*end != '.' && *end != ':' && *end != '-' && *end != '+')) return false;
    *version = (int)value;
    return true;
}

static void note_missing(char *list, size_t room, const char *name)
{
    size_t used = strlen(list);
    if (used + strlen(name) + 3 < room)
        snprintf(list + used, room - used, "%s%s", used ? ", " : "", name);
}

static bool covers_feature(const struct capability_set *s, const char *name)
{
    enum capability c;
    return capability_find(name, &c) && capability_claims(s, c);
}

static bool covers_sampler(const struct capability_set *s, const char *name)
{
    enum sampler sampler;
    return sampler_find(name, &sampler) && s->karras_samplers >> sampler & 1;
}

static void walk_promises(const struct promise *rows, size_t count, const char *name, int version,
                          bool (*covers)(const struct capability_set *, const char *),
                          const struct capability_set *s, char *missing, size_t room)
{
    for (size_t i = 0; i < count; i++) {
        if (!str_equal(rows[i].agent, name) || rows[i].version > version) continue;
        char *copy = alloc_string(rows[i].names), *rest = NULL;
        for (char *word = strtok_r(copy, " ", &rest); word; word = strtok_r(NULL, " ", &rest))
            if (!covers(s, word)) note_missing(missing, room, word);
        free(copy);
    }
}

int capability_check_agent(const struct capability_set *s, const char *bridge_agent,
                           struct error *err)
{
    char name[128], missing[ERROR_TEXT_BYTES - 150] = "";
    int version;
    if (!split_agent(bridge_agent, name, &version)) return 0;
    walk_promises(promises, COUNT_OF(promises), name, version, covers_feature, s, missing,
                  sizeof missing);
    walk_promises(sampler_promises, COUNT_OF(sampler_promises), name, version, covers_sampler, s,
                  missing, sizeof missing);
    if (!missing[0]) return 0;
    char shown[80];
    str_clean(shown, sizeof shown, name);
    return error_set(err, ERR_UNSUPPORTED,
                     "bridge_agent \"%s\" version %d promises what Kiln lacks: %s", shown, version,
                     missing);
}

static void add_promised(struct capability_set *s, const char *name, int version)
{
    for (size_t i = 0; i < COUNT_OF(promises); i++) {
        if (!str_equal(promises[i].agent, name) || promises[i].version > version) continue;
        char *copy = alloc_string(promises[i].names), *rest = NULL;
        enum capability c;
        for (char *word = strtok_r(copy, " ", &rest); word; word = strtok_r(NULL, " ", &rest))
            if (capability_find(word, &c)) capability_add(s, c);
        free(copy);
    }
}

static void add_samplers(struct capability_set *s, const char *name, int version)
{
    for (size_t i = 0; i < COUNT_OF(sampler_promises); i++) {
        const struct promise *row = &sampler_promises[i];
        if (!str_equal(row->agent, name) || row->version > version) continue;
        char *copy = alloc_string(row->names), *rest = NULL;
        enum sampler sampler;
        for (char *word = strtok_r(copy, " ", &rest); word; word = strtok_r(NULL, " ", &rest))
            if (sampler_find(word, &sampler)) s->karras_samplers |= UINT64_C(1) << sampler;
        free(copy);
    }
    s->samplers = s->karras_samplers;
    if (str_equal(name, worker) && version >= 17) s->samplers |= UINT64_C(1) << SAMPLER_DDIM;
    if (str_equal(name, webui)) s->samplers |= UINT64_C(1) << SAMPLER_DDIM;
}

struct capability_set capability_agent_set(const char *bridge_agent)
{
    struct capability_set s = {
        .families = (1u << FAMILY_COUNT) - 1, .controls = 0x1ff, .detectors = 0x1ff};
    char name[128] = "";
    int version = 0;
    bool readable = split_agent(bridge_agent, name, &version);
    bool known = false;
    for (size_t i = 0; i < COUNT_OF(promises); i++)
        known = known || (readable && str_equal(promises[i].agent, name));
    if (known) {
        add_promised(&s, name, version);
        add_samplers(&s, name, version);
    } else {
        add_samplers(&s, worker, 23); /* the server's fallback, for samplers only */
        capability_add(&s, CAPABILITY_KARRAS);
    }
    s.schedules = UINT64_C(1) << SCHEDULE_NORMAL | UINT64_C(1) << SCHEDULE_KARRAS;
    if (capability_has(&s, CAPABILITY_SCHEDULER)) s.schedules = (UINT64_C(1) << SCHEDULE_COUNT) - 1;
    return s;
}

bool capability_agent_known(const char *bridge_agent)
{
    struct capability_set s = capability_agent_set(bridge_agent);
    return capability_has(&s, CAPABILITY_R2);
}

int capability_agent_factor_milli(const char *bridge_agent)
{
    /* the highest version the server's table has: 13 at 5.1.5, 18 in the newest */
    static const struct {
        const char *agent;
        int current;
    } official[] = {{regen, 13}, {worker, 24}};
    char name[128];
    int version;
    if (!split_agent(bridge_agent, name, &version)) return 750;
    for (size_t i = 0; i < COUNT_OF(official); i++)
        if (str_equal(official[i].agent, name)) return version >= official[i].current ? 1000 : 900;
    return 750;
}
