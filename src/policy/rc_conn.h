/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * rc_conn: one connection of a device as reconnect sees it, and renew, which decides about the age
 * of connections.
 */
#ifndef NBD_ATTACH_RC_CONN_H
#define NBD_ATTACH_RC_CONN_H

#include <stdbool.h>
#include <stdint.h>

/* State of one connection (a slot of the driver). */
enum rc_conn_state {
	RC_UP,        /* in use by the driver; the caller holds a descriptor */
	RC_UNWATCHED, /* in use by the driver; no descriptor: a killed supervisor made it */
	RC_DOUBTFUL,  /* no descriptor, and it may be dead: an offer will tell */
	RC_CUTTING,   /* has ended for the driver; its send queue may still reach the server */
	RC_DOWN,      /* to be replaced */
};

struct rc_conn {
	enum rc_conn_state state;
	bool reported; /* CUTTING, DOWN: the death is certain, by the driver's report or a probe */
	bool doubtful; /* CUTTING: DOUBTFUL afterwards, as it may not have been the driver's */
	bool kernel_tls;  /* the kernel encrypts it, so that its keys wear out */
	long long since;  /* UP: time of installation; CUTTING, DOWN: time of its end */
	uint64_t size;    /* export size that the server reported on this connection; bytes */
	uint64_t records; /* TLS records of the whole device when this connection was made */
};

#endif
