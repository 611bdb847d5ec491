/* The pop reply. A job that is taken must hold to its own limits. */
#include <string.h>

#include "fuzz.h"
#include "proto/capability.h"
#include "proto/horde_pop.h"

static const char plain[] =
    "{\"payload\":{\"prompt\":\"a kettle ### "
    "blurry\",\"ddim_steps\":20,\"n_iter\":1,\"seed\":\"42\","
    "\"sampler_name\":\"k_euler\",\"cfg_scale\":7.5,\"height\":512,\"width\":512,\"karras\":false},"
    "\"id\":\"5e1f0c01-0d53-4c0b-8a77\",\"ids\":[\"5e1f0c01-0d53-4c0b-8a77\"],\"messages\":[],"
    "\"ttl\":150,"
    "\"skipped\":{},\"model\":\"stable_diffusion\",\"source_image\":null,\"source_processing\":"
    "\"img2img\","
    "\"r2_upload\":\"https://s/1\",\"r2_uploads\":[\"https://s/1\"]}";
static const char full[] =
    "{\"payload\":{\"prompt\":\"a\",\"ddim_steps\":8,\"n_iter\":2,\"seed\":7,\"sampler_name\":"
    "\"DDIM\","
    "\"scheduler\":\"beta\",\"denoising_strength\":0.5,\"hires_fix\":true,\"clip_skip\":2,"
    "\"tiling\":true,"
    "\"post_processing\":[\"GFPGAN\"],\"loras\":[{\"name\":\"1\",\"model\":1,\"is_version\":true}],"
    "\"tis\":[{\"name\":\"2\",\"inject_ti\":\"prompt\"}],\"control_type\":\"canny\",\"control_"
    "strength\":0.5,"
    "\"workflow\":\"qr_code\",\"extra_texts\":[{\"text\":\"t\",\"reference\":\"qr_code\"}],"
    "\"special\":{},"
    "\"sampler_eta\":1.0,\"use_nsfw_censor\":true,\"transparent\":false},\"ids\":[\"a\",\"b\"],"
    "\"id\":\"a\","
    "\"model\":\"m\",\"ttl\":9,\"source_image\":\"https://x\",\"source_mask\":\"UklG\","
    "\"source_processing\":\"inpainting\",\"extra_source_images\":[{\"image\":\"https://"
    "y\",\"strength\":1}],"
    "\"r2_uploads\":[\"u\",\"v\"]}";
static const char none[] =
    "{\"id\":null,\"ids\":[],\"payload\":{\"ddim_steps\":30},\"skipped\":{\"models\":41,\"bridge_"
    "version\":1},"
    "\"messages\":[{\"id\":\"1\",\"message\":\"hello\",\"origin\":\"staff\",\"expiry\":\"x\"}]}";
static const struct fuzz_seed seeds[] = {FUZZ_TEXT(plain), FUZZ_TEXT(full), FUZZ_TEXT(none)};

const struct fuzz_seed *fuzz_seeds(size_t *count)
{
    *count = sizeof seeds / sizeof seeds[0];
    return seeds;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct horde_job job;
    struct error err = {0};
    int rc = horde_pop_parse(&job, (const char *)data, size, &err);
    if (rc) {
        KILN_ASSERT(rc == err.code && err.text[0], "%d", rc);
        return 0;
    }
    KILN_ASSERT(job.count >= 0 && job.count <= HORDE_BATCH_MAX, "%d ids", job.count);
    KILN_ASSERT(job.request.prompt && job.request.negative);
    if (job.count && !job.refusal.code) {
        struct capability_set built = capability_built();
        KILN_ASSERT(image_request_check(&job.request, &err) == 0, "%s", err.text);
        KILN_ASSERT(job.request.count == job.count && job.model && job.ttl_seconds > 0);
        capability_refuse(&built, &job, FAMILY_SD1, NULL);
        KILN_ASSERT(horde_ttl_seconds(&job.request, true, true) >= 450);
    }
    horde_job_release(&job);
    return 0;
}
