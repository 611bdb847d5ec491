/*
 * schedule_tables.h - published lists of noise levels: Align Your Steps, GITS.
 *
 * Place    inside schedule.c only.
 * Source   Sabour et al. 2024 (AYS, quick-start tables); Chen et al. 2024 (GITS, coefficient 1.20),
 *          as ComfyUI offers them.
 */
#ifndef SAMPLE_SCHEDULE_TABLES_H
#define SAMPLE_SCHEDULE_TABLES_H

enum { AYS_LEVELS = 11, GITS_STEPS_MIN = 2, GITS_STEPS_MAX = 20 };

extern const double ays_sd1[AYS_LEVELS], ays_sdxl[AYS_LEVELS];
/* row n - 2: the n + 1 levels of n steps */
extern const double gits_levels[GITS_STEPS_MAX - GITS_STEPS_MIN + 1][GITS_STEPS_MAX + 1];

#endif
