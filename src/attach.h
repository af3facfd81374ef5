/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * attach: one export to one device, from the check of the kernel to a device that can be used, and
 * back again when something fails on the way. Runs in the process that shall be named by
 * /sys/block/nbdN/pid; see worker.h for who starts it.
 */
#ifndef NBD_ATTACH_ATTACH_H
#define NBD_ATTACH_ATTACH_H

#include <stdbool.h>

#include "err.h"
#include "link.h"
#include "plan.h"
#include "sysfs.h"

struct attach_request {
	struct link_request link; /* goal NEG_GOAL_GO */
	struct plan_request plan;
	bool find;      /* any free device, not index */
	unsigned index;
};

struct attach_result {
	unsigned index;
	bool already;         /* it was attached to this export before; nothing was done */
	bool made_read_only;  /* by the server, not by the user */
	unsigned connections;
	char note[512];       /* as in struct link_result */
};

/*
 * Loads the nbd module where it is missing and checks that this process may use it, without
 * contacting anybody; ERR_KERNEL tells what is wrong.
 */
int attach_check_kernel(struct err *e);

/*
 * Attaches. On success the device has its size, its partitions have been scanned, the queue's limits fit
 * the server, and the record is written. The same export on the same device is success
 * (already); with another one, or one attached otherwise than asked (read-only, block size), it is ERR_BUSY.
 * On failure nothing is left: the device is disconnected again. cancel_fd as in link_open.
 * rs holds what link_open gave (to be let go of by link_close, kernel_has_it) unless already.
 */
int attach_run(const struct attach_request *rq, int cancel_fd, struct attach_result *r,
	       struct link_result *rs, struct err *e);

/* Takes away what attach_run set up (or left behind when its process, pid, was killed in the middle). */
int attach_undo(unsigned index, struct err *e);
int attach_undo_of(const struct attach_request *rq, pid_t pid, struct err *e);

#endif
