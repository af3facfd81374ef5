/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * limits: how large a world is, and the times that several of its parts share.
 */
#ifndef NBD_ATTACH_SIM_LIMITS_H
#define NBD_ATTACH_SIM_LIMITS_H

enum {
	SIM_BLOCKS = 8,            /* blocks that applications use */
	SIM_JOBS = 4,              /* jobs of the application, with one request at a time each */
	SIM_SLOTS = 4,             /* most connections of the device */
	SIM_SERVERS = 2,           /* most servers of our export */
	SIM_FOREIGN = SIM_SERVERS, /* the server of another tool's export */
	SIM_PEER_MS = 15000,       /* --peer-timeout */
	SIM_SIZE = 1 << 20,        /* first size of the export; bytes */
	SIM_GROWTH = 4096,         /* step in the size of the export; bytes */
};

#endif
