/*
 * terms.h - the field's words with a number each: samplers, schedules, families.
 *
 * Place    wherever a name crosses a boundary: Horde payloads, command line, engine messages, the
 *          capability table. Each family of things is one table here; code that acts on a member
 *          (diffusion/sample/sampler.c ...) keeps its own table indexed by the enum.
 * Failure  *_find returns false for a name the table lacks. Names compare without case.
 * Source   Horde names: AI-Horde horde/apis/models/stable_v2.py; model-reference baselines.
 */
#ifndef PROTO_TERMS_H
#define PROTO_TERMS_H

#include <stdbool.h>
#include <stddef.h>

/*    enum             Horde name        network calls counted for each step */
#define SAMPLER_TABLE(X)                                                                           \
    X(K_EULER, "k_euler", 1)                                                                       \
    X(K_EULER_A, "k_euler_a", 1)                                                                   \
    X(K_HEUN, "k_heun", 2)                                                                         \
    X(K_LMS, "k_lms", 1)                                                                           \
    X(K_DPM_2, "k_dpm_2", 2)                                                                       \
    X(K_DPM_2_A, "k_dpm_2_a", 2)                                                                   \
    X(K_DPM_FAST, "k_dpm_fast", 1)                                                                 \
    X(K_DPM_ADAPTIVE, "k_dpm_adaptive", 1)                                                         \
    X(K_DPMPP_2S_A, "k_dpmpp_2s_a", 2)                                                             \
    X(K_DPMPP_2M, "k_dpmpp_2m", 1)                                                                 \
    X(K_DPMPP_SDE, "k_dpmpp_sde", 2)                                                               \
    X(DPMSOLVER, "dpmsolver", 1)                                                                   \
    X(DDIM, "DDIM", 1)                                                                             \
    X(LCM, "lcm", 1)                                                                               \
    X(UNI_PC, "uni_pc", 1)                                                                         \
    X(UNI_PC_BH2, "uni_pc_bh2", 1)                                                                 \
    X(DPMPP_2M_SDE, "dpmpp_2m_sde", 1)                                                             \
    X(DPMPP_3M_SDE, "dpmpp_3m_sde", 1)                                                             \
    X(DDPM, "ddpm", 1)                                                                             \
    X(DEIS, "deis", 1)                                                                             \
    X(IPNDM, "ipndm", 1)                                                                           \
    X(RES_MULTISTEP, "res_multistep", 1)                                                           \
    X(HEUNPP2, "heunpp2", 3)                                                                       \
    X(ER_SDE, "er_sde", 1)

#define SCHEDULE_TABLE(X)                                                                          \
    X(NORMAL, "normal")                                                                            \
    X(KARRAS, "karras")                                                                            \
    X(EXPONENTIAL, "exponential")                                                                  \
    X(SGM_UNIFORM, "sgm_uniform")                                                                  \
    X(SIMPLE, "simple")                                                                            \
    X(DDIM_UNIFORM, "ddim_uniform")                                                                \
    X(BETA, "beta")                                                                                \
    X(LINEAR_QUADRATIC, "linear_quadratic")                                                        \
    X(KL_OPTIMAL, "kl_optimal")                                                                    \
    X(ALIGN_YOUR_STEPS, "align_your_steps")                                                        \
    X(GITS, "gits")

/*    enum   Horde baseline (v2)             older spelling         for people */
#define FAMILY_TABLE(X)                                                                            \
    X(SD1, "stable_diffusion_1", "stable diffusion 1", "SD 1.x")                                   \
    X(SD2_512, "stable_diffusion_2_512", "stable diffusion 2 512", "SD 2.x (512)")                 \
    X(SD2_768, "stable_diffusion_2_768", "stable diffusion 2", "SD 2.x (768)")                     \
    X(SDXL, "stable_diffusion_xl", "stable_diffusion_xl", "SDXL")                                  \
    X(SDXL_REFINER, "stable_diffusion_xl_refiner", "stable_diffusion_xl_refiner", "SDXL refiner")

/* Control types that a network annotates, and its checkpoint in the cache's folder `annotators`. A
 * type that stands here twice takes the first whose checkpoint is there. */
/*    enum           control type     file */
#define ANNOTATOR_TABLE(X)                                                                         \
    X(HED, "hed", "ControlNetHED")                                                                 \
    X(SOFTEDGE, "softedge", "ControlNetHED")                                                       \
    X(FAKESCRIBBLES, "fakescribbles", "ControlNetHED")                                             \
    X(HOUGH, "hough", "mlsd_large_512_fp32")                                                       \
    X(MLSD, "mlsd", "mlsd_large_512_fp32")                                                         \
    X(DEPTH, "depth", "res101")                                                                    \
    X(DEPTH_MIDAS, "depth", "dpt-hybrid-midas")                                                    \
    X(MIDAS_DEPTH, "midas_depth", "dpt-hybrid-midas")                                              \
    X(NORMAL, "normal", "dpt-hybrid-midas")                                                        \
    X(OPENPOSE, "openpose", "body_pose_model")                                                     \
    X(SEG, "seg", "upernet_global_small")

enum annotator_kind {
#define X(name, text, file) ANNOTATOR_##name,
    ANNOTATOR_TABLE(X)
#undef X
        ANNOTATOR_COUNT
};
bool annotator_find(const char *type, enum annotator_kind *kind); /* without case */
const char *annotator_file(enum annotator_kind kind);             /* without its ending */
/* The i-th file that would serve the type, in the order in which they are looked for; false past
 * the last. kind may be NULL. */
#define ANNOTATOR_FILE_BYTES 64
bool annotator_choice(char file[ANNOTATOR_FILE_BYTES], enum annotator_kind *kind, const char *type,
                      int i);

enum sampler {
#define X(name, text, calls) SAMPLER_##name,
    SAMPLER_TABLE(X)
#undef X
        SAMPLER_COUNT
};

enum schedule {
#define X(name, text) SCHEDULE_##name,
    SCHEDULE_TABLE(X)
#undef X
        SCHEDULE_COUNT
};

enum family {
#define X(name, text, old, people) FAMILY_##name,
    FAMILY_TABLE(X)
#undef X
        FAMILY_COUNT
};

/* LayerDiffuse's files of a family, in the cache's folder `layered`, without their ending. */
struct layered_files {
    const char *change;  /* of the UNet */
    const char *decoder; /* of alpha */
};
bool layered_files_of(enum family f, struct layered_files *files); /* false: the family has none */

const char *sampler_name(enum sampler s);
bool sampler_find(const char *name, enum sampler *s);
int sampler_calls(enum sampler s);
/* "k_euler, k_euler_a, ..." for messages and --help; borrowed, lives for the process */
const char *sampler_list(void);

const char *schedule_name(enum schedule s);
bool schedule_find(const char *name, enum schedule *s);
const char *schedule_list(void);

const char *family_name(enum family f);   /* Horde baseline */
const char *family_people(enum family f); /* for people */
bool family_find(const char *name, enum family *f);

/* Horde: sampler work of a whole job: steps x calls, 40 for k_dpm_adaptive (horde-api 6.7). */
int sampler_work_steps(enum sampler s, int steps);

#endif
