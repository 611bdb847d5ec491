#include "proto/horde_error.h"

#include <stdbool.h>
#include <string.h>

#include "base/alloc.h"
#include "base/str.h"
#include "proto/reader.h"

/* ---- reading ---------------------------------------------------------------------------- */

static void strip_stop(char *rc)
{
    size_t n = strlen(rc);
    if (n && rc[n - 1] == '.') rc[n - 1] = '\0';
}

static void read_fields(struct horde_error *e, const json_t *errors)
{
    size_t used = 0;
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)errors, key, v)
    {
        char line[300], name[80], text[200];
        str_clean(name, sizeof name, key);
        str_clean(text, sizeof text, json_is_string(v) ? json_string_value(v) : "?");
        str_copy(line, sizeof line, used ? "; " : "");
        strcat(strcat(strcat(line, name), ": "), text);
        if (used + 1 >= sizeof e->fields) break;
        used += str_copy(e->fields + used, sizeof e->fields - used, line);
    }
}

void horde_error_parse(struct horde_error *e, int status, const char *body, size_t length)
{
    struct reader r;
    *e = (struct horde_error){.status = status};
    if (!body || reader_open(&r, "the answer", body, length, NULL)) return;
    const char *rc = json_string_value(json_object_get(r.root, "rc"));
    const char *message = json_string_value(json_object_get(r.root, "message"));
    json_t *errors = json_object_get(r.root, "errors");
    if (rc) str_clean(e->rc, sizeof e->rc, rc);
    strip_stop(e->rc);
    if (message) str_clean(e->message, sizeof e->message, message);
    if (json_is_object(errors)) read_fields(e, errors);
    reader_close(&r);
}

/* ---- what to do ------------------------------------------------------------------------- */

struct rule {
    enum horde_call call;
    const char *rc;
    struct horde_reaction reaction;
};

#define STOP HORDE_ACTION_STOP, 0
#define KEEP HORDE_ACTION_KEEP, 0
static const struct rule rules[] = {
    {HORDE_CALL_POP, "InvalidAPIKey", {STOP, "the Horde does not know this API key"}},
    {HORDE_CALL_POP,
     "WrongCredentials",
     {STOP, "the worker name belongs to another account; choose another"}},
    {HORDE_CALL_POP,
     "PolymorphicNameConflict",
     {STOP, "a worker of another type has this name; image worker and alchemist need a name each"}},
    {HORDE_CALL_POP, "AnonForbiddenWorker", {STOP, "the anonymous key may not run a worker"}},
    {HORDE_CALL_POP,
     "WorkerMaintenance",
     {HORDE_ACTION_SLOW, 45,
      "the worker is in maintenance at the Horde; only its owner is served"}},
    {HORDE_CALL_POP,
     "WorkerFlaggedMaintenance",
     {STOP, "the Horde has flagged the account; ask its moderators"}},
    {HORDE_CALL_POP, "DeletedUser", {STOP, "the account is scheduled for deletion"}},
    {HORDE_CALL_POP,
     "WorkerInviteOnly",
     {HORDE_ACTION_WAIT, 600, "the Horde takes new workers by invitation only at present"}},
    {HORDE_CALL_POP, "TooManyWorkers", {STOP, "the account has as many workers as it may have"}},
    {HORDE_CALL_POP,
     "TooManyWorkersTrusted",
     {STOP, "the account has as many workers as it may have"}},
    {HORDE_CALL_POP, "TooManySameIPs", {STOP, "too many workers use this internet address"}},
    {HORDE_CALL_POP,
     "UnsafeIP",
     {HORDE_ACTION_WAIT, 900, "the Horde takes this address for a VPN or data centre"}},
    {HORDE_CALL_POP,
     "TooManyNewIPs",
     {HORDE_ACTION_WAIT, 60, "the Horde cannot check new addresses just now"}},
    {HORDE_CALL_POP,
     "TimeoutIP",
     {HORDE_ACTION_WAIT, 600, "the Horde has this address in a time-out"}},
    {HORDE_CALL_POP,
     "ProfaneWorkerName",
     {STOP, "the Horde refuses the worker name; choose another"}},
    {HORDE_CALL_POP, "ProfaneBridgeAgent", {STOP, "the Horde refuses the bridge_agent"}},
    {HORDE_CALL_POP,
     "InvalidPriorityUsername",
     {HORDE_ACTION_DROP_PRIORITY, 0, "a priority user name lacks its #number"}},
    {HORDE_CALL_POP,
     "BadRequest",
     {HORDE_ACTION_FIX_MODELS, 300,
      "the Horde knows none of the offered models, or refuses the name"}},
    {HORDE_CALL_SUBMIT, "InvalidAPIKey", {KEEP, "the Horde does not know this API key any more"}},
    {HORDE_CALL_SUBMIT,
     "WrongCredentials",
     {KEEP, "the job belongs to a worker of another account"}},
    {HORDE_CALL_SUBMIT,
     "InvalidJobID",
     {HORDE_ACTION_FORFEIT, 0, "the request is gone: expired or canceled"}},
    {HORDE_CALL_SUBMIT, "DuplicateGen", {HORDE_ACTION_SETTLED, 0, "an earlier submit had arrived"}},
    {HORDE_CALL_SUBMIT,
     "AbortedGen",
     {HORDE_ACTION_FORFEIT, 0, "the Horde had given the job up before it was submitted"}},
};
#undef STOP
#undef KEEP

