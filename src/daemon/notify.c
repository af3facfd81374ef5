/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "daemon/notify.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/text.h"

enum { TEXT_MAX = 1024 };

static int connect_manager(const struct notify *n)
{
	return connect(n->fd, (const struct sockaddr *)&n->to, n->to_len) ? -errno : 0;
}

/* Sets the period to half of usec. */
static int set_watchdog(struct notify *n, const char *usec, const char *pid, pid_t self,
			struct err *e)
{
	uint64_t number;

	if (!usec)
		return 0;
	if (pid && (text_number(pid, false, 1, INT32_MAX, &number) || (pid_t)number != self))
		return 0;
	if (text_number(usec, false, 1, UINT64_MAX / 2, &number))
		return err_set(e, ERR_USAGE, EINVAL,
			       "$WATCHDOG_USEC is not a number of microseconds");
	number /= 2000;
	n->watchdog_ms = number > INT32_MAX ? INT32_MAX : number ? (unsigned)number : 1;
	return 0;
}

int notify_open(struct notify *n, const char *address, const char *usec, const char *pid,
		pid_t self, struct err *e)
{
	size_t len = address ? strlen(address) : 0;
	char shown[256];
	int ret;

	memset(n, 0, sizeof(*n));
	n->fd = -1;
	if (!len)
		return 0;
	text_escape(shown, sizeof(shown), address, len);
	if ((address[0] != '/' && address[0] != '@') || len == 1 || len >= sizeof(n->to.sun_path))
		return err_set(e, ERR_USAGE, EAFNOSUPPORT,
			       "$NOTIFY_SOCKET is %s: a path or an abstract name of a "
			       "Unix socket is needed",
			       shown);
	n->to.sun_family = AF_UNIX;
	memcpy(n->to.sun_path, address, len);
	n->to_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
	if (address[0] == '@')
		n->to.sun_path[0] = '\0';
	else
		n->to_len++;
	n->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	ret = n->fd < 0 ? -errno : connect_manager(n);
	if (ret) {
		notify_close(n);
		return err_sys(e, ERR_FAILED, -ret, "connect to $NOTIFY_SOCKET, %s", shown);
	}
	ret = set_watchdog(n, usec, pid, self, e);
	if (ret)
		notify_close(n);
	return ret;
}

/* fd goes along; -1: none. */
static void send_text(const struct notify *n, char *text, size_t len, int fd)
{
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = { 0 };
	struct iovec iov = { .iov_base = text, .iov_len = len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (fd >= 0) {
		msg.msg_control = control.buf;
		msg.msg_controllen = sizeof(control.buf);
		control.align.cmsg_level = SOL_SOCKET;
		control.align.cmsg_type = SCM_RIGHTS;
		control.align.cmsg_len = CMSG_LEN(sizeof(fd));
		memcpy(CMSG_DATA(&control.align), &fd, sizeof(fd));
	}
	if (sendmsg(n->fd, &msg, MSG_NOSIGNAL) >= 0)
		return;
	/* A manager that was started again has another socket at the same address. */
	if ((errno == ECONNREFUSED || errno == ENOTCONN) && !connect_manager(n))
		sendmsg(n->fd, &msg, MSG_NOSIGNAL);
}

void notify_say(const struct notify *n, const char *fmt, ...)
{
	char text[TEXT_MAX];
	va_list ap;
	int len;

	if (!n || n->fd < 0)
		return;
	va_start(ap, fmt);
	len = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (len <= 0)
		return;
	send_text(n, text, len < TEXT_MAX ? (size_t)len : TEXT_MAX - 1, -1);
}

void notify_take_stored(struct notify *n, int first, const char *count, const char *names,
			const char *pid, pid_t self)
{
	uint64_t number, fds;

	if (!count || !names || !pid || text_number(pid, false, 1, INT32_MAX, &number) ||
	    (pid_t)number != self || text_number(count, false, 1, INT16_MAX, &fds))
		return;
	for (int fd = first; fd < first + (int)fds; fd++) {
		size_t len = strcspn(names, ":");
		struct notify_stored *to = &n->stored[n->stored_count];

		if (fcntl(fd, F_SETFD, FD_CLOEXEC))
			break;
		if (n->stored_count < NOTIFY_STORED_MAX && len <= NOTIFY_NAME_MAX) {
			to->fd = fd;
			memcpy(to->name, names, len);
			to->name[len] = '\0';
			n->stored_count++;
		} else {
			close(fd);
		}
		names += len + (names[len] == ':');
	}
}

int notify_claim(struct notify *n, const char *name)
{
	for (unsigned i = 0; i < n->stored_count; i++) {
		int fd = n->stored[i].fd;

		if (strcmp(n->stored[i].name, name))
			continue;
		n->stored[i] = n->stored[--n->stored_count];
		return fd;
	}
	return -1;
}

void notify_drop_stored(struct notify *n)
{
	while (n && n->stored_count) {
		const struct notify_stored *last = &n->stored[--n->stored_count];

		notify_unstore(n, last->name);
		close(last->fd);
	}
}

void notify_store(const struct notify *n, const char *name, int fd)
{
	char text[TEXT_MAX];
	int len = snprintf(text, sizeof(text), "FDSTORE=1\nFDNAME=%s", name);

	if (n && n->fd >= 0)
		send_text(n, text, (size_t)len, fd);
}

void notify_unstore(const struct notify *n, const char *name)
{
	notify_say(n, "FDSTOREREMOVE=1\nFDNAME=%s", name);
}

void notify_close(struct notify *n)
{
	while (n->stored_count)
		close(n->stored[--n->stored_count].fd);
	if (n->fd >= 0)
		close(n->fd);
	n->fd = -1;
}
