/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * session: a connection in the transmission phase for a client in user space. link makes it, with all its
 * transports and TLS, query speaks on it, and here the bytes move, each request under a deadline.
 */
#ifndef NBD_ATTACH_SESSION_H
#define NBD_ATTACH_SESSION_H

#include "net/handshake.h"
#include "base/err.h"
#include "net/connect.h"
#include "proto/transmission.h"

struct session {
	const struct link_request *rq;
	struct link_result link; /* count is 0; its export is that of the params below */
	struct conn conn;
	struct query query;      /* for query_ask, query_longest and query_error */
};

/*
 * Connects as rq says, whose goal is NEG_GOAL_QUERY and which has to outlive the session, and agrees on
 * rq->contexts. *s is the caller's, for session_close; NULL after an error, which is one of link_run's.
 */
int session_open(struct session **s, const struct link_request *rq, int cancel_fd, struct err *e);

/*
 * Moves bytes until there is something for the caller: QUERY_EXTENT, QUERY_DATA, QUERY_HOLE, QUERY_REPLY, QUERY_IDLE
 * or QUERY_DONE, with buf as query_want fills it. The next call consumes it. deadline is one of task_now_ms,
 * cancel_fd as in link_open. -errno otherwise: ERR_UNREACHABLE (also for the deadline), ERR_PROTOCOL, ERR_TLS; then
 * only session_close is left.
 */
int session_next(struct session *s, long long deadline, int cancel_fd, struct query_buf *buf,
		 struct err *e);

/* Says what the protocol wants to be said, if query_disconnect has not, and ends everything. */
void session_close(struct session *s);

#endif
