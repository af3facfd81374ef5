/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * launch: the processes around an attach. A child does the work and stays as the supervisor, or, of
 * a --command, as the parent that the command needs, until the device or the command is gone; or
 * the calling process itself is the supervisor, and a child watches it until the device can be
 * used. No kill at any moment leaves a half-attached device, see guard.h.
 */
#ifndef NBD_ATTACH_LAUNCH_H
#define NBD_ATTACH_LAUNCH_H

#include <stdbool.h>

#include "base/err.h"
#include "base/log.h"
#include "daemon/attach.h"
#include "daemon/notify.h"

struct launch_request {
	struct attach_request attach;
	const struct log *logger; /* the supervisor's, once it is on its own */
	int log_fd;               /* descriptor that the logger needs, or -1 */
	bool deaf;                /* see struct supervise_request */
	/* Begin of the command line, for protect_self_mark of all that stay; NULL: none. */
	char *arg0;
	/* Says that the device is there; an error is the end, and takes the attachment back. */
	int (*attached)(const void *ctx, const struct attach_result *r, struct err *e);
	const void *ctx;
	struct notify *notify; /* launch_stay's: see struct supervise_request; or NULL */
};

/*
 * attach_run in a child of its own, which has ended on an error. A device whose supervisor has gone
 * gets a new one, and is waited for as by attach_check. SIGINT, SIGTERM and SIGHUP to the caller
 * are taken as the wish to give up: -EINTR when nothing is attached any more.
 */
int launch_attach(const struct launch_request *rq, struct err *e);

/*
 * attach_run in the calling process, which then is the supervisor until the device is gone (0), or
 * as supervise_run says. A device that is attached to the same already is taken over if it has no
 * supervisor (-EBUSY where it has one). Signals as above until it is attached.
 */
int launch_stay(const struct launch_request *rq, struct err *e);

/* For an attached device: takeover_run in a child, which is its supervisor on success. */
int launch_takeover(const struct launch_request *rq, struct err *e);

#endif
