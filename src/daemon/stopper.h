/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * stopper: what a supervisor does when it is asked to stop by a signal: a child detaches the
 * device, which can take long, while the supervisor goes on. A detach that is refused is tried
 * again where a service manager waits for the end, and one that could not be started always.
 */
#ifndef NBD_ATTACH_STOPPER_H
#define NBD_ATTACH_STOPPER_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/log.h"

struct stopper {
	unsigned index;
	bool persistent; /* a refused detach is tried again */
	const struct log *log;
	/* The rest is the module's. */
	pid_t pid;        /* child that detaches the device; 0: none */
	int logged;       /* code of the failure that was logged last; 0: none */
	long long due_ms; /* time of the next try, boottime_ms; -1: none */
};

/* Starts a detach, unless one is under way. A failure is logged, the first one only. */
void stopper_start(struct stopper *s);

/* To be called at SIGCHLD: true when a detach has ended, done or refused. */
bool stopper_reap(struct stopper *s);

/* After a detach that has left the device attached. */
void stopper_refused(struct stopper *s);

#endif
