/*
 * golden_weights.h - tiny networks made from names alone, the same in every language.
 *
 * Place    tests that compare with the reference: both sides make the weights by this rule.
 * Owner    the caller's memory.
 * Failure  cannot fail.
 *
 * Weight of key K and shape S: n = torch CPU randn(S), seed = CRC-32 of K's bytes. Rank >= 2:
 * n / sqrt(product of all dimensions but the first). Rank 1: 1 + 0.1 n when K ends in ".weight",
 * else 0.1 n.
 */
#ifndef SUPPORT_GOLDEN_WEIGHTS_H
#define SUPPORT_GOLDEN_WEIGHTS_H

#include <stddef.h>
#include <stdint.h>

uint32_t golden_crc32(const char *text);
/* out has prod(dim) elements */
void golden_weight(float *out, const char *key, int rank, const int64_t *dim);
/* R(seed, count): torch.Generator('cpu').manual_seed(seed); randn(count) */
void golden_normal(float *out, uint64_t seed, size_t count);

#endif
