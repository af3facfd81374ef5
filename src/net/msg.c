/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "net/msg.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/blocking_child.h"

union fd_control {
	struct cmsghdr align;
	char buf[CMSG_SPACE(MSG_FDS_MAX * sizeof(int))];
};

/* By monotonic_ms; -1: none. */
static long long deadline_after(int timeout_ms)
{
	return timeout_ms < 0 ? -1 : monotonic_ms() + timeout_ms;
}

/* False when the deadline has passed. */
static bool wait_until_ready(int fd, short events, long long deadline)
{
	struct pollfd p = { .fd = fd, .events = events };
	long long left;
	int n;

	do {
		left = deadline < 0 ? -1 : deadline - monotonic_ms();
		if (deadline >= 0 && left <= 0)
			return false;
		n = poll(&p, 1, left > INT_MAX ? INT_MAX : (int)left);
	} while (!n || (n < 0 && errno == EINTR));
	return n > 0;
}

int msg_send(int fd, const void *data, size_t size, const int *fds, unsigned count, int timeout_ms)
{
	const long long deadline = deadline_after(timeout_ms);
	/* sendmsg does not write to it */
	struct iovec iov = { .iov_base = (void *)(uintptr_t)data, .iov_len = size };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	union fd_control control = { 0 };
	int code;

	if (count > MSG_FDS_MAX)
		return -EINVAL;
	if (count) {
		msg.msg_control = control.buf;
		msg.msg_controllen = CMSG_SPACE(count * sizeof(int));
		control.align.cmsg_level = SOL_SOCKET;
		control.align.cmsg_type = SCM_RIGHTS;
		control.align.cmsg_len = CMSG_LEN(count * sizeof(int));
		memcpy(CMSG_DATA(&control.align), fds, count * sizeof(int));
	}
	do
		code = sendmsg(fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? errno : 0;
	while (code == EINTR || (code == EAGAIN && wait_until_ready(fd, POLLOUT, deadline)));
	return -code;
}

/* Moves what came beside a message to m. False where that is more than m takes, or not all. */
static bool take_fds(struct msghdr *msg, struct msg_in *m)
{
	bool complete = !m->fds_max || !(msg->msg_flags & MSG_CTRUNC);

	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		int fd;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) {
			complete = false;
			continue;
		}
		for (size_t i = 0; i < count; i++) {
			memcpy(&fd, CMSG_DATA(c) + i * sizeof(fd), sizeof(fd));
			if (m->count < m->fds_max) {
				m->fds[m->count++] = fd;
			} else {
				/* The padding of msg_control has room for one more. */
				close(fd);
				complete = false;
			}
		}
	}
	return complete;
}

int msg_receive(int fd, struct msg_in *m, int timeout_ms)
{
	const long long deadline = deadline_after(timeout_ms);
	const unsigned fds_max = m->fds_max < MSG_FDS_MAX ? m->fds_max : MSG_FDS_MAX;
	struct iovec iov = { .iov_base = m->data, .iov_len = m->size };
	union fd_control control = { 0 };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = fds_max ? control.buf : NULL,
		.msg_controllen = fds_max ? CMSG_SPACE(fds_max * sizeof(int)) : 0,
	};
	bool complete;
	ssize_t n;
	int code;

	m->count = 0;
	memset(m->data, 0, m->size);
	do {
		/* MSG_TRUNC: n is the length that was sent */
		n = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT | MSG_TRUNC);
		code = n < 0 ? errno : 0;
	} while (code == EINTR || (code == EAGAIN && wait_until_ready(fd, POLLIN, deadline)));
	if (code)
		return -code;
	complete = take_fds(&msg, m);
	if (n && complete && (size_t)n >= m->min && (size_t)n <= m->max)
		return 0;
	msg_close_fds(m->fds, m->count);
	m->count = 0;
	return n ? -EMSGSIZE : -EPIPE;
}

void msg_close_fds(const int *fds, unsigned count)
{
	while (count)
		close(fds[--count]);
}
