#include "diffusion/control/qr_code.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

#define VERSION_MAX 40
#define CODEWORDS_MAX 3706
#define BLOCK_MAX 30 /* error correction codewords of a block */

/* Level H, by version: error correction codewords of each block, and blocks. */
static const uint8_t block_ecc[VERSION_MAX + 1] = {
    0,  17, 28, 22, 16, 22, 28, 26, 26, 24, 28, 24, 28, 22, 24, 24, 30, 28, 28, 26, 28,
    30, 24, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30};
static const uint8_t block_count[VERSION_MAX + 1] = {
    0,  1,  1,  2,  4,  4,  4,  5,  6,  8,  8,  11, 11, 16, 16, 18, 16, 19, 21, 25, 25,
    25, 34, 30, 32, 35, 37, 40, 42, 45, 48, 51, 54, 57, 60, 63, 66, 70, 74, 77, 81};

/* ---- codewords ---- */

static int raw_codewords(int version)
{
    int bits = (16 * version + 128) * version + 64, n = version / 7 + 2;
    if (version >= 2) bits -= (25 * n - 10) * n - 55;
    if (version >= 7) bits -= 36;
    return bits / 8;
}

static int data_codewords(int version)
{
    return raw_codewords(version) - block_ecc[version] * block_count[version];
}

struct bits {
    uint8_t *bytes;
    int count;
};

static void put(struct bits *b, unsigned value, int width)
{
    for (int i = width - 1; i >= 0; i--, b->count++)
        if (value >> i & 1) b->bytes[b->count / 8] |= (uint8_t)(0x80 >> b->count % 8);
}

static void put_text(uint8_t *to, int room, const char *text, int length, int version)
{
    struct bits b = {to, 0};
    put(&b, 4, 4); /* byte mode */
    put(&b, (unsigned)length, version < 10 ? 8 : 16);
    for (int i = 0; i < length; i++) put(&b, (uint8_t)text[i], 8);
    b.count += room * 8 - b.count < 4 ? room * 8 - b.count : 4; /* terminator */
    b.count = (b.count + 7) / 8 * 8;
    for (int i = 0; b.count < room * 8; i++) put(&b, i % 2 ? 0x11 : 0xec, 8);
}

/* In the field of 256 elements over x^8 + x^4 + x^3 + x^2 + 1. */
static uint8_t field_mul(uint8_t a, uint8_t b)
{
    unsigned z = 0;
    for (int i = 7; i >= 0; i--) {
        z = z << 1 ^ (z >> 7) * 0x11d;
        z ^= (b >> i & 1u) * a;
    }
    return (uint8_t)z;
}

/* Remainder of data by the generator whose roots are the first `degree` powers of 2. */
static void remainder_of(uint8_t *rest, int degree, const uint8_t *data, int length)
{
    uint8_t generator[BLOCK_MAX] = {0}, root = 1;
    generator[degree - 1] = 1;
    for (int i = 0; i < degree; i++) {
        for (int j = 0; j < degree; j++) {
            generator[j] = field_mul(generator[j], root);
            if (j + 1 < degree) generator[j] ^= generator[j + 1];
        }
        root = field_mul(root, 2);
    }
    memset(rest, 0, (size_t)degree);
    for (int i = 0; i < length; i++) {
        uint8_t factor = data[i] ^ rest[0];
        memmove(rest, rest + 1, (size_t)degree - 1);
        rest[degree - 1] = 0;
        for (int j = 0; j < degree; j++) rest[j] ^= field_mul(generator[j], factor);
    }
}

/* Data and error correction of all blocks, one codeword of each in turn. */
static void interleave(uint8_t *to, const uint8_t *data, int version)
{
    int blocks = block_count[version], ecc = block_ecc[version], raw = raw_codewords(version);
    int small = raw / blocks - ecc, large_from = blocks - raw % blocks; /* data of a block */
    uint8_t rest[BLOCK_MAX];
    for (int i = 0, at = 0; i < blocks; i++) {
        int length = small + (i >= large_from);
        remainder_of(rest, ecc, data + at, length);
        for (int k = 0; k < length; k++)
            to[k * blocks + i - (k == small ? large_from : 0)] = data[at + k];
        for (int k = 0; k < ecc; k++) to[data_codewords(version) + k * blocks + i] = rest[k];
        at += length;
    }
}

/* ---- modules ---- */

struct drawing {
    int side;
    uint8_t *dark, *fixed; /* fixed: no data here */
};

static void set(struct drawing *d, int x, int y, bool dark)
{
    if (x < 0 || y < 0 || x >= d->side || y >= d->side) return;
    d->dark[y * d->side + x] = dark;
    d->fixed[y * d->side + x] = 1;
}

static int distance(int x, int y)
{
    int a = abs(x), b = abs(y);
    return a > b ? a : b;
}

static void draw_finder(struct drawing *d, int cx, int cy)
{
    for (int y = -4; y <= 4; y++)
        for (int x = -4; x <= 4; x++) {
            int r = distance(x, y);
            set(d, cx + x, cy + y, r != 2 && r != 4);
        }
}

