/* Engine messages. What is taken can be sent on and taken again, to the same bytes. */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "fuzz.h"
#include "proto/engine_msg.h"

static struct fuzz_seed seeds[ENGINE_KIND_COUNT];

static void fill(struct engine_msg *m)
{
    static uint8_t picture[] = "RIFF....WEBP";
    struct image_request *r = &m->generate.request;
    switch (m->kind) {
    case ENGINE_GENERATE:
        r->source = (struct blob){picture, sizeof picture};
        r->mask = (struct blob){picture, 4};
        r->loras[0].path = alloc_string("/l");
        r->lora_count = 1;
        r->embeddings[0].name = alloc_string("e");
        r->embedding_count = 1;
        m->generate.post_processing[0] = "GFPGAN";
        m->generate.post_count = 1;
        break;
    case ENGINE_HELLO:
        m->hello.devices[0].name = "cpu";
        m->hello.device_count = 1;
        m->hello.capabilities[0] = "img2img";
        m->hello.capability_count = 1;
        break;
    case ENGINE_PROGRESS: m->progress.preview = (struct blob){picture, 5}; break;
    case ENGINE_RESULT:
        m->result.images[0].bytes = m->result.images[1].bytes = (struct blob){picture, 12};
        m->result.image_count = 2;
        m->result.notes[0] = "ti:parse_failed:x";
        m->result.note_count = 1;
        break;
    case ENGINE_ALCHEMY: m->alchemy.source = (struct blob){picture, 6}; break;
    case ENGINE_ALCHEMY_RESULT: {
        static struct alchemy_word word = {"tags", "pot", 0.5};
        m->alchemy_result.words = &word;
        m->alchemy_result.word_count = 1;
        break;
    }
    case ENGINE_TRAIN:
        m->train.options[0] = (struct engine_option){"rank", "8"};
        m->train.option_count = 1;
        break;
    default: break;
    }
}

const struct fuzz_seed *fuzz_seeds(size_t *count)
{
    for (int k = 0; k < ENGINE_KIND_COUNT; k++) {
        struct engine_msg m;
        struct buf b;
        size_t length;
        buf_init(&b, 1 << 20);
        engine_msg_init(&m, (enum engine_kind)k, 3, "job-1");
        fill(&m);
        KILN_ASSERT(engine_msg_encode(&m, &b, NULL) == 0);
        frame_drop(&b, 0); /* the length in front is the frame's */
        uint8_t *data = buf_take(&b, &length);
        seeds[k] = (struct fuzz_seed){data, length};
        if (k == ENGINE_GENERATE) {
            m.generate.request.source.data = m.generate.request.mask.data = NULL;
            image_request_release(&m.generate.request);
        }
    }
    *count = ENGINE_KIND_COUNT;
    return seeds;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct engine_msg m, again;
    struct buf first, second;
    struct error err = {0};
    int rc = engine_msg_decode(&m, data, size, &err);
    if (rc) {
        KILN_ASSERT(err.text[0]);
        return 0;
    }
    buf_init(&first, 1 << 24);
    buf_init(&second, 1 << 24);
    KILN_ASSERT(engine_msg_encode(&m, &first, &err) == 0, "%s", err.text);
    KILN_ASSERT(engine_msg_decode(&again, first.data + FRAME_HEAD_BYTES,
                                  first.length - FRAME_HEAD_BYTES, &err) == 0,
                "%s", err.text);
    KILN_ASSERT(engine_msg_encode(&again, &second, &err) == 0, "%s", err.text);
    KILN_ASSERT(first.length == second.length && !memcmp(first.data, second.data, first.length));
    buf_release(&first);
    buf_release(&second);
    engine_msg_release(&m);
    engine_msg_release(&again);
    return 0;
}
