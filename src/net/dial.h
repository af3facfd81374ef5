/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * dial: connects a byte stream, as a non-blocking descriptor, to the first of several addresses
 * that answers (RFC 8305 section 5). Never waits, never resolves a name, and knows nothing of NBD.
 */
#ifndef NBD_ATTACH_DIAL_H
#define NBD_ATTACH_DIAL_H

#include <poll.h>
#include <stdbool.h>

#include "base/err.h"
#include "net/resolve.h"

/* RFC 8305 section 5: "recommended value for a default delay is 250 milliseconds". */
enum { DIAL_STAGGER_MS = 250 };

/* Attempts at several addresses at a time; attempt i goes to address i. */
struct dial {
	struct resolve_result addresses;
	unsigned next;       /* address to try next */
	long long next_ms;   /* start of the next attempt, by monotonic_ms */
	unsigned open;       /* attempts under way */
	int fd[RESOLVE_MAX]; /* socket of each attempt, or -1 */
	unsigned winner;     /* address that is connected, once one is */
	struct err last;     /* error of the attempt that failed last */
	bool unknown;        /* an attempt failed by something else than a refusal */
};

void dial_init(struct dial *d, const struct resolve_result *r);

/*
 * Starts what is due at now and looks at the attempts under way, which the caller has polled as
 * dial_poll says. Returns a connected non-blocking descriptor, which is the caller's (the other
 * attempts are closed), -EAGAIN while there is hope, or another -errno when every address has
 * failed; with several addresses the text says so. -ECONNREFUSED: all hosts are there, and none has
 * a server.
 */
int dial_step(struct dial *d, long long now, struct err *e);

/*
 * Fills at most cap entries to be polled and returns their number. *timeout_ms is the time until
 * the next attempt is due, -1 for none.
 */
unsigned dial_poll(const struct dial *d, long long now, struct pollfd *p, unsigned cap,
		   int *timeout_ms);

/* Closes what is under way. */
void dial_cancel(struct dial *d);

/*
 * Connects to a Unix socket, which is done or fails at once. Returns a non-blocking descriptor, or
 * -errno as dial_step does.
 */
int dial_unix(const char *path, struct err *e);

#endif
