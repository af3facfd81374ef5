/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * adopt: what a supervisor needs to know to go on where another one has ended, was killed, or is asked to
 * make room: from the record, from sysfs and from the other one. Changes nothing of the device.
 */
#ifndef NBD_ATTACH_TAKEOVER_H
#define NBD_ATTACH_TAKEOVER_H

#include "daemon/attach.h"
#include "base/err.h"

struct takeover_result {
	bool lost;           /* of one connection without a time limit: no read is answered */
	bool kernel_tls;     /* the kernel encrypts the connections */
	unsigned reconnects; /* so far */
};

/*
 * rq is what the device was attached by. k->link.fds has the connections that a supervisor which is alive
 * has handed over, -1 for others; k->plan is as at the attach, of k->link.export only the name
 * counts. ERR_ABSENT: not attached. ERR_BUSY: attached to something else, or not by us. On failure an earlier supervisor that was
 * alive has not been asked to go yet, or has gone.
 */
int takeover_run(const struct attach_request *rq, struct attach_kept *k, struct takeover_result *r,
		 struct err *e);

#endif
