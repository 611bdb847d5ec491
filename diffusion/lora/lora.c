#include "diffusion/lora/lora.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/str.h"
#include "diffusion/layered/attention_sharing.h"
#include "diffusion/lora/lora_delta.h"

struct lora_patch {
    struct lora_patch *next;
    struct weight *w;
    const void *data; /* what stood there before the first merge */
    enum dtype dtype;
    void *merged;
};

void lora_set_init(struct lora_set *s, struct model *model)
{
    *s = (struct lora_set){.model = model};
}

/* ---- merging ---- */

static void drop_packed(struct weight *w, struct device *d)
{
    if (w->k.packed) d->kernels->unpack(d, &w->k);
    w->k.packed = NULL;
}

static void install(struct lora_set *s, struct weight *w, void *merged, enum dtype dtype)
{
    struct lora_patch *p = s->patches;
    while (p && p->w != w) p = p->next;
    if (!p) {
        p = alloc_zero(1, sizeof *p);
        *p = (struct lora_patch){s->patches, w, w->k.data, w->k.dtype, NULL};
        s->patches = p;
    }
    drop_packed(w, s->model->device);
    free(p->merged);
    p->merged = merged;
    w->k.data = merged;
    w->k.dtype = dtype;
}

static void undo(struct lora_set *s)
{
    while (s->patches) {
        struct lora_patch *p = s->patches;
        s->patches = p->next;
        drop_packed(p->w, s->model->device);
        p->w->k.data = p->data;
        p->w->k.dtype = p->dtype;
        free(p->merged);
        free(p);
    }
}

/* Changes a weight by `change` in float and puts the result in its place. */
static int merge(struct lora_set *s, struct weight *w, const struct lora_module *m,
                 enum lora_tensor bias, double strength, struct error *err)
{
    int64_t n = weight_count(w);
    float *base = alloc_try((size_t)n + 1, sizeof *base);
    if (!base) return error_set(err, ERR_NO_MEMORY, "no memory to merge %s", m->base);
    dtype_convert(base, DTYPE_F32, w->k.data, w->k.dtype, n);
    int rc = 0;
    if (bias == LORA_IA3) {
        rc = lora_scale_bias(base, n, m, strength, err);
    } else if (bias == LORA_DIFF_B) {
        const struct safetensors_entry *e = m->tensor[LORA_DIFF_B];
        if ((int64_t)(e->bytes / dtype_bytes(e->dtype)) != n)
            rc = error_set(err, ERR_FORMAT, "the shapes of %s do not fit its place", m->base);
        for (int64_t i = 0; !rc && i < n; i++)
            base[i] += (float)(strength * dtype_get(e->data, e->dtype, i));
    } else {
        rc = lora_delta_merge(base, m, lora_shape_of(w), strength, err);
    }
    /* a model that computes in F32 keeps what the merge gained; others keep their size */
    enum dtype to = s->model->dtype == DTYPE_F32 ? DTYPE_F32 : w->k.dtype;
    void *merged = base;
    if (!rc && to != DTYPE_F32) {
        merged = alloc_try((size_t)n + 1, dtype_bytes(to));
        if (merged)
            dtype_convert(merged, to, base, DTYPE_F32, n);
        else
            rc = error_set(err, ERR_NO_MEMORY, "no memory to merge %s", m->base);
        free(base);
    } else if (rc) {
        free(base);
    }
    if (!rc) install(s, w, merged, to);
    return rc;
}

/* ---- branches beside the weight ---- */

static int copy_factor(struct weight *w, void **owned, const struct safetensors_entry *e, int rank,
                       struct error *err)
{
    *owned = weight_copy(w, e, rank);
    return *owned ? 0 : error_set(err, ERR_NO_MEMORY, "no memory for an adapter");
}

static int attach(struct lora_set *s, struct layer *layer, const struct lora_module *m,
                  double strength, struct error *err)
{
    const struct safetensors_entry *down = m->tensor[LORA_DOWN], *up = m->tensor[LORA_UP];
    int rank = layer->w.k.rank;
    s->model->layers_changed++;
    struct adapter *a = layer_attach(layer, strength * lora_scale(m, down->dim[0]));
    a->owner = s;
    int rc = copy_factor(&a->down, &a->owned[0], down, rank, err);
    if (!rc) rc = copy_factor(&a->up, &a->owned[1], up, rank, err);
    if (!rc && m->tensor[LORA_MID])
        rc = copy_factor(&a->mid, &a->owned[2], m->tensor[LORA_MID], rank, err);
    s->adapters++;
    return rc;
}

