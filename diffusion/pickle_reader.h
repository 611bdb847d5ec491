/*
 * pickle_reader.h - the values of a pickle and the machine that makes them; inside of pickle.c.
 *
 * Place    pickle_machine.c turns bytes into values; pickle.c finds the bytes (ZIP or legacy form)
 *          and turns values into tensors. Nobody else includes it.
 * Owner    everything lives in the reader's arena.
 * Failure  ERR_FORMAT, ERR_UNSUPPORTED, ERR_NO_MEMORY at the limits below.
 */
#ifndef DIFFUSION_PICKLE_READER_H
#define DIFFUSION_PICKLE_READER_H

#include "base/arena.h"
#include "diffusion/pickle.h"

#define PICKLE_NODES_MAX 2000000
#define PICKLE_MEMO_MAX 1000000
#define PICKLE_STACK_MAX 100000
#define PICKLE_STRING_MAX (1u << 20)
#define PICKLE_ARENA_BYTES ((size_t)512 << 20)

enum value_kind {
    VALUE_NONE, /* None, booleans, floats: nothing that a tensor needs */
    VALUE_INTEGER,
    VALUE_STRING,
    VALUE_TUPLE, /* tuples and lists */
    VALUE_DICT,  /* item holds key, value, key, value ... */
    VALUE_GLOBAL,
    VALUE_STORAGE,
    VALUE_TENSOR,
    VALUE_OPAQUE, /* something that is no data; harmless as long as nobody needs it */
    VALUE_MARK
};

enum global_use { GLOBAL_DICT, GLOBAL_REBUILD, GLOBAL_PARAMETER, GLOBAL_STORAGE, GLOBAL_OPAQUE };

struct value {
    enum value_kind kind;
    int64_t integer;     /* INTEGER; element count of a STORAGE */
    const char *text;    /* STRING (NUL-terminated copy), key of a STORAGE */
    struct value **item; /* TUPLE, DICT; TENSOR: storage, offset, shape, stride */
    size_t count, room;
    enum global_use use;
    enum dtype dtype;    /* of a storage type or a STORAGE */
    const uint8_t *data; /* STORAGE: found later */
    size_t data_bytes;
};

struct zip_member {
    const char *name;
    const uint8_t *data;
    size_t length;
};

struct pickle_reader {
    const char *name; /* of the file, for messages */
    struct arena arena;
    size_t nodes;
    struct value **storages;
    size_t storage_count, storage_room;
    struct zip_member *members; /* sorted by name; NULL in the legacy form */
    size_t member_count;
    void **copies;
    size_t copy_count;
    struct error *err;
    int failed;
};

/* Runs one pickle from *at up to its STOP; *at moves behind it. NULL after a failure. */
struct value *pickle_run(struct pickle_reader *r, const uint8_t **at, const uint8_t *end);
int pickle_fail(struct pickle_reader *r, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void *pickle_alloc(struct pickle_reader *r, size_t count, size_t size);

/* Reads the archive's directory into r->members (zip_members.c). */
int zip_members_read(struct pickle_reader *r, const uint8_t *data, size_t length);
const struct zip_member *zip_members_find(const struct pickle_reader *r, const char *name);

#endif
