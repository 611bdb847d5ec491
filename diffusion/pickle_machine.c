/* The pickle machine: a stack, a memo, and no way to call anything. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/str.h"
#include "diffusion/pickle_reader.h"

struct machine {
    struct pickle_reader *r;
    const uint8_t *at, *end;
    struct value **stack;
    size_t depth, stack_room;
    struct value **memo;
    size_t memo_room, memo_next;
};

int pickle_fail(struct pickle_reader *r, int code, const char *format, ...)
{
    if (r->failed) return r->failed;
    char text[300];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    r->failed = code;
    return error_set(r->err, code, "%s: %s", r->name, text);
}

void *pickle_alloc(struct pickle_reader *r, size_t count, size_t size)
{
    if (r->failed) return NULL;
    void *memory = arena_try(&r->arena, count ? count : 1, size);
    if (!memory)
        pickle_fail(r, ERR_NO_MEMORY, "the pickle needs more than %zu MiB",
                    PICKLE_ARENA_BYTES >> 20);
    return memory;
}

static struct value *make(struct machine *m, enum value_kind kind)
{
    if (++m->r->nodes > PICKLE_NODES_MAX) {
        pickle_fail(m->r, ERR_FORMAT, "the pickle has more than %d values", PICKLE_NODES_MAX);
        return NULL;
    }
    struct value *v = pickle_alloc(m->r, 1, sizeof *v);
    if (v) v->kind = kind;
    return v;
}

static void push(struct machine *m, struct value *v)
{
    if (!v || m->r->failed) return;
    if (m->depth == PICKLE_STACK_MAX) {
        pickle_fail(m->r, ERR_FORMAT, "the pickle's stack grows past %d", PICKLE_STACK_MAX);
        return;
    }
    if (m->depth == m->stack_room) {
        m->stack_room = m->stack_room ? 2 * m->stack_room : 256;
        m->stack = alloc_grow(m->stack, m->stack_room, sizeof *m->stack);
    }
    m->stack[m->depth++] = v;
}

static struct value *pop(struct machine *m)
{
    if (m->depth == 0) {
        pickle_fail(m->r, ERR_FORMAT, "the pickle takes from an empty stack");
        return NULL;
    }
    return m->stack[--m->depth];
}

static struct value *top(struct machine *m)
{
    if (m->depth == 0) {
        pickle_fail(m->r, ERR_FORMAT, "the pickle looks at an empty stack");
        return NULL;
    }
    return m->stack[m->depth - 1];
}

/* Where the values above the last mark begin; the mark itself goes when they are taken. */
static bool find_mark(struct machine *m, size_t *first)
{
    for (size_t i = m->depth; i > 0; i--)
        if (m->stack[i - 1]->kind == VALUE_MARK) {
            *first = i;
            return true;
        }
    pickle_fail(m->r, ERR_FORMAT, "the pickle misses a mark");
    return false;
}

static void add(struct machine *m, struct value *to, struct value *item)
{
    if (m->r->failed || !item) return;
    if (to->count == to->room) {
        size_t room = to->room ? 2 * to->room : 8;
        struct value **grown = pickle_alloc(m->r, room, sizeof *grown);
        if (!grown) return;
        if (to->count) memcpy(grown, to->item, to->count * sizeof *grown);
        to->item = grown;
        to->room = room;
    }
    to->item[to->count++] = item;
}

static bool take(struct machine *m, size_t n, const uint8_t **bytes)
{
    if ((size_t)(m->end - m->at) < n) {
        pickle_fail(m->r, ERR_FORMAT, "the pickle is cut short");
        return false;
    }
    *bytes = m->at;
    m->at += n;
    return true;
}

static uint64_t number(struct machine *m, int bytes)
{
    const uint8_t *b;
    uint64_t v = 0;
    if (!take(m, (size_t)bytes, &b)) return 0;
    for (int i = bytes - 1; i >= 0; i--) v = v << 8 | b[i];
    return v;
}

static void push_integer(struct machine *m, int64_t value)
{
    struct value *v = make(m, VALUE_INTEGER);
    if (v) v->integer = value;
    push(m, v);
}

