/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * blocking_child: a call that can block without limit (a name server, the first open of a device),
 * made in a child process so that the caller keeps its deadline. The child returns one flat result.
 * Never waits for a child that the kernel does not let die: it ends when its call does.
 */
#ifndef NBD_ATTACH_BLOCKING_CHILD_H
#define NBD_ATTACH_BLOCKING_CHILD_H

#include <limits.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/err.h"

/* The result is one atomic write to a pipe, pipe(7). */
#define BLOCKING_CHILD_RESULT_MAX PIPE_BUF

/* Runs in the child. out is zeroed and as large as the caller said. Must not depend on threads. */
typedef void (*blocking_child_fn)(const void *arg, void *out);

struct blocking_child {
	pid_t pid;
	int fd; /* readable when the result is there or the child is gone */
	size_t size;
};

/* Starts fn(arg, out) in a child, out of size bytes (at most BLOCKING_CHILD_RESULT_MAX). */
int blocking_child_start(struct blocking_child *c, blocking_child_fn fn, const void *arg,
			 size_t size, struct err *e);

/*
 * Waits for the result: 0, -ETIMEDOUT at the deadline (monotonic_ms), or -ECANCELED when cancel_fd
 * (or -1) is readable or hangs up. The child goes on in any case.
 */
int blocking_child_wait(const struct blocking_child *c, long long deadline, int cancel_fd);

/*
 * Reads the result into out, waits for it if c->fd is not readable yet, and reaps the child, also
 * on failure. -EIO when the child died without a result.
 */
int blocking_child_collect(struct blocking_child *c, void *out, struct err *e);

/* Kills the child, and waits for its end for an instant only. Does nothing when pid < 0. */
void blocking_child_abandon(struct blocking_child *c);

/*
 * Start, wait and collect, for at most timeout_ms; cancel_fd as in blocking_child_wait. Returns 0,
 * -ETIMEDOUT, -ECANCELED or another -errno; the caller adds its context to the error text. out is
 * undefined unless 0 is returned.
 */
int blocking_child_run(blocking_child_fn fn, const void *arg, void *out, size_t size,
		       unsigned timeout_ms, int cancel_fd, struct err *e);

/* Milliseconds of CLOCK_MONOTONIC, for deadlines. */
long long monotonic_ms(void);

/* The same with the time that the machine was suspended; it means the same to all processes. */
long long boottime_ms(void);

#endif
