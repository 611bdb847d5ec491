/*
 * picture.h - a picture drawn in the terminal.
 *
 * Place    `kiln show`, `kiln generate --show`, the demonstration. libchafa chooses what the
 *          terminal can do: pixels (Kitty, iTerm2, sixel) or coloured characters.
 * Failure  those of reading the file; ERR_UNSUPPORTED when built without libchafa.
 */
#ifndef CLI_PICTURE_H
#define CLI_PICTURE_H

#include "base/error.h"

/* To standard output. columns and rows 0: as the terminal allows. */
int picture_show(const char *path, int columns, int rows, struct error *err);

#endif
