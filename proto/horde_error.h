/*
 * horde_error.h - what the Horde said when it said no, and what a worker does then.
 *
 * Place    between daemon/http and whoever waits for the answer; cli/ for its own calls.
 * Owner    the struct is the caller's. Any thread.
 * Failure  cannot fail: HTML, an empty body or a truncated one give rc "" and the HTTP class
 *          decides.
 * Source   horde-api 2.1 (AI-Horde horde/exceptions.py). Branch on rc and status, never on the
 *          text.
 */
#ifndef PROTO_HORDE_ERROR_H
#define PROTO_HORDE_ERROR_H

#include <stddef.h>

enum horde_call {
    HORDE_CALL_POP,    /* generate/pop and interrogate/pop */
    HORDE_CALL_SUBMIT, /* generate/submit and interrogate/submit */
    HORDE_CALL_UPLOAD, /* PUT to the object store: no JSON, the status alone counts */
    HORDE_CALL_CLIENT, /* async, check, status, cancel, transfer */
    HORDE_CALL_READ,   /* heartbeat, users, workers, models: nothing depends on them */
    HORDE_CALL_COUNT
};

struct horde_error {
    int status;        /* HTTP status; 0: no answer at all (network) */
    char rc[64];       /* machine word, trailing '.' stripped; "" when there is none */
    char message[512]; /* the server's sentence, cleaned (str_clean): to be shown, not matched */
    char fields[512];  /* "seed: '42' is not of type 'integer'" ... from the `errors` map */
};

/* `body` may be NULL. */
void horde_error_parse(struct horde_error *e, int status, const char *body, size_t length);

enum horde_action {
    HORDE_ACTION_STOP,          /* only the operator can change that: stop popping, say so */
    HORDE_ACTION_SLOW,          /* keep popping, every wait_seconds */
    HORDE_ACTION_WAIT,          /* nothing for wait_seconds, then again */
    HORDE_ACTION_RETRY,         /* jittered exponential back-off; Retry-After wins when sent */
    HORDE_ACTION_FIX_MODELS,    /* none of the offered models is known: mend the list, back off */
    HORDE_ACTION_DROP_PRIORITY, /* a priority user name is malformed: drop it, once more */
    HORDE_ACTION_SCHEMA,        /* our request is wrong for this server: log, probe, wait 300 s */
    HORDE_ACTION_KEEP,          /* submit: keep the result until its TTL, stop popping, say so */
    HORDE_ACTION_SETTLED,       /* submit: an earlier try arrived */
    HORDE_ACTION_FORFEIT,       /* submit: will never be paid; drop it */
    HORDE_ACTION_FAULT,         /* upload: cannot succeed any more, submit as faulted */
    HORDE_ACTION_REPORT,        /* client: tell the person, no retry */
    HORDE_ACTION_COUNT
};

struct horde_reaction {
    enum horde_action action;
    int wait_seconds;   /* for SLOW, WAIT, SCHEMA; 0 otherwise */
    const char *advice; /* one sentence for the operator; static, never NULL */
};

struct horde_reaction horde_error_react(enum horde_call call, const struct horde_error *e);
const char *horde_action_word(enum horde_action a);

#endif