static void push_long(struct machine *m)
{
    size_t n = (size_t)number(m, 1);
    const uint8_t *b;
    if (!take(m, n, &b)) return;
    if (n > 8) {
        push(m, make(m, VALUE_OPAQUE));
        return;
    }
    uint64_t v = n && b[n - 1] & 0x80 ? UINT64_MAX : 0;
    for (size_t i = n; i > 0; i--) v = v << 8 | b[i - 1];
    push_integer(m, (int64_t)v);
}

static struct value *text_value(struct machine *m, const uint8_t *bytes, size_t n)
{
    struct value *v = make(m, VALUE_STRING);
    if (!v) return NULL;
    char *copy = pickle_alloc(m->r, n + 1, 1);
    if (!copy) return NULL;
    memcpy(copy, bytes, n);
    v->text = copy;
    /* a NUL inside would make two different names look alike */
    if (memchr(bytes, 0, n)) v->kind = VALUE_OPAQUE;
    return v;
}

static void push_text(struct machine *m, uint64_t length)
{
    const uint8_t *b;
    if (length > PICKLE_STRING_MAX) {
        pickle_fail(m->r, ERR_FORMAT, "the pickle has a string of %llu bytes",
                    (unsigned long long)length);
        return;
    }
    if (take(m, (size_t)length, &b)) push(m, text_value(m, b, (size_t)length));
}

static void push_tuple(struct machine *m, size_t count)
{
    struct value *v = make(m, VALUE_TUPLE);
    if (!v || count > m->depth) {
        pickle_fail(m->r, ERR_FORMAT, "the pickle takes from an empty stack");
        return;
    }
    size_t first = m->depth - count;
    for (size_t i = first; i < m->depth; i++) add(m, v, m->stack[i]);
    m->depth = first;
    push(m, v);
}

static void append_marked(struct machine *m, enum value_kind kind, bool close_tuple)
{
    size_t first;
    if (!find_mark(m, &first)) return;
    if (close_tuple) {
        struct value *v = make(m, VALUE_TUPLE);
        for (size_t i = first; v && i < m->depth; i++) add(m, v, m->stack[i]);
        m->depth = first - 1;
        push(m, v);
        return;
    }
    if (first < 2) {
        pickle_fail(m->r, ERR_FORMAT, "the pickle adds to nothing");
        return;
    }
    struct value *to = m->stack[first - 2];
    if (to->kind == kind) {
        if (kind == VALUE_DICT && (m->depth - first) % 2) {
            pickle_fail(m->r, ERR_FORMAT, "the pickle adds half a pair to a dict");
            return;
        }
        for (size_t i = first; i < m->depth; i++) add(m, to, m->stack[i]);
    } else if (to->kind != VALUE_OPAQUE) {
        pickle_fail(m->r, ERR_FORMAT, "the pickle adds items to something that has none");
    }
    m->depth = first - 1;
}

static void append_one(struct machine *m, enum value_kind kind, int values)
{
    struct value *b = pop(m), *a = values == 2 ? pop(m) : NULL, *to = top(m);
    if (!to || !b) return;
    if (to->kind == kind) {
        if (a) add(m, to, a);
        add(m, to, b);
    } else if (to->kind != VALUE_OPAQUE) {
        pickle_fail(m->r, ERR_FORMAT, "the pickle adds items to something that has none");
    }
}

/* ---- globals: a closed list ---- */

struct known_global {
    const char *module, *name;
    enum global_use use;
    enum dtype dtype;
};

static const struct known_global known[] = {
    {"collections", "OrderedDict", GLOBAL_DICT, 0},
    {"torch._utils", "_rebuild_tensor_v2", GLOBAL_REBUILD, 0},
    {"torch._utils", "_rebuild_parameter", GLOBAL_PARAMETER, 0},
    {"torch", "HalfStorage", GLOBAL_STORAGE, DTYPE_F16},
    {"torch", "FloatStorage", GLOBAL_STORAGE, DTYPE_F32},
    {"torch", "BFloat16Storage", GLOBAL_STORAGE, DTYPE_BF16},
    {"torch", "DoubleStorage", GLOBAL_STORAGE, DTYPE_F64},
    {"torch", "ByteStorage", GLOBAL_STORAGE, DTYPE_U8},
    {"torch", "CharStorage", GLOBAL_STORAGE, DTYPE_I8},
    {"torch", "ShortStorage", GLOBAL_STORAGE, DTYPE_I16},
    {"torch", "IntStorage", GLOBAL_STORAGE, DTYPE_I32},
    {"torch", "LongStorage", GLOBAL_STORAGE, DTYPE_I64},
    {"torch", "BoolStorage", GLOBAL_STORAGE, DTYPE_BOOL},
    {"torch.serialization", "_get_layout", GLOBAL_OPAQUE, 0},
    {"torch", "device", GLOBAL_OPAQUE, 0},
    {"numpy.core.multiarray", "scalar", GLOBAL_OPAQUE, 0},
    {"numpy", "dtype", GLOBAL_OPAQUE, 0},
    {"_codecs", "encode", GLOBAL_OPAQUE, 0},
};

