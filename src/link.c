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

#include "ktls.h"
#include "relay.h"
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
	if (resolve_numeric(&q, r))
		return 0;
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

/* A connection during the handshake: in plain text until tls is established. */
struct conn {
	int fd;
	struct tls *tls; /* NULL: none wanted */
	bool encrypted;
	bool answered;   /* something has come through it */
};

/* Both return what was moved, 0 for the end (conn_recv), or -errno. */
static ssize_t conn_send(struct conn *c, const void *buf, size_t len)
{
	ssize_t n;

	if (c->encrypted)
		return tls_send(c->tls, buf, len);
	n = send(c->fd, buf, len, MSG_NOSIGNAL);
	return n < 0 ? -errno : n;
}

static ssize_t conn_recv(struct conn *c, void *buf, size_t len)
{
	ssize_t n;

	if (c->encrypted) {
		n = tls_recv(c->tls, buf, len);
		c->answered |= n > 0;
		return n;
	}
	n = recv(c->fd, buf, len, 0);
	return n < 0 ? -errno : n;
}

static int encrypt(struct conn *c, const struct limit *l, struct err *e)
{
	struct pollfd p[2];
	char forged;
	int ret;

	/* The server speaks second in TLS: who speaks first here is somebody in between. */
	if (recv(c->fd, &forged, 1, MSG_PEEK | MSG_DONTWAIT) > 0)
		return err_set(e, ERR_TLS, EPROTO,
			       "there is plain text where the TLS handshake begins: the server is broken, "
			       "or somebody interferes");
	while ((ret = tls_handshake(c->tls, c->fd, e)) == -EAGAIN) {
		p[0] = (struct pollfd){
			.fd = c->fd, .events = tls_wants_write(c->tls) ? POLLOUT : POLLIN,
		};
		ret = wait_for(l, p, 1, -1);
		if (ret)
			return gave_up(l, ret, "TLS handshake", e);
	}
	c->encrypted = !ret;
	return ret;
}

/* Bytes between neg and the connection until neg is done or has failed. */
static int handshake(struct conn *c, const struct limit *l, struct neg *n,
		     void (*item)(void *ctx, const struct neg_item *item), void *ctx,
		     struct err *e)
{
	struct neg_buf buf;
	struct pollfd p[2];
	ssize_t moved;
	int ret;

