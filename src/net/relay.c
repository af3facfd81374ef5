/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "net/relay.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

enum {
	/* Many requests at a time: the number of calls counts, not of bytes. */
	PLAIN_SIZE = 256 * 1024,
	/* Room for as much again in records under way, and their headers. */
	SOCKET_BUFFER = 4 * 1024 * 1024,
	FAREWELL_MS = 5000,
};

struct relay {
	struct tls *t;
	int net, local;
	bool net_ended, local_ended;
	size_t down_off, down_len; /* decrypted, not yet written to local */
	uint8_t down[PLAIN_SIZE];
	uint8_t up[PLAIN_SIZE];
};

static bool is_retry(void)
{
	return errno == EAGAIN || errno == EINTR;
}

/* Decrypts what has arrived, as far as there is room; true when there was too little. */
static bool read_net(struct relay *r)
{
	ssize_t n;

	if (r->down_off) {
		memmove(r->down, r->down + r->down_off, r->down_len);
		r->down_off = 0;
	}
	while (r->down_len < sizeof(r->down)) {
		n = tls_recv(r->t, r->down + r->down_len, sizeof(r->down) - r->down_len);
		if (n == -EAGAIN)
			return false;
		if (n <= 0) {
			r->net_ended = true;
			return false;
		}
		r->down_len += (size_t)n;
	}
	return true;
}

static void write_local(struct relay *r)
{
	ssize_t n = send(r->local, r->down + r->down_off, r->down_len, MSG_NOSIGNAL | MSG_DONTWAIT);

	if (n > 0) {
		r->down_off += (size_t)n;
		r->down_len -= (size_t)n;
	} else if (n < 0 && !is_retry()) {
		r->local_ended = true;
		r->down_len = 0;
	}
}

static void read_local(struct relay *r)
{
	ssize_t n = recv(r->local, r->up, sizeof(r->up), MSG_DONTWAIT);
	size_t done = 0;

	if (n < 0 && is_retry())
		return;
	if (n <= 0) {
		r->local_ended = true;
		return;
	}
	while (done < (size_t)n) {
		ssize_t sent = tls_send(r->t, r->up + done, (size_t)n - done);

		/* There is room for all of it, see tls_detach_io. */
		if (sent <= 0) {
			r->net_ended = true;
			return;
		}
		done += (size_t)sent;
	}
}

/* Waits until one of the ends can go on. */
static void wait_for_ends(const struct relay *r, struct pollfd p[2])
{
	/* Without the plain end the server may still take what is left, but not for ever. */
	int timeout_ms = r->local_ended ? FAREWELL_MS : -1;

	p[0] = (struct pollfd){ .fd = r->net };
	p[1] = (struct pollfd){ .fd = r->local };
	if (!r->net_ended && r->down_len < sizeof(r->down))
		p[0].events |= POLLIN;
	if (tls_unsent(r->t))
		p[0].events |= POLLOUT;
	if (!r->local_ended && tls_room(r->t) >= PLAIN_SIZE)
		p[1].events |= POLLIN;
	if (r->down_len)
		p[1].events |= POLLOUT;
	/* An end that is not polled for anything would report a hang-up at once and for ever. */
	for (int i = 0; i < 2; i++)
		if (!p[i].events)
			p[i].fd = -1;
	while (poll(p, 2, timeout_ms) < 0 && errno == EINTR)
		;
}

/*
 * After a lot of data the server may have no room for the goodbye yet. Without one the end would
 * look like a cut.
 */
static void send_close_notify(struct relay *r)
{
	struct pollfd p = { .fd = r->net, .events = POLLOUT };

	tls_bye(r->t);
	while (!tls_flush(r->t, r->net) && tls_unsent(r->t))
		if (poll(&p, 1, FAREWELL_MS) <= 0)
			break;
}

/* The work of a relay process, until an end; closes both descriptors, which are non-blocking. */
static void relay_tls(struct tls *t, int net, int local)
{
	struct relay *r = calloc(1, sizeof(*r));
	struct pollfd p[2];
	bool full;

	if (!r || tls_detach_io(t, PLAIN_SIZE))
		goto out;
	r->t = t;
	r->net = net;
	r->local = local;
	for (;;) {
		do {
			full = read_net(r);
			if (r->down_len)
				write_local(r);
			/* What is decrypted or buffered already wakes no poll(). */
		} while (full && r->down_len < sizeof(r->down));
		if (tls_unsent(t) && tls_flush(t, net) < 0)
			break;
		if (r->net_ended ? !r->down_len : r->local_ended && !tls_unsent(t))
			break;
		wait_for_ends(r, p);
		if (r->local_ended && !p[0].revents)
			break;
		if (p[0].revents & (POLLIN | POLLHUP | POLLERR) && tls_fill(t, net) < 0)
			r->net_ended = true;
		if (p[1].revents & (POLLIN | POLLHUP | POLLERR) && tls_room(t) >= PLAIN_SIZE)
			read_local(r);
	}
	if (r->local_ended && !r->net_ended)
		send_close_notify(r);
out:
	free(r);
	close(local);
	close(net);
}