/* Whether the pair fits the layer as a branch; widths first, that is what families differ in. */
static bool fits(const struct lora_module *m, const struct weight *w)
{
    const struct safetensors_entry *down = m->tensor[LORA_DOWN], *up = m->tensor[LORA_UP],
                                   *mid = m->tensor[LORA_MID];
    struct lora_shape s = lora_shape_of(w);
    if (!down || !up || down->rank < 2 || up->rank < 2 || down->rank > 4 || up->rank > 4)
        return false;
    int64_t down_area = 1, up_area = 1;
    for (int i = 2; i < down->rank; i++) down_area *= down->dim[i];
    for (int i = 2; i < up->rank; i++) up_area *= up->dim[i];
    bool core = !mid || (w->k.rank == 4 && mid->rank == 4 && mid->dim[0] == up->dim[1] &&
                         mid->dim[1] == down->dim[0] && mid->dim[2] * mid->dim[3] == s.area);
    return core && down->dim[1] == s.in && up->dim[0] == s.out && up_area == 1 &&
           up->dim[1] == (mid ? mid->dim[0] : down->dim[0]) && down_area == (mid ? 1 : s.area);
}

static bool has_pair(const struct lora_module *m)
{
    return m->tensor[LORA_DOWN] && m->tensor[LORA_UP];
}

static bool lora_scales_bias(const struct lora_module *m)
{
    const struct safetensors_entry *e = m->tensor[LORA_IA3];
    return e && !(e->rank > 1 && e->dim[0] == 1 && e->dim[1] != 1);
}

static int apply_module(struct lora_set *s, const struct lora_target *t,
                        const struct lora_module *m, double strength, struct error *err)
{
    bool factors =
        m->tensor[LORA_W1] || m->tensor[LORA_W1_A] || m->tensor[LORA_W2] || m->tensor[LORA_W2_A];
    int rc = 0;
    if (has_pair(m) && !m->tensor[LORA_MAGNITUDE] && t->layer && !s->merge_all && !s->in_turn)
        rc = attach(s, t->layer, m, strength, err);
    else if (has_pair(m) || factors || m->tensor[LORA_DIFF] || m->tensor[LORA_VERA_OUT] ||
             lora_depends(m))
        rc = merge(s, t->w, m, LORA_DIFF, strength, err);
    if (!rc && lora_scales_bias(m) && t->b && weight_present(t->b))
        rc = merge(s, t->b, m, LORA_IA3, strength, err);
    if (!rc && m->tensor[LORA_DIFF_B] && t->b && weight_present(t->b))
        rc = merge(s, t->b, m, LORA_DIFF_B, strength, err);
    return rc;
}

/* ---- whole files ---- */

struct failure {
    const char *code;
    struct error error;
};

static int mismatch(const struct lora_set *s, const struct lora_file *f, const char *why,
                    struct failure *fail)
{
    const char *family = lora_file_family(f), *model = family_people(s->model->info.family);
    fail->code = "baseline_mismatch";
    if (family && str_starts(model, family))
        return error_set(&fail->error, ERR_INVALID, "%s was made for another model of %s: %s",
                         weight_store_path(f->store), family, why);
    return error_set(&fail->error, ERR_INVALID, "%s was made for %s, the model is %s%s%s",
                     weight_store_path(f->store), family ? family : "another model", model,
                     *why ? ": " : "", why);
}

/* Looks at everything before anything changes. */
static int check_file(const struct lora_set *s, const struct lora_file *f, int *known,
                      struct failure *fail)
{
    char why[256] = "";
    *known = 0;
    if (f->made_for) return mismatch(s, f, "", fail);
    for (size_t i = 0; i < f->count; i++) {
        const struct lora_module *m = &f->modules[i];
        if (m->tensor[LORA_FOREIGN]) {
            fail->code = "parse_failed";
            return error_set(&fail->error, ERR_UNSUPPORTED,
                             "%s is of a kind that Kiln does not apply "
                             "(OFT as PEFT wrote it before 0.16: %s)",
                             weight_store_path(f->store), m->base);
        }
        if (m->tensor[LORA_VERA_OUT] && (!m->tensor[LORA_VERA_A] || !m->tensor[LORA_VERA_B])) {
            fail->code = "parse_failed";
            return error_set(
                &fail->error, ERR_UNSUPPORTED,
                "%s holds VeRA without its projections vera_A and vera_B: save it with "
                "save_projection",
                weight_store_path(f->store));
        }
        const struct lora_target *t = lora_table_find(s->table, m->part, m->name);
        if (!t) continue;
        ++*known;
        if (!has_pair(m) || fits(m, t->w)) continue;
        struct lora_shape shape = lora_shape_of(t->w);
        snprintf(why, sizeof why, "%.120s is %lld to %lld wide, the layer %lld to %lld", m->base,
                 (long long)m->tensor[LORA_DOWN]->dim[1], (long long)m->tensor[LORA_UP]->dim[0],
                 (long long)shape.in, (long long)shape.out);
        return mismatch(s, f, why, fail);
    }
    if (*known == 0) return mismatch(s, f, "no name in it is a layer of the model", fail);
    return 0;
}

