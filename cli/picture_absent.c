/* picture_absent.c - built where libchafa is not: says so. */
#include "cli/picture.h"

int picture_show(const char *path, int columns, int rows, struct error *err)
{
    (void)columns;
    (void)rows;
    return error_set(err, ERR_UNSUPPORTED, "%s: this build has no libchafa to draw with", path);
}
