/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "link.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "resolve.h"
#include "stream.h"
#include "task.h"
#include "text.h"

/* The deadline of one link_open and what else ends it. */
struct limit {
	unsigned timeout_ms;
	long long deadline;
	int cancel_fd;
};

int link_set_command(struct link_request *rq, char *const argv[], struct err *e)
{
	size_t used = 0;

	rq->command_args = 0;
	for (; argv[rq->command_args]; rq->command_args++) {
		size_t len = strlen(argv[rq->command_args]) + 1;

		if (len > sizeof(rq->command) - used || rq->command_args == LINK_ARGS_MAX)
			return err_set(e, ERR_USAGE, E2BIG,
				       "the command is longer than %d bytes or %d arguments",
				       LINK_COMMAND_MAX, LINK_ARGS_MAX);
		memcpy(rq->command + used, argv[rq->command_args], len);
		used += len;
	}
	return 0;
}

void link_endpoint(const struct link_request *rq, char *buf, size_t cap)
{
	if (rq->command_args)
		text_escape(buf, cap, rq->command, strlen(rq->command));
	else
		uri_endpoint(&rq->where, buf, cap);
}

/*
 * Waits for one of n descriptors (p has room for n + 1), at most timeout_ms (-1: no limit of its
 * own). Returns 0, -ETIMEDOUT when the deadline is over, -ECANCELED.
 */
static int wait_for(const struct limit *l, struct pollfd *p, unsigned n, int timeout_ms)
{
	long long left = l->deadline - task_now_ms();
	int ret;

	if (left <= 0)
		return -ETIMEDOUT;
	if (timeout_ms < 0 || timeout_ms > left)
		timeout_ms = (int)left;
	p[n] = (struct pollfd){ .fd = l->cancel_fd, .events = POLLIN };
	ret = poll(p, n + 1, timeout_ms);
	if (ret < 0 && errno != EINTR)
		return -errno;
	return ret > 0 && p[n].revents ? -ECANCELED : 0;
}

static int gave_up(const struct limit *l, int code, const char *doing, struct err *e)
{
	if (code == -ETIMEDOUT)
		return err_set(e, ERR_UNREACHABLE, ETIMEDOUT, "%s: not done within %.3g s",
			       doing, l->timeout_ms / 1e3);
	return err_sys(e, ERR_FAILED, -code, "%s", doing);
}

static int resolve(const struct uri *u, const struct limit *l, struct resolve_result *r,
		   struct err *e)
{
	struct resolve_query q;
	struct pollfd p[2];
	struct task t;
	int ret;

	memset(&q, 0, sizeof(q));
	memcpy(q.host, u->host, sizeof(q.host));
	memcpy(q.port, u->port, sizeof(q.port));
	ret = resolve_start(&t, &q, e);
	if (ret)
		return ret;
	do {
		p[0] = (struct pollfd){ .fd = t.fd, .events = POLLIN };
		ret = wait_for(l, p, 1, -1);
	} while (!ret && !p[0].revents);
	if (ret) {
		task_abandon(&t);
		return gave_up(l, ret, "look up its addresses", e);
	}
	return resolve_finish(&t, &q, r, e);
}

static int dial(const struct uri *u, const struct limit *l, struct err *e)
{
	struct pollfd p[RESOLVE_MAX + 1];
	struct resolve_result r;
	struct stream_dial d;
	int ret, timeout_ms;
	unsigned n;

	ret = resolve(u, l, &r, e);
	if (ret)
		return ret;
	stream_dial_init(&d, &r);
	for (;;) {
		long long now = task_now_ms();

		ret = stream_dial_step(&d, now, e);
		if (ret != -EAGAIN)
			return ret;
		n = stream_dial_poll(&d, now, p, RESOLVE_MAX, &timeout_ms);
		ret = wait_for(l, p, n, timeout_ms);
		if (ret) {
			stream_dial_cancel(&d);
			return gave_up(l, ret, "connect", e);
		}
	}
}

static int command(const struct link_request *rq, struct link_result *rs, struct err *e)
{
	char copy[LINK_COMMAND_MAX];
	char *argv[LINK_ARGS_MAX + 1];
	char *arg = copy;

	/* execvp wants writable strings */
	memcpy(copy, rq->command, sizeof(copy));
	for (unsigned i = 0; i < rq->command_args; i++) {
		argv[i] = arg;
		arg += strlen(arg) + 1;
	}
	argv[rq->command_args] = NULL;
	return stream_command(argv, &rs->command, &rs->command_log, e);
}

/* Bytes between neg and the descriptor until neg is done or has failed. */
static int handshake(int fd, const struct limit *l, struct neg *n,
		     void (*item)(void *ctx, const struct neg_item *item), void *ctx,
		     struct err *e)
{
	struct neg_buf buf;
	struct pollfd p[2];
	ssize_t moved;
	int ret;

