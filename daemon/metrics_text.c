/* metrics_text.c - the worker's numbers in Prometheus' text format. */
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/now.h"
#include "base/str.h"
#include "daemon/adapters.h"
#include "daemon/metrics.h"

struct page_text {
    struct buf *out;
    struct error *err;
    int rc;
};

static void head(struct page_text *p, const char *name, const char *type, const char *help)
{
    if (!p->rc)
        p->rc = buf_printf(p->out, p->err, "# HELP kiln_%s %s\n# TYPE kiln_%s %s\n", name, help,
                           name, type);
}

/* label NULL: none */
static void value(struct page_text *p, const char *name, const char *label, const char *of,
                  double number)
{
    char clean[64];
    if (p->rc || isnan(number)) return;
    if (!label) {
        p->rc = buf_printf(p->out, p->err, "kiln_%s %.15g\n", name, number);
        return;
    }
    str_clean(clean, sizeof clean, of);
    for (char *c = clean; *c; c++)
        if (*c == '"' || *c == '\\') *c = '_';
    p->rc = buf_printf(p->out, p->err, "kiln_%s{%s=\"%s\"} %.15g\n", name, label, clean, number);
}

static void one(struct page_text *p, const char *name, const char *type, const char *help,
                double number)
{
    if (isnan(number)) return;
    head(p, name, type, help);
    value(p, name, NULL, NULL, number);
}

static void write_jobs(struct page_text *p, const struct worker *w)
{
    int open = 0, models = 0;
    for (const struct job *j = w->jobs; j; j = j->next) open += j->count;
    for (int i = 0; i < w->model_count; i++) models += w->models[i].offered;
    head(p, "jobs_total", "counter", "Images and forms that ended since the start, by how.");
    value(p, "jobs_total", "end", "paid", (double)w->settled_run);
    value(p, "jobs_total", "end", "unpaid", (double)w->faulted_run);
    one(p, "jobs_open", "gauge", "Images and forms that have not ended.", open);
    one(p, "jobs_last_hour", "gauge", "Images and forms paid in the last hour.",
        budget_jobs_hour(&w->budget));
    one(p, "faults_last_hour", "gauge",
        "Given back or aborted; at 20 the Horde forces maintenance.",
        budget_faults_hour(&w->budget));
    one(p, "kudos_told_total", "counter", "Kudos that the Horde said it pays, since the start.",
        (double)w->told_run_milli / 1000);
    if (w->known)
        one(p, "kudos_balance", "gauge", "The owner's kudos as the Horde last told.",
            (double)w->balance_milli / 1000);
    if (w->account_known)
        one(p, "kudos_unexplained", "gauge", "What the books cannot explain.",
            (double)w->account_last.unexplained_milli / 1000);
    head(p, "pop_to_submit_seconds", "summary",
         "From a job's arrival to its first submit, beside the computing.");
    value(p, "pop_to_submit_seconds_sum", NULL, NULL, w->added_s);
    value(p, "pop_to_submit_seconds_count", NULL, NULL, (double)w->added_count);
    one(p, "models_offered", "gauge", "Models named in the last pop.", models);
    one(p, "adapters_fetching", "gauge", "LoRAs and embeddings on their way.",
        adapters_open(w->adapters));
}

static void write_pops(struct page_text *p, const struct worker *w)
{
    head(p, "pops_total", "counter", "Asked for work, by kind.");
    value(p, "pops_total", "kind", "image", (double)w->images.asked);
    value(p, "pops_total", "kind", "form", (double)w->forms.asked);
    head(p, "skipped_requests", "gauge",
         "Waiting requests that the Horde passed over at the last pop, by reason.");
    for (int i = 0; i < w->images.skipped_count; i++)
        value(p, "skipped_requests", "reason", w->images.skipped[i].name,
              (double)w->images.skipped[i].count);
    head(p, "gate_shut", "gauge", "1 where a gate of this machine keeps it from working.");
    for (int k = 0; k < GATE_COUNT; k++)
        value(p, "gate_shut", "gate", gate_name((enum gate_kind)k),
              gate_is_shut(&w->gate, (enum gate_kind)k));
    one(p, "horde_up", "gauge", "0 while the Horde does not answer.", !outage_is_on(&w->outage));
}

/* one family after the other, as the format wants it */
static void write_engines(struct page_text *p, const struct worker *w)
{
    static const struct {
        const char *name, *type, *help;
    } families[] = {
        {"engine_up", "gauge", "1 while the engine of the device is ready."},
        {"engine_restarts_total", "counter", "Times it was started again."},
        {"device_memory_bytes", "gauge", "Memory of the device."},
        {"device_memory_free_bytes", "gauge", "Of that, free."},
        {"device_temperature_celsius", "gauge", "As the driver says."},
        {"device_power_watts", "gauge", "As the driver says."},
    };
    for (unsigned f = 0; f < COUNT_OF(families); f++) {
        head(p, families[f].name, families[f].type, families[f].help);
        for (int i = 0; i < w->engine_count; i++) {
            const struct engine_process *e = w->engines[i];
            const struct engine_heartbeat *b = engine_process_heartbeat(e);
            double values[] = {engine_process_state(e) == ENGINE_READY,
                               engine_process_restarts(e),
                               b && b->memory_bytes ? (double)b->memory_bytes : NAN,
                               b && b->memory_bytes ? (double)b->free_bytes : NAN,
                               b ? b->temperature_c : NAN,
                               b ? b->watts : NAN};
            value(p, families[f].name, "device", engine_process_device(e), values[f]);
        }
    }
    one(p, "device_busy_seconds_total", "counter", "Computing time of all engines.",
        (double)w->busy_ms / 1000);
    one(p, "energy_joules_total", "counter", "Measured energy of the jobs.", w->joules_run);
}

int metrics_write(const struct worker *w, struct buf *out, struct error *err)
{
    struct page_text p = {.out = out, .err = err};
    head(&p, "build_info", "gauge", "1, with the version as a label.");
    value(&p, "build_info", "version", KILN_VERSION, 1);
    one(&p, "start_time_seconds", "gauge", "When kilnd was started, in Unix time.",
        (double)w->started_wall_ms / 1000);
    one(&p, "ledger_disk_free_bytes", "gauge", "Free where the ledger is.",
        (double)clerk_disk_free_bytes(w->clerk));
    write_jobs(&p, w);
    write_pops(&p, w);
    write_engines(&p, w);
    return p.rc;
}
