/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * notify: reports to the service manager that started us, by the datagrams of sd_notify(3), and
 * leaves descriptors with it, which it gives to the process that it starts after us.
 * libsystemd would bring its libraries for compression and cryptography along, into every initramfs
 * too. It never waits, and works without a manager.
 */
#ifndef NBD_ATTACH_NOTIFY_H
#define NBD_ATTACH_NOTIFY_H

#include <sys/socket.h>
#include <sys/types.h>
#include <sys/un.h>

#include "base/err.h"

enum {
	NOTIFY_STORED_MAX = 64,
	NOTIFY_NAME_MAX = 63,
	NOTIFY_STORED_FIRST = 3, /* SD_LISTEN_FDS_START */
};

struct notify {
	int fd;               /* -1: there is no manager */
	unsigned watchdog_ms; /* half the period in which "WATCHDOG=1" is expected; 0: it is not */
	/* What an earlier process has left with the manager. */
	struct notify_stored {
		int fd;
		char name[NOTIFY_NAME_MAX + 1];
	} stored[NOTIFY_STORED_MAX];
	unsigned stored_count;
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

/*
 * Takes over the descriptors from first on that the manager has passed, close-on-exec: count is
 * $LISTEN_FDS, names $LISTEN_FDNAMES, which count when pid, $LISTEN_PID, is self. Each may be NULL.
 * What makes no sense is passed over. first is NOTIFY_STORED_FIRST.
 */
void notify_take_stored(struct notify *n, int first, const char *count, const char *names,
			const char *pid, pid_t self);

/* The descriptor of this name, which is the caller's from then on; -1: there is none. */
int notify_claim(struct notify *n, const char *name);

/* Closes those that nobody has claimed, and has the manager forget them. n may be NULL. */
void notify_drop_stored(struct notify *n);

/*
 * Leaves a duplicate of fd with the manager, by a name without ':', or has it forget all of that
 * name. The manager closes a socket that has ended by itself.
 */
void notify_store(const struct notify *n, const char *name, int fd);
void notify_unstore(const struct notify *n, const char *name);

void notify_close(struct notify *n);

#endif
