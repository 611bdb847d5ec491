/* Weights on their way from mapped files: filled into pinned memory by pieces, copied by a stream of
 * their own while kernels run, and read by the stream of work once they are there. Two buffers of
 * either kind, used in turn: the host fills one while the other travels, and a kernel reads one
 * landing place while the next weight lands in the other. */
#include <string.h>

#include "kernels/cuda/cuda.h"

#define PIECE_ALIGNMENT ((size_t)64)

/* The other buffer, when all that was sent from it has arrived. */
static int next_buffer(struct cuda_state *s)
{
    struct cuda_sending *send = &s->sending;
    int code = runtime_send_record(&s->runtime, EVENT_SENDING + send->turn);
    send->turn ^= 1;
    send->filled = 0;
    return code ? code : runtime_event_wait(&s->runtime, EVENT_SENDING + send->turn);
}

static int open_buffers(struct cuda_state *s)
{
    int code = 0;
    for (int i = 0; i < 2 && !code; i++) {
        void *memory = s->sending.buffer[i];
        if (!memory) code = runtime_alloc_pinned(&s->runtime, &memory, SENDING_BYTES);
        if (!code) s->sending.buffer[i] = memory;
    }
    return code;
}

int cuda_send(struct device *d, void *to, const void *from_host, size_t bytes, struct error *err)
{
    struct cuda_state *s = cuda_state(d);
    struct cuda_sending *send = &s->sending;
    int code = open_buffers(s);
    for (size_t at = 0; at < bytes && !code;) {
        if (device_canceled(d)) return error_set(err, ERR_CANCELED, "weights: not wanted any more");
        if (send->filled == SENDING_BYTES) code = next_buffer(s);
        size_t room = SENDING_BYTES - send->filled, part = bytes - at < room ? bytes - at : room;
        char *piece = send->buffer[send->turn] + send->filled;
        if (code) break;
        memcpy(piece, (const char *)from_host + at, part); /* may wait for the disk */
        code = runtime_send(&s->runtime, (char *)to + at, piece, part);
        send->filled += (part + PIECE_ALIGNMENT - 1) / PIECE_ALIGNMENT * PIECE_ALIGNMENT;
        send->bytes += part;
        at += part;
    }
    return runtime_check(code, "sending weights", err);
}

int cuda_sent(struct device *d, struct error *err)
{
    struct runtime *r = &cuda_state(d)->runtime;
    int code = runtime_send_record(r, EVENT_ARRIVED);
    if (!code) code = runtime_work_after(r, EVENT_ARRIVED);
    return runtime_check(code, "sending weights", err);
}

int cuda_land(struct device *d, const void **at, const void *from_host, size_t bytes,
              struct error *err)
{
    struct cuda_state *s = cuda_state(d);
    int turn = s->sending.landing_turn ^= 1;
    struct cuda_landing *landing = &s->sending.landing[turn];
    if (bytes > landing->bytes) {
        void *larger;
        size_t wanted = bytes > LANDING_BYTES ? bytes : LANDING_BYTES;
        int rc = d->kernels->alloc(d, &larger, wanted, err);
        if (rc) return rc;
        /* waits for what still reads the old one; no recording knows it */
        if (landing->memory) runtime_free(&s->runtime, landing->memory);
        *landing = (struct cuda_landing){larger, wanted};
    }
    int code = runtime_send_after(&s->runtime, EVENT_LANDING + turn);
    if (code) return runtime_check(code, "sending weights", err);
    int rc = cuda_send(d, landing->memory, from_host, bytes, err);
    if (!rc) rc = cuda_sent(d, err);
    if (!rc) *at = landing->memory;
    return rc;
}

int cuda_landed(struct device *d, struct error *err)
{
    struct cuda_state *s = cuda_state(d);
    return runtime_check(runtime_event_record(&s->runtime, EVENT_LANDING + s->sending.landing_turn),
                         "sending weights", err);
}

bool cuda_sending_trim(struct device *d)
{
    struct cuda_state *s = cuda_state(d);
    bool any = false;
    for (int i = 0; i < 2; i++) {
        struct cuda_landing *landing = &s->sending.landing[i];
        if (!landing->memory) continue;
        runtime_free(&s->runtime, landing->memory);
        *landing = (struct cuda_landing){0};
        any = true;
    }
    return any;
}

void cuda_sending_close(struct device *d)
{
    struct cuda_state *s = cuda_state(d);
    cuda_sending_trim(d);
    for (int i = 0; i < 2; i++)
        if (s->sending.buffer[i]) runtime_free_pinned(&s->runtime, s->sending.buffer[i]);
    s->sending = (struct cuda_sending){0};
}