static void push_global(struct machine *m, const char *module, const char *name)
{
    struct value *v = make(m, VALUE_GLOBAL);
    if (!v) return;
    for (size_t i = 0; i < COUNT_OF(known); i++)
        if (strcmp(known[i].module, module) == 0 && strcmp(known[i].name, name) == 0) {
            v->use = known[i].use;
            v->dtype = known[i].dtype;
            push(m, v);
            return;
        }
    if (str_starts(module, "pytorch_lightning.callbacks")) {
        v->use = GLOBAL_OPAQUE;
        push(m, v);
        return;
    }
    char a[96], b[96];
    str_clean(a, sizeof a, module);
    str_clean(b, sizeof b, name);
    pickle_fail(m->r, ERR_UNSUPPORTED,
                "refused: the pickle asks for %s.%s, which is code and not data", a, b);
}

static bool line(struct machine *m, char text[256])
{
    size_t n = 0;
    const uint8_t *b;
    while (take(m, 1, &b)) {
        if (*b == '\n') {
            text[n] = 0;
            return true;
        }
        if (n == 255 || *b == 0) {
            pickle_fail(m->r, ERR_FORMAT, "the pickle has an overlong global");
            return false;
        }
        text[n++] = (char)*b;
    }
    return false;
}

static void persistent(struct machine *m)
{
    struct value *id = pop(m);
    if (!id) return;
    if (id->kind != VALUE_TUPLE || id->count < 5 || id->item[0]->kind != VALUE_STRING ||
        strcmp(id->item[0]->text, "storage") != 0 || id->item[1]->kind != VALUE_GLOBAL ||
        id->item[1]->use != GLOBAL_STORAGE || id->item[2]->kind != VALUE_STRING ||
        id->item[4]->kind != VALUE_INTEGER || id->item[4]->integer < 0) {
        pickle_fail(m->r, ERR_FORMAT, "the pickle refers to something that is no tensor storage");
        return;
    }
    struct pickle_reader *r = m->r;
    struct value *v = make(m, VALUE_STORAGE);
    if (!v) return;
    v->dtype = id->item[1]->dtype;
    v->text = id->item[2]->text;
    v->integer = id->item[4]->integer;
    if (r->storage_count == r->storage_room) {
        r->storage_room = r->storage_room ? 2 * r->storage_room : 256;
        r->storages = alloc_grow(r->storages, r->storage_room, sizeof *r->storages);
    }
    r->storages[r->storage_count++] = v;
    push(m, v);
}

static void reduce(struct machine *m)
{
    struct value *args = pop(m), *callee = pop(m);
    if (!args || !callee) return;
    if (callee->kind == VALUE_OPAQUE) {
        push(m, make(m, VALUE_OPAQUE));
        return;
    }
    if (callee->kind != VALUE_GLOBAL || args->kind != VALUE_TUPLE) {
        pickle_fail(m->r, ERR_FORMAT, "the pickle rebuilds from something unknown");
        return;
    }
    struct value *v = NULL;
    switch (callee->use) {
    case GLOBAL_DICT: v = make(m, VALUE_DICT); break;
    case GLOBAL_REBUILD:
        if (args->count < 4) {
            pickle_fail(m->r, ERR_FORMAT, "the pickle rebuilds a tensor from too little");
            return;
        }
        v = make(m, VALUE_TENSOR);
        for (size_t i = 0; v && i < 4; i++) add(m, v, args->item[i]);
        break;
    case GLOBAL_PARAMETER: v = args->count ? args->item[0] : make(m, VALUE_OPAQUE); break;
    default: v = make(m, VALUE_OPAQUE);
    }
    push(m, v);
}

