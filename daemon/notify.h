/*
 * notify.h - telling systemd how we are, without its library.
 *
 * Place    start, drain, watchdog. One datagram to NOTIFY_SOCKET; nothing when it is not set.
 * Failure  cannot fail: systemd's own timeouts notice. Source: sd_notify(3).
 */
#ifndef DAEMON_NOTIFY_H
#define DAEMON_NOTIFY_H

#include <stdint.h>

void notify_send(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* How often to send WATCHDOG=1: half of WATCHDOG_USEC; 0: nobody asks. */
int64_t notify_watchdog_ms(void);

#endif
