/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "net/handshake.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Of one step, so that a server that never stops talking does not keep the others waiting. */
enum { MOVES_MAX = 256 };

int handshake_init(struct handshake *c, const struct neg_params *params, struct tls *tls,
		   struct err *e)
{
	memset(c, 0, sizeof(*c));
	c->fd = -1;
	c->tls = tls;
	c->neg = malloc(sizeof(*c->neg));
	if (!c->neg)
		return err_sys(e, ERR_FAILED, ENOMEM, "handshake");
	neg_init(c->neg, params);
	return 0;
}

static void fail(struct handshake *c, const struct err *e)
{
	c->err = *e;
	c->stage = HANDSHAKE_FAILED;
}

void handshake_dial(struct handshake *c, const struct resolve_result *addresses)
{
	dial_init(&c->dial, addresses);
	c->stage = HANDSHAKE_DIAL;
}

void handshake_use(struct handshake *c, int fd)
{
	c->fd = fd;
	c->stage = HANDSHAKE_HANDSHAKE;
}

ssize_t handshake_send(struct handshake *c, const void *buf, size_t len)
{
	ssize_t n;

	if (c->encrypted)
		return tls_send(c->tls, buf, len);
	do {
		n = send(c->fd, buf, len, MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

ssize_t handshake_recv(struct handshake *c, void *buf, size_t len)
{
	ssize_t n;

	if (c->encrypted) {
		n = tls_recv(c->tls, buf, len);
		c->answered |= n > 0;
		return n;
	}
	do {
		n = recv(c->fd, buf, len, 0);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

short handshake_wants(const struct handshake *c, bool sending)
{
	if (c->encrypted || c->stage == HANDSHAKE_TLS)
		sending = tls_wants_write(c->tls);
	return sending ? POLLOUT : POLLIN;
}

static void begin_tls(struct handshake *c)
{
	struct err e;
	char forged;

	c->stage = HANDSHAKE_TLS;
	/* The server speaks second in TLS: who speaks first here is somebody in between. */
	if (recv(c->fd, &forged, 1, MSG_PEEK | MSG_DONTWAIT) <= 0)
		return;
	err_set(&e, ERR_TLS, EPROTO,
		"there is plain text where the TLS handshake begins: the server is broken, "
		"or somebody interferes");
	fail(c, &e);
}

static void step_tls(struct handshake *c)
{
	struct err e;
	int ret = tls_handshake(c->tls, c->fd, &e);

	if (ret == -EAGAIN)
		return;
	if (ret) {
		fail(c, &e);
		return;
	}
	c->encrypted = true;
	c->stage = HANDSHAKE_HANDSHAKE;
	neg_moved(c->neg, 0);
}

/* The connection has ended (0) or broken (-errno) where more was expected. */
static void broken(struct handshake *c, ssize_t why)
{
	/* A server that closes with our bytes unread resets: the same as an end */
	bool ended = !why || why == -ECONNRESET || why == -EPIPE;
	struct neg_buf buf;
	struct err e;

	neg_broken(c->neg, ended ? 0 : (int)-why);
	/* What a server thinks of our certificate or key may come after the handshake only */
	if (c->encrypted && (!ended || !c->answered) && neg_want(c->neg, &buf) == NEG_FAILED) {
		tls_failure(c->tls, &e);
		fail(c, &e);
	}
}

/* One move of what neg wants; false when it has to wait. */
static bool step_neg(struct handshake *c, void (*item)(void *ctx, const struct neg_item *item),
		     void *ctx)
{
	struct neg_buf buf;
	ssize_t moved;

	switch (neg_want(c->neg, &buf)) {
	case NEG_WRITE:
		moved = handshake_send(c, buf.out, buf.len);
		break;
	case NEG_READ:
		moved = handshake_recv(c, buf.in, buf.len);
		break;
	case NEG_ITEM:
		if (item)
			item(ctx, neg_item(c->neg));
		neg_moved(c->neg, 0);
		/* Nobody knows how long that took: the caller may want to look at the clock. */
		c->hurried = true;
		return false;
	case NEG_TLS:
		begin_tls(c);
		return true;
	case NEG_DONE:
		c->stage = HANDSHAKE_DONE;
		return true;
	default:
		fail(c, neg_failure(c->neg));
		return true;
	}
	if (moved > 0)
		neg_moved(c->neg, (size_t)moved);
	else if (moved != -EAGAIN)
		broken(c, moved);
	return moved != -EAGAIN;
}

static void step_dial(struct handshake *c, long long now)
{
	struct err e;
	int fd = dial_step(&c->dial, now, &e);

	if (fd >= 0)
		handshake_use(c, fd);
	else if (fd != -EAGAIN)
		fail(c, &e);
}

bool handshake_step(struct handshake *c, long long now,
		    void (*item)(void *ctx, const struct neg_item *item), void *ctx)
{
	unsigned moves = 0;

	c->hurried = false;
	if (c->stage == HANDSHAKE_DIAL)
		step_dial(c, now);
	for (;;) {
		if (c->stage == HANDSHAKE_TLS)
			step_tls(c);
		if (c->stage != HANDSHAKE_HANDSHAKE)
			break;
		if (++moves > MOVES_MAX) {
			c->hurried = true;
			break;
		}
		if (!step_neg(c, item, ctx))
			break;
	}
	return c->stage == HANDSHAKE_DONE || c->stage == HANDSHAKE_FAILED;
}

unsigned handshake_poll(struct handshake *c, long long now, struct pollfd *p, int *timeout_ms)
{
	struct neg_buf buf;

	*timeout_ms = c->hurried ? 0 : -1;
	switch (c->stage) {
	case HANDSHAKE_DIAL:
		return dial_poll(&c->dial, now, p, HANDSHAKE_POLL_MAX, timeout_ms);
	case HANDSHAKE_TLS:
	case HANDSHAKE_HANDSHAKE:
		p[0] = (struct pollfd){
			.fd = c->fd,
			.events = handshake_wants(c, neg_want(c->neg, &buf) == NEG_WRITE),
		};
		return 1;
	default:
		return 0;
	}
}

void handshake_give_up(struct handshake *c, int code, unsigned timeout_ms)
{
	const char *doing = c->stage == HANDSHAKE_DIAL ? "connect" :
			    c->stage == HANDSHAKE_TLS  ? "TLS handshake" :
							 "handshake";
	struct neg_buf buf;
	struct err e;

	if (c->stage == HANDSHAKE_HANDSHAKE && code == ETIMEDOUT) {
		neg_timed_out(c->neg);
		/* Only the farewell may have been outstanding */
		if (neg_want(c->neg, &buf) == NEG_DONE)
			c->stage = HANDSHAKE_DONE;
		else
			fail(c, neg_failure(c->neg));
		return;
	}
	dial_cancel(&c->dial);
	if (code == ETIMEDOUT)
		err_set(&e, ERR_UNREACHABLE, ETIMEDOUT, "%s: not done within %.3g s", doing,
			timeout_ms / 1e3);
	else
		err_sys(&e, ERR_FAILED, code, "%s", doing);
	fail(c, &e);
}

bool handshake_is_committed(const struct handshake *c)
{
	return c->stage == HANDSHAKE_HANDSHAKE && neg_is_committed(c->neg);
}

int handshake_request(struct handshake *c, uint16_t command, uint64_t offset, uint32_t len)
{
	uint8_t request[WIRE_REQUEST_SIZE];
	struct bytes_writer w;
	ssize_t n;

	bytes_write_init(&w, request, sizeof(request));
	wire_put_request(&w, 0, command, 0, offset, len);
	c->got = 0;
	n = handshake_send(c, request, sizeof(request));
	return n == (ssize_t)sizeof(request) ? 0 : n < 0 ? (int)n : -EPIPE;
}

int handshake_reply(struct handshake *c, uint32_t *error)
{
	struct wire_simple_reply reply;
	struct bytes_reader r;
	ssize_t n;

	while (c->got < sizeof(c->reply)) {
		n = handshake_recv(c, c->reply + c->got, sizeof(c->reply) - c->got);
		if (n <= 0)
			return n ? (int)n : -ECONNRESET;
		c->got += (size_t)n;
	}
	bytes_read_init(&r, c->reply, sizeof(c->reply));
	wire_get_simple_reply(&r, &reply);
	*error = reply.error;
	return reply.magic == NBD_SIMPLE_REPLY_MAGIC && !reply.cookie ? 0 : -EPROTO;
}

static void close_all(struct handshake *c)
{
	dial_cancel(&c->dial);
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
	c->stage = HANDSHAKE_IDLE;
}

void handshake_hang_up(struct handshake *c)
{
	if (c->fd >= 0) {
		/*
		 * A courtesy ("Terminating the transmission phase"): a server that is gone needs none. Where
		 * NBD_OPT_ABORT was due neg has sent it.
		 */
		if (c->stage == HANDSHAKE_DONE && neg_in_transmission(c->neg))
			handshake_request(c, NBD_CMD_DISC, 0, 0);
		if (c->encrypted)
			tls_bye(c->tls);
		/* Not a plain close: bytes of the server still unread would make that a reset. */
		shutdown(c->fd, SHUT_WR);
	}
	close_all(c);
}

void handshake_end(struct handshake *c)
{
	if (!c->neg && !c->tls)
		return;
	close_all(c);
	free(c->neg);
	tls_free(c->tls);
	memset(c, 0, sizeof(*c));
	c->fd = -1;
}
