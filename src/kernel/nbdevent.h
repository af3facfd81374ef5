/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * nbdevent: the nbd driver's events about connections that have died, as a descriptor for polling
 * (NBD_CMD_LINK_DEAD in the multicast group of linux/nbd-netlink.h). An event names the device and
 * not the connection, comes once, and is queued just before the connection can be replaced. There
 * is none while a device is being disconnected. Join before CONNECT: earlier events never arrive.
 */
#ifndef NBD_ATTACH_NBDEVENT_H
#define NBD_ATTACH_NBDEVENT_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum nbdevent {
	NBDEVENT_NONE, /* nothing more to read now */
	NBDEVENT_DEAD, /* a connection of a device died */
	NBDEVENT_LOST, /* the queue ran over: events are missing, check every connection */
};

/*
 * Joins the group; a non-blocking descriptor that the caller polls and closes. -ENOENT when the
 * kernel has no family "nbd": its module is not loaded. Needs no privilege.
 */
int nbdevent_open(struct err *e);

/*
 * Reads the next event; *index is the device of NBDEVENT_DEAD. -errno: the descriptor is useless
 * now.
 */
int nbdevent_read(int fd, uint32_t *index, struct err *e);

/* Parses one datagram: NBDEVENT_DEAD and its *index, or NBDEVENT_NONE for anything else. */
enum nbdevent nbdevent_parse(void *datagram, size_t len, uint32_t *index);

#endif
