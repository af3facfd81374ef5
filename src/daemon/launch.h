/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * worker: the processes around an attach. A child does the work, the caller waits for its report;
 * either notices the death of the other and takes back what is half done, so that no kill at any
 * moment leaves a half-attached device. The child stays as the supervisor, or, of a --command, as the parent
 * that the command needs, until the device or the command is gone. Or the caller itself is the supervisor,
 * and a child watches it only until the device is attached.
 */
#ifndef NBD_ATTACH_LAUNCH_H
#define NBD_ATTACH_LAUNCH_H

#include "daemon/attach.h"
#include "base/err.h"
#include "base/log.h"
#include "daemon/notify.h"
#include "daemon/supervise.h"

struct launch_request {
	struct attach_request attach;
	const struct log *logger; /* of the supervisor, once it is on its own */
	int log_fd;               /* that the logger needs, or -1 */
	bool deaf;                /* see struct supervise_request */
	char *arg0; /* where the command line begins, for the mark of vital.h on all processes that stay; NULL: none */
	/* Says that the device is there; an error is the end, and takes the attachment back. */
	int (*attached)(const void *ctx, const struct attach_result *r, struct err *e);
	const void *ctx;
	const struct notify
		*notify; /* of launch_stay: told how the device is, see supervise.h; or NULL */
};

/*
 * attach_run in a child of its own, which has ended on an error. SIGINT, SIGTERM and SIGHUP to the caller are taken as
 * the wish to give up: -EINTR when nothing is attached any more.
 */
int launch_attach(const struct launch_request *rq, struct err *e);

/*
 * attach_run in the calling process, which then is the supervisor until the device is gone (0), or as supervise_run
 * says. A device that is attached to the same already is taken over if it has no supervisor (-EBUSY where it has one).
 * Signals as above until it is attached.
 */
int launch_stay(const struct launch_request *rq, struct err *e);

/* For a device that is attached: takeover_run in a child, which is its supervisor when this returns 0. */
int launch_takeover(const struct launch_request *rq, struct err *e);

#endif
