/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * driver: the commands of a supervisor for the kernel's driver, about one attached device, one at a
 * time, in a thread, because any of them can hang. Directly before a command, and after an offer,
 * the thread sees whether the device is still the same attachment: the driver itself looks at the
 * index and not much else. It decides nothing.
 */
#ifndef NBD_ATTACH_DRIVER_H
#define NBD_ATTACH_DRIVER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "kernel/sysfs.h"
#include "policy/reconnect.h"

struct nbdnl;
struct blocking_thread;

/* One command, and what came of it. */
struct driver_command {
	enum rc_action_type type; /* RC_OFFER, RC_PROBE, RC_RESIZE or RC_DISCONNECT */
	int fd;                   /* RC_OFFER: socket, else -1 */
	uint64_t size;            /* RC_RESIZE: bytes */
	enum rc_result result;
	bool taken; /* the driver has taken the socket; never, without a request timeout */
	struct err err;
};

/* The members are the module's. */
struct driver {
	int sysfd;
	struct nbdnl *nl;
	struct blocking_thread *thread;
};

/* Starts the thread, after the last fork of a process that needs it. */
int driver_open(struct driver *d, struct err *e);

/*
 * Begins a command about the device that id describes; result, taken and err of c do not matter.
 * The socket is duplicated, so that the caller may close it at any time. An error: it has not
 * begun, and nothing follows.
 */
int driver_submit(struct driver *d, const struct sysfs_identity *id, const struct driver_command *c,
		  struct err *e);

/* Descriptor for polling (POLLIN): a command has ended. */
int driver_fd(const struct driver *d);

/* Takes the command that has ended; false: none has. */
bool driver_collect(struct driver *d, struct driver_command *c);

/*
 * Ends the thread. What a command that hangs still uses stays open. Also after a failed open; of a
 * struct that is 0 but for sysfd, which is -1, it does nothing.
 */
void driver_close(struct driver *d);

#endif
