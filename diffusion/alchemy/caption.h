/*
 * caption.h - a picture in, a sentence out.
 *
 * Place    engine/serve_alchemy, form `caption`. BLIP looks and writes (blip.h), search.h chooses,
 *          wordpiece.h spells.
 * Owner    caption_open / caption_close; one thread, the device's.
 * Failure  ERR_NOT_FOUND, ERR_IO, ERR_FORMAT naming the file; ERR_CANCELED; ERR_NO_MEMORY;
 *          ERR_DEVICE.
 * Source   the bounds are those of Haidra-Org/AI-Horde-Worker (jobs/interrogation.py: BLIP_Large, 7
 *          beams, 20 to 50 tokens) and the prompt that BLIP was trained with. That worker draws words by
 *          chance; here the same picture has the same caption. Widths and depths come from the file:
 *          base and large, transformers' layout or the original.
 */
#ifndef ALCHEMY_CAPTION_H
#define ALCHEMY_CAPTION_H

#include "diffusion/alchemy/blip.h"
#include "diffusion/alchemy/search.h"
#include "diffusion/pipeline.h"

struct caption;

/* model_path: safetensors, pytorch_model.bin or the original .pth. vocab_path: BERT's vocab.txt. */
int caption_open(struct caption **c, struct device *device, const char *model_path,
                 const char *vocab_path, enum precision precision, struct error *err);
void caption_close(struct caption *c);

/* What the Horde's reference worker asks for; the end is set. */
struct search_options caption_options(const struct caption *c);
#define CAPTION_PROMPT "a picture of" /* words that the text begins with, and that are taken off */

/* prompt "": none. *text: free() it. hooks may be NULL; progress counts words. */
int caption_run(struct caption *c, char **text, const struct pixels *picture,
                const struct search_options *o, const char *prompt,
                const struct pipeline_hooks *hooks, struct error *err);

/* Below caption_run, for tests: what the picture's rows are ([1 + grid grid, width] floats, of at most
 * `room`); the tokens of a text, prompt and end included. */
int caption_look(struct caption *c, float *rows, size_t room, const struct pixels *picture,
                 struct error *err);
int caption_tokens(struct caption *c, int32_t token[SEARCH_LENGTH_MAX], int *count,
                   const struct pixels *picture, const struct search_options *o, const char *prompt,
                   const struct pipeline_hooks *hooks, struct error *err);

/* patches [grid grid, 3 patch patch] for blip_look: the whole picture, squeezed into a square. */
int caption_patches(float *patches, const struct blip_config *config, const struct pixels *picture,
                    struct error *err);

#endif
