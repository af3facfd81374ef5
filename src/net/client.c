/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "net/client.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "net/blocking_child.h"

int session_open(struct session **out, const struct link_request *rq, int cancel_fd, struct err *e)
{
	struct session *s = calloc(1, sizeof(*s));
	struct link_attempt a = {
		.goal = NEG_GOAL_QUERY,
		.timeout_ms = rq->timeout_ms,
		.cancel_fd = cancel_fd,
	};
	struct query_params params;
	struct link *l = NULL;
	int ret;

	*out = NULL;
	if (!s)
		return err_sys(e, ERR_FAILED, ENOMEM, "connect");
	s->rq = rq;
	a.keep = &s->conn;
	ret = link_prepare(&l, rq, e);
	if (!ret)
		ret = link_run(l, &a, NULL, NULL, &s->link, e);
	link_free(l);
	if (ret) {
		free(s);
		return ret;
	}
	query_params(&params, &s->link.export, neg_contexts(s->conn.neg));
	query_init(&s->query, &params);
	*out = s;
	return 0;
}

/* It has been said, or after a breach nothing more is to be: see conn_hang_up. */
static void no_farewell(struct session *s)
{
	s->conn.stage = CONN_FAILED;
}

/* What became of a move: 0 to go on, 1 to wait, or an error of TLS. */
static int moved(struct session *s, ssize_t n, struct err *e)
{
	struct query *q = &s->query;
	/* A server that closes with our bytes unread resets: the same as an end */
	bool ended = !n || n == -ECONNRESET || n == -EPIPE;

	if (n > 0)
		query_moved(q, (size_t)n);
	else if (n == -EAGAIN)
		return 1;
	else if (s->conn.encrypted && (!ended || !s->conn.answered))
		return tls_failure(s->conn.tls, e);
	else
		query_broken(q, ended ? 0 : (int)-n);
	return 0;
}

/* Until the connection is ready: 0, 1 at the deadline, or an error. */
static int wait_for(struct session *s, bool sending, long long deadline, int cancel_fd,
		    struct err *e)
{
	struct pollfd p[] = {
		{ .fd = s->conn.fd, .events = conn_wants(&s->conn, sending) },
		{ .fd = cancel_fd, .events = POLLIN },
	};
	long long left = deadline - task_now_ms();

	if (left <= 0)
		return 1;
	if (poll(p, 2, left < 1000000 ? (int)left : 1000000) < 0)
		return errno == EINTR ? 0 : err_sys(e, ERR_FAILED, errno, "wait for the server");
	return p[1].revents ? err_sys(e, ERR_FAILED, ECANCELED, "wait for the server") : 0;
}

static bool is_event(enum query_want want)
{
	return want == QUERY_EXTENT || want == QUERY_DATA || want == QUERY_HOLE ||
	       want == QUERY_REPLY;
}

int session_next(struct session *s, long long deadline, int cancel_fd, struct query_buf *buf,
		 struct err *e)
{
	struct query *q = &s->query;
	enum query_want want;
	int ret;

	want = query_want(q, buf);
	if (is_event(want)) {
		query_moved(q, 0);
		want = query_want(q, buf);
	}
	while (want == QUERY_READ || want == QUERY_WRITE) {
		ret = moved(s, want == QUERY_READ ? conn_recv(&s->conn, buf->in, buf->len) :
						    conn_send(&s->conn, buf->out, buf->len), e);
		/* Also after progress, or a stream of single bytes would never see the deadline. */
		if (ret > 0)
			ret = wait_for(s, want == QUERY_WRITE, deadline, cancel_fd, e);
		else if (!ret)
			ret = task_now_ms() >= deadline;
		if (ret > 0)
			query_timed_out(q);
		else if (ret)
			return link_explain(s->rq, &s->link, e);
		want = query_want(q, buf);
	}
	if (want == QUERY_DONE || want == QUERY_FAILED)
		no_farewell(s);
	if (want != QUERY_FAILED)
		return (int)want;
	*e = *query_failure(q);
	return link_explain(s->rq, &s->link, e);
}

void session_close(struct session *s)
{
	if (!s)
		return;
	conn_hang_up(&s->conn);
	conn_end(&s->conn);
	link_close(&s->link, false);
	free(s);
}
