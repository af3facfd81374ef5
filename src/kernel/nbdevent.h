/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nbdevent: the nbd driver's notices of connections that have died, as a descriptor to be polled
 * (NBD_CMD_LINK_DEAD in the multicast group of linux/nbd-netlink.h). A notice names the device and
 * not the connection, comes once, and is queued just before the connection can be replaced; there is none
 * while a device is being disconnected. Join before CONNECT: what was before is never told.
 */
#ifndef NBD_ATTACH_NBDEVENT_H
#define NBD_ATTACH_NBDEVENT_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum nbdevent {
	NBDEVENT_NONE, /* nothing more to be read now */
	NBDEVENT_DEAD, /* a connection of a device died */
	NBDEVENT_LOST, /* the queue ran over: any number of notices is missing, look at every connection */
};

/*
 * Joins the group; a non-blocking descriptor that the caller polls and closes. -ENOENT when the kernel
 * has no family "nbd": its module is not loaded. Takes no privilege.
 */
int nbdevent_open(struct err *e);

/* The next notice; *index is the device of NBDEVENT_DEAD. -errno when the descriptor is of no use any more. */
int nbdevent_read(int fd, uint32_t *index, struct err *e);

/* One datagram: NBDEVENT_DEAD and its *index, or NBDEVENT_NONE for anything else. */
enum nbdevent nbdevent_parse(void *datagram, size_t len, uint32_t *index);

#endif
