/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * limits: how large a world is, and the times that several of its parts share.
 */
#ifndef NBD_ATTACH_SIM_LIMITS_H
#define NBD_ATTACH_SIM_LIMITS_H

enum {
	SIM_BLOCKS = 8,            /* of the export, as far as applications use it */
	SIM_JOBS = 4,              /* of the application, each with one request at a time */
	SIM_SLOTS = 4,             /* connections of the device at most */
	SIM_SERVERS = 2,           /* of our export at most */
	SIM_FOREIGN = SIM_SERVERS, /* the server of another tool's export */
	SIM_PEER_MS = 15000,       /* --peer-timeout */
	SIM_SIZE = 1 << 20,        /* of the export at first; bytes */
	SIM_GROWTH = 4096,         /* step of the export's size; bytes */
};

#endif
