/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * attach: one export to one device, from the check of the kernel to a device that can be used, and
 * back again when something fails on the way. Runs in the process that shall be named by
 * /sys/block/nbdN/pid; see worker.h for who starts it.
 */
#ifndef NBD_ATTACH_ATTACH_H
#define NBD_ATTACH_ATTACH_H

#include <stdbool.h>

#include "base/err.h"
#include "net/connect.h"
#include "daemon/dialer.h"
#include "daemon/negotiator.h"
#include "policy/plan.h"
#include "policy/settings.h"
#include "kernel/sysfs.h"

struct attach_request {
	const struct settings *settings;
	struct negotiator_params negotiator;
	bool find; /* any free device, not index */
	unsigned index;
};

struct attach_result {
	unsigned index;
	bool already;        /* it was attached to this export before; nothing was done */
	bool made_read_only; /* by the server, not by the user */
	unsigned connections;
	char note[512]; /* as in struct connections */
};

/* What goes on being needed, by whoever looks after the device. */
struct attach_kept {
	struct connections link;      /* to be let go of by connections_close, kernel_has_it */
	struct negotiator negotiator; /* pid 0: none */
	int events;                   /* nbdevent_open, from before CONNECT; -1: none */
	unsigned server;              /* the one that answered */
	struct plan plan;
};

/* What goes on being needed of an attach, by whoever looks after the device. */
struct attached {
	struct sysfs_identity identity;
	struct connections connections;
	struct dialer dialer; /* open, unless for a command or without supervision */
	int events;           /* nbdevent_open, from before CONNECT; -1: none */
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

/* The identifier of what the request is for, see plan_backend; buf has PLAN_BACKEND_MAX + 1 bytes. */
void attach_identify(const struct attach_request *rq, char *buf);

/*
 * Loads the nbd module where it is missing and checks that this process may use it, without
 * contacting anybody; ERR_KERNEL tells what is wrong.
 */
int attach_check_kernel(struct err *e);

/*
 * Attaches. On success the device has its size, its partitions have been scanned, the queue's limits fit
 * the server, and the record is written. The same export on the same device is success
 * (already); with another one, or one attached otherwise than asked (read-only, block size), it is ERR_BUSY.
 * The handshake is done by a negotiator, which is confined, but for a command, whose
 * process must be our child. On failure nothing is left: the device is disconnected again. cancel_fd as in connect_open.
 * k holds what goes on being needed, for attach_let_go, also where there was nothing to do (already).
 */
int attach_run(const struct attach_request *rq, int cancel_fd, struct attach_result *r,
	       struct attach_kept *k, struct err *e);

/* Ends what k holds. The connections are the kernel's, or are ended with the goodbye of the protocol. */
void attach_let_go(struct attach_kept *k, bool kernel_has_it);

/* Takes away what attach_run set up (or left behind when its process, pid, was killed in the middle). */
int attach_undo(unsigned index, struct err *e);
int attach_undo_of(const struct attach_request *rq, pid_t pid, struct err *e);

#endif
