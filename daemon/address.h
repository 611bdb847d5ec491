/*
 * address.h - which machines the daemon may be sent to by strangers.
 *
 * Place    http judges the URL before a request and the connected address in curl's
 *          open-socket callback, so that no name can be rebound to the inside.
 * Owner    const rules. Any thread.
 * Failure  ERR_REFUSED with the host (never the query) and why.
 * Source   reliability N4; RFC 6890 and the IANA special-purpose registries; RFC 6598 (CGNAT),
 *          4193 (ULA), 6052 and 3056 (addresses that hold an IPv4 address).
 */
#ifndef DAEMON_ADDRESS_H
#define DAEMON_ADDRESS_H

#include <stdbool.h>
#include <sys/socket.h>

#include "base/error.h"

/* Is that address outside this machine and every private network? */
bool address_is_public(const struct sockaddr *address);
bool address_is_loopback(const struct sockaddr *address);

struct address_rule {
    bool loopback;            /* the Horde is on this machine, so its storage may be too */
    const char *horde_host;   /* allowed as it is */
    const char *const *hosts; /* further ones, "*.name" for all below; NULL at the end */
};

/* Scheme, host and form of a URL that came with a job. */
int address_check_url(const struct address_rule *rule, const char *url, struct error *err);
/* "https://host:port" of a URL, for logs. */
void address_show(char *to, size_t room, const char *url);

#endif
