/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "daemon/notify.h"

#include <errno.h>
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
	if (len >= TEXT_MAX)
		len = TEXT_MAX - 1;
	if (send(n->fd, text, (size_t)len, MSG_NOSIGNAL) >= 0)
		return;
	/* A manager that was started again has another socket at the same address. */
	if ((errno == ECONNREFUSED || errno == ENOTCONN) && !connect_manager(n))
		send(n->fd, text, (size_t)len, MSG_NOSIGNAL);
}

void notify_close(struct notify *n)
{
	if (n->fd >= 0)
		close(n->fd);
	n->fd = -1;
}
