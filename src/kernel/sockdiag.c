/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "kernel/sockdiag.h"

#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct request {
	struct nlmsghdr header;
	struct inet_diag_req_v2 what;
};

union address {
	struct sockaddr any;
	struct sockaddr_in ip4;
	struct sockaddr_in6 ip6;
};

/* Port and address in network byte order. */
static void split_address(const union address *a, __be16 *port, __be32 address[4])
{
	if (a->any.sa_family == AF_INET) {
		*port = a->ip4.sin_port;
		memcpy(address, &a->ip4.sin_addr, sizeof(a->ip4.sin_addr));
	} else {
		*port = a->ip6.sin6_port;
		memcpy(address, &a->ip6.sin6_addr, sizeof(a->ip6.sin6_addr));
	}
}

/* The kernel answers within send(). */
static int send_destroy(int diag, const struct inet_diag_req_v2 *what)
{
	struct request rq = {
		.header = {
			.nlmsg_len = sizeof(rq),
			.nlmsg_type = SOCK_DESTROY,
			.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK,
		},
		.what = *what,
	};
	struct {
		struct nlmsghdr header;
		struct nlmsgerr answer;
		struct request copy;
	} got;
	ssize_t n;

	if (send(diag, &rq, sizeof(rq), 0) != (ssize_t)sizeof(rq))
		return -errno;
	n = recv(diag, &got, sizeof(got), MSG_DONTWAIT);
	if (n < 0)
		return -errno;
	if ((size_t)n < sizeof(got.header) + sizeof(got.answer) ||
	    got.header.nlmsg_type != NLMSG_ERROR)
		return -EBADMSG;
	return got.answer.error;
}

int sockdiag_open(struct err *e)
{
	/* Port 0 is nobody's. */
	const struct inet_diag_req_v2 nobody = {
		.sdiag_family = AF_INET,
		.sdiag_protocol = IPPROTO_TCP,
		.id.idiag_cookie = { INET_DIAG_NOCOOKIE, INET_DIAG_NOCOOKIE },
	};
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG), ret;

	if (fd < 0)
		return err_sys(e, ERR_KERNEL, errno, "open socket diagnostics");
	ret = send_destroy(fd, &nobody);
	if (!ret || ret == -ENOENT)
		return fd;
	close(fd);
	return err_sys(e, ERR_KERNEL, -ret, "destroy connections");
}

int sockdiag_destroy(int diag, int fd, struct err *e)
{
	struct inet_diag_req_v2 what = { .sdiag_protocol = IPPROTO_TCP, .idiag_states = ~0U };
	union address local, peer;
	socklen_t local_len = sizeof(local), peer_len = sizeof(peer), len = sizeof(int);
	uint64_t cookie;
	int protocol = 0, ret;

	if (getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &len))
		return err_sys(e, ERR_FAILED, errno, "destroy a connection");
	if (protocol != IPPROTO_TCP)
		return err_sys(e, ERR_FAILED, EPROTONOSUPPORT, "destroy a connection");
	len = sizeof(cookie);
	if (getsockname(fd, &local.any, &local_len) || getpeername(fd, &peer.any, &peer_len) ||
	    getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &len)) {
		ret = errno == ENOTCONN ? ENOENT : errno;
		return err_sys(e, ERR_FAILED, ret, "destroy a connection");
	}
	what.sdiag_family = (uint8_t)local.any.sa_family;
	split_address(&local, &what.id.idiag_sport, what.id.idiag_src);
	split_address(&peer, &what.id.idiag_dport, what.id.idiag_dst);
	what.id.idiag_cookie[0] = (uint32_t)cookie;
	what.id.idiag_cookie[1] = (uint32_t)(cookie >> 32);
	ret = send_destroy(diag, &what);
	return ret ? err_sys(e, ERR_FAILED, -ret, "destroy a connection") : 0;
}
