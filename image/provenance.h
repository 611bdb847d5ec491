/*
 * provenance.h - what sustains a picture, in the forms that pictures carry.
 *
 * Place    filled by whoever made the picture (kiln generate; kiln-engine for Horde jobs), read
 *          back by `kiln trace`. One table names every fact once.
 * Owner    init/release around the caller's struct; values are copied. Any thread.
 * Failure  reading: ERR_NOT_FOUND when the picture carries nothing; ERR_FORMAT.
 * Source   `parameters`: the line format that AUTOMATIC1111/stable-diffusion-webui writes and
 *          CivitAI, ArtBot and others read. XMP: ISO 16684-1, with Iptc4xmpExt:DigitalSourceType
 *          (cv.iptc.org/newscodes/digitalsourcetype) and properties of our own namespace.
 */
#ifndef IMAGE_PROVENANCE_H
#define IMAGE_PROVENANCE_H

#include "base/buf.h"
#include "image/codec.h"

#define PROVENANCE_NAMESPACE "https://kiln.example.org/ns/provenance/1.0/"

/*    enum            XMP property       group      for people                in `parameters` (NULL: not) */
#define PROVENANCE_TABLE(X)                                                                        \
    X(PROMPT, "Prompt", "picture", "prompt", NULL)                                                 \
    X(NEGATIVE, "NegativePrompt", "picture", "negative prompt", NULL)                              \
    X(STEPS, "Steps", "picture", "steps", "Steps")                                                 \
    X(SAMPLER, "Sampler", "picture", "sampler", "Sampler")                                         \
    X(SCHEDULE, "Schedule", "picture", "schedule", "Schedule type")                                \
    X(CFG, "CfgScale", "picture", "guidance", "CFG scale")                                         \
    X(SEED, "Seed", "picture", "seed", "Seed")                                                     \
    X(SIZE, "Size", "picture", "size", "Size")                                                     \
    X(CLIP_SKIP, "ClipSkip", "picture", "clip skip", "Clip skip")                                  \
    X(DENOISE, "Denoise", "picture", "denoising strength", "Denoising strength")                   \
    X(BATCH, "BatchIndex", "picture", "number in its batch", "Batch pos")                          \
    X(CREATED, "Created", "picture", "made at", NULL)                                              \
    X(MODEL, "Model", "model", "model", "Model")                                                   \
    X(MODEL_SHA256, "ModelSha256", "model", "model SHA-256", NULL)                                 \
    X(MODEL_FAMILY, "ModelFamily", "model", "family", NULL)                                        \
    X(MODEL_SOURCE, "ModelSource", "model", "model from", NULL)                                    \
    X(MODEL_LICENCE, "ModelLicence", "model", "licence", NULL)                                     \
    X(LORAS, "Loras", "model", "LoRAs", NULL)                                                      \
    X(LORA_HASHES, "LoraHashes", "model", "LoRA hashes", "Lora hashes")                            \
    X(PROGRAM, "Program", "machine", "program", "Version")                                         \
    X(KERNELS, "Kernels", "machine", "kernels", NULL)                                              \
    X(DEVICE, "Device", "machine", "device", NULL)                                                 \
    X(PLACE, "Place", "machine", "stands in", NULL)                                                \
    X(OWNER, "Owner", "machine", "whose machine", NULL)                                            \
    X(SECONDS, "Seconds", "energy", "seconds", NULL)                                               \
    X(JOULES, "Joules", "energy", "joules", NULL)                                                  \
    X(ENERGY_SOURCE, "EnergySource", "energy", "measured by", NULL)                                \
    X(ENERGY_MIX, "EnergyMix", "energy", "electricity", NULL)                                      \
    X(HORDE, "Horde", "network", "horde", NULL)                                                    \
    X(REQUEST, "Request", "network", "request", NULL)                                              \
    X(STYLE, "Style", "network", "style", NULL)                                                    \
    X(WORKER, "Worker", "network", "worker", NULL)                                                 \
    X(KUDOS, "Kudos", "network", "kudos moved", NULL)

enum provenance_fact {
#define X(name, property, group, people, parameter) PROVENANCE_##name,
    PROVENANCE_TABLE(X)
#undef X
        PROVENANCE_COUNT
};

struct provenance {
    char *value[PROVENANCE_COUNT]; /* UTF-8; NULL: unknown */
};

void provenance_init(struct provenance *p);
void provenance_release(struct provenance *p);
void provenance_set(struct provenance *p, enum provenance_fact fact, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

const char *provenance_group(enum provenance_fact fact);
const char *provenance_label(enum provenance_fact fact);
const char *provenance_property(enum provenance_fact fact);

/* Both texts of a picture; the caller releases. */
void provenance_text(const struct provenance *p, struct image_text *text);
/* From what a picture carries: our XMP when it is there, else the `parameters` of any program. */
int provenance_read(struct provenance *p, const struct image_text *text, struct error *err);

#endif