/* Whether what a file does depends on the weights that it meets. */
static bool depends(const struct lora_file *f)
{
    for (size_t i = 0; i < f->count; i++)
        if (f->modules[i].tensor[LORA_MAGNITUDE] || lora_depends(&f->modules[i])) return true;
    return false;
}

/* *again: the files before this one must be merged first; nothing was done. */
static int apply_file(struct lora_set *s, const struct request_lora *r, bool *again,
                      struct failure *fail)
{
    struct lora_file f;
    int known;
    fail->code = "parse_failed";
    int rc = lora_file_open(&f, r->path, &fail->error);
    if (rc) return rc;
    rc = check_file(s, &f, &known, fail);
    *again = !rc && s->adapters && depends(&f);
    for (size_t i = 0; !rc && !*again && i < f.count; i++) {
        const struct lora_module *m = &f.modules[i];
        const struct lora_target *t = lora_table_find(s->table, m->part, m->name);
        double strength = m->part == LORA_UNET ? r->model_strength : r->clip_strength;
        if (!t) {
            s->unknown++;
        } else if (strength != 0) {
            rc = apply_module(s, t, m, strength, &fail->error);
            if (rc) fail->code = "parse_failed";
            s->modules++;
        }
    }
    if (!rc && weight_store_find(f.store, "hookers.layers.0.temporal_n.weight")) {
        attention_sharing_detach(&s->model->unet, s->model->device);
        rc = attention_sharing_attach(&s->model->unet, f.store, &fail->error);
        s->model->layers_changed++;
    }
    if (!rc && s->unknown)
        log_debug("lora.unknown", "applied=%d unknown=%d", s->modules, s->unknown);
    lora_file_close(&f);
    return rc;
}

static char *sign(const struct request_lora *loras, int count)
{
    char *text = alloc_string("");
    for (int i = 0; i < count; i++) {
        struct stat st = {0};
        stat(loras[i].path, &st);
        char *more =
            alloc_printf("%s%s|%.17g|%.17g|%lld|%lld.%ld\n", text, loras[i].path,
                         loras[i].model_strength, loras[i].clip_strength, (long long)st.st_size,
                         (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
        free(text);
        text = more;
    }
    return text;
}

/* Never a path: the name may leave this machine. */
static const char *shown_name(const struct request_lora *l)
{
    const char *slash = strrchr(l->path, '/');
    return l->name ? l->name : slash ? slash + 1 : l->path;
}

int lora_set_use(struct lora_set *s, const struct request_lora *loras, int count,
                 lora_failed failed, void *context, struct error *err)
{
    char *signature = sign(loras, count);
    if (str_equal(signature, s->signature ? s->signature : "")) {
        free(signature);
        return 0;
    }
    if (count && !s->table) s->table = lora_table_new(s->model);
    bool bad[LORA_SET_MAX] = {false};
    int failures = 0;
    s->in_turn = false;
    KILN_ASSERT(count <= LORA_SET_MAX, "%d adapters", count);
    for (int i = -1; i < count; i++) {
        struct failure fail = {0};
        bool again = false;
        if (i < 0) lora_set_clear(s);
        if (i < 0 || bad[i]) continue;
        int rc = apply_file(s, &loras[i], &again, &fail);
        if (again) {
            s->in_turn = true;
            i = -2;
        }
        if (!rc) continue;
        if (rc == ERR_NO_MEMORY || rc == ERR_DEVICE) {
            free(signature);
            lora_set_clear(s);
            return error_set(err, rc, "%s", fail.error.text);
        }
        if (failed) failed(context, shown_name(&loras[i]), fail.code, fail.error.text);
        bad[i] = true;
        failures++;
        i = -2; /* half of it may stand: begin again without it */
    }
    /* a set with a failure is tried, and reported, again next time */
    if (failures) {
        free(signature);
        signature = alloc_string("?");
    }
    s->signature = signature;
    return 0;
}

void lora_set_clear(struct lora_set *s)
{
    undo(s);
    attention_sharing_detach(&s->model->unet, s->model->device);
    for (size_t i = 0; s->adapters && i < s->table->count; i++) {
        struct lora_target *t = &s->table->targets[i];
        if (t->layer) layer_detach(t->layer, s->model->device, s);
    }
    s->model->layers_changed++;
    s->adapters = 0;
    s->modules = s->unknown = 0;
    free(s->signature);
    s->signature = NULL;
}

void lora_set_release(struct lora_set *s)
{
    if (!s->model) return;
    lora_set_clear(s);
    lora_table_free(s->table);
    *s = (struct lora_set){0};
}
