/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nbdnl: the nbd driver's generic netlink family (drivers/block/nbd.c and linux/nbd-netlink.h).
 * Messages are built and parsed by functions that never send; only the last group talks to the
 * kernel. A command runs inside the sending process, which can be held up behind a dead server
 * (and holds up every other user of generic netlink): DISCONNECT belongs into a task.
 */
#ifndef NBD_ATTACH_NBDNL_H
#define NBD_ATTACH_NBDNL_H

#include <stdbool.h>
#include <stdint.h>

#include "err.h"
#include "plan.h"

struct nl_msg;
struct nlmsghdr;
struct nbdnl;

#define NBDNL_ANY_INDEX (-1)

struct nbdnl_connect {
	const struct plan *plan;
	int64_t index;      /* of the device, or NBDNL_ANY_INDEX for the kernel's choice */
	bool destroy;       /* NBD_CFLAG_DESTROY_ON_DISCONNECT: the device goes with the connection */
	const int *sockets; /* connected, in the transmission phase */
	unsigned count;
};

/*
 * NBD_CMD_CONNECT with every attribute that the kernel would otherwise keep from an earlier
 * attachment: size, block size, server flags, both timeouts. 0 or -ENOMEM.
 */
int nbdnl_build_connect(struct nl_msg *m, int family, const struct nbdnl_connect *c);

/* NBD_CMD_DISCONNECT of one device. */
int nbdnl_build_disconnect(struct nl_msg *m, int family, uint32_t index);

/* The index in the answer to CONNECT; -EBADMSG for anything else. */
int nbdnl_parse_connect(struct nlmsghdr *h, uint32_t *index);

/*
 * Opens a socket and finds the family. -ENOENT when the kernel has no family "nbd": its module is
 * not loaded. *nl is the caller's, for nbdnl_close.
 */
int nbdnl_open(struct nbdnl **nl, struct err *e);
void nbdnl_close(struct nbdnl *nl);

/*
 * Hands the sockets over; the kernel holds references of its own then. *index is the device.
 * -EPERM: no CAP_SYS_ADMIN. -EBUSY (ERR_BUSY): it is attached, or somebody has it open just now. -EINVAL: also
 * while a device of that index is going away. /sys/block/nbdN/pid names the process that calls this.
 */
int nbdnl_connect(struct nbdnl *nl, const struct nbdnl_connect *c, uint32_t *index, struct err *e);

/* Sends NBD_CMD_DISC to the server and takes the connections away. 0 for a device without any too. */
int nbdnl_disconnect(struct nbdnl *nl, uint32_t index, struct err *e);

#endif
