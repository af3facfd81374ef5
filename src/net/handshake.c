/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "net/handshake.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Limit for one step: a server that never stops talking must not keep the others waiting. */
enum { MOVES_MAX = 256 };

int handshake_init(struct handshake *h, const struct neg_params *params, struct tls *tls,
		   struct err *e)
{
	memset(h, 0, sizeof(*h));
	h->fd = -1;
	h->tls = tls;
	h->neg = malloc(sizeof(*h->neg));
	if (!h->neg)
		return err_sys(e, ERR_FAILED, ENOMEM, "handshake");
	neg_init(h->neg, params);
	return 0;
}

static void set_failed(struct handshake *h, const struct err *e)
{
	h->err = *e;
	h->stage = HANDSHAKE_FAILED;
}

void handshake_dial(struct handshake *h, const struct resolve_result *addresses)
{
	dial_init(&h->dial, addresses);
	h->stage = HANDSHAKE_DIAL;
}

void handshake_use(struct handshake *h, int fd)
{
	h->fd = fd;
	h->stage = HANDSHAKE_HANDSHAKE;
}

ssize_t handshake_send(struct handshake *h, const void *buf, size_t len)
{
	ssize_t n;

	if (h->encrypted)
		return tls_send(h->tls, buf, len);
	do {
		n = send(h->fd, buf, len, MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

ssize_t handshake_recv(struct handshake *h, void *buf, size_t len)
{
	ssize_t n;

	if (h->encrypted) {
		n = tls_recv(h->tls, buf, len);
		h->answered |= n > 0;
		return n;
	}
	do {
		n = recv(h->fd, buf, len, 0);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

short handshake_wants(const struct handshake *h, bool sending)
{
	if (h->encrypted || h->stage == HANDSHAKE_TLS)
		sending = tls_wants_write(h->tls);
	return sending ? POLLOUT : POLLIN;
}

static void start_tls(struct handshake *h)
{
	struct err e;
	char forged;

	h->stage = HANDSHAKE_TLS;
	/* The client speaks first in TLS: what is there now is from somebody in between. */
	if (recv(h->fd, &forged, 1, MSG_PEEK | MSG_DONTWAIT) <= 0)
		return;
	err_set(&e, ERR_TLS, EPROTO,
		"there is plain text where the TLS handshake begins: the server is broken, "
		"or somebody interferes");
	set_failed(h, &e);
}

static void step_tls(struct handshake *h)
{
	struct err e;
	int ret = tls_handshake(h->tls, h->fd, &e);

	if (ret == -EAGAIN)
		return;
	if (ret) {
		set_failed(h, &e);
		return;
	}
	h->encrypted = true;
	h->stage = HANDSHAKE_HANDSHAKE;
	neg_moved(h->neg, 0);
}

/* Tells neg that the connection has ended (0) or broken (-errno) where more was expected. */
static void note_end(struct handshake *h, ssize_t why)
{
	/* A server that closes with our bytes unread resets: the same as an end. */
	bool ended = !why || why == -ECONNRESET || why == -EPIPE;
	struct neg_buf buf;
	struct err e;

	neg_broken(h->neg, ended ? 0 : (int)-why);
	/* A server may judge our certificate or key only after the handshake of TLS. */
	if (h->encrypted && (!ended || !h->answered) && neg_want(h->neg, &buf) == NEG_FAILED) {
		tls_failure(h->tls, &e);
		set_failed(h, &e);
	}
}

/* Does one thing that neg wants; false when it has to wait. */
static bool step_neg(struct handshake *h, void (*item)(void *ctx, const struct neg_item *item),
		     void *ctx)
{
	struct neg_buf buf;
	ssize_t moved;

	switch (neg_want(h->neg, &buf)) {
	case NEG_WRITE:
		moved = handshake_send(h, buf.out, buf.len);
		break;
	case NEG_READ:
		moved = handshake_recv(h, buf.in, buf.len);
		break;
	case NEG_ITEM:
		if (item)
			item(ctx, neg_item(h->neg));
		neg_moved(h->neg, 0);
		/* item may have taken long: the caller may want to look at the clock. */
		h->hurried = true;
		return false;
	case NEG_TLS:
		start_tls(h);
		return true;
	case NEG_DONE:
		h->stage = HANDSHAKE_DONE;
		return true;
	default:
		set_failed(h, neg_failure(h->neg));
		return true;
	}
	if (moved > 0)
		neg_moved(h->neg, (size_t)moved);
	else if (moved != -EAGAIN)
		note_end(h, moved);
	return moved != -EAGAIN;
}

static void step_dial(struct handshake *h, long long now)
{
	struct err e;
	int fd = dial_step(&h->dial, now, &e);

	if (fd >= 0)
		handshake_use(h, fd);
	else if (fd != -EAGAIN)
		set_failed(h, &e);
}

bool handshake_step(struct handshake *h, long long now,
		    void (*item)(void *ctx, const struct neg_item *item), void *ctx)
{
	unsigned moves = 0;

	h->hurried = false;
	if (h->stage == HANDSHAKE_DIAL)
		step_dial(h, now);
	for (;;) {
		if (h->stage == HANDSHAKE_TLS)
			step_tls(h);
		if (h->stage != HANDSHAKE_HANDSHAKE)
			break;
		if (++moves > MOVES_MAX) {
			h->hurried = true;
			break;
		}
		if (!step_neg(h, item, ctx))
			break;
	}
	return h->stage == HANDSHAKE_DONE || h->stage == HANDSHAKE_FAILED;
}

unsigned handshake_poll(struct handshake *h, long long now, struct pollfd *p, int *timeout_ms)
{
	struct neg_buf buf;

	*timeout_ms = h->hurried ? 0 : -1;
	switch (h->stage) {
	case HANDSHAKE_DIAL:
		return dial_poll(&h->dial, now, p, HANDSHAKE_POLL_MAX, timeout_ms);
	case HANDSHAKE_TLS:
	case HANDSHAKE_HANDSHAKE:
		p[0] = (struct pollfd){
			.fd = h->fd,
			.events = handshake_wants(h, neg_want(h->neg, &buf) == NEG_WRITE),
		};
		return 1;
	default:
		return 0;
	}
}

void handshake_give_up(struct handshake *h, int code, unsigned timeout_ms)
{
	const char *doing = h->stage == HANDSHAKE_DIAL ? "connect" :
			    h->stage == HANDSHAKE_TLS  ? "TLS handshake" :
							 "handshake";
	struct neg_buf buf;
	struct err e;

	if (h->stage == HANDSHAKE_HANDSHAKE && code == ETIMEDOUT) {
		neg_timed_out(h->neg);
		/* Only the farewell may have been outstanding. */
		if (neg_want(h->neg, &buf) == NEG_DONE)
			h->stage = HANDSHAKE_DONE;
		else
			set_failed(h, neg_failure(h->neg));
		return;
	}
	dial_cancel(&h->dial);
	if (code == ETIMEDOUT)
		err_set(&e, ERR_UNREACHABLE, ETIMEDOUT, "%s: not done within %.3g s", doing,
			timeout_ms / 1e3);
	else
		err_sys(&e, ERR_FAILED, code, "%s", doing);
	set_failed(h, &e);
}

bool handshake_is_committed(const struct handshake *h)
{
	return h->stage == HANDSHAKE_HANDSHAKE && neg_is_committed(h->neg);
}

int handshake_request(struct handshake *h, uint16_t command, uint64_t offset, uint32_t len)
{
	uint8_t request[WIRE_REQUEST_SIZE];
	struct bytes_writer w;
	ssize_t n;

	bytes_write_init(&w, request, sizeof(request));
	wire_put_request(&w, 0, command, 0, offset, len);
	h->got = 0;
	n = handshake_send(h, request, sizeof(request));
	return n == (ssize_t)sizeof(request) ? 0 : n < 0 ? (int)n : -EPIPE;
}

int handshake_reply(struct handshake *h, uint32_t *error)
{
	struct wire_simple_reply reply;
	struct bytes_reader r;
	ssize_t n;

	while (h->got < sizeof(h->reply)) {
		n = handshake_recv(h, h->reply + h->got, sizeof(h->reply) - h->got);
		if (n <= 0)
			return n ? (int)n : -ECONNRESET;
		h->got += (size_t)n;
	}
	bytes_read_init(&r, h->reply, sizeof(h->reply));
	wire_get_simple_reply(&r, &reply);
	*error = reply.error;
	return reply.magic == NBD_SIMPLE_REPLY_MAGIC && !reply.cookie ? 0 : -EPROTO;
}

static void close_descriptors(struct handshake *h)
{
	dial_cancel(&h->dial);
	if (h->fd >= 0)
		close(h->fd);
	h->fd = -1;
	h->stage = HANDSHAKE_IDLE;
}

void handshake_hang_up(struct handshake *h)
{
	if (h->fd >= 0) {
		/*
		 * A courtesy ("Terminating the transmission phase"), which a server that is gone
		 * does not need. Where NBD_OPT_ABORT was due neg has sent it.
		 */
		if (h->stage == HANDSHAKE_DONE && neg_in_transmission(h->neg))
			handshake_request(h, NBD_CMD_DISC, 0, 0);
		if (h->encrypted)
			tls_bye(h->tls);
		/* A plain close with unread bytes of the server would be a reset. */
		shutdown(h->fd, SHUT_WR);
	}
	close_descriptors(h);
}

void handshake_end(struct handshake *h)
{
	if (!h->neg && !h->tls)
		return;
	close_descriptors(h);
	free(h->neg);
	tls_free(h->tls);
	memset(h, 0, sizeof(*h));
	h->fd = -1;
}
