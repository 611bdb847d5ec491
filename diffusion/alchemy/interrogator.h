/*
 * interrogator.h - which words of the lists fit a picture best.
 *
 * Place    engine/serve_alchemy, form `interrogation`. CLIP compares the picture with every phrase of
 *          the lists FOLDER/GROUP.txt (tags sites artists flavors mediums movements techniques); a list
 *          that is not there is left out.
 * Owner    interrogator_open / interrogator_close; the pair is borrowed. One thread, the device's.
 * Failure  ERR_NOT_FOUND without any list; ERR_FORMAT naming the file; ERR_CANCELED; ERR_NO_MEMORY;
 *          ERR_DEVICE.
 * Source   db0/nataili, clip/interrogate.py, which is what the Horde's reference worker asks
 *          (Haidra-Org/AI-Horde-Worker, jobs/interrogation.py: rank, the first 5 of each list): within a
 *          list the softmax of 100 x cosine, in per cent. Ties keep the order of the list.
 *
 * The phrases are read once for a network and list and their vectors kept on disk (word_list.h): a
 * minute or two for some thousand phrases on a CPU, in the first interrogation after a list is new.
 */
#ifndef ALCHEMY_INTERROGATOR_H
#define ALCHEMY_INTERROGATOR_H

#include "diffusion/pipeline.h"
#include "diffusion/safety/clip_pair.h"
#include "proto/horde_interrogate.h"

#define INTERROGATOR_TOP 5 /* words of a list in an answer */

struct interrogator;

/* Is any list there? */
bool interrogator_present(const char *folder);
/* vocab_path: a CLIP tokenizer's folder, or NULL for the public vocabulary. Reads the lists, not yet
 * their vectors. */
int interrogator_open(struct interrogator **i, struct clip_pair *pair, const char *folder,
                      const char *vocab_path, struct error *err);
void interrogator_close(struct interrogator *i);

/* Vectors for all lists: from disk, else by reading. hooks may be NULL. A disk that cannot keep them
 * is told in `unkept` (may be NULL; code 0: all kept). */
int interrogator_prepare(struct interrogator *i, const struct pipeline_hooks *hooks,
                         struct error *unkept, struct error *err);

/* The best `top` of each list, best first. *words: free() it; texts are borrowed from the interrogator.
 * Prepares when that has not been done. */
int interrogator_run(struct interrogator *i, struct alchemy_word **words, int *count,
                     const struct pixels *picture, int top, const struct pipeline_hooks *hooks,
                     struct error *err);

#endif