static void draw_alignment(struct drawing *d, int version)
{
    int n = version / 7 + 2, at[7] = {6};
    int step = version == 32 ? 26 : (version * 4 + n * 2 + 1) / (n * 2 - 2) * 2;
    for (int i = n - 1, p = d->side - 7; i > 0; i--, p -= step) at[i] = p;
    for (int i = 0; version > 1 && i < n; i++)
        for (int j = 0; j < n; j++) {
            bool corner = (i == 0 && j == 0) || (i == 0 && j == n - 1) || (i == n - 1 && j == 0);
            for (int k = 0; !corner && k < 25; k++) {
                int x = k % 5 - 2, y = k / 5 - 2;
                set(d, at[i] + x, at[j] + y, distance(x, y) != 1);
            }
        }
}

static void draw_version(struct drawing *d, int version)
{
    unsigned rest = (unsigned)version;
    for (int i = 0; i < 12; i++) rest = rest << 1 ^ (rest >> 11) * 0x1f25;
    unsigned bits = (unsigned)version << 12 | rest;
    for (int i = 0; version >= 7 && i < 18; i++) {
        bool dark = bits >> i & 1;
        set(d, d->side - 11 + i % 3, i / 3, dark);
        set(d, i / 3, d->side - 11 + i % 3, dark);
    }
}

/* Level and mask beside the finders; all light while masks are compared. */
static void draw_format(struct drawing *d, int mask, bool compared)
{
    unsigned data = 2u << 3 | (unsigned)mask, rest = data;
    for (int i = 0; i < 10; i++) rest = rest << 1 ^ (rest >> 9) * 0x537;
    unsigned bits = compared ? 0 : (data << 10 | rest) ^ 0x5412;
    for (int i = 0; i < 15; i++) {
        bool dark = bits >> i & 1;
        set(d, 8, i < 6 ? i : i < 8 ? i + 1 : d->side - 15 + i, dark);
        set(d, i < 8 ? d->side - 1 - i : i == 8 ? 7 : 14 - i, 8, dark);
    }
    set(d, 8, d->side - 8, !compared);
}

static void draw_fixed(struct drawing *d, int version)
{
    for (int i = 0; i < d->side; i++) {
        set(d, 6, i, i % 2 == 0);
        set(d, i, 6, i % 2 == 0);
    }
    draw_finder(d, 3, 3);
    draw_finder(d, d->side - 4, 3);
    draw_finder(d, 3, d->side - 4);
    draw_alignment(d, version);
    draw_version(d, version);
    draw_format(d, 0, true);
}

/* Two columns at a time from the right, up and down in turn; the timing column is left out. */
static void place(struct drawing *d, const uint8_t *codewords, int count)
{
    int bit = 0;
    for (int right = d->side - 1; right >= 1; right -= 2) {
        if (right == 6) right = 5;
        bool up = ((right + 1) & 2) == 0;
        for (int k = 0; k < 2 * d->side; k++) {
            int x = right - k % 2, y = up ? d->side - 1 - k / 2 : k / 2;
            if (d->fixed[y * d->side + x]) continue;
            bool dark = bit < count * 8 && (codewords[bit / 8] >> (7 - bit % 8) & 1);
            d->dark[y * d->side + x] = dark;
            bit++;
        }
    }
}

static bool masked(int mask, int x, int y)
{
    switch (mask) {
    case 0: return (x + y) % 2 == 0;
    case 1: return y % 2 == 0;
    case 2: return x % 3 == 0;
    case 3: return (x + y) % 3 == 0;
    case 4: return (x / 3 + y / 2) % 2 == 0;
    case 5: return x * y % 2 + x * y % 3 == 0;
    case 6: return (x * y % 2 + x * y % 3) % 2 == 0;
    default: return ((x + y) % 2 + x * y % 3) % 2 == 0;
    }
}

static void apply_mask(struct drawing *d, int mask)
{
    for (int i = 0; i < d->side * d->side; i++)
        if (!d->fixed[i]) d->dark[i] ^= masked(mask, i % d->side, i / d->side);
}

/* Runs of one colour, and what looks like a finder, along one line. */
static int line_penalty(const uint8_t *at, int step, int n)
{
    static const uint8_t finder[2][11] = {{1, 0, 1, 1, 1, 0, 1, 0, 0, 0, 0},
                                          {0, 0, 0, 0, 1, 0, 1, 1, 1, 0, 1}};
    int penalty = 0, run = 1;
    for (int i = 1; i <= n; i++) {
        if (i < n && at[i * step] == at[(i - 1) * step]) {
            run++;
            continue;
        }
        if (run >= 5) penalty += run - 2;
        run = 1;
    }
    for (int i = 0; i + 11 <= n; i++)
        for (int f = 0; f < 2; f++) {
            int k = 0;
            while (k < 11 && at[(i + k) * step] == finder[f][k]) k++;
            if (k == 11) penalty += 40;
        }
    return penalty;
}