static void memo_put(struct machine *m, uint64_t index)
{
    struct value *v = top(m);
    if (!v) return;
    if (index >= PICKLE_MEMO_MAX) {
        pickle_fail(m->r, ERR_FORMAT, "the pickle remembers more than %d values", PICKLE_MEMO_MAX);
        return;
    }
    if (index >= m->memo_room) {
        size_t room = m->memo_room ? m->memo_room : 1024;
        while (room <= index) room *= 2;
        m->memo = alloc_grow(m->memo, room, sizeof *m->memo);
        memset(m->memo + m->memo_room, 0, (room - m->memo_room) * sizeof *m->memo);
        m->memo_room = room;
    }
    m->memo[index] = v;
    if (index >= m->memo_next) m->memo_next = (size_t)index + 1;
}

static void memo_get(struct machine *m, uint64_t index)
{
    if (index >= m->memo_room || !m->memo[index]) {
        pickle_fail(m->r, ERR_FORMAT, "the pickle recalls a value that it never stored");
        return;
    }
    push(m, m->memo[index]);
}

static void skip(struct machine *m, size_t n)
{
    const uint8_t *b;
    take(m, n, &b);
}

static void opcode(struct machine *m, uint8_t op)
{
    char module[256], name[256];
    size_t first;
    struct value *a, *b;
    switch (op) {
    case 0x80: /* PROTO */ skip(m, 1); break;
    case 0x95: /* FRAME */ skip(m, 8); break;
    case '(': push(m, make(m, VALUE_MARK)); break;
    case '}': push(m, make(m, VALUE_DICT)); break;
    case ']':
    case ')': push(m, make(m, VALUE_TUPLE)); break;
    case 't': append_marked(m, VALUE_TUPLE, true); break;
    case 0x85:
    case 0x86:
    case 0x87: push_tuple(m, (size_t)(op - 0x84)); break;
    case 'N':
    case 0x88:
    case 0x89: push(m, make(m, VALUE_NONE)); break;
    case 'J': push_integer(m, (int32_t)number(m, 4)); break;
    case 'K': push_integer(m, (int64_t)number(m, 1)); break;
    case 'M': push_integer(m, (int64_t)number(m, 2)); break;
    case 0x8a: push_long(m); break;
    case 'G':
        skip(m, 8);
        push(m, make(m, VALUE_NONE));
        break;
    case 'X':
    case 'T': push_text(m, number(m, 4)); break;
    case 0x8c:
    case 'U':
    case 'C': push_text(m, number(m, 1)); break;
    case 0x8d: push_text(m, number(m, 8)); break;
    case 'q': memo_put(m, number(m, 1)); break;
    case 'r': memo_put(m, number(m, 4)); break;
    case 0x94: memo_put(m, m->memo_next); break;
    case 'h': memo_get(m, number(m, 1)); break;
    case 'j': memo_get(m, number(m, 4)); break;
    case 'a': append_one(m, VALUE_TUPLE, 1); break;
    case 's': append_one(m, VALUE_DICT, 2); break;
    case 'e': append_marked(m, VALUE_TUPLE, false); break;
    case 'u': append_marked(m, VALUE_DICT, false); break;
    case 'c':
        if (line(m, module) && line(m, name)) push_global(m, module, name);
        break;
    case 0x93:
        b = pop(m);
        a = pop(m);
        if (a && b && a->kind == VALUE_STRING && b->kind == VALUE_STRING)
            push_global(m, a->text, b->text);
        else
            pickle_fail(m->r, ERR_FORMAT, "the pickle names a global without a name");
        break;
    case 'Q': persistent(m); break;
    case 'R': reduce(m); break;
    case 'b':
    case '0': pop(m); break; /* BUILD: state that no data needs; POP */
    case '1':
        if (find_mark(m, &first)) m->depth = first - 1;
        break;
    default:
        pickle_fail(m->r, ERR_UNSUPPORTED,
                    "refused: the pickle uses opcode 0x%02x, which plain data does not need", op);
    }
}

struct value *pickle_run(struct pickle_reader *r, const uint8_t **at, const uint8_t *end)
{
    struct machine m = {.r = r, .at = *at, .end = end};
    struct value *result = NULL;
    while (!r->failed) {
        const uint8_t *op;
        if (!take(&m, 1, &op)) break;
        if (*op == '.') {
            result = pop(&m);
            break;
        }
        opcode(&m, *op);
    }
    *at = m.at;
    free(m.stack);
    free(m.memo);
    return r->failed ? NULL : result;
}
