/*
 * data_path.h - where the files lie that come with the program: vocabularies, the pocket model.
 *
 * Place    whoever opens such a file. Order: $KILN_DATA, DIR/../data beside a program in a build
 *          folder, DIR/../share/kiln and DIR/../../share/kiln beside an installed one.
 * Owner    results are the caller's (free). Any thread.
 * Failure  NULL when no place has it.
 */
#ifndef BASE_DATA_PATH_H
#define BASE_DATA_PATH_H

/* "models/pocket" -> "/usr/share/kiln/models/pocket" */
char *data_path_find(const char *relative);

/* A program of ours that lies beside the running one: kiln-engine, kiln-cuda.so. In a build folder
 * each folder holds its own program, so ../engine and the like are looked at too. */
char *data_path_program(const char *name);

/* The cache folder: CACHE_DIRECTORY (systemd), XDG_CACHE_HOME/kiln, ~/.cache/kiln. Not made. */
char *data_path_cache(void);

#endif
