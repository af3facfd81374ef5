/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * supervise: the life of an attached device. The shell of policy/reconnect: it turns what happens
 * to descriptors, clients, signals and clocks into events, and carries the actions out, each in a
 * short function. It decides nothing about connections itself, never waits for a server or for the
 * kernel, parses nothing that a server sent, and sleeps while nothing happens.
 */
#ifndef NBD_ATTACH_SUPERVISE_H
#define NBD_ATTACH_SUPERVISE_H

#include <stdbool.h>

#include "base/err.h"
#include "base/log.h"
#include "daemon/attach.h"
#include "daemon/notify.h"
#include "daemon/takeover.h"
#include "policy/settings.h"

struct supervise_request {
	const struct settings *settings;
	bool deaf; /* SIGTERM is only noted: the device is needed to the very end */
	const struct takeover_result *adopted; /* NULL: of a device that was attached just now */
	const struct log *log;
	/*
	 * Told READY=1 at the beginning, STATUS= whenever something changes, WATCHDOG=1, and
	 * STOPPING=1 at the end; keeps duplicates of the connections. May be NULL.
	 */
	const struct notify *notify;
	/*
	 * Called once, with ctx, when nothing can fail any more, before READY=1: an error is the
	 * end, with nothing done to the device. May be NULL.
	 */
	int (*started)(void *ctx, struct err *e);
	void *ctx;
};

/*
 * Until the device is gone (0), a successor has taken over (0), or it is given up (-ETIMEDOUT, it
 * is disconnected then). SIGTERM and SIGINT detach the device unless it is in use, or, where notify
 * has somebody to tell, as soon as it is not. Listens as control.h says, keeps the record up to
 * date, and removes both at the end. Closes *a, also on failure: -EBUSY, the device has another
 * supervisor.
 */
int supervise_run(const struct supervise_request *rq, struct attached *a, struct err *e);

#endif
