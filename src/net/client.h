/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * session: a connection in the transmission phase for a client in user space. link makes it, with all its
 * transports and TLS, query speaks on it, and here the bytes move, each request under a deadline.
 */
#ifndef NBD_ATTACH_CLIENT_H
#define NBD_ATTACH_CLIENT_H

#include "net/handshake.h"
#include "base/err.h"
#include "net/connect.h"
#include "proto/transmission.h"

struct client {
	const struct settings *settings;
	struct connections link; /* count is 0; its export is that of the params below */
	struct handshake conn;
	struct transmission
		query; /* for transmission_ask, transmission_longest and transmission_error */
};

/*
 * Connects to the first server of the settings, which have to outlive the session, and agrees on contexts (or NULL).
 * *s is the caller's, for client_close; NULL after an error, which is one of connect_run's.
 */
int client_open(struct client **s, const struct settings *settings, const struct metactx *contexts,
		int cancel_fd, struct err *e);

/*
 * Moves bytes until there is something for the caller: TRANSMISSION_EXTENT, TRANSMISSION_DATA, TRANSMISSION_HOLE, TRANSMISSION_REPLY, TRANSMISSION_IDLE
 * or TRANSMISSION_DONE, with buf as transmission_want fills it. The next call consumes it. deadline is one of monotonic_ms,
 * cancel_fd as in connect_open. -errno otherwise: ERR_UNREACHABLE (also for the deadline), ERR_PROTOCOL, ERR_TLS; then
 * only client_close is left.
 */
int client_next(struct client *s, long long deadline, int cancel_fd, struct transmission_buf *buf,
		struct err *e);

/* Says what the protocol wants to be said, if transmission_disconnect has not, and ends everything. */
void client_close(struct client *s);

#endif
