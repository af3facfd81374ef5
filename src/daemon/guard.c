/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "daemon/guard.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
	END_MS = 3000
}; /* a worker ends at once, unless one of its threads is stuck in the kernel */

static int open_pair(int pair[2], struct err *e)
{
	if (!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		return 0;
	return err_sys(e, ERR_FAILED, errno, "socket pair");
}

static int open_pidfd(pid_t pid)
{
	return (int)syscall(SYS_pidfd_open, pid, 0);
}

int guard_start_worker(struct guard *g, void (*work)(void *ctx, int control), void *ctx,
		       struct err *e)
{
	int pair[2];

	if (open_pair(pair, e))
		return -e->code;
	g->worker = fork();
	if (!g->worker) {
		close(pair[0]);
		work(ctx, pair[1]);
		_exit(0);
	}
	if (g->worker < 0)
		err_sys(e, ERR_FAILED, errno, "start the working process");
	close(pair[1]);
	if (g->worker < 0) {
		close(pair[0]);
		return -e->code;
	}
	g->control = pair[0];
	/* Without it the end of control alone tells. */
	g->death = open_pidfd(g->worker);
	return 0;
}

int guard_start_watcher(void (*watch)(void *ctx, struct guard *g), void *ctx, pid_t *watcher,
			struct err *e)
{
	struct guard g = { .worker = getpid(), .signals = -1 };
	int pair[2];

	if (open_pair(pair, e))
		return -e->code;
	g.control = pair[0];
	g.death = open_pidfd(g.worker);
	*watcher = g.death < 0 ? -1 : fork();
	if (!*watcher) {
		close(pair[1]);
		watch(ctx, &g);
		_exit(0);
	}
	if (*watcher < 0)
		err_sys(e, ERR_FAILED, errno, "start a process to watch this one");
	if (g.death >= 0)
		close(g.death);
	close(pair[0]);
	if (*watcher > 0)
		return pair[1];
	close(pair[1]);
	return -e->code;
}

bool guard_report(int control, const void *report, size_t size)
{
	return send(control, report, size, MSG_NOSIGNAL) == (ssize_t)size;
}

bool guard_wait(const struct guard *g, void *report, size_t size, bool *interrupted)
{
	struct pollfd p[3] = {
		{ .fd = g->control, .events = POLLIN },
		{ .fd = g->death, .events = POLLIN },
		{ .fd = g->signals, .events = POLLIN },
	};

	*interrupted = false;
	for (;;) {
		if (poll(p, 3, -1) < 0)
			continue;
		/* A report that was sent before the death counts. */
		if (p[0].revents || p[1].revents)
			return recv(g->control, report, size, MSG_DONTWAIT) == (ssize_t)size;
		*interrupted = true;
		p[2].fd = -1;
		shutdown(g->control, SHUT_WR);
	}
}

void guard_close(struct guard *g, bool await_end)
{
	close(g->control);
	if (g->death >= 0)
		close(g->death);
	for (int i = 0; await_end && i < END_MS && !waitpid(g->worker, NULL, WNOHANG); i++)
		poll(NULL, 0, 1);
}
