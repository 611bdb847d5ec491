/*
 * lora_config.h - what an adapter says in JSON beside its tensors: ranks, alphas, and which modules differ.
 *
 * Place    PEFT's adapter_config.json, or what diffusers keeps in the metadata under
 *          lora_adapter_metadata; read by lora_file.c.
 * Owner    lora_config_release.
 * Failure  ERR_NOT_FOUND, ERR_IO, ERR_FORMAT with the file. A pattern that is no expression matches
 *          nothing.
 * Source   peft: LoraConfig, LoHaConfig, LoKrConfig, OFTConfig; get_pattern_key (the first key that matches the
 *          end of the module's path from a dot on, as a regular expression).
 */
#ifndef DIFFUSION_LORA_LORA_CONFIG_H
#define DIFFUSION_LORA_LORA_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct lora_config {
    bool known;
    void *json;              /* parsed; NULL: nothing known */
    struct lora_rule *rules; /* of rank_pattern and alpha_pattern, in the file's order */
    size_t rule_count;
};

int lora_config_read(struct lora_config *c, const char *path, struct error *err);
int lora_config_parse(struct lora_config *c, const char *text, const char *path, struct error *err);
void lora_config_release(struct lora_config *c);

/* Of a module by its path within the component: "unet", "down_blocks.0...."; 0: not said. */
double lora_config_alpha(const struct lora_config *c, const char *component, const char *path);
int64_t lora_config_rank(const struct lora_config *c, const char *component, const char *path);
/* use_rslora: scales are alpha / sqrt(rank). */
bool lora_config_root_rank(const struct lora_config *c, const char *component);
/* How OFT turns: Cayley's turn as a series of so many terms, 0: exact; COFT's eps, 0: none. The
 * fields are as old as PEFT's present form of OFT: a configuration without them means exact. Where
 * there is none, the series of five terms, PEFT's default. */
int lora_config_series_terms(const struct lora_config *c, const char *component);
double lora_config_turn_bound(const struct lora_config *c, const char *component);

#endif
