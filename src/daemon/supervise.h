/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * supervise: the life of an attached device: notices the death of its connections, has new ones made by
 * the negotiator, gives them to the kernel and sees that it has taken them, while the I/O waits. Never waits for a
 * server or for the kernel itself, parses nothing that a server sent, sleeps while nothing happens.
 */
#ifndef NBD_ATTACH_SUPERVISE_H
#define NBD_ATTACH_SUPERVISE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "net/connect.h"
#include "base/log.h"
#include "daemon/negotiator.h"
#include "daemon/notify.h"
#include "policy/plan.h"
#include "policy/settings.h"

struct supervise_request {
	unsigned index;
	const struct settings *settings;
	bool deaf; /* SIGTERM is only noted: the device is needed to the very end */
	struct negotiator_params negotiator; /* for the next one, when it dies */
	unsigned server;                     /* of the connections that stand */
	const struct plan *plan;
	const struct export *export; /* as it was at the attach; of it the name counts */
	/* Of the connections, -1 for one that is not known (adopted); they become the supervisor's. */
	int fds[PLAN_CONNECTIONS_MAX];
	unsigned connections;
	bool kernel_tls; /* the kernel encrypts them */
	bool adopted; /* nobody knows how much they have carried: all that the device ever did counts */
	bool lost;           /* the only one, not known, does not answer */
	uint32_t reconnects; /* so far, of an earlier supervisor */
	int events;          /* nbdevent_open, from before CONNECT; becomes the supervisor's */
	const struct log *logger;
	/*
	 * Who is told: READY=1 at the beginning, STATUS= whenever something changes, WATCHDOG=1, STOPPING=1 once it is certain
	 * that we end. May be NULL.
	 */
	const struct notify *notify;
};

/*
 * Until the device is gone (0), a successor has taken over (0), or it is given up (-ETIMEDOUT, it is disconnected
 * then). n is started again when it dies. SIGTERM and SIGINT detach the device unless it is in use, or, where notify has
 * somebody to tell, as soon as it is not. Listens as control.h says, keeps the record up to date, and removes both at the end.
 */
int supervise_run(const struct supervise_request *rq, struct negotiator *n, struct err *e);

#endif
