/*
 * unicode_tables.h - data of unicode.c, made by make_unicode_tables.py. Sorted by the first column.
 */
#ifndef TEXT_UNICODE_TABLES_H
#define TEXT_UNICODE_TABLES_H

#include <stddef.h>
#include <stdint.h>

struct code_range {
    uint32_t first, last;
};
struct code_shift { /* every step-th code point of first..last becomes itself + delta */
    uint32_t first, last;
    int32_t delta;
    uint32_t step;
};
struct code_pair { /* whole = a, or a then b */
    uint32_t whole, a, b;
};
struct code_join { /* a then b = whole */
    uint32_t a, b, whole;
};
struct code_class { /* canonical combining class */
    uint32_t first, last, class;
};

extern const struct code_range unicode_letters[], unicode_numbers[];
extern const struct code_shift unicode_small[];
extern const struct code_pair unicode_decompositions[];
extern const struct code_join unicode_compositions[];
extern const struct code_class unicode_classes[];
extern const size_t unicode_letters_count, unicode_numbers_count, unicode_small_count,
    unicode_decompositions_count, unicode_compositions_count, unicode_classes_count;

#endif
