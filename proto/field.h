/*
 * field.h - a struct and its JSON object, described once, walked both ways.
 *
 * Place    inside proto/: engine and control messages, and the Horde objects that are mere
 *          records.
 * Owner    tables are const. Read texts and lists live in the arena; FIELD_HEAP and FIELD_BLOB
 *          are on the heap and belong to the struct.
 * Failure  sticky in the reader and writer.
 *
 * Reading leaves a member that is absent or null as it was; FIELD_NUMBER (a figure that may be unknown)
 * becomes NAN.
 */
#ifndef PROTO_FIELD_H
#define PROTO_FIELD_H

#include <stddef.h>

#include "proto/reader.h"
#include "proto/writer.h"

enum field_kind {
    FIELD_BOOL,
    FIELD_INT,     /* int, least..most */
    FIELD_I64,     /* int64_t, least..most */
    FIELD_U64,     /* uint64_t, a decimal text on the wire */
    FIELD_F64,     /* double, least..most */
    FIELD_NUMBER,  /* double, NAN <-> null */
    FIELD_ENUM,    /* int-sized enum <-> one of `names` */
    FIELD_TEXT,    /* const char *; NULL <-> null */
    FIELD_WORD,    /* const char *; NULL goes out as "" */
    FIELD_CHARS,   /* char[most] */
    FIELD_HEAP,    /* char *, heap; the old one is freed */
    FIELD_TEXTS,   /* const char **, count beside it; at most `most` */
    FIELD_NAMES,   /* const char *[most], count beside it */
    FIELD_LIST,    /* struct *, count beside it; at most `most` */
    FIELD_ARRAY,   /* struct[most], count beside it */
    FIELD_OBJECT,  /* struct inside the struct (or the same one: offset 0) */
    FIELD_NUMBERS, /* double[most], no count */
    FIELD_BLOB,    /* struct blob <-> index into the message's blobs, null without data */
};

struct field {
    const char *name;
    enum field_kind kind;
    size_t offset;
    size_t count_offset;
    size_t stride;
    double least, most;
    const struct field *fields; /* ends with a NULL name */
    const char *const *names;   /* of an enum, by value; ends with NULL */
    bool needed;
};

struct field_blobs {          /* the bytes that travel beside a JSON header */
    const struct blob **list; /* writing: those met so far */
    int count, max;
    const uint8_t *const *bytes; /* reading */
    const uint32_t *lengths;
};

void field_write(struct writer *w, const struct field *fields, const void *from,
                 struct field_blobs *blobs);
void field_read(struct reader *r, const struct field *fields, const json_t *o, void *to,
                struct arena *memory, struct field_blobs *blobs);

#define FIELD_TEXT_BYTES_MAX (1 << 20)

/* S is the struct's tag, m its member, which is also the name on the wire. */
/* clang-format off */
#define F_AT(S, m) #m, .offset = offsetof(struct S, m)
#define F_MEMBER(S, m) (((struct S *)0)->m)
#define F_COUNT_OF(S, m) (sizeof F_MEMBER(S, m) / sizeof F_MEMBER(S, m)[0])
#define F_BOOL(S, m) {F_AT(S, m), .kind = FIELD_BOOL}
#define F_INT(S, m, lo, hi) {F_AT(S, m), .kind = FIELD_INT, .least = lo, .most = hi}
#define F_I64(S, m, lo, hi) {F_AT(S, m), .kind = FIELD_I64, .least = lo, .most = hi}
#define F_WHOLE(S, m) F_I64(S, m, -9e15, 9e15)
#define F_U64(S, m) {F_AT(S, m), .kind = FIELD_U64}
#define F_F64(S, m, lo, hi) {F_AT(S, m), .kind = FIELD_F64, .least = lo, .most = hi}
#define F_NUMBER(S, m) {F_AT(S, m), .kind = FIELD_NUMBER}
#define F_ENUM(S, m, table) {F_AT(S, m), .kind = FIELD_ENUM, .names = table}
#define F_TEXT(S, m) {F_AT(S, m), .kind = FIELD_TEXT}
#define F_WORD(S, m) {F_AT(S, m), .kind = FIELD_WORD}
#define F_CHARS(S, m) {F_AT(S, m), .kind = FIELD_CHARS, .most = sizeof F_MEMBER(S, m)}
#define F_HEAP(S, m) {F_AT(S, m), .kind = FIELD_HEAP}
#define F_BLOB(S, m) {F_AT(S, m), .kind = FIELD_BLOB}
#define F_OBJECT(S, m, table) {F_AT(S, m), .kind = FIELD_OBJECT, .fields = table}
#define F_NUMBERS(S, m) {F_AT(S, m), .kind = FIELD_NUMBERS, .most = F_COUNT_OF(S, m)}
#define F_TEXTS(S, m, count, max) \
    {F_AT(S, m), .kind = FIELD_TEXTS, .count_offset = offsetof(struct S, count), .most = max}
#define F_NAMES(S, m, count) \
    {F_AT(S, m), .kind = FIELD_NAMES, .count_offset = offsetof(struct S, count), \
     .most = F_COUNT_OF(S, m)}
#define F_LIST(S, m, count, table, max) \
    {F_AT(S, m), .kind = FIELD_LIST, .count_offset = offsetof(struct S, count), \
     .stride = sizeof F_MEMBER(S, m)[0], .fields = table, .most = max}
#define F_ARRAY(S, m, count, table) \
    {F_AT(S, m), .kind = FIELD_ARRAY, .count_offset = offsetof(struct S, count), \
     .stride = sizeof F_MEMBER(S, m)[0], .fields = table, .most = F_COUNT_OF(S, m)}
/* clang-format on */
#define F_END                                                                                      \
    {                                                                                              \
        NULL                                                                                       \
    }

#endif
