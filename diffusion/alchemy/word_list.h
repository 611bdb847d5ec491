/*
 * word_list.h - a list of phrases and what CLIP makes of each, kept on disk.
 *
 * Place    interrogator.c, one a group.
 * Owner    word_list_open / word_list_close. One thread.
 * Failure  ERR_NOT_FOUND, ERR_IO; ERR_FORMAT with file and line.
 * Source   text files, one phrase a line, as pharmapsychotic/clip-interrogator and db0/nataili keep them.
 *          Blanks at the ends and empty lines do not count; broken UTF-8 is refused.
 *
 * The vectors lie beside the list as .NAME.vectors: "KILNVEC1", the list's and the network's mark, count, width, then
 * count * width floats of this machine's order. One file a list, replaced when either mark differs, so the disk holds
 * no more than WORD_LIST_MAX phrases a group.
 */
#ifndef ALCHEMY_WORD_LIST_H
#define ALCHEMY_WORD_LIST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define WORD_LIST_MAX 150000
#define WORD_BYTES_MAX 500

struct word_list {
    char *path, *text;
    const char **phrase;
    int count;
    uint64_t mark;  /* of the phrases */
    float *vectors; /* [count, width]; NULL until known */
    int width;
};

int word_list_open(struct word_list *l, const char *path, struct error *err);
void word_list_close(struct word_list *l);

/* Vectors from the file beside, if it is whole and for these phrases and this network. */
bool word_list_recall(struct word_list *l, uint64_t network, int width);
/* Takes vectors (of alloc) and writes them beside; a disk that does not want them is no failure: the
 * sentence is in *err and the vectors are there all the same. */
int word_list_keep(struct word_list *l, float *vectors, uint64_t network, int width,
                   struct error *err);

#endif
