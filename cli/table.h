/*
 * table.h - rows of text in columns as wide as they need to be.
 *
 * Place    commands that list things. A table is filled, then printed once.
 * Owner    table_start / table_print (prints to standard output and frees).
 */
#ifndef CLI_TABLE_H
#define CLI_TABLE_H

#include <stdint.h>

#define TABLE_COLUMNS_MAX 12

struct table {
    int columns;
    char ***rows;
    int count, room;
};

/* heads: "id|model|>kudos"; a `>` aligns to the right */
void table_start(struct table *t, const char *heads);
/* as many texts as there are columns; copied, cleaned of control characters */
void table_row(struct table *t, ...);
void table_print(struct table *t);

/* Short forms for people, into the caller's text; return text. */
char *format_kudos(char text[24], int64_t kudos_milli); /* 12.345 */
char *format_when(char text[24], int64_t wall_ms);      /* 2026-11-24 06:00:00, local; "-" for 0 */
char *format_bytes(char text[24], int64_t bytes);       /* 1.7 GiB */
char *format_seconds(char text[24], int64_t seconds);   /* 3 h 05 min */

#endif
