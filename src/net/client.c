/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "net/client.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "net/blocking_child.h"

int client_open(struct client **out, const struct settings *settings,
		const struct metactx *contexts, int cancel_fd, struct err *e)
{
	struct client *s = calloc(1, sizeof(*s));
	struct connect_attempt a = {
		.goal = NEG_GOAL_QUERY,
		.timeout_ms = settings->connect_timeout_ms,
		.contexts = contexts,
		.cancel_fd = cancel_fd,
	};
	struct transmission_params params;
	struct connector *l = NULL;
	int ret;

	*out = NULL;
	if (!s)
		return err_sys(e, ERR_FAILED, ENOMEM, "connect");
	s->settings = settings;
	a.keep = &s->conn;
	ret = connect_prepare(&l, settings, 0, e);
	if (!ret)
		ret = connect_run(l, &a, NULL, NULL, &s->link, e);
	connect_free(l);
	if (ret) {
		free(s);
		return ret;
	}
	transmission_params(&params, &s->link.export, neg_contexts(s->conn.neg));
	transmission_init(&s->query, &params);
	*out = s;
	return 0;
}

/* It has been said, or after a breach nothing more is to be: see handshake_hang_up. */
static void no_farewell(struct client *s)
{
	s->conn.stage = HANDSHAKE_FAILED;
}

/* What became of a move: 0 to go on, 1 to wait, or an error of TLS. */
static int moved(struct client *s, ssize_t n, struct err *e)
{
	struct transmission *q = &s->query;
	/* A server that closes with our bytes unread resets: the same as an end */
	bool ended = !n || n == -ECONNRESET || n == -EPIPE;

	if (n > 0)
		transmission_moved(q, (size_t)n);
	else if (n == -EAGAIN)
		return 1;
	else if (s->conn.encrypted && (!ended || !s->conn.answered))
		return tls_failure(s->conn.tls, e);
	else
		transmission_broken(q, ended ? 0 : (int)-n);
	return 0;
}

/* Until the connection is ready: 0, 1 at the deadline, or an error. */
static int wait_for(struct client *s, bool sending, long long deadline, int cancel_fd,
		    struct err *e)
{
	struct pollfd p[] = {
		{ .fd = s->conn.fd, .events = handshake_wants(&s->conn, sending) },
		{ .fd = cancel_fd, .events = POLLIN },
	};
	long long left = deadline - monotonic_ms();

	if (left <= 0)
		return 1;
	if (poll(p, 2, left < 1000000 ? (int)left : 1000000) < 0)
		return errno == EINTR ? 0 : err_sys(e, ERR_FAILED, errno, "wait for the server");
	return p[1].revents ? err_sys(e, ERR_FAILED, ECANCELED, "wait for the server") : 0;
}

static bool is_event(enum transmission_want want)
{
	return want == TRANSMISSION_EXTENT || want == TRANSMISSION_DATA ||
	       want == TRANSMISSION_HOLE || want == TRANSMISSION_REPLY;
}

int client_next(struct client *s, long long deadline, int cancel_fd, struct transmission_buf *buf,
		struct err *e)
{
	struct transmission *q = &s->query;
	enum transmission_want want;
	int ret;

	want = transmission_want(q, buf);
	if (is_event(want)) {
		transmission_moved(q, 0);
		want = transmission_want(q, buf);
	}
	while (want == TRANSMISSION_READ || want == TRANSMISSION_WRITE) {
		ret = moved(s,
			    want == TRANSMISSION_READ ?
				    handshake_recv(&s->conn, buf->in, buf->len) :
				    handshake_send(&s->conn, buf->out, buf->len),
			    e);
		/* Also after progress, or a stream of single bytes would never see the deadline. */
		if (ret > 0)
			ret = wait_for(s, want == TRANSMISSION_WRITE, deadline, cancel_fd, e);
		else if (!ret)
			ret = monotonic_ms() >= deadline;
		if (ret > 0)
			transmission_timed_out(q);
		else if (ret)
			return connections_explain(s->settings, 0, &s->link, e);
		want = transmission_want(q, buf);
	}
	if (want == TRANSMISSION_DONE || want == TRANSMISSION_FAILED)
		no_farewell(s);
	if (want != TRANSMISSION_FAILED)
		return (int)want;
	*e = *transmission_failure(q);
	return connections_explain(s->settings, 0, &s->link, e);
}

void client_close(struct client *s)
{
	if (!s)
		return;
	handshake_hang_up(&s->conn);
	handshake_end(&s->conn);
	connections_close(&s->link, false);
	free(s);
}
