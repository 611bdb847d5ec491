/*
 * known.h - files that the Horde's lists name only in passing: weights of face fixers and of the
 *           background's remover, with the SHA-256 that each must have.
 *
 * Place    `kiln models get gfpgan|codeformers|u2net`, and whatever else asks which hash a file of
 *          post/ must have.
 * Owner    a const table. Any thread. Cannot fail.
 * Source   gfpgan.json and miscellaneous.json of Haidra-Org/AI-Horde-image-model-reference (GFPGAN
 *          1.4, RetinaFace, ParseNet); for the rest the publishers' release pages, and the SHA-256
 *          that several public projects pin alike (CodeFormer 0.1.0, GFPGAN 1.3, rembg's u2net.onnx,
 *          whose MD5 rembg itself states).
 */
#ifndef STORE_KNOWN_H
#define STORE_KNOWN_H

#include <stdint.h>

#define KNOWN_GROUP_MAX 4

struct known_file {
    const char *name, *extension; /* below post/ */
    const char *url, *sha256;
    int64_t size_bytes; /* 0: not said */
};

/* By the name of the file. NULL: none. */
const struct known_file *known_find(const char *name);
/* The files that a word stands for ("gfpgan"), the Horde's names included; how many, 0 for none. */
int known_group(const char *word, const struct known_file *files[KNOWN_GROUP_MAX]);

#endif
