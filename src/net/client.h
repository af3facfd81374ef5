/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * client: a connection in the transmission phase for a client in user space. connect makes it, with
 * all transports and TLS, transmission speaks on it, and client moves the bytes, each request under
 * a deadline. Never interprets data.
 */
#ifndef NBD_ATTACH_CLIENT_H
#define NBD_ATTACH_CLIENT_H

#include "net/handshake.h"
#include "base/err.h"
#include "net/connect.h"
#include "proto/transmission.h"

struct client {
	const struct settings *settings;
	struct connector *connector; /* holds the credentials of conn */
	struct connections link;     /* no connections, but the answer: export, peer, command */
	struct handshake conn;
	/* The caller may use transmission_ask, transmission_longest and transmission_error. */
	struct transmission query;
};

/*
 * Connects to the first server of the settings, which have to outlive the client, and agrees on
 * contexts (or NULL). *c is the caller's, for client_close; NULL after an error, which is one of
 * connect_run's.
 */
int client_open(struct client **c, const struct settings *settings, const struct metactx *contexts,
		int cancel_fd, struct err *e);

/*
 * Moves bytes until there is something for the caller: TRANSMISSION_EXTENT, TRANSMISSION_REPLY,
 * TRANSMISSION_IDLE or TRANSMISSION_DONE, with buf as transmission_want fills it. The next call
 * consumes it. deadline is one of monotonic_ms, cancel_fd as in struct connect_attempt. Otherwise
 * -errno:
 * ERR_UNREACHABLE (also for the deadline), ERR_PROTOCOL or ERR_TLS; then only client_close is left.
 */
int client_next(struct client *c, long long deadline, int cancel_fd, struct transmission_buf *buf,
		struct err *e);

/* Says NBD_CMD_DISC, if transmission_disconnect has not, and frees everything. */
void client_close(struct client *c);

#endif