/* One direction, without TLS. */
struct pipe {
	int from, to;
	bool ended; /* from has ended */
	size_t off, len;
	uint8_t data[PLAIN_SIZE];
};

/* Moves what can be moved at once; false when the other side is gone. */
static bool forward(struct pipe *p)
{
	ssize_t n;

	if (!p->len && !p->ended) {
		n = recv(p->from, p->data, sizeof(p->data), MSG_DONTWAIT);
		p->off = 0;
		p->len = n > 0 ? (size_t)n : 0;
		p->ended = n == 0 || (n < 0 && !is_retry());
	}
	if (!p->len)
		return true;
	n = send(p->to, p->data + p->off, p->len, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n < 0)
		return is_retry();
	p->off += (size_t)n;
	p->len -= (size_t)n;
	return true;
}

static void relay_plain(int net, int local)
{
	struct pipe *up = calloc(1, sizeof(*up)), *down = calloc(1, sizeof(*down));
	struct pollfd p[2];
	int timeout_ms;

	if (!up || !down)
		goto out;
	up->from = down->to = local;
	up->to = down->from = net;
	/* The end of either side is the end of both, after all that came from it. */
	while (!(up->ended && !up->len) && !(down->ended && !down->len)) {
		p[0] = (struct pollfd){ .fd = net };
		p[1] = (struct pollfd){ .fd = local };
		p[0].events |= up->len ? POLLOUT : 0;
		p[1].events |= up->len || up->ended ? 0 : POLLIN;
		p[1].events |= down->len ? POLLOUT : 0;
		p[0].events |= down->len || down->ended ? 0 : POLLIN;
		for (int i = 0; i < 2; i++)
			if (!p[i].events)
				p[i].fd = -1;
		timeout_ms = up->ended ? FAREWELL_MS : -1;
		if (!poll(p, 2, timeout_ms))
			break;
		if (!forward(up) || !forward(down))
			break;
	}
out:
	free(up);
	free(down);
	close(local);
	close(net);
}

static bool is_dev_null(int fd)
{
	struct stat st;

	/* Number in devices.txt of the kernel. */
	return !fstat(fd, &st) && S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 3);
}

/* A process that may open no files has /dev/null there already. */
static void redirect_standard_fds(void)
{
	int null;

	if (is_dev_null(0) && is_dev_null(1) && is_dev_null(2))
		return;
	null = open("/dev/null", O_RDWR);
	for (int fd = 0; fd <= 2; fd++)
		dup2(null, fd);
}

/* Keeps nothing but the two ends of the process that it comes from. */
_Noreturn static void relay_process(struct tls *t, int net, int local, bool locked)
{
	setsid();
	prctl(PR_SET_NAME, "nbd-relay");
	if (chdir("/"))
		_exit(1);
	redirect_standard_fds();
	/* First out of each other's way, then to the lowest numbers. */
	net = fcntl(net, F_DUPFD, 10);
	local = fcntl(local, F_DUPFD, 10);
	if (dup2(net, 3) < 0 || dup2(local, 4) < 0)
		_exit(1);
	close_range(5, ~0U, 0);
	/* Not inherited, mlockall(2). Where it is not permitted it is left out. */
	if (locked)
		mlockall(MCL_CURRENT | MCL_FUTURE);
	if (t)
		relay_tls(t, 3, 4);
	else
		relay_plain(3, 4);
	_exit(0);
}

int relay_start(struct tls *t, int fd, bool locked, struct err *e)
{
	int pair[2], code, size = SOCKET_BUFFER;
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		return err_sys(e, ERR_FAILED, errno, "relay: socket pair");
	for (int i = 0; i < 2; i++)
		/* Where it is not permitted the default size will do, more slowly. */
		setsockopt(pair[i], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size));
	pid = fork();
	if (pid < 0) {
		code = errno;
		close(pair[0]);
		close(pair[1]);
		return err_sys(e, ERR_FAILED, code, "relay: fork");
	}
	if (!pid) {
		fcntl(fd, F_SETFL, O_NONBLOCK);
		relay_process(t, fd, pair[1], locked);
	}
	close(pair[1]);
	return pair[0];
}
