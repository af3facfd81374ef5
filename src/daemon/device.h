/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * device: acts upon one device of the kernel: makes an idle one new, connects it, makes it usable,
 * disconnects it. Each function is one step of an attach or a detach, in the calling process; what
 * is to be done is decided elsewhere (plan, attachment). It never contacts a server by itself.
 */
#ifndef NBD_ATTACH_DEVICE_H
#define NBD_ATTACH_DEVICE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "kernel/nbdnl.h"
#include "kernel/sysfs.h"
#include "net/connect.h"
#include "policy/plan.h"

enum {
	DEVICE_POLL_MS = 20,
	DEVICE_BUSY_MS = 2000, /* udev opens a device after each of its events */
	DEVICE_DISCONNECT_MS = 10000,
};

/* What is open to reach the kernel. */
struct device_kernel {
	int sysfd, devfd; /* /sys and /dev */
	struct nbdnl *nl;
};

/*
 * Loads the nbd module where it is missing, and checks that this process may use it, without
 * contacting anybody: ERR_KERNEL says what is wrong. k is the caller's, for device_close_kernel,
 * also after an error.
 */
int device_open_kernel(struct device_kernel *k, struct err *e);
void device_close_kernel(struct device_kernel *k);

/* Waits so long. -ECANCELED (ERR_FAILED) when cancel_fd (or -1) is readable or hangs up. */
int device_pause(int ms, int cancel_fd, struct err *e);

/*
 * Whether the driver has disconnected the device, and only waits until its users close it; backend
 * is what sysfs shows. The driver writes a line to the kernel's log then.
 */
bool device_is_disconnected(const struct device_kernel *k, unsigned index, const char *backend);

/*
 * Reads the first block, past the cache, within timeout_ms: -EIO where that fails, -ETIMEDOUT,
 * -ECANCELED. A read that hangs is left to itself, in a process that has been killed.
 */
int device_read_first(unsigned index, unsigned timeout_ms, int cancel_fd, struct err *e);

/*
 * Makes an idle device new: the kernel keeps limits from one attachment to the next, some of which
 * cannot be written (nbd.c sets them and never takes them back), but it forgets a device that is
 * disconnected with NBD_CFLAG_DESTROY_ON_DISCONNECT. -EBUSY when somebody has it; -ECANCELED.
 */
int device_renew(const struct device_kernel *k, unsigned index, int cancel_fd, struct err *e);

/*
 * CONNECT, once. index is a device, which is renewed where its limits do not fit, or
 * NBDNL_ANY_INDEX. alias (or NULL) is the name for udev's links: written before CONNECT where the
 * device is known, as the kernel's event comes with it; without it there is no link, and that is
 * all. id is filled once the driver has taken the connections, also where an error follows.
 * -EBUSY: somebody has the device open or has attached it; -EINVAL: also while it goes away. Both
 * may be over in a moment.
 */
int device_connect(const struct device_kernel *k, const struct plan *p, const struct connections *c,
		   int64_t index, const char *alias, int cancel_fd, struct sysfs_identity *id,
		   struct err *e);

/*
 * Writes the queue's limits and opens the device for the first time, so that it has its size and
 * partitions, within timeout_ms. Errors: ERR_UNREACHABLE for a server that hangs up or does not
 * answer; ERR_KERNEL, ERR_BUSY; -ECANCELED.
 */
int device_make_usable(const struct device_kernel *k, const struct sysfs_identity *id,
		       const struct plan *p, const struct connections *c, unsigned timeout_ms,
		       int cancel_fd, struct err *e);

/*
 * Disconnects the device if it is still the attachment id (sysfs_check_identity, whose errors it
 * returns), and removes its partitions and its record. Takes DEVICE_DISCONNECT_MS at most
 * (-ETIMEDOUT). Where no process can be started for it, it is done in this one, which takes as long
 * as the kernel wants. c (or NULL) are its connections: where the kernel waits for the server they
 * are cut under it.
 */
int device_disconnect(const struct sysfs_identity *id, const struct connections *c, struct err *e);

/*
 * The first step of it alone, in the calling process and without a limit of time. A size and
 * partitions stay as long as somebody has the device open (devnode_drop_partitions).
 */
int device_disconnect_here(int sysfd, const struct sysfs_identity *id, struct err *e);

/* Removes what is recorded of the attachment id and of those before, but not of a later one. */
void device_forget(int sysfd, const struct sysfs_identity *id);

#endif
