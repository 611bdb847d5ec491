#include "diffusion/sample/noise_brownian.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "diffusion/sample/noise_cpu.h"

enum { POOL = 24, CACHE = 64, DEPTH_MAX = 60 };

/* --- numpy.random.SeedSequence --- */

static uint32_t hash_mix(uint32_t value, uint32_t *constant)
{
    value ^= *constant;
    *constant *= 0x931e8875u;
    value *= *constant;
    return value ^ value >> 16;
}

static uint32_t mix(uint32_t x, uint32_t y)
{
    uint32_t r = 0xca01f9ddu * x - 0x4973f715u * y;
    return r ^ r >> 16;
}

/* A number as 32-bit words, low first; zero is one word. */
static size_t words_of(uint32_t *words, uint64_t number)
{
    words[0] = (uint32_t)number;
    words[1] = (uint32_t)(number >> 32);
    return words[1] ? 2 : 1;
}

void seed_sequence(uint32_t *out, size_t words, uint64_t entropy, const uint64_t *spawn,
                   size_t spawn_count)
{
    uint32_t source[POOL + 16] = {0};
    size_t count = words_of(source, entropy);
    if (spawn_count) count = POOL; /* zeros up to the pool's size, then the key */
    for (size_t i = 0; i < spawn_count; i++) count += words_of(source + count, spawn[i]);

    uint32_t pool[POOL], constant = 0x43b0d7e5u;
    for (size_t i = 0; i < POOL; i++) pool[i] = hash_mix(source[i], &constant);
    for (size_t i = 0; i < POOL; i++)
        for (size_t j = 0; j < POOL; j++)
            if (i != j) pool[j] = mix(pool[j], hash_mix(pool[i], &constant));
    for (size_t i = POOL; i < count; i++)
        for (size_t j = 0; j < POOL; j++) pool[j] = mix(pool[j], hash_mix(source[i], &constant));

    uint32_t state = 0x8b51f9ddu;
    for (size_t i = 0; i < words; i++) {
        uint32_t value = pool[i % POOL] ^ state;
        state *= 0x58f38dedu;
        value *= state;
        out[i] = value ^ value >> 16;
    }
}

/* --- the tree --- */

/* Left increment of a node; the right one is the node's own less the left. */
struct cached {
    uint64_t key;
    int depth;
    uint64_t used; /* 0: empty */
    float *left;
};

struct brownian {
    uint64_t seed;
    size_t count;
    double start, end;
    float *root;
    struct cached cache[CACHE];
    uint64_t clock;
    float *level[DEPTH_MAX]; /* increment of the node at each depth of the descent */
    float *sum;
};

struct node {
    double start, end;
    uint64_t key;
    int depth;
};

/* To six decimals as Python's round(): the exact decimal, ties to even. */
static double round6(double value)
{
    char text[64];
    snprintf(text, sizeof text, "%.6f", value);
    return strtod(text, NULL);
}

static void draw(float *out, size_t count, uint32_t seed)
{
    struct noise_cpu g;
    noise_cpu_seed(&g, seed);
    noise_cpu_normal(&g, out, count);
}

int brownian_new(struct brownian **out, uint64_t seed, size_t count, double sigma_min,
                 double sigma_max, struct error *err)
{
    struct brownian *b = alloc_try(1, sizeof *b);
    if (!b) goto no_memory;
    b->seed = seed;
    b->count = count;
    b->start = round6((float)sigma_min);
    b->end = round6((float)sigma_max);
    b->root = alloc_try(count, sizeof(float));
    b->sum = alloc_try(count, sizeof(float));
    if (!b->root || !b->sum) goto no_memory;
    uint32_t words[3];
    seed_sequence(words, 3, seed, NULL, 0);
    draw(b->root, count, words[0]);
    float factor = (float)sqrt((double)(float)sigma_max - (double)(float)sigma_min);
    for (size_t i = 0; i < count; i++) b->root[i] *= factor;
    *out = b;
    return 0;
no_memory:
    brownian_free(b);
    return error_set(err, ERR_NO_MEMORY, "no memory for a Brownian path of %zu values", count);
}

