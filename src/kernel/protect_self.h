/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * protect_self: makes the calling process fit to stand behind a device that the process itself
 * lives on: root file system or swap. Nothing of it is read from a disk again or written to swap,
 * the kernel does not wait for a device when it needs memory on its behalf, and the out-of-memory
 * killer spares it. It never undoes that.
 */
#ifndef NBD_ATTACH_PROTECT_SELF_H
#define NBD_ATTACH_PROTECT_SELF_H

#include "base/err.h"

/*
 * Locks all memory, now and later, in RAM (mlockall(2)), makes the allocator keep what it has, sets
 * oom_score_adj to -1000, and PR_SET_IO_FLUSHER where the kernel has it (5.6). A child inherits the
 * last two. ERR_KERNEL without the privilege; what was done before stays then.
 */
int protect_self(struct err *e);

/*
 * Marks the command line, arg0, of a process of root's, so that systemd does not kill it at
 * shutdown.
 */
void protect_self_mark(char *arg0);

#endif
