/*
 * known.h - files that the Horde's lists name only in passing, with the SHA-256 that each must have:
 *           weights of face fixers, of the background's remover, of the captioner, of CLIP and of the
 *           networks that draw control maps; BERT's vocabulary; the lists of words of an interrogation.
 *
 * Place    `kiln models get gfpgan|codeformers|u2net|caption|interrogation`, and whatever else asks
 *          which hash a file of the store must have.
 * Owner    a const table. Any thread. Cannot fail.
 * Source   gfpgan.json and miscellaneous.json of Haidra-Org/AI-Horde-image-model-reference (GFPGAN
 *          1.4, RetinaFace, ParseNet); for the rest the publishers' release pages, and the SHA-256
 *          that several public projects pin alike (CodeFormer 0.1.0, GFPGAN 1.3, rembg's u2net.onnx,
 *          whose MD5 rembg itself states). BLIP: blip.json of the same lists. CLIP ViT-L/14 and BERT's
 *          vocabulary: the revisions and SHA-256 that several public projects pin alike. The lists are those
 *          of the Horde's first worker, db0/nataili, at the commit in the address; their SHA-256 was taken
 *          from a copy of that repository. Annotators: the catalogue of
 *          Haidra-Org/horde-model-reference (annotator_catalog.py), which the Horde's worker fetches by.
 */
#ifndef STORE_KNOWN_H
#define STORE_KNOWN_H

#include <stdint.h>

#include "store/store.h"

#define KNOWN_GROUP_MAX 8

struct known_file {
    const char *name; /* as it is asked for */
    const char *extension;
    const char *url, *sha256;
    int64_t size_bytes; /* 0: not said */
    enum store_kind kind;
    const char *file; /* its name on disk, without extension; NULL: `name` */
};

/* By the name that is asked for. NULL: none. */
const struct known_file *known_find(const char *name);
/* By what it is called in the store. NULL: none, or any file may bear that name. */
const struct known_file *known_in_store(enum store_kind kind, const char *file);
/* Both for walking the table: NULL behind its end. */
const struct known_file *known_at(int i);
const char *known_group_word(int i);
/* The files that a word stands for ("gfpgan"), the Horde's names included; how many, 0 for none. */
int known_group(const char *word, const struct known_file *files[KNOWN_GROUP_MAX]);

#endif