	for (;;) {
		enum neg_want want = neg_want(n, &buf);

		switch (want) {
		case NEG_WRITE:
			moved = send(fd, buf.out, buf.len, MSG_NOSIGNAL);
			break;
		case NEG_READ:
			moved = recv(fd, buf.in, buf.len, 0);
			break;
		case NEG_ITEM:
			if (item)
				item(ctx, neg_item(n));
			neg_moved(n, 0);
			continue;
		case NEG_DONE:
			return 0;
		default:
			*e = *neg_failure(n);
			return -e->code;
		}
		if (moved > 0) {
			neg_moved(n, (size_t)moved);
		} else if (!moved) {
			neg_broken(n, 0);
			continue;
		} else if (errno != EAGAIN && errno != EINTR) {
			/* A server that closes with our bytes unread resets: the same as an end */
			neg_broken(n, errno == ECONNRESET || errno == EPIPE ? 0 : errno);
			continue;
		}
		/* Also after progress, or a stream of single bytes would never see the deadline. */
		p[0] = (struct pollfd){ .fd = fd, .events = want == NEG_WRITE ? POLLOUT : POLLIN };
		ret = wait_for(l, p, moved > 0 ? 0 : 1, moved > 0 ? 0 : -1);
		if (ret == -ETIMEDOUT)
			neg_timed_out(n);
		else if (ret)
			return gave_up(l, ret, "handshake", e);
	}
}

/* The last words of a command that failed are the best explanation there is. */
static void quote_log(struct link_result *rs, struct err *e)
{
	char raw[400], shown[400];
	size_t len = 0;
	ssize_t n;
	struct pollfd p = { .fd = rs->command_log, .events = POLLIN };
	const long long end = task_now_ms() + 200;

	while (len < sizeof(raw)) {
		long long left = end - task_now_ms();

		if (poll(&p, 1, left > 0 ? (int)left : 0) <= 0)
			break;
		n = read(rs->command_log, raw + len, sizeof(raw) - len);
		if (n <= 0)
			break;
		len += (size_t)n;
	}
	while (len && (raw[len - 1] == '\n' || raw[len - 1] == ' '))
		len--;
	if (!len)
		return;
	text_escape(shown, sizeof(shown), raw, len);
	len = strlen(e->text);
	snprintf(e->text + len, sizeof(e->text) - len, "; the command says: \"%s\"", shown);
}

static void send_disc(int fd)
{
	uint8_t request[WIRE_REQUEST_SIZE];
	struct bytes_writer w;

	bytes_write_init(&w, request, sizeof(request));
	wire_put_request(&w, 0, NBD_CMD_DISC, 0, 0, 0);
	/* A courtesy ("Terminating the transmission phase"): a server that is gone needs none. */
	if (send(fd, request, sizeof(request), MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		return;
}

static void hang_up(struct link_result *rs, bool transmission)
{
	if (rs->fd < 0)
		return;
	if (transmission)
		send_disc(rs->fd);
	/* Not a plain close: bytes of the server still unread would make that a reset. */
	shutdown(rs->fd, SHUT_WR);
	close(rs->fd);
	rs->fd = -1;
}

/* Its socket is closed: it has a moment to leave by itself, then is told to, then made to. */
static void end_command(struct link_result *rs)
{
	static const int signals[] = { 0, SIGTERM, SIGKILL };

	for (size_t s = 0; rs->command > 0 && s < sizeof(signals) / sizeof(signals[0]); s++) {
		kill(rs->command, signals[s]);
		for (int i = 0; i < 100; i++) {
			if (waitpid(rs->command, NULL, WNOHANG)) {
				rs->command = 0;
				break;
			}
			poll(NULL, 0, 20);
		}
	}
	if (rs->command_log >= 0)
		close(rs->command_log);
	rs->command_log = -1;
}

void link_close(struct link_result *rs, bool kernel_has_it)
{
	if (kernel_has_it) {
		if (rs->fd >= 0)
			close(rs->fd);
		rs->fd = -1;
		return;
	}
	hang_up(rs, true);
	end_command(rs);
}

int link_open(const struct link_request *rq, int cancel_fd,
	      void (*item)(void *ctx, const struct neg_item *item), void *ctx,
	      struct link_result *rs, struct err *e)
{
	struct limit l = {
		.timeout_ms = rq->timeout_ms,
		.deadline = task_now_ms() + rq->timeout_ms,
		.cancel_fd = cancel_fd,
	};
	struct neg_params params = { .goal = rq->goal };
	char endpoint[512];
	struct neg *n = NULL;
	int ret;

	memset(rs, 0, sizeof(*rs));
	rs->fd = -1;
	rs->command_log = -1;
	link_endpoint(rq, endpoint, sizeof(endpoint));
	if (!rq->command_args && rq->where.tls)
		return err_set(e, ERR_TLS, EPROTONOSUPPORT,
			       "%s: TLS is asked for, which this version does not have yet; use an "
			       "nbd:// address where plain text is acceptable", endpoint);
	if (rq->command_args)
		ret = command(rq, rs, e);
	else if (rq->where.transport == URI_UNIX)
		ret = stream_unix(rq->where.path, e);
	else
		ret = dial(&rq->where, &l, e);
	if (ret < 0)
		goto out;
	rs->fd = ret;
	stream_peer(rs->fd, rs->peer, sizeof(rs->peer));

	n = malloc(sizeof(*n));
	if (!n) {
		ret = err_sys(e, ERR_FAILED, ENOMEM, "handshake");
		goto out;
	}
	memcpy(params.export, rq->where.export, sizeof(params.export));
	neg_init(n, &params);
	ret = handshake(rs->fd, &l, n, item, ctx, e);
	if (ret)
		goto out;
	rs->export = *neg_export(n);
	if (rq->goal != NEG_GOAL_GO)
		hang_up(rs, neg_in_transmission(n));
	else
		fcntl(rs->fd, F_SETFL, 0);
out:
	free(n);
	if (ret) {
		if (rs->command)
			quote_log(rs, e);
		hang_up(rs, false);
		err_wrap(e, "%s", endpoint);
	}
	if (ret || rq->goal != NEG_GOAL_GO)
		end_command(rs);
	return ret;
}
