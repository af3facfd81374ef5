/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * blocking_thread: runs kernel commands that can hang (netlink behind a dead server, sysfs behind a
 * frozen queue) in a thread, one at a time, for a loop that must not wait. blocking_child does the
 * same in a child process; this one needs neither a fork nor memory once it is open: its stack and
 * its block are there from blocking_thread_open on, for mlockall. It keeps no time and cancels
 * nothing: a call that hangs must still be collected when it returns. A forked child has no thread:
 * open it after the last fork.
 */
#ifndef NBD_ATTACH_BLOCKING_THREAD_H
#define NBD_ATTACH_BLOCKING_THREAD_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

enum {
	BLOCKING_THREAD_BLOCK_MAX = 8192,
	BLOCKING_THREAD_STACK = 64 << 10,
};

struct blocking_thread;

/*
 * Runs in the thread. block is a flat struct, the call's arguments and results. The descriptors and
 * pointers in it must stay valid until the call is collected, however long that takes: the kernel
 * looks a descriptor up by its number when the command's turn has come.
 */
typedef void (*blocking_thread_fn)(void *block);

/*
 * Starts the thread, with all signals blocked. It inherits attributes such as PR_SET_IO_FLUSHER
 * from the thread that calls this. *k is the caller's, for blocking_thread_close.
 */
int blocking_thread_open(struct blocking_thread **k, struct err *e);

/*
 * Ends the thread. One that hangs is left behind with its block: it ends when its call does, and
 * the process ends completely only then. False: it was left behind, and may still use what the
 * block points to. k may be NULL.
 */
bool blocking_thread_close(struct blocking_thread *k);

/* Descriptor for polling: readable when a call has returned and is not collected. */
int blocking_thread_fd(const struct blocking_thread *k);

/*
 * Makes the thread call fn with a copy of block; size is at most BLOCKING_THREAD_BLOCK_MAX. -EBUSY
 * while an earlier call is not collected.
 */
int blocking_thread_submit(struct blocking_thread *k, blocking_thread_fn fn, const void *block,
			   size_t size, struct err *e);

/*
 * Copies the block of a call that has returned (as many bytes as were submitted) and makes room for
 * the next. 0; -EAGAIN while it has not returned, or there is none.
 */
int blocking_thread_collect(struct blocking_thread *k, void *block);

#endif
