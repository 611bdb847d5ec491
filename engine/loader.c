#include "engine/loader.h"

#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/alloc.h"
#include "kernels/device.h"

/* On the CPU the work wants every core; beside a card the thread mostly copies. */
#define NICE_HOST 19
#define NICE_CARD 5

static bool is_stopping(void *context)
{
    return atomic_load(&((struct loader *)context)->stopping);
}

static int bring(struct loader *l, struct error *err)
{
    int rc = l->twin ? 0 : device_twin(l->device, &l->twin, err);
    if (rc) return rc;
    l->twin->canceled = is_stopping;
    l->twin->canceled_context = l;
    rc = model_open(&l->model, l->twin, l->path, l->vae_path, l->precision, err);
    if (rc) return rc;
    atomic_store(&l->state, LOADER_FETCHING);
    return model_fetch(l->model, err);
}

static void *load(void *context)
{
    struct loader *l = context;
    int nice = l->device->host_memory ? NICE_HOST : NICE_CARD;
    setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), nice); /* of this thread alone, on Linux */
    l->rc = bring(l, &l->err);
    atomic_store(&l->state, LOADER_DONE);
    return NULL;
}

void loader_init(struct loader *l, struct device *device)
{
    *l = (struct loader){.device = device};
}

int loader_start(struct loader *l, const char *path, const char *vae_path, enum precision precision,
                 struct error *err)
{
    KILN_ASSERT(loader_state(l) == LOADER_IDLE, "a loader loads one model at a time");
    struct device *device = l->device, *twin = l->twin;
    *l = (struct loader){.device = device, .twin = twin, .precision = precision};
    l->path = alloc_string(path);
    l->vae_path = alloc_string(vae_path);
    atomic_store(&l->state, LOADER_OPENING);
    int code = pthread_create(&l->thread, NULL, load, l);
    if (!code) return 0;
    free(l->path);
    free(l->vae_path);
    *l = (struct loader){.device = device, .twin = twin};
    return error_set_errno(err, ERR_NO_MEMORY, code, "starting the loader's thread");
}

enum loader_state loader_state(const struct loader *l)
{
    return (enum loader_state)atomic_load(&l->state);
}

/* A card's handle is its thread's; the CPU's serves the next one too. */
static void release(struct loader *l)
{
    struct device *twin = l->device->host_memory ? l->twin : NULL;
    if (!twin) device_close(l->twin);
    free(l->path);
    free(l->vae_path);
    *l = (struct loader){.device = l->device, .twin = twin};
}

int loader_take(struct loader *l, struct model **model, struct error *err)
{
    /* what is left to do on the CPU is done sooner by the work than by a thread that gives way */
    if (l->device->host_memory) atomic_store(&l->stopping, true);
    pthread_join(l->thread, NULL);
    int rc = l->rc == ERR_CANCELED && l->model ? 0 : l->rc;
    if (rc) {
        if (err) *err = l->err;
        model_close(l->model);
    } else {
        model_move(l->model, l->device);
        *model = l->model;
    }
    release(l);
    return rc;
}

void loader_close(struct loader *l)
{
    loader_stop(l);
    device_close(l->twin);
    l->twin = NULL;
}

void loader_stop(struct loader *l)
{
    if (loader_state(l) == LOADER_IDLE) return;
    atomic_store(&l->stopping, true);
    pthread_join(l->thread, NULL);
    model_close(l->model);
    release(l);
}
