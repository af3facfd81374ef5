/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "net/sockopt.h"

#include <errno.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

static bool is_tcp(int fd)
{
	socklen_t len = sizeof(int);
	int protocol = 0;

	return !getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &len) && protocol == IPPROTO_TCP;
}

int sockopt_set_peer_timeout(int fd, unsigned seconds, struct err *e)
{
	/*
	 * The first probe comes after a third of the time, five more in the rest. The kernel
	 * looks at TCP_USER_TIMEOUT, and not at the count, when a probe is due
	 * (tcp_keepalive_timer).
	 */
	int idle = seconds < 3 ? 1 : (int)seconds / 3;
	int interval = ((int)seconds - idle) / 5 > 0 ? ((int)seconds - idle) / 5 : 1;
	const struct {
		int level, name, value;
		const char *what;
	} options[] = {
		{ SOL_SOCKET, SO_KEEPALIVE, seconds > 0, "SO_KEEPALIVE" },
		{ IPPROTO_TCP, TCP_USER_TIMEOUT, (int)seconds * 1000, "TCP_USER_TIMEOUT" },
		{ IPPROTO_TCP, TCP_KEEPIDLE, idle, "TCP_KEEPIDLE" },
		{ IPPROTO_TCP, TCP_KEEPINTVL, interval, "TCP_KEEPINTVL" },
		{ IPPROTO_TCP, TCP_KEEPCNT, ((int)seconds - idle + interval - 1) / interval + 1,
		  "TCP_KEEPCNT" },
	};
	/* The default is no keepalive, which has no times. */
	size_t count = seconds ? sizeof(options) / sizeof(options[0]) : 2;

	if (seconds > SOCKOPT_PEER_TIMEOUT_MAX)
		return err_set(e, ERR_USAGE, ERANGE, "time limit of a peer: %u s, more than %d",
			       seconds, SOCKOPT_PEER_TIMEOUT_MAX);
	if (!is_tcp(fd))
		return 0;
	for (size_t i = 0; i < count; i++)
		if (setsockopt(fd, options[i].level, options[i].name, &options[i].value,
			       sizeof(options[i].value)))
			return err_sys(e, ERR_FAILED, errno, "time limit of a peer: %s",
				       options[i].what);
	return 0;
}

int sockopt_set_send_room(int fd, int bytes, struct err *e)
{
	socklen_t len = sizeof(bytes);

	if ((setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)) &&
	     setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes))) ||
	    getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, &len))
		return err_sys(e, ERR_FAILED, errno, "send buffer");
	/* socket(7): the kernel doubles the value, for its own use of the buffer. */
	return bytes / 2;
}

bool sockopt_is_dead(int fd)
{
	struct pollfd p = { .fd = fd, .events = SOCKOPT_DEAD };

	return poll(&p, 1, 0) > 0;
}

bool sockopt_was_given_up(int fd, unsigned seconds)
{
	struct tcp_info i = { 0 };
	socklen_t len = sizeof(i);
	bool first, unanswered;

	if (!seconds || !is_tcp(fd) || getsockopt(fd, IPPROTO_TCP, TCP_INFO, &i, &len))
		return false;
	/* A peer that ends its side at once leaves no trace of who was first. */
	first = i.tcpi_state == TCP_FIN_WAIT1 || i.tcpi_state == TCP_FIN_WAIT2;
	unanswered = i.tcpi_last_data_recv > i.tcpi_last_data_sent &&
		     i.tcpi_last_data_sent / 1000 + 1 > seconds;
	return unanswered || (first && i.tcpi_last_data_recv >= SOCKOPT_GIVEN_UP_MS);
}

int sockopt_cut(int fd, struct err *e)
{
	static const struct sockaddr nobody = { .sa_family = AF_UNSPEC };
	static const struct linger reset = { .l_onoff = 1, .l_linger = 0 };

	if (is_tcp(fd)) {
		if (!connect(fd, &nobody, sizeof(nobody)))
			return 0;
		/* Makes the last close of the socket drop what is not sent. */
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	}
	if (shutdown(fd, SHUT_RDWR) && errno != ENOTCONN)
		return err_sys(e, ERR_FAILED, errno, "cut a connection");
	return 0;
}

bool sockopt_is_drained(int fd)
{
	struct tcp_info info = { 0 };
	socklen_t len = sizeof(info);
	int queued = 0;

	if (!is_tcp(fd))
		return true;
	if (!getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) && info.tcpi_state == TCP_CLOSE)
		return true;
	return ioctl(fd, SIOCOUTQ, &queued) || !queued;
}

void sockopt_close(int fd)
{
	static const struct linger none = { .l_onoff = 0 };

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &none, sizeof(none));
	close(fd);
}

int sockopt_send_timeout_ms(int fd)
{
	struct timeval tv = { 0 };
	socklen_t len = sizeof(tv);

	if (getsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, &len))
		return -errno;
	if (tv.tv_sec > INT32_MAX / 1000 - 1)
		return INT32_MAX;
	return (int)(tv.tv_sec * 1000 + tv.tv_usec / 1000);
}
