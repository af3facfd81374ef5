/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * nbdnl: the nbd driver's generic netlink family (drivers/block/nbd.c and linux/nbd-netlink.h).
 * Messages are built and parsed by functions that never send; only the last group talks to the
 * kernel. A command runs inside the call that sends it, which can be held up behind a dead server,
 * and holds up every other user of generic netlink: call it in a blocking_thread or a
 * blocking_child. Only nbdnl_open allocates. One struct nbdnl serves one thread at a time.
 */
#ifndef NBD_ATTACH_NBDNL_H
#define NBD_ATTACH_NBDNL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "policy/plan.h"

struct nl_msg;
struct nlmsghdr;
struct nbdnl;

#define NBDNL_ANY_INDEX (-1)

struct nbdnl_connect {
	const struct plan *plan;
	int64_t index; /* device, or NBDNL_ANY_INDEX: the kernel chooses one */
	bool destroy;  /* NBD_CFLAG_DESTROY_ON_DISCONNECT: the device goes with the connection */
	/* Sockets in the transmission phase; more than one only with NBD_FLAG_CAN_MULTI_CONN. */
	const int *sockets;
	unsigned count;
};

/*
 * NBD_CMD_CONNECT with every attribute that the kernel would otherwise keep from an earlier
 * attachment: size, block size, server flags, both timeouts. 0 or -ENOMEM.
 */
int nbdnl_build_connect(struct nl_msg *m, int family, const struct nbdnl_connect *c);

/* NBD_CMD_DISCONNECT of one device. */
int nbdnl_build_disconnect(struct nl_msg *m, int family, uint32_t index);

/*
 * NBD_CMD_RECONFIGURE of a device that netlink has set up; backend is the identifier that CONNECT
 * gave, "" when it gave none. Each changes only what it names:
 * - offer: one socket for a connection that is dead. One, because the kernel stops at the first
 *   socket that it cannot use and keeps those before it. Never together with a size: kernels from
 *   6.12 on set the size first, and wait for the requests that wait for the socket.
 * - resize: bytes. The kernel takes any size, and a size below what is in use loses data. Only
 *   while no connection is dead.
 * - probe: changes nothing.
 * 0 or -ENOMEM.
 */
int nbdnl_build_offer(struct nl_msg *m, int family, uint32_t index, const char *backend, int fd);
int nbdnl_build_resize(struct nl_msg *m, int family, uint32_t index, const char *backend,
		       uint64_t size);
int nbdnl_build_probe(struct nl_msg *m, int family, uint32_t index, const char *backend);

/* The index in the answer to CONNECT; -EBADMSG for anything else. */
int nbdnl_parse_connect(struct nlmsghdr *h, uint32_t *index);

/* The kernel's answer to one command. */
struct nbdnl_answer {
	bool done;      /* the answer is complete */
	int code;       /* 0 or -errno */
	bool has_index; /* only in the answer to CONNECT */
	uint32_t index; /* device */
};

/* Adds one datagram to the answer to command number seq; a is zeroed before the first. */
void nbdnl_parse_answer(void *datagram, size_t len, uint32_t seq, struct nbdnl_answer *a);

/*
 * Opens a socket and finds the family. -ENOENT when the kernel has no family "nbd": its module is
 * not loaded. *nl is the caller's, for nbdnl_close.
 */
int nbdnl_open(struct nbdnl **nl, struct err *e);
void nbdnl_close(struct nbdnl *nl);

/*
 * Hands the sockets over; the kernel holds references of its own then. *index is the device.
 * -EPERM: no CAP_SYS_ADMIN. -EBUSY (ERR_BUSY): it is attached, or somebody has it open just now.
 * -EINVAL: also while a device of that index is going away. /sys/block/nbdN/pid names the process
 * that calls this.
 */
int nbdnl_connect(struct nbdnl *nl, const struct nbdnl_connect *c, uint32_t *index, struct err *e);

/* Sends NBD_CMD_DISC to the server and drops the connections. 0 also for a device that has none. */
int nbdnl_disconnect(struct nbdnl *nl, uint32_t index, struct err *e);

/*
 * ERR_ABSENT (-EINVAL): not attached by netlink, or to another export; the driver writes a line to
 * the kernel's log then.
 * 0 of an offer does not mean that the kernel has taken the socket: without a dead connection, and
 * for a moment after one has died, the kernel drops it silently. A timeout of the attachment above
 * 0 shows as the socket's SO_SNDTIMEO once it is taken. Without a timeout the same socket is
 * offered again and again, which does no harm where it was taken before. The descriptor must stay
 * open until the call returns: the kernel looks it up when the command's turn has come.
 */
int nbdnl_offer(struct nbdnl *nl, uint32_t index, const char *backend, int fd, struct err *e);
int nbdnl_resize(struct nbdnl *nl, uint32_t index, const char *backend, uint64_t size,
		 struct err *e);
int nbdnl_probe(struct nbdnl *nl, uint32_t index, const char *backend, struct err *e);

#endif
