/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * task: a call that can block beyond any limit (a name server, a kernel command behind a silent
 * server, the first open of a device) made in a child process, so that the caller keeps its
 * deadline. The child gives back one flat result. A child the kernel will not let die is left
 * behind; it ends when its call does.
 */
#ifndef NBD_ATTACH_BLOCKING_CHILD_H
#define NBD_ATTACH_BLOCKING_CHILD_H

#include <limits.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/err.h"

/* One atomic write to a pipe, pipe(7). */
#define BLOCKING_CHILD_RESULT_MAX PIPE_BUF

/* Runs in the child; out is zeroed and as large as the caller said. Must not depend on threads. */
typedef void (*blocking_child_fn)(const void *arg, void *out);

struct blocking_child {
	pid_t pid;
	int fd; /* readable when the result is there or the child is gone */
	size_t size;
};

/* Starts fn(arg, out) in a child, out of size bytes (at most BLOCKING_CHILD_RESULT_MAX). */
int blocking_child_start(struct blocking_child *t, blocking_child_fn fn, const void *arg,
			 size_t size, struct err *e);

/*
 * Takes the result when t->fd is readable, blocking until it is, and the child's end. Ends the
 * task in any case. -EIO when the child died without a result.
 */
int blocking_child_collect(struct blocking_child *t, void *out, struct err *e);

/*
 * Waits for the result: 0, -ETIMEDOUT at the deadline (monotonic_ms), or -ECANCELED when cancel_fd (or
 * -1) is readable or hangs up. The child goes on in any case.
 */
int blocking_child_wait(const struct blocking_child *t, long long deadline, int cancel_fd);

/* Gives the task up: kills the child, does not wait for it beyond an instant. */
void blocking_child_abandon(struct blocking_child *t);

/*
 * All of it, for at most timeout_ms. cancel_fd (or -1) ends it early when it becomes readable or
 * hangs up. Returns 0, -ETIMEDOUT, -ECANCELED or another -errno; the error text is set but for the caller's
 * context. out is undefined but for 0.
 */
int blocking_child_run(blocking_child_fn fn, const void *arg, void *out, size_t size,
		       unsigned timeout_ms, int cancel_fd, struct err *e);

/* Milliseconds of CLOCK_MONOTONIC: for deadlines. */
long long monotonic_ms(void);

#endif
