/* The Horde's lists of models and CivitAI's answer: whatever comes, records are whole or not there. */
#include <string.h>

#include "fuzz.h"
#include "proto/civitai.h"
#include "proto/hub_listing.h"
#include "proto/model_reference.h"

#define HEX16 "0123456789abcdef"

static const struct fuzz_seed seeds[] = {
    FUZZ_TEXT(
        "{\"Deliberate\":{\"name\":\"Deliberate\",\"baseline\":\"stable diffusion 1\",\"nsfw\":"
        "true,\"size_on_disk_bytes\":5,\"config\":{\"files\":[{\"path\":\"a/D.ckpt\","
        "\"sha256sum\":\"" HEX16 HEX16 HEX16 HEX16 "\"},{\"path\":\"v1.yaml\"}],\"download\":[{"
        "\"file_name\":\"D.ckpt\",\"file_url\":\"https://huggingface.co/x\"}]}},\"b\":7}"),
    FUZZ_TEXT(
        "{\"id\":5,\"name\":\"v1\",\"baseModel\":\"SD 1.5\",\"model\":{\"name\":\"A\",\"type\":"
        "\"LORA\"},\"files\":[{\"id\":2,\"name\":\"a.safetensors\",\"type\":\"Model\","
        "\"primary\":true,\"hashes\":{\"SHA256\":\"" HEX16 HEX16 HEX16 HEX16
        "\"},\"downloadUrl\":\"https://civitai.com/x\"}]}"),
    FUZZ_TEXT("{\"items\":[{\"id\":1,\"name\":\"Ink\",\"type\":\"LORA\",\"modelVersions\":[{\"id\":"
              "5,\"baseModel\":"
              "\"SD "
              "1.5\",\"trainedWords\":[\"ink\",\"b\"],\"files\":[{\"id\":2,\"name\":\"a."
              "safetensors\",\"sizeKB\":1.5,"
              "\"downloadUrl\":\"https://civitai.com/x\"}]}]}]}"),
    FUZZ_TEXT(
        "[{\"id\":\"org/repo\",\"downloads\":5,\"gated\":\"auto\",\"siblings\":[{\"rfilename\":"
        "\"a.safetensors\"},{\"rfilename\":\"unet/b.safetensors\"},7]},{\"id\":\"x\"}]"),
};

const struct fuzz_seed *fuzz_seeds(size_t *count)
{
    *count = sizeof seeds / sizeof seeds[0];
    return seeds;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error err = {0};
    struct model_reference m;
    struct civitai_version v;
    const char *text = (const char *)data;
    if (!model_reference_parse(&m, "a list", text, size, &err)) {
        KILN_ASSERT(m.count > 0);
        for (int i = 0; i < m.count; i++) {
            const struct reference_model *x = &m.list[i];
            KILN_ASSERT(x->name && x->baseline && x->style && x->description && x->file);
            KILN_ASSERT(!strchr(x->file, '/') && x->parts > 0 && x->size_bytes >= 0);
            KILN_ASSERT(!x->sha256 || strlen(x->sha256) == 64);
        }
        model_reference_release(&m);
    }
    if (!civitai_version_parse(&v, text, size, &err)) {
        for (int i = 0; i < v.count; i++) KILN_ASSERT(v.files[i].name && v.files[i].url);
        civitai_version_release(&v);
    }
    struct civitai_listing l;
    if (!civitai_listing_parse(&l, text, size, &err)) {
        KILN_ASSERT(l.count > 0 && l.count <= CIVITAI_VERSIONS_MAX);
        for (int i = 0; i < l.count; i++) {
            const struct civitai_release *r = &l.releases[i];
            KILN_ASSERT(r->id > 0 && r->file && r->url && r->baseline && r->type &&
                        r->size_bytes >= 0);
            KILN_ASSERT(!r->sha256 || strlen(r->sha256) == 64);
            for (int k = 0; k < r->word_count; k++) KILN_ASSERT(r->words[k]);
        }
        civitai_listing_release(&l);
    }
    struct hub_listing h;
    if (!hub_listing_parse(&h, text, size, &err)) {
        KILN_ASSERT(h.count >= 0 && h.count <= HUB_REPOSITORIES_MAX);
        for (int i = 0; i < h.count; i++) {
            const struct hub_repository *r = &h.list[i];
            KILN_ASSERT(strchr(r->id, '/') && !strstr(r->id, "..") && r->downloads >= 0);
            for (int k = 0; k < r->file_count; k++) KILN_ASSERT(!strchr(r->files[k], '/'));
        }
        hub_listing_release(&h);
    }
    return 0;
}