static int penalty_of(const struct drawing *d)
{
    int n = d->side, penalty = 0, dark = 0;
    for (int i = 0; i < n; i++)
        penalty += line_penalty(d->dark + i * n, 1, n) + line_penalty(d->dark + i, n, n);
    for (int y = 0; y + 1 < n; y++)
        for (int x = 0; x + 1 < n; x++) {
            const uint8_t *p = d->dark + y * n + x;
            if (p[0] == p[1] && p[0] == p[n] && p[0] == p[n + 1]) penalty += 3;
        }
    for (int i = 0; i < n * n; i++) dark += d->dark[i];
    /* each full 5 % away from one half */
    return penalty + abs(200 * dark - 100 * n * n) / (10 * n * n) * 10;
}

static int best_mask(struct drawing *d)
{
    int best = 0, least = 0;
    for (int mask = 0; mask < 8; mask++) {
        apply_mask(d, mask);
        int penalty = penalty_of(d);
        apply_mask(d, mask);
        if (mask && penalty >= least) continue;
        least = penalty;
        best = mask;
    }
    return best;
}

int qr_code_make(struct qr_code *code, const char *text, struct error *err)
{
    int length = (int)strlen(text), version = 1;
    uint8_t data[CODEWORDS_MAX] = {0}, codewords[CODEWORDS_MAX] = {0};
    static const char says[] = "a QR code holds %d bytes at most, this text has %zu";
    if (strlen(text) > REQUEST_QR_BYTES_MAX)
        return error_set(err, ERR_INVALID, says, REQUEST_QR_BYTES_MAX, strlen(text));
    while (data_codewords(version) * 8 < 4 + (version < 10 ? 8 : 16) + 8 * length) version++;
    put_text(data, data_codewords(version), text, length, version);
    interleave(codewords, data, version);
    struct drawing d = {.side = 17 + 4 * version};
    d.dark = alloc_zero((size_t)(d.side * d.side), 1);
    d.fixed = alloc_zero((size_t)(d.side * d.side), 1);
    draw_fixed(&d, version);
    place(&d, codewords, raw_codewords(version));
    int mask = best_mask(&d);
    apply_mask(&d, mask);
    draw_format(&d, mask, false);
    free(d.fixed);
    *code = (struct qr_code){d.side, d.dark};
    return 0;
}

void qr_code_release(struct qr_code *code)
{
    free(code->dark);
    *code = (struct qr_code){0};
}

/* ---- pixels ---- */

int qr_code_size_px(const struct qr_code *code, int module_px, int border_modules)
{
    return (code->side + 2 * border_modules) * module_px;
}

struct around {
    bool n, s, w, e; /* dark neighbours */
};

static bool is_dark(const struct qr_code *c, int x, int y)
{
    return x >= 0 && y >= 0 && x < c->side && y < c->side && c->dark[y * c->side + x];
}

/* Whether a point (u, v) of a dark module, 0..1, is painted. */
static bool painted(enum qr_drawer drawer, double u, double v, struct around a)
{
    double x = 2 * u - 1, y = 2 * v - 1;
    bool in_circle = x * x + y * y < 1;
    switch (drawer) {
    case QR_SQUARE: return true;
    case QR_GAPPED_SQUARE: return x > -0.75 && x < 0.75 && y > -0.75 && y < 0.75;
    case QR_CIRCLE: return in_circle;
    case QR_ROUNDED: return in_circle || (x < 0 ? a.w : a.e) || (y < 0 ? a.n : a.s);
    case QR_VERTICAL_BARS: /* three quarters wide, a sixteenth from the left */
        x = (u - 1 / 16.0) / 0.75 * 2 - 1;
        return x > -1 && x < 1 && ((y < 0 ? a.n : a.s) || x * x + y * y < 1);
    case QR_HORIZONTAL_BARS:
        y = (v - 1 / 16.0) / 0.75 * 2 - 1;
        return y > -1 && y < 1 && ((x < 0 ? a.w : a.e) || x * x + y * y < 1);
    }
    return true;
}

/* How much of pixel (px, py) of a module is painted, by 16 points. */
static float cover(enum qr_drawer drawer, int px, int py, int module_px, struct around a)
{
    int hits = 0;
    if (drawer == QR_SQUARE) return 1;
    for (int i = 0; i < 16; i++)
        hits += painted(drawer, (px + (i % 4 + 0.5) / 4) / module_px,
                        (py + (i / 4 + 0.5) / 4) / module_px, a);
    return (float)hits / 16;
}

void qr_code_draw(float *grey, const struct qr_code *c, int module_px, int border_modules,
                  enum qr_drawer drawer)
{
    int n = qr_code_size_px(c, module_px, border_modules);
    for (int y = 0; y < n; y++)
        for (int x = 0; x < n; x++) {
            int mx = x / module_px - border_modules, my = y / module_px - border_modules;
            grey[y * n + x] = 1;
            if (!is_dark(c, mx, my)) continue;
            struct around a = {is_dark(c, mx, my - 1), is_dark(c, mx, my + 1),
                               is_dark(c, mx - 1, my), is_dark(c, mx + 1, my)};
            grey[y * n + x] = 1 - cover(drawer, x % module_px, y % module_px, module_px, a);
        }
}
