/*
 * capability.h - the one table of what Kiln can do for the Horde.
 *
 * Place    derived from it, and from nowhere else: the flags and forms of a pop, the local refusal of
 *          a job or form, the row proposed to the server's maintainers (docs/upstream-row.md), the check
 *          of a foreign bridge_agent. tests/unit/test_capability.c walks all of them with one
 *          fixture.
 * Owner    tables are const; a set is a value. Any thread.
 * Failure  capability_refuse: ERR_UNSUPPORTED with a sentence; the caller reports the job
 *          faulted.
 * Source   names and versions: horde-api 5.2 (AI-Horde horde/bridge_reference.py).
 *
 * "built" says that the code exists. What may be offered is less: a post-processor needs its
 * weights, a ControlNet its file, LoRAs the owner's consent. The engine's hello names what it can
 * do now; the daemon intersects that with the configuration.
 */
#ifndef PROTO_CAPABILITY_H
#define PROTO_CAPABILITY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"
#include "proto/horde_interrogate.h"
#include "proto/horde_pop.h"
#include "proto/terms.h"

#define CAPABILITY_AGENT_NAME "kiln" /* our own bridge name */

/*    enum                 upstream name          built */
#define CAPABILITY_TABLE(X)                                                                        \
    X(R2, "r2", 1)                                                                                 \
    X(R2_SOURCE, "r2_source", 1)                                                                   \
    X(IMG2IMG, "img2img", 1)                                                                       \
    X(INPAINTING, "inpainting", 1)                                                                 \
    X(KARRAS, "karras", 1)                                                                         \
    X(CLIP_SKIP, "clip_skip", 1)                                                                   \
    X(HIRES_FIX, "hires_fix", 1)                                                                   \
    X(TILING, "tiling", 1)                                                                         \
    X(LORA, "lora", 1)                                                                             \
    X(LORA_VERSIONS, "lora_versions", 1)                                                           \
    X(TEXTUAL_INVERSION, "textual_inversion", 1)                                                   \
    X(CONTROLNET, "controlnet", 1)                                                                 \
    X(IMAGE_IS_CONTROL, "image_is_control", 1)                                                     \
    X(RETURN_CONTROL_MAP, "return_control_map", 1)                                                 \
    X(CONTROL_STRENGTH, "control_strength", 1)                                                     \
    X(EXTENDED_CONTROLNET, "extended_controlnet", 0)                                               \
    X(SCHEDULER, "scheduler", 1)                                                                   \
    X(SIGMA_GENERATORS, "sigma_generators", 1)                                                     \
    X(SOLVER_OPTIONS, "solver_options", 0)                                                         \
    X(SOLVER_KNOB_SAMPLERS, "solver_knob_samplers", 0)                                             \
    X(FLOW_SHIFT, "flow_shift", 0)                                                                 \
    X(EXTRA_SOURCE_IMAGES, "extra_source_images", 0)                                               \
    X(LAYER_DIFFUSE, "layer_diffuse", 1)                                                           \
    X(QR_CODE, "qr_code", 1)                                                                       \
    X(EXTRA_TEXTS, "extra_texts", 1)                                                               \
    X(WORKFLOW, "workflow", 1)                                                                     \
    X(STABLE_CASCADE_2PASS, "stable_cascade_2pass", 0)                                             \
    X(FLUX, "flux", 0)                                                                             \
    X(POST_PROCESSING, "post-processing", 1)                                                       \
    X(REALESRGAN_X4PLUS, "RealESRGAN_x4plus", 1)                                                   \
    X(REALESRGAN_X2PLUS, "RealESRGAN_x2plus", 1)                                                   \
    X(REALESRGAN_X4PLUS_ANIME, "RealESRGAN_x4plus_anime_6B", 1)                                    \
    X(NMKD_SIAX, "NMKD_Siax", 1)                                                                   \
    X(ANIME_SHARP, "4x_AnimeSharp", 1)                                                             \
    X(GFPGAN, "GFPGAN", 1)                                                                         \
    X(CODEFORMERS, "CodeFormers", 1)                                                               \
    X(STRIP_BACKGROUND, "strip_background", 1)                                                     \
    X(NOMOS8KSC, "4xNomos8kSC", 0)                                                                 \
    X(LSDIRPLUS, "4xLSDIRplus", 0)                                                                 \
    X(NOMOSWEBPHOTO, "4xNomosWebPhoto_RealPLKSR", 0)                                               \
    X(NOMOS2_REALPLKSR, "4xNomos2_realplksr_dysample", 0)                                          \
    X(NOMOS2_HQ_DAT2, "4xNomos2_hq_dat2", 0)                                                       \
    X(MODERN_SPANIMATION, "2xModernSpanimationV1", 0)                                              \
    X(GFPGAN_V13, "GFPGANv1.3", 1)                                                                 \
    X(RESTOREFORMER, "RestoreFormer", 0)

