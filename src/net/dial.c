/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "net/dial.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/transport.h"

void dial_init(struct dial *d, const struct resolve_result *r)
{
	memset(d, 0, sizeof(*d));
	d->addresses = *r;
	for (unsigned i = 0; i < RESOLVE_MAX; i++)
		d->fd[i] = -1;
}

static void fail_address(struct dial *d, unsigned i, int code)
{
	const union resolve_address *a = &d->addresses.address[i];
	const struct transport *t = transport_of_family(a->sa.sa_family);
	char address[TRANSPORT_TEXT_MAX];

	t->describe(a, address, sizeof(address));
	/* No proof that the server is gone, as ECONNREFUSED is: it may only be stopped. */
	if (code == EAGAIN && t->busy_by_eagain)
		err_set(&d->last, ERR_UNREACHABLE, code = EHOSTUNREACH, "connect to %s: %s",
			address, t->busy_by_eagain);
	else
		err_sys(&d->last, ERR_UNREACHABLE, code, "connect to %s", address);
	d->unknown |= code != ECONNREFUSED;
	if (d->fd[i] >= 0) {
		close(d->fd[i]);
		d->fd[i] = -1;
		d->open--;
	}
	/* RFC 8305 section 5: after a failure the next one begins at once. */
	d->next_ms = 0;
}

static void start_address(struct dial *d, long long now)
{
	unsigned i = d->next++;
	const union resolve_address *a = &d->addresses.address[i];
	int fd, one = 1;

	d->next_ms = now + DIAL_STAGGER_MS;
	fd = socket(a->sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0) {
		fail_address(d, i, errno);
		return;
	}
	d->fd[i] = fd;
	d->open++;
	/* A request of 28 bytes must not wait for the answer to the one before it (TCP only). */
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (connect(fd, &a->sa, resolve_length(a)) && errno != EINPROGRESS)
		fail_address(d, i, errno);
}

/* Whether attempt i is connected; a failed one is closed. */
static bool is_connected(struct dial *d, unsigned i)
{
	struct pollfd p = { .fd = d->fd[i], .events = POLLOUT };
	int code = 0;
	socklen_t len = sizeof(code);

	if (d->fd[i] < 0 || poll(&p, 1, 0) <= 0)
		return false;
	if (getsockopt(d->fd[i], SOL_SOCKET, SO_ERROR, &code, &len))
		code = errno;
	if (code) {
		fail_address(d, i, code);
		return false;
	}
	return true;
}

int dial_step(struct dial *d, long long now, struct err *e)
{
	int fd;

	for (;;) {
		for (unsigned i = 0; i < d->next; i++) {
			if (!is_connected(d, i))
				continue;
			fd = d->fd[i];
			d->fd[i] = -1;
			d->open--;
			d->winner = i;
			dial_cancel(d);
			return fd;
		}
		if (d->next == d->addresses.count || (d->open && now < d->next_ms))
			break;
		start_address(d, now);
	}
	if (d->open)
		return -EAGAIN;
	*e = d->last;
	/* The caller must not take a failure for "not yet". */
	if ((d->unknown && e->code == ECONNREFUSED) || e->code == EAGAIN)
		e->code = EHOSTUNREACH;
	if (d->addresses.count > 1)
		err_wrap(e, "none of %u addresses answers; the last", d->addresses.count);
	return -e->code;
}

unsigned dial_poll(const struct dial *d, long long now, struct pollfd *p, unsigned cap,
		   int *timeout_ms)
{
	unsigned n = 0;

	for (unsigned i = 0; i < d->next && n < cap; i++)
		if (d->fd[i] >= 0)
			p[n++] = (struct pollfd){ .fd = d->fd[i], .events = POLLOUT };
	*timeout_ms = -1;
	if (d->next < d->addresses.count)
		*timeout_ms = d->next_ms > now ? (int)(d->next_ms - now) : 0;
	return n;
}

void dial_cancel(struct dial *d)
{
	for (unsigned i = 0; i < d->next; i++) {
		if (d->fd[i] >= 0)
			close(d->fd[i]);
		d->fd[i] = -1;
	}
	d->open = 0;
}

int dial_unix(const char *path, struct err *e)
{
	struct resolve_result r = { .count = 1 };
	struct dial d;
	int ret = transport_unix_address(path, &r.address[0], e);

	if (ret)
		return ret;
	dial_init(&d, &r);
	return dial_step(&d, 0, e);
}
