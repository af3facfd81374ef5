/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * takeover: what a supervisor needs to know to go on where another one has ended, was killed, or
 * is asked to make room: from the record, from sysfs, from the other one and from the service
 * manager. Changes nothing of the device.
 */
#ifndef NBD_ATTACH_TAKEOVER_H
#define NBD_ATTACH_TAKEOVER_H

#include <stdbool.h>

#include "base/err.h"
#include "daemon/attach.h"
#include "daemon/notify.h"
#include "policy/reconnect.h"

struct takeover_result {
	struct rc_durable durable;
	enum rc_conn_state unknown; /* state of the connections without a descriptor */
	bool suspect;        /* the only connection has a descriptor, but no read is answered */
	bool kernel_tls;     /* the kernel encrypts the connections */
	unsigned reconnects; /* so far */
};

/*
 * rq is what the device was attached by; notify may have connections that a supervisor which was
 * killed has left with the service manager, or be NULL. Takes the lock of the device and fills *a
 * as attach_run does: descriptors of connections are -1 where nobody has them, a->plan is as at the
 * attach, of the export only the name counts. ERR_ABSENT: not attached. ERR_BUSY: attached to
 * something else, or not by us, or another supervisor does not make room. On failure an earlier
 * supervisor that was alive has not been asked to go yet, or goes on, or has gone.
 */
int takeover_run(const struct attach_request *rq, struct notify *notify, struct attached *a,
		 struct takeover_result *r, struct err *e);

/* Name of a connection's descriptor at the service manager; buf has NOTIFY_NAME_MAX + 1 bytes. */
void takeover_stored_name(const struct sysfs_identity *id, unsigned conn, char *buf);

#endif
