/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * attach: one export to one device, from the check of the kernel to a device that can be used, and
 * back again when something fails on the way: check, dial, plan, connect, first use, record. Runs
 * in the process that shall be named by /sys/block/nbdN/pid; launch.h says who starts it.
 */
#ifndef NBD_ATTACH_ATTACH_H
#define NBD_ATTACH_ATTACH_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/err.h"
#include "daemon/dialer.h"
#include "daemon/negotiator.h"
#include "kernel/sysfs.h"
#include "net/connect.h"
#include "policy/plan.h"
#include "policy/settings.h"

struct attach_request {
	const struct settings *settings;
	struct negotiator_params negotiator;
	bool find; /* any free device, not index */
	unsigned index;
};

enum attach_outcome {
	ATTACH_DONE,
	ATTACH_ALREADY, /* attached to this export before, and usable */
	ATTACH_ORPHAN,  /* the same, but its supervisor has gone: takeover_run is next */
};

struct attach_result {
	enum attach_outcome outcome;
	unsigned index;
	bool made_read_only;  /* by the server, not by the user */
	unsigned connections; /* 0 where it was attached before */
	char note[512];       /* as in struct connections */
};

/* What goes on being needed of an attach, by whoever looks after the device. */
struct attached {
	struct sysfs_identity identity;
	struct connections connections;
	struct dialer dialer; /* open, unless for a command or without supervision */
	int events;           /* nbdevent_open, from before CONNECT; -1: none */
	int lock;             /* record_lock; -1: supervise_run takes it */
	struct plan plan;
	unsigned server; /* the one that answered */
};

/* Nothing is open. */
void attached_init(struct attached *a);

/*
 * Closes what a holds, also twice. kernel_has_it: of the connections only our descriptors are
 * closed; else they are ended with the goodbye of the protocol.
 */
void attached_close(struct attached *a, bool kernel_has_it);

/* The identifier of what is wanted, see plan_backend; buf has PLAN_BACKEND_MAX + 1 bytes. */
void attach_identify(const struct attach_request *rq, char *buf);

/*
 * Looks at the device of the request, by the rules of attachment_judge, and waits while it is being
 * attached or reconnected: 1 and *outcome when it is attached as asked (ALREADY, ORPHAN), 0 when it
 * is free, by now: one whose connection is lost for good and that nobody uses is detached.
 * Otherwise -errno: -EBUSY (ERR_BUSY) where it is anything else or cannot be used, ERR_UNREACHABLE
 * where it has no connection and got none within the connect timeout; -ECANCELED. cancel_fd as in
 * dialer_open.
 */
int attach_check(const struct attach_request *rq, int cancel_fd, enum attach_outcome *outcome,
		 struct err *e);

/*
 * Attaches. On success the device has its size, its partitions have been scanned, the queue's
 * limits fit the server, and the record is written; or it is attached to the same already, as
 * attach_check says. An export that another device of this machine has for writing is refused
 * (-EEXIST, ERR_BUSY) unless it is to be read only, or the settings allow it. On failure nothing is
 * left: the device is disconnected again.
 *
 * a, for attached_close, holds something after ATTACH_DONE only.
 */
int attach_run(const struct attach_request *rq, int cancel_fd, struct attach_result *r,
	       struct attached *a, struct err *e);

/* Takes away what attach_run has set up. 0 also where it is not there any more. */
int attach_undo(const struct attached *a, struct err *e);

/* The same for an attach whose process, pid, was killed somewhere in the middle. */
int attach_undo_of(const struct attach_request *rq, pid_t pid, struct err *e);

#endif
