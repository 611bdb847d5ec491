/* What a browser or a forger may send to the metrics page: nothing but this machine's own is answered. */
#include <string.h>

#include "fuzz.h"
#include "proto/http_head.h"

static const struct fuzz_seed seeds[] = {
    FUZZ_TEXT("GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:9400\r\nAccept: */*\r\n\r\n"),
    FUZZ_TEXT("HEAD /metrics?x=1 HTTP/1.0\nHost: localhost:9400\nConnection: close\n\n"),
    FUZZ_TEXT("POST /metrics HTTP/1.1\r\nHost: [::1]:9400\r\nContent-Length: 3\r\n\r\nabc"),
    FUZZ_TEXT("GET / HTTP/1.1\r\nHost: evil.example:9400\r\nOrigin: http://evil.example\r\n"
              "Sec-Fetch-Site: cross-site\r\nTransfer-Encoding: chunked\r\n\r\n"),
};

const struct fuzz_seed *fuzz_seeds(size_t *count)
{
    *count = sizeof seeds / sizeof seeds[0];
    return seeds;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct http_head h;
    struct error err = {0};
    int rc = http_head_parse(&h, (const char *)data, size, 9400, &err);
    KILN_ASSERT(rc == 1 || rc == 0 || rc == ERR_FORMAT);
    if (rc == 1) {
        KILN_ASSERT(h.length <= size && h.length <= HTTP_HEAD_BYTES_MAX);
        KILN_ASSERT(strnlen(h.target, sizeof h.target) < sizeof h.target);
        KILN_ASSERT(h.refusal == 0 || h.refusal == 403 || h.refusal == 405 || h.refusal == 413);
        KILN_ASSERT(!h.refusal || !h.keep);
        /* a shorter piece of it is not whole, or ends the same way */
        struct http_head again;
        KILN_ASSERT(http_head_parse(&again, (const char *)data, h.length, 9400, &err) == 1);
        KILN_ASSERT(again.refusal == h.refusal && again.length == h.length);
    }
    return 0;
}
