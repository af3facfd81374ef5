/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * guard: two processes of which one works and the other watches it. The worker sends one report;
 * the watcher sees when it dies before that, and tells it when there is an interrupt; the worker
 * sees when the watcher dies. So whichever is killed, the other can take back what is half done;
 * what that is, the callers know.
 */
#ifndef NBD_ATTACH_GUARD_H
#define NBD_ATTACH_GUARD_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/err.h"

/* What the watcher has. */
struct guard {
	pid_t worker;
	int control; /* the report comes here */
	int death;   /* pidfd of the worker; its own children can keep control open */
	int signals; /* signalfd of interrupts, or -1; the caller's */
};

/*
 * Starts work(ctx, control) in a child, which ends with it, and watches that. control is the
 * worker's: for guard_report, and readable when it shall give up, because of an interrupt or
 * because the watcher is gone.
 */
int guard_start_worker(struct guard *g, void (*work)(void *ctx, int control), void *ctx,
		       struct err *e);

/*
 * The other way round: starts watch(ctx, g) in a child, which ends with it, for the calling
 * process as the worker. Returns control, which the caller closes, or -errno; *watcher is
 * the child.
 */
int guard_start_watcher(void (*watch)(void *ctx, struct guard *g), void *ctx, pid_t *watcher,
			struct err *e);

/* Sends the report. False where nobody will read it. */
bool guard_report(int control, const void *report, size_t size);

/*
 * Waits for the report: true and report, or false when the worker has died without one.
 * *interrupted: a signal came first; the worker has been told, but what it reports may still be
 * success.
 */
bool guard_wait(const struct guard *g, void *report, size_t size, bool *interrupted);

/* Closes what g holds, and waits for the end of a worker that has nothing left to do. */
void guard_close(struct guard *g, bool await_end);

#endif
