/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * notify: reports to the service manager that started us, by the datagrams of sd_notify(3).
 * libsystemd would bring its libraries for compression and cryptography along, into every initramfs
 * too. It never waits, and works without a manager.
 */
#ifndef NBD_ATTACH_NOTIFY_H
#define NBD_ATTACH_NOTIFY_H

#include <sys/socket.h>
#include <sys/types.h>
#include <sys/un.h>

#include "base/err.h"

struct notify {
	int fd;               /* -1: there is no manager */
	unsigned watchdog_ms; /* half the period in which "WATCHDOG=1" is expected; 0: it is not */
	/* The rest is the module's. */
	struct sockaddr_un to;
	socklen_t to_len;
};

/*
 * Takes what the environment says: address is $NOTIFY_SOCKET, a path or "@" and an abstract name;
 * usec is $WATCHDOG_USEC, which counts when pid, $WATCHDOG_PID, is self or absent. Each may be
 * NULL. ERR_USAGE for an impossible address or number.
 */
int notify_open(struct notify *n, const char *address, const char *usec, const char *pid,
		pid_t self, struct err *e);

/*
 * Sends lines of "NAME=value". The socket stays connected, so that a change of root does not
 * matter.
 */
void notify_say(const struct notify *n, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

void notify_close(struct notify *n);

#endif
