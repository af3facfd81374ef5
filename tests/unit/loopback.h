/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#ifndef LOOPBACK_H
#define LOOPBACK_H

/*
 * Addresses of this machine that answer, refuse or drop, each on a port of the kernel's choice,
 * and Unix sockets where the test wants them. A failing call fails the test.
 */

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <check.h>

#include "net/resolve.h"

struct loopback {
	int fd;
	union resolve_address address;
	char text[64]; /* as transport_peer_name writes it */
	char port[6];
};

enum { LOOPBACK_REFUSE = -1 }; /* as backlog: the port is taken, but nobody listens */

/* False where the machine has no address of the family on lo. */
static inline bool loopback_try(struct loopback *l, sa_family_t family, int backlog)
{
	socklen_t len;

	memset(l, 0, sizeof(*l));
	l->address.sa.sa_family = family;
	if (family == AF_INET6)
		l->address.v6.sin6_addr = in6addr_loopback;
	else
		l->address.v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	len = resolve_length(&l->address);
	l->fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (l->fd < 0)
		return false;
	if (bind(l->fd, &l->address.sa, len)) {
		close(l->fd);
		return false;
	}
	ck_assert_int_eq(getsockname(l->fd, &l->address.sa, &len), 0);
	if (backlog != LOOPBACK_REFUSE)
		ck_assert_int_eq(listen(l->fd, backlog), 0);
	/* port and address share their offset in both families' structures */
	snprintf(l->port, sizeof(l->port), "%u", ntohs(l->address.v4.sin_port));
	snprintf(l->text, sizeof(l->text), family == AF_INET6 ? "[::1]:%s" : "127.0.0.1:%s",
		 l->port);
	return true;
}

static inline void loopback_open(struct loopback *l, int backlog)
{
	ck_assert_msg(loopback_try(l, AF_INET, backlog), "no 127.0.0.1: %s", strerror(errno));
}

/*
 * Clients until the queue of a socket with a small backlog is full and the kernel drops what else
 * comes (tcp_conn_request). They are in held, returned is their number.
 */
static inline unsigned loopback_fill(const struct loopback *l, int *held, unsigned cap)
{
	for (unsigned n = 0; n < cap; n++) {
		struct pollfd p = { .events = POLLOUT };

		held[n] = socket(l->address.sa.sa_family,
				 SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		ck_assert_int_ge(held[n], 0);
		if (connect(held[n], &l->address.sa, resolve_length(&l->address)))
			ck_assert_int_eq(errno, EINPROGRESS);
		p.fd = held[n];
		if (poll(&p, 1, 200) == 0)
			return n + 1;
	}
	ck_abort_msg("%u clients do not fill the queue", cap);
	return 0;
}

static inline void loopback_drop(const int *held, unsigned n)
{
	while (n)
		close(held[--n]);
}

static inline int loopback_unix(const char *path, int backlog)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	ck_assert_int_ge(fd, 0);
	ck_assert_uint_lt(strlen(path), sizeof(a.sun_path));
	memcpy(a.sun_path, path, strlen(path));
	ck_assert_msg(!bind(fd, (struct sockaddr *)&a, sizeof(a)), "bind %s: %s", path,
		      strerror(errno));
	ck_assert_int_eq(listen(fd, backlog), 0);
	return fd;
}

#endif
