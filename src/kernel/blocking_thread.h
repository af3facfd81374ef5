/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * kcall: kernel commands that can hang (netlink behind a dead server, sysfs behind a frozen queue), made
 * in a thread, one at a time, for a loop that must not wait. A task does the same in a child; a kcall
 * takes neither a fork nor memory once it is open. The caller keeps the time: a call it has given up goes on,
 * and must still be collected when it comes back. What the thread needs (its stack, the block) is there from
 * blocking_thread_open on, for mlockall. A forked child has no thread: open it after the last fork.
 */
#ifndef NBD_ATTACH_BLOCKING_THREAD_H
#define NBD_ATTACH_BLOCKING_THREAD_H

#include <stddef.h>

#include "base/err.h"

enum {
	BLOCKING_THREAD_BLOCK_MAX = 8192,
	BLOCKING_THREAD_STACK = 64 << 10,
};

struct blocking_thread;

/*
 * Runs in the thread. block is a flat struct, the call's arguments and results; what it names (descriptors,
 * pointers) must stay as it is until the call is collected, however long that takes: a kernel that has waited for
 * its turn still looks a descriptor up by its number.
 */
typedef void (*blocking_thread_fn)(void *block);

/*
 * Starts the thread, with all signals blocked; process attributes such as PR_SET_IO_FLUSHER are those of
 * the thread that calls this. *k is the caller's, for blocking_thread_close.
 */
int blocking_thread_open(struct blocking_thread **k, struct err *e);

/*
 * Ends the thread. One that hangs is left behind with its block and descriptors; it ends when its call does
 * (and the process does not quite end before).
 */
void blocking_thread_close(struct blocking_thread *k);

/* Readable when a call has come back and is to be collected. */
int blocking_thread_fd(const struct blocking_thread *k);

/*
 * Has fn(a copy of block) done; size is at most BLOCKING_THREAD_BLOCK_MAX. -EBUSY while an earlier one has not
 * been collected.
 */
int blocking_thread_submit(struct blocking_thread *k, blocking_thread_fn fn, const void *block,
			   size_t size, struct err *e);

/*
 * Takes the block of a call that has come back (as much as was submitted) and makes room for the next.
 * 0; -EAGAIN while it has not come back, or there is none.
 */
int blocking_thread_collect(struct blocking_thread *k, void *block);

#endif
