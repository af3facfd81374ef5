/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "net/client.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "net/blocking_child.h"

int client_open(struct client **out, const struct settings *settings,
		const struct metactx *contexts, int cancel_fd, struct err *e)
{
	struct client *c = calloc(1, sizeof(*c));
	struct connect_attempt a = {
		.goal = NEG_GOAL_QUERY,
		.timeout_ms = settings->connect_timeout_ms,
		.contexts = contexts,
		.cancel_fd = cancel_fd,
	};
	int ret;

	*out = NULL;
	if (!c)
		return err_sys(e, ERR_FAILED, ENOMEM, "connect");
	c->settings = settings;
	a.keep = &c->conn;
	ret = connect_prepare(&c->connector, settings, 0, e);
	if (!ret)
		ret = connect_run(c->connector, &a, NULL, NULL, &c->link, e);
	if (ret) {
		connect_free(c->connector);
		free(c);
		return ret;
	}
	transmission_init(&c->query, &c->link.export, neg_contexts(c->conn.neg));
	*out = c;
	return 0;
}

/* NBD_CMD_DISC was sent, or must not be after a breach: handshake_hang_up leaves it out. */
static void mark_ended(struct client *c)
{
	c->conn.stage = HANDSHAKE_FAILED;
}

/* Tells transmission what was moved: 0 to go on, 1 to wait, or an error of TLS. */
static int note_moved(struct client *c, ssize_t n, struct err *e)
{
	struct transmission *q = &c->query;
	/* A server that closes with our bytes unread resets: the same as an end. */
	bool ended = !n || n == -ECONNRESET || n == -EPIPE;

	if (n > 0)
		transmission_moved(q, (size_t)n);
	else if (n == -EAGAIN)
		return 1;
	else if (c->conn.encrypted && (!ended || !c->conn.answered))
		return tls_failure(c->conn.tls, e);
	else
		transmission_broken(q, ended ? 0 : (int)-n);
	return 0;
}

/* Waits until the connection is ready: 0, 1 at the deadline, or an error. */
static int wait_ready(struct client *c, bool sending, long long deadline, int cancel_fd,
		      struct err *e)
{
	struct pollfd p[] = {
		{ .fd = c->conn.fd, .events = handshake_wants(&c->conn, sending) },
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
	return want == TRANSMISSION_EXTENT || want == TRANSMISSION_REPLY;
}

int client_next(struct client *c, long long deadline, int cancel_fd, struct transmission_buf *buf,
		struct err *e)
{
	struct transmission *q = &c->query;
	enum transmission_want want;
	int ret;

	want = transmission_want(q, buf);
	if (is_event(want)) {
		transmission_moved(q, 0);
		want = transmission_want(q, buf);
	}
	while (want == TRANSMISSION_READ || want == TRANSMISSION_WRITE) {
		ret = note_moved(c,
				 want == TRANSMISSION_READ ?
					 handshake_recv(&c->conn, buf->in, buf->len) :
					 handshake_send(&c->conn, buf->out, buf->len),
				 e);
		/* The deadline counts also after progress: a server may send byte by byte. */
		if (ret > 0)
			ret = wait_ready(c, want == TRANSMISSION_WRITE, deadline, cancel_fd, e);
		else if (!ret)
			ret = monotonic_ms() >= deadline;
		if (ret > 0)
			transmission_timed_out(q);
		else if (ret)
			return connections_explain(c->settings, 0, &c->link, e);
		want = transmission_want(q, buf);
	}
	if (want == TRANSMISSION_DONE || want == TRANSMISSION_FAILED)
		mark_ended(c);
	if (want != TRANSMISSION_FAILED)
		return (int)want;
	*e = *transmission_failure(q);
	return connections_explain(c->settings, 0, &c->link, e);
}

void client_close(struct client *c)
{
	if (!c)
		return;
	handshake_hang_up(&c->conn);
	handshake_end(&c->conn);
	connections_close(&c->link, false);
	connect_free(c->connector);
	free(c);
}
