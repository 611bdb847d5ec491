/* Control requests and documents; what is taken can be sent on and taken again. */
#include <string.h>

#include "fuzz.h"
#include "proto/control_msg.h"
#include "proto/frame.h"

static const struct fuzz_seed seeds[] = {
    FUZZ_TEXT("{\"request\":\"pause\",\"now\":true,\"for_seconds\":600,\"text\":\"dinner\"}"),
    FUZZ_TEXT("{\"request\":\"jobs\",\"limit\":10,\"state\":\"FAULTED\",\"job\":\"a\"}"),
    FUZZ_TEXT(
        "{\"document\":\"status\",\"version\":\"0.1.0\",\"state\":\"running\",\"earned_milli\":5,"
        "\"device_busy\":null,\"engines\":[{\"device\":\"cpu\",\"pid\":1,\"watts\":1.5}],"
        "\"reasons\":[{\"gate\":\"g\",\"text\":\"t\",\"blocks\":true}],\"notices\":[]}"),
    FUZZ_TEXT("{\"document\":\"jobs\",\"jobs\":[{\"id\":\"a\",\"state\":\"SETTLED\",\"seconds\":"
              "null}],\"total\":1}"),
    FUZZ_TEXT(
        "{\"document\":\"ledger\",\"postings\":[{\"id\":1,\"kind\":\"earned\",\"kudos_milli\":-5}],"
        "\"sums\":[{\"kind\":\"earned\",\"count\":1}],\"verdict\":\"v\"}"),
    FUZZ_TEXT("{\"document\":\"models\",\"models\":[{\"name\":\"m\",\"offered\":true}]}"),
    FUZZ_TEXT("{\"document\":\"error\",\"code\":\"not found\",\"text\":\"x\"}"),
};

const struct fuzz_seed *fuzz_seeds(size_t *count)
{
    *count = sizeof seeds / sizeof seeds[0];
    return seeds;
}

static void request(const uint8_t *data, size_t size)
{
    struct control_request r, again;
    struct buf out;
    struct error err = {0};
    if (control_request_decode(&r, data, size, &err)) return;
    buf_init(&out, 1 << 22);
    if (!control_request_encode(&r, &out, &err)) {
        KILN_ASSERT(!control_request_decode(&again, out.data + FRAME_HEAD_BYTES,
                                            out.length - FRAME_HEAD_BYTES, &err),
                    "%s", err.text);
        KILN_ASSERT(again.kind == r.kind && again.limit == r.limit);
        control_request_release(&again);
    }
    buf_release(&out);
    control_request_release(&r);
}

static void reply(const uint8_t *data, size_t size)
{
    struct control_reply r, again;
    struct buf first, second;
    struct error err = {0};
    if (control_reply_decode(&r, data, size, &err)) return;
    buf_init(&first, 1 << 22);
    buf_init(&second, 1 << 22);
    KILN_ASSERT(!control_reply_print(&r, &first, &err), "%s", err.text);
    KILN_ASSERT(!control_reply_decode(&again, first.data, first.length, &err), "%s", err.text);
    KILN_ASSERT(!control_reply_print(&again, &second, &err), "%s", err.text);
    KILN_ASSERT(first.length == second.length && !memcmp(first.data, second.data, first.length));
    control_reply_release(&again);
    buf_release(&first);
    buf_release(&second);
    control_reply_release(&r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    request(data, size);
    reply(data, size);
    return 0;
}
