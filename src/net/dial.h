/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * dial: connects a byte stream, as a non-blocking descriptor: TCP to the first of several addresses
 * that answers (RFC 8305 section 5), vsock(7), or a Unix socket. Never waits, never resolves a name,
 * and knows nothing of NBD.
 */
#ifndef NBD_ATTACH_DIAL_H
#define NBD_ATTACH_DIAL_H

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "net/resolve.h"

/* RFC 8305 section 5: "recommended value for a default delay is 250 milliseconds". */
enum { DIAL_STAGGER_MS = 250 };

/* Attempts at several addresses at a time. */
struct dial {
	struct resolve_result addresses;
	unsigned next;       /* the address to try next */
	long long next_ms;   /* when, by monotonic_ms */
	unsigned open;       /* attempts under way */
	int fd[RESOLVE_MAX]; /* of attempt i, or -1 */
	unsigned winner;     /* the address that is connected, once one is */
	struct err last;     /* why the last one failed */
	bool unknown;        /* one failed in another way than by a refusal */
};

void dial_init(struct dial *d, const struct resolve_result *r);

/*
 * Begins what is due at now and looks at the attempts under way, of which the caller has polled
 * those that dial_poll named. Returns a connected non-blocking descriptor, which is the caller's (the
 * other attempts are closed), -EAGAIN while there is hope, or another -errno when every address
 * has failed; with several addresses the text says so. -ECONNREFUSED: all of them are there and have no server.
 */
int dial_step(struct dial *d, long long now, struct err *e);

/* Fills at most cap entries to be polled; returns how many. *timeout_ms (>= 0, -1 for none) is when the next attempt is due. */
unsigned dial_poll(const struct dial *d, long long now, struct pollfd *p, unsigned cap,
		   int *timeout_ms);

/* Closes what is under way. */
void dial_cancel(struct dial *d);

/*
 * Connects to a Unix socket, which is done or fails at once. Returns a non-blocking descriptor, or
 * -errno as dial_step.
 */
int dial_unix(const char *path, struct err *e);

#endif
