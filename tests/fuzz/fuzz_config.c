/* bridgeData.yaml: whatever stands in the file is a configuration within its limits, or a sentence. */
#include <string.h>

#include "base/alloc.h"
#include "config/config.h"
#include "fuzz.h"

static const struct fuzz_seed seeds[] = {
    FUZZ_TEXT("horde_url: \"https://aihorde.net\"\napi_key: abc\nmax_threads: 1\nqueue_size: 2\n"
              "nsfw: no\nblacklist:\nmodels_to_load:\n  - \"Deliberate\"\n  - TOP 3\n"),
    FUZZ_TEXT("dreamer_name: 'Reading Room'\nmax_power: 32\nvram_to_leave_free: \"80%\"\n"
              "priority_usernames: [\"a#1\", b#2]\nschedule: [\"mon-fri 22:00-07:00\"]\n"),
    FUZZ_TEXT("custom_models:\n  - name: stable_diffusion\n    baseline: stable diffusion 1\n"
              "    filepath: pocket\n  - {name: x, baseline: stable_diffusion_xl, filepath: /x}\n"),
    FUZZ_TEXT("a: &x [*x]\nnsfw: !!bool true\n---\nmax_power: 8\n"),
    FUZZ_TEXT(
        "bridge_agent: \"kiln:0.1.0:https://x\"\ndevices: [cpu, \"cuda:0\"]\nprecision: bf16\n"
        "forms: [caption, post-process]\nimage_models_to_load: [ALL SDXL]\nmetrics_port: 1\n"),
};

const struct fuzz_seed *fuzz_seeds(size_t *count)
{
    *count = sizeof seeds / sizeof seeds[0];
    return seeds;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct config c;
    struct error err = {0};
    if (config_parse(&c, (const char *)data, size, &err)) {
        KILN_ASSERT(err.text[0]);
        return 0;
    }
    KILN_ASSERT(c.max_power >= 2 && c.max_power <= 288, "%lld", (long long)c.max_power);
    KILN_ASSERT(c.max_threads >= 1 && c.queue_size >= 0 && c.queue_size <= 4);
    KILN_ASSERT(c.worker_name && c.bridge_agent && c.horde_url);
    for (unsigned i = 0; i < c.models_to_load.count; i++) KILN_ASSERT(c.models_to_load.items[i]);
    for (unsigned i = 0; i < c.custom_model_count; i++)
        KILN_ASSERT(c.custom_models[i].name && c.custom_models[i].filepath);
    config_release(&c);
    return 0;
}
