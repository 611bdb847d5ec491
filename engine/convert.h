/*
 * convert.h - a file of weights written anew: out of a pickle, in another precision, without what
 *             nobody needs.
 *
 * Place    `kiln-engine convert ...`, which `kiln convert` starts with the same arguments; never in
 *          an engine that serves. Names stay as they are.
 * Owner    the call; one thread.
 * Failure  exit codes 0, 1 (with a sentence on standard error), 2 (wrong usage).
 */
#ifndef ENGINE_CONVERT_H
#define ENGINE_CONVERT_H

/* argv[0] is "convert". */
int convert_main(int argc, char **argv);

#endif