void brownian_free(struct brownian *b)
{
    if (!b) return;
    for (int i = 0; i < CACHE; i++) free(b->cache[i].left);
    for (int i = 0; i < DEPTH_MAX; i++) free(b->level[i]);
    free(b->root);
    free(b->sum);
    free(b);
}

static struct cached *cache_slot(struct brownian *b, uint64_t key, int depth)
{
    struct cached *oldest = &b->cache[0];
    for (int i = 0; i < CACHE; i++) {
        struct cached *c = &b->cache[i];
        if (c->used && c->key == key && c->depth == depth) return c;
        if (c->used < oldest->used) oldest = c;
    }
    oldest->used = 0;
    return oldest;
}

/* Increment of the left half [start, middle] of a node whose own increment is `whole`. */
static int left_increment(struct brownian *b, const float **left, struct node node, double middle,
                          const float *whole, struct error *err)
{
    struct cached *c = cache_slot(b, node.key, node.depth);
    if (!c->left) c->left = alloc_try(b->count, sizeof(float));
    if (!c->left) return error_set(err, ERR_NO_MEMORY, "no memory for a Brownian path");
    if (!c->used) {
        uint32_t seed;
        seed_sequence(&seed, 1, b->seed, (const uint64_t[]){node.key, (uint64_t)node.depth}, 2);
        draw(c->left, b->count, seed);
        double inverse = 1.0 / (node.end - node.start);
        double before = middle - node.start, after = node.end - middle;
        float spread = (float)sqrt(before * after * inverse);
        for (size_t i = 0; i < b->count; i++) {
            float mean = whole[i] * (float)before * (float)inverse;
            c->left[i] = mean + spread * c->left[i];
        }
        c->key = node.key;
        c->depth = node.depth;
    }
    c->used = ++b->clock;
    *left = c->left;
    return 0;
}

/* Adds the increment over [from, to], inside the node, to b->sum. */
static int add_increment(struct brownian *b, struct node node, const float *whole, double from,
                         double to, struct error *err)
{
    if (from == node.start && to == node.end) {
        for (size_t i = 0; i < b->count; i++) b->sum[i] += whole[i];
        return 0;
    }
    if (node.depth + 1 >= DEPTH_MAX)
        return error_set(err, ERR_INTERNAL, "Brownian path cut below its tolerance");
    float **own = &b->level[node.depth + 1];
    if (!*own) *own = alloc_try(b->count, sizeof(float));
    if (!*own) return error_set(err, ERR_NO_MEMORY, "no memory for a Brownian path");

    double middle = round6(0.5 * (node.end + node.start));
    const float *left;
    int rc = left_increment(b, &left, node, middle, whole, err);
    if (!rc && from < middle) {
        memcpy(*own, left, b->count * sizeof(float));
        struct node child = {node.start, middle, 2 * node.key, node.depth + 1};
        rc = add_increment(b, child, *own, from, to < middle ? to : middle, err);
        if (!rc && to > middle) rc = left_increment(b, &left, node, middle, whole, err);
    }
    if (!rc && to > middle) {
        for (size_t i = 0; i < b->count; i++) (*own)[i] = whole[i] - left[i];
        struct node child = {middle, node.end, 2 * node.key + 1, node.depth + 1};
        rc = add_increment(b, child, *own, from > middle ? from : middle, to, err);
    }
    return rc;
}

int brownian_noise(struct brownian *b, float *out, double sigma, double next, struct error *err)
{
    double from = round6((float)next), to = round6((float)sigma);
    if (from < b->start) from = b->start;
    if (to > b->end) to = b->end;
    memset(b->sum, 0, b->count * sizeof(float));
    if (from < to) {
        int rc = add_increment(b, (struct node){b->start, b->end, 0, 0}, b->root, from, to, err);
        if (rc) return rc;
    }
    float length = sqrtf((float)sigma - (float)next);
    for (size_t i = 0; i < b->count; i++) out[i] = -b->sum[i] / length;
    return 0;
}
