/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * renew: when a connection that lives is to be replaced all the same, and when that hurts least.
 * Keys of kernel TLS do not last for ever, and a server says an export's size once for each
 * connection. Pure functions, memory only; what is done about it is reconnect's.
 */
#ifndef NBD_ATTACH_RENEW_H
#define NBD_ATTACH_RENEW_H

#include <stdbool.h>
#include <stdint.h>

#include "policy/rc_conn.h"

enum {
	RENEW_QUIET_MS = 3000, /* longest wait for a moment without requests, to cut a connection */
	RENEW_GROW_MS = 20000, /* the same, to grow the device */
	RENEW_PAUSE_MS =
		1000,      /* first part of the wait, in which a pause between requests is needed */
	RENEW_LOOK_MS = 5, /* between two looks at the requests */
	RENEW_AGAIN_MS = 60000, /* after a renewal that failed */
};

/* The wait for a moment without requests. */
struct renew_quiet {
	long long pause_until; /* any moment without requests in flight will do from then on */
	long long until;       /* any moment at all will do from then on */
	bool looked;           /* requests is valid */
	uint64_t requests;     /* completed ones at the last look */
};

/*
 * One of count connections, UP and with kernel TLS, that has used limit TLS records when the device
 * has used records in all; -1: none, and *look_ms says when to look again (0: there is nothing to
 * look at). A limit of 0 is none.
 */
int renew_worn_out(const struct rc_conn *conn, unsigned count, uint64_t limit, uint64_t records,
		   unsigned *look_ms);

/* One of count connections that is UP and does not know of an export of size bytes; -1: none. */
int renew_outdated(const struct rc_conn *conn, unsigned count, uint64_t size);

/* Begins a wait of at most limit_ms. */
void renew_quiet_begin(struct renew_quiet *q, long long limit_ms, long long now);

/*
 * Whether this is the moment: requests have been completed so far, in_flight are under way. A
 * moment between two requests that follow each other is none in the first RENEW_PAUSE_MS.
 */
bool renew_is_quiet(struct renew_quiet *q, uint64_t requests, uint64_t in_flight, long long now);

#endif
