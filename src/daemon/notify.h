/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * notify: tells the service manager that started us how we are, by the datagrams of sd_notify(3). Its own
 * because libsystemd would bring its libraries for compression and cryptography along, into every initramfs
 * too. Never waits, and nobody has to be there to be told.
 */
#ifndef NBD_ATTACH_NOTIFY_H
#define NBD_ATTACH_NOTIFY_H

#include <sys/socket.h>
#include <sys/types.h>
#include <sys/un.h>

#include "base/err.h"

struct notify {
	int fd;               /* -1: nobody wants to know */
	unsigned watchdog_ms; /* "WATCHDOG=1" is expected at least twice as seldom; 0: never */
	/* the rest is the module's */
	struct sockaddr_un to;
	socklen_t to_len;
};

/*
 * Of the environment: address is $NOTIFY_SOCKET, a path or "@" and an abstract name, usec $WATCHDOG_USEC, which counts
 * when pid, $WATCHDOG_PID, is self or absent. Each may be NULL. ERR_USAGE for an address or a number that cannot be.
 */
int notify_open(struct notify *n, const char *address, const char *usec, const char *pid,
		pid_t self, struct err *e);

/* Lines of "NAME=value". The socket stays connected, so that a change of root does not matter. */
void notify_say(const struct notify *n, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

void notify_close(struct notify *n);

#endif