static struct horde_reaction react_pop(const struct horde_error *e)
{
    if (e->status == 401 || e->status == 403)
        return (struct horde_reaction){HORDE_ACTION_STOP, 0, "the Horde refuses this worker"};
    if (e->status >= 400 && e->status < 500)
        return (struct horde_reaction){HORDE_ACTION_SCHEMA, 300,
                                       "the Horde does not understand our pop"};
    return (struct horde_reaction){HORDE_ACTION_RETRY, 0, "the Horde's answer is no use"};
}

static struct horde_reaction react_submit(const struct horde_error *e)
{
    if (e->status == 401 || e->status == 403)
        return (struct horde_reaction){HORDE_ACTION_KEEP, 0, "the Horde refuses our submits"};
    if (e->status == 404)
        return (struct horde_reaction){HORDE_ACTION_FORFEIT, 0, "the request is gone"};
    if (e->status >= 400 && e->status < 500)
        return (struct horde_reaction){HORDE_ACTION_SCHEMA, 300,
                                       "the Horde does not understand our submit"};
    return (struct horde_reaction){HORDE_ACTION_RETRY, 0,
                                   "the submit may or may not have arrived; it is safe to repeat"};
}

static struct horde_reaction react_upload(const struct horde_error *e)
{
    if (e->status >= 300 && e->status < 500 && e->status != 408)
        return (struct horde_reaction){HORDE_ACTION_FAULT, 0,
                                       "the store refuses the upload: expired, or a wrong clock"};
    return (struct horde_reaction){HORDE_ACTION_RETRY, 0, "the store has trouble"};
}

struct horde_reaction horde_error_react(enum horde_call call, const struct horde_error *e)
{
    if (e->status == 429 || e->status == 0)
        return (struct horde_reaction){HORDE_ACTION_RETRY, 0,
                                       e->status ? "the Horde asks to slow down"
                                                 : "the Horde cannot be reached"};
    /* a rc counts at any status: one of the Horde's own refusals comes out as 500 */
    for (size_t i = 0; e->rc[0] && i < COUNT_OF(rules); i++)
        if (rules[i].call == call && str_equal(rules[i].rc, e->rc)) return rules[i].reaction;
    switch (call) {
    case HORDE_CALL_POP: return react_pop(e);
    case HORDE_CALL_SUBMIT: return react_submit(e);
    case HORDE_CALL_UPLOAD: return react_upload(e);
    case HORDE_CALL_CLIENT:
    case HORDE_CALL_READ:
    case HORDE_CALL_COUNT: break;
    }
    if (e->status >= 500)
        return (struct horde_reaction){HORDE_ACTION_RETRY, 0, "the Horde has trouble"};
    if (call == HORDE_CALL_CLIENT && str_equal(e->rc, "MaintenanceMode"))
        return (struct horde_reaction){HORDE_ACTION_WAIT, 60, "the whole Horde is in maintenance"};
    return (struct horde_reaction){HORDE_ACTION_REPORT, 0, "the Horde refused the request"};
}

const char *horde_action_word(enum horde_action a)
{
    static const char *const words[] = {"stop",       "slow",          "wait",   "retry",
                                        "fix models", "drop priority", "schema", "keep",
                                        "settled",    "forfeit",       "fault",  "report"};
    return words[a];
}
