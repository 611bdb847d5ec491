#include "tensor/record.h"

uint64_t record_key_add(uint64_t key, const void *part, size_t bytes)
{
    const unsigned char *at = part;
    for (size_t i = 0; i < bytes; i++) key = (key ^ at[i]) * 0x100000001b3u;
    return key;
}

uint64_t record_key_tensor(uint64_t key, struct tensor t)
{
    key = record_key_add(key, &t.data, sizeof t.data);
    key = record_key_add(key, &t.dtype, sizeof t.dtype);
    return record_key_add(key, t.dim, (size_t)t.rank * sizeof t.dim[0]);
}

static void forget(struct record_cache *c, struct record *r)
{
    if (r->recording) c->device->recorder->free(c->device, r->recording);
    *r = (struct record){0};
}

void record_cache_release(struct record_cache *c)
{
    for (int i = 0; i < RECORDS_MAX; i++) forget(c, &c->entry[i]);
    c->device = NULL;
}

/* The key's entry, or the one used longest ago, made new. */
static struct record *find(struct record_cache *c, uint64_t key, bool *known)
{
    struct record *oldest = &c->entry[0];
    *known = true;
    for (int i = 0; i < RECORDS_MAX; i++) {
        struct record *r = &c->entry[i];
        if (r->recording && r->moves != c->device->moves) forget(c, r);
        if (r->used && r->key == key) return r;
        if (r->used < oldest->used) oldest = r;
    }
    *known = false;
    forget(c, oldest);
    oldest->key = key;
    return oldest;
}

static void run_plainly(struct pass *p, record_ops ops, void *context)
{
    size_t mark = pass_open_scope(p);
    ops(p, context);
    pass_close_scope(p, mark);
}

/* false: this step is none to record; nothing has been done then. */
static bool record(struct record_cache *c, struct pass *p, struct record *r, record_ops ops,
                   void *context)
{
    const struct device_recorder *d = c->device->recorder;
    struct error err;
    if (d->begin(c->device, &err)) return false;
    run_plainly(p, ops, context);
    int rc = d->end(c->device, &r->recording, &err);
    if (p->failed == ERR_CANCELED) {
        if (!rc) d->free(c->device, r->recording);
        r->recording = NULL;
        return true;
    }
    if (rc == ERR_DEVICE) {
        pass_fail(p, rc, "recording", "%s", err.text);
        return true;
    }
    bool refused = rc || p->failed;
    if (refused && !rc) d->free(c->device, r->recording);
    if (refused) {
        r->recording = NULL;
        p->failed = 0; /* asked again, op by op, the ops say themselves what is wrong */
        return false;
    }
    r->moves = c->device->moves;
    c->recorded++;
    return true;
}

void record_run(struct record_cache *c, struct pass *p, uint64_t key, record_ops ops, void *context)
{
    c->device = p->device;
    if (!pass_ok(p)) return;
    if (!p->device->recorder || p->tape) {
        run_plainly(p, ops, context);
        return;
    }
    bool known;
    struct record *r = find(c, key, &known);
    r->used = ++c->uses;
    if (known && !r->recording && !r->refused) r->refused = !record(c, p, r, ops, context);
    if (!r->recording) {
        if (!p->failed) run_plainly(p, ops, context);
        return;
    }
    struct error err;
    int rc = c->device->recorder->replay(c->device, r->recording, &err);
    if (rc) pass_fail(p, rc, "recorded step", "%s", err.text);
    c->replayed++;
}
