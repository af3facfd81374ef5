/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * publish: what is told of a supervised device, collected in one place and shown as the status of a
 * service, as fields of the record, as the answer to a client, and as lines of the log. Memory
 * only: it never asks anybody, and sends nothing.
 */
#ifndef NBD_ATTACH_PUBLISH_H
#define NBD_ATTACH_PUBLISH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/log.h"
#include "daemon/control.h"
#include "daemon/record.h"
#include "policy/reconnect.h"

enum { PUBLISH_TEXT_MAX = 1024 };

/* Filled by publish_collect, but for the members up to peer, and cause. */
struct publication {
	unsigned index, connections;
	pid_t pid;        /* supervisor */
	unsigned earlier; /* connections replaced by earlier supervisors */
	char peer[80];    /* server in use, "" when it is not known */
	unsigned alive, reconnects;
	unsigned failures;  /* as in struct rc_status */
	int64_t error_time; /* seconds since 1970; 0: no error so far */
	char last_error[512];
	char cause[128]; /* why the last lost connection was, "" when it is not known */
	struct rc_durable durable;
};

/*
 * peer is the server of connections that are replaced from now on; now is the time of day in
 * seconds since 1970.
 */
void publish_collect(struct publication *p, const struct rc_status *status,
		     const struct rc_durable *durable, const char *peer, int64_t now);

/*
 * Sets the cause of a loss: the request timeout, or none that is known (0). It is the last error,
 * too, until an attempt to reconnect fails.
 */
void publish_cause(struct publication *p, unsigned request_timeout_s, int64_t now);

/* One line for a service manager; text has PUBLISH_TEXT_MAX bytes. */
void publish_status(const struct publication *p, char *text);

/* Sets the members that change while a device is attached, but for host. */
void publish_record(const struct publication *p, struct record *record);

/* e: why the request was refused or failed; NULL: it was not. */
void publish_answer(const struct publication *p, const struct err *e, struct control_answer *a);

/* One line for the log about an action RC_NOTE; text has PUBLISH_TEXT_MAX bytes. */
enum log_level publish_note(const struct publication *p, const struct rc_action *note, char *text);

#endif