/* Alchemy forms that answer in words. Those that answer with a picture are the post-processors of the
 * table above, built when they are. */
/*    enum            built */
#define CAPABILITY_FORM_TABLE(X)                                                                   \
    X(CAPTION, 1)                                                                                  \
    X(NSFW, 1)                                                                                     \
    X(INTERROGATION, 1)                                                                            \
    X(AESTHETIC, 0)                                                                                \
    X(VECTORIZE, 0)                                                                                \
    X(PALETTE, 0)                                                                                  \
    X(DESCRIBE, 0)

enum capability {
#define X(name, text, built) CAPABILITY_##name,
    CAPABILITY_TABLE(X)
#undef X
        CAPABILITY_COUNT
};

struct capability_set {
    uint64_t features;        /* bit = enum capability */
    uint64_t samplers;        /* bit = enum sampler; under the normal schedule */
    uint64_t karras_samplers; /* and under the karras schedule */
    uint64_t schedules;       /* bit = enum schedule */
    uint32_t families;        /* bit = enum family */
    uint32_t controls;        /* bit = index into capability_control_names: the network is there */
    uint32_t detectors;       /* the same bits: we can make the map from a picture */
    uint32_t layered;         /* bit = enum family: what makes its pictures transparent is there */
    uint32_t forms;           /* bit = enum alchemy_form */
};

const char *capability_name(enum capability c);
bool capability_find(const char *name, enum capability *c);
/* A post-processor of this name, or false. */
bool capability_find_post(const char *name, enum capability *c);
/* "canny", "hed", ... the nine classic control types, NULL at the end */
extern const char *const capability_control_names[];

struct capability_set capability_built(void); /* everything whose code exists */
/* What may be promised to others: controlnet and return_control_map stand for all nine control types. */
bool capability_claims(const struct capability_set *s, enum capability c);
static inline bool capability_has(const struct capability_set *s, enum capability c)
{
    return s->features >> c & 1;
}
void capability_add(struct capability_set *s, enum capability c);
void capability_remove(struct capability_set *s, enum capability c);
static inline bool capability_has_form(const struct capability_set *s, enum alchemy_form f)
{
    return f < ALCHEMY_COUNT && (s->forms >> f & 1);
}
struct capability_set capability_intersect(const struct capability_set *a,
                                           const struct capability_set *b);

/* (a) Sets the allow_* flags of a pop. */
void capability_pop_flags(const struct capability_set *s, struct horde_pop *pop);

/* The forms of an alchemist's pop: what `wanted` names (the configuration's `forms`, where "post-process"
 * stands for all that answer with a picture) and the set has. Returns how many names. */
int capability_pop_forms(const struct capability_set *s, const char *const *wanted,
                         int wanted_count, const char *names[HORDE_FORMS_MAX]);

/* (b) 0, or ERR_UNSUPPORTED with "this worker cannot ..."; `family` of the job's model. Also
 * passes on job->refusal. */
int capability_refuse(const struct capability_set *s, const struct horde_job *job,
                      enum family family, struct error *err);

int capability_refuse_form(const struct capability_set *s, const struct horde_form *form,
                           struct error *err);

/* (c) The page with the row for AI-Horde's bridge_reference.py: docs/upstream-row.md. */
int capability_upstream_row(const struct capability_set *s, struct buf *page, struct error *err);

/* (d) What `bridge_agent` ("name:version:url") promises beyond the set: 0 when all is covered or
 * the name promises nothing; ERR_UNSUPPORTED with the list of what is missing. */
int capability_check_agent(const struct capability_set *s, const char *bridge_agent,
                           struct error *err);
/* What the server's table says this name can do; an unknown name: nothing but classic samplers. */
struct capability_set capability_agent_set(const char *bridge_agent);
/* Does the server hand the default requests (r2) to this name? For `kiln why`. */
bool capability_agent_known(const char *bridge_agent);
/* Share of the told reward that the server credits this name: 1000, 900 or 750 thousandths (5.4).
 */
int capability_agent_factor_milli(const char *bridge_agent);

#endif
