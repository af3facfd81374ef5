/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vital: makes the calling process one that may stand behind a device which the process itself lives on: root file
 * system or swap. Nothing of it is ever read from a disk again or written to swap, the kernel does not wait for a device when it
 * needs memory on its behalf, and it is not killed when there is none.
 */
#ifndef NBD_ATTACH_PROTECT_SELF_H
#define NBD_ATTACH_PROTECT_SELF_H

#include "base/err.h"

/*
 * All memory, now and later, stays in RAM (mlockall(2)), the allocator keeps what it has, oom_score_adj is -1000, and
 * PR_SET_IO_FLUSHER is set where the kernel has it (5.6). A child inherits the last two. ERR_KERNEL where the privilege is
 * lacking; what was done before stays then.
 */
int protect_self(struct err *e);

/* Writes the mark into the first byte of the command line, arg0, by which systemd spares a process of root's. */
void protect_self_mark(char *arg0);

#endif
