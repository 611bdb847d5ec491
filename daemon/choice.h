/*
 * choice.h - the meta commands of models_to_load ("TOP 5", "ALL SDXL MODELS") become names.
 *
 * Place    worker_read_models asks for each entry; choice_start keeps the month's figures fresh.
 * Owner    the worker's alarm; the figures lie in the cache as model-stats.json. Loop thread.
 * Failure  none: what cannot be told yet (no list of models, no figures) is one line in the log, and
 *          the rest of models_to_load is offered.
 * Source   proto/model_choice.h; horde-api 17 (stats/img/models).
 *
 * A command never downloads: of what it means, models with a file here are offered, the others named.
 */
#ifndef DAEMON_CHOICE_H
#define DAEMON_CHOICE_H

#include "daemon/worker.h"

/* Asks at once when a command needs the figures, then every six hours. */
void choice_start(struct worker *w);
/* True when `entry` is a command; `add` is called for each name that has a file here. */
bool choice_read(struct worker *w, const char *entry, void (*add)(struct worker *w, const char *));

#endif
