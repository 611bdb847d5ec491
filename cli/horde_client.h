/*
 * horde_client.h - the Horde as a client sees it: one call at a time, waiting for the answer.
 *
 * Place    `kiln generate --horde`, `kiln kudos`, `kiln sharedkey`, `kiln horde`. (kilnd has its own client on its
 *          loop: daemon/http.)
 * Owner    open/close; one thread.
 * Failure  ERR_NETWORK (no answer), ERR_REFUSED (401, 403, 404, 400: the server's sentence),
 *          ERR_BUSY (429, 5xx), ERR_FORMAT. The key never reaches a message.
 * Source   reliability N1-N4: TLS verified, no redirects, sizes counted while receiving.
 */
#ifndef CLI_HORDE_CLIENT_H
#define CLI_HORDE_CLIENT_H

#include "base/buf.h"
#include "config/config.h"

struct horde_client {
    char *url;     /* scheme://host[:port] */
    char *api_key; /* wiped on close */
    bool loopback;
    void *curl;
};

/* The bridgeData.yaml that a command reads when none is named; NULL: there is none. free(). */
char *horde_client_config_path(void);

/* config_path NULL: $KILN_CONFIG, else XDG_CONFIG_HOME/kiln/bridgeData.yaml when it is there, else the
 * anonymous account on https://aihorde.net. url overrides when not NULL. */
int horde_client_open(struct horde_client *c, const char *config_path, const char *url,
                      struct error *err);
void horde_client_close(struct horde_client *c);

/* method GET POST PUT PATCH DELETE; path "/api/v2/..."; body may be NULL; extra one more header or NULL.
 * reply is cleared first. */
int horde_client_call(struct horde_client *c, const char *method, const char *path,
                      const struct buf *body, const char *extra, struct buf *reply,
                      struct error *err);
/* A picture that a reply points to: https, a public address, at most 16 MiB. */
int horde_client_fetch(struct horde_client *c, const char *url, struct buf *reply,
                       struct error *err);

#endif