	for (;;) {
		enum neg_want want = neg_want(n, &buf);
		bool out = want == NEG_WRITE;

		switch (want) {
		case NEG_WRITE:
			moved = conn_send(c, buf.out, buf.len);
			break;
		case NEG_READ:
			moved = conn_recv(c, buf.in, buf.len);
			break;
		case NEG_ITEM:
			if (item)
				item(ctx, neg_item(n));
			neg_moved(n, 0);
			continue;
		case NEG_TLS:
			ret = encrypt(c, l, e);
			if (ret)
				return ret;
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
		} else if (moved != -EAGAIN && moved != -EINTR) {
			/* A server that closes with our bytes unread resets: the same as an end */
			bool ended = !moved || moved == -ECONNRESET || moved == -EPIPE;

			neg_broken(n, ended ? 0 : (int)-moved);
			/* What a server thinks of our certificate or key may come after the handshake only */
			if (c->encrypted && (!ended || !c->answered) && neg_want(n, &buf) == NEG_FAILED)
				return tls_failure(c->tls, e);
			continue;
		} else if (c->encrypted) {
			out = tls_wants_write(c->tls);
		}
		/* Also after progress, or a stream of single bytes would never see the deadline. */
		p[0] = (struct pollfd){ .fd = c->fd, .events = out ? POLLOUT : POLLIN };
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

static void send_disc(struct conn *c)
{
	uint8_t request[WIRE_REQUEST_SIZE];
	struct bytes_writer w;

	bytes_write_init(&w, request, sizeof(request));
	wire_put_request(&w, 0, NBD_CMD_DISC, 0, 0, 0);
	fcntl(c->fd, F_SETFL, O_NONBLOCK);
	/* A courtesy ("Terminating the transmission phase"): a server that is gone needs none. */
	if (conn_send(c, request, sizeof(request)) < 0)
		return;
}

static void hang_up(struct conn *c, bool transmission)
{
	if (c->fd < 0)
		return;
	if (transmission)
		send_disc(c);
	if (c->encrypted)
		tls_bye(c->tls);
	/* Not a plain close: bytes of the server still unread would make that a reset. */
	shutdown(c->fd, SHUT_WR);
	close(c->fd);
	c->fd = -1;
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
	/* where it is encrypted the kernel does it by now */
	hang_up(&(struct conn){ .fd = rs->fd }, true);
	rs->fd = -1;
	end_command(rs);
}

/* Credentials are looked at before anybody is contacted. */
static int prepare_tls(const struct link_request *rq, struct conn *c, struct err *e)
{
	struct tls_params params;
	int ret;

	if (!rq->where.tls)
		return 0;
	params = rq->tls;
	if (!params.hostname[0] && !rq->command_args && rq->where.transport == URI_TCP)
		memcpy(params.hostname, rq->where.host, sizeof(params.hostname));
	ret = tls_new(&c->tls, &params, e);
	explicit_bzero(&params, sizeof(params));
	return ret;
}

/* The descriptor with the plain data: c's own, whose records are the kernel's now, or a relay's. */
static int offload(const struct link_request *rq, struct conn *c, bool *relayed, struct err *e)
{
	int ret = -EOPNOTSUPP;

	if (tls_pending(c->tls))
		return err_set(e, ERR_PROTOCOL, EPROTO,
			       "the server breaks the NBD protocol: it sends more after the handshake "
			       "than it was asked for");
	if (rq->offload != LINK_OFFLOAD_NO)
		ret = ktls_enable(c->fd, c->tls, e);
	if (!ret)
		return c->fd;
	if (ret != -EOPNOTSUPP || rq->offload == LINK_OFFLOAD_REQUIRE)
		return ret;
	ret = relay_start(c->tls, c->fd, e);
	if (ret >= 0) {
		*relayed = true;
		close(c->fd);
	}
	return ret;
}

/* From here on the descriptor is for somebody who knows nothing of TLS. */
static int hand_over(const struct link_request *rq, struct conn *c, struct link_result *rs,
		     struct err *e)
{
	int fd = c->fd;

	if (c->encrypted)
		fd = offload(rq, c, &rs->relayed, e);
	if (fd < 0)
		return fd;
	fcntl(fd, F_SETFL, 0);
	rs->fd = fd;
	c->encrypted = false;
	c->fd = -1;
	return 0;
}

static int connect_to(const struct link_request *rq, const struct limit *l,
		      struct link_result *rs, struct err *e)
{
	if (rq->command_args)
		return command(rq, rs, e);
	if (rq->where.transport == URI_UNIX)
		return stream_unix(rq->where.path, e);
	return dial(&rq->where, l, e);
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
	struct neg_params params = { .goal = rq->goal, .tls = rq->where.tls };
	struct conn c = { .fd = -1 };
	struct neg *n = NULL;
	char endpoint[512];
	int ret;

	memset(rs, 0, sizeof(*rs));
	rs->fd = -1;
	rs->command_log = -1;
	ret = prepare_tls(rq, &c, e);
	if (ret)
		goto out;
	ret = connect_to(rq, &l, rs, e);
	if (ret < 0)
		goto out;
	c.fd = ret;
	stream_peer(c.fd, rs->peer, sizeof(rs->peer));

	n = malloc(sizeof(*n));
	if (!n) {
		ret = err_sys(e, ERR_FAILED, ENOMEM, "handshake");
		goto out;
	}
	memcpy(params.export, rq->where.export, sizeof(params.export));
	neg_init(n, &params);
	ret = handshake(&c, &l, n, item, ctx, e);
	if (ret)
		goto out;
	rs->export = *neg_export(n);
	rs->encrypted = c.encrypted;
	if (c.encrypted)
		tls_describe(c.tls, &rs->tls);
	if (rq->goal == NEG_GOAL_GO)
		ret = hand_over(rq, &c, rs, e);
	else
		hang_up(&c, neg_in_transmission(n));
out:
	free(n);
	if (ret) {
		if (rs->command)
			quote_log(rs, e);
		hang_up(&c, false);
		link_endpoint(rq, endpoint, sizeof(endpoint));
		err_wrap(e, "%s", endpoint);
	}
	if (ret || rq->goal != NEG_GOAL_GO)
		end_command(rs);
	tls_free(c.tls);
	return ret;
}
