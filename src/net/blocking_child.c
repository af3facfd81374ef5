/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "net/blocking_child.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long long clock_ms(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (long long)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

long long monotonic_ms(void)
{
	return clock_ms(CLOCK_MONOTONIC);
}

long long boottime_ms(void)
{
	return clock_ms(CLOCK_BOOTTIME);
}

_Noreturn static void run_child(int fd, pid_t parent, blocking_child_fn fn, const void *arg,
				size_t size)
{
	_Alignas(max_align_t) char out[BLOCKING_CHILD_RESULT_MAX];
	ssize_t n;

	/* If the caller is killed, also by now, its child must not go on opening devices. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
	memset(out, 0, sizeof(out));
	fn(arg, out);
	n = write(fd, out, size);
	_exit(n == (ssize_t)size ? 0 : 1);
}

int blocking_child_start(struct blocking_child *c, blocking_child_fn fn, const void *arg,
			 size_t size, struct err *e)
{
	const pid_t parent = getpid();
	int fds[2], code;

	c->pid = -1;
	c->fd = -1;
	c->size = size;
	if (size > BLOCKING_CHILD_RESULT_MAX)
		return err_set(e, ERR_FAILED, EINVAL, "start a child: result of %zu bytes", size);
	if (pipe2(fds, O_CLOEXEC))
		return err_sys(e, ERR_FAILED, errno, "start a child: pipe");
	c->pid = fork();
	if (c->pid < 0) {
		code = errno;
		close(fds[0]);
		close(fds[1]);
		return err_sys(e, ERR_FAILED, code, "start a child: fork");
	}
	if (!c->pid) {
		close(fds[0]);
		run_child(fds[1], parent, fn, arg, size);
	}
	close(fds[1]);
	c->fd = fds[0];
	return 0;
}

static void reap_child(pid_t pid, int options)
{
	while (waitpid(pid, NULL, options) < 0 && errno == EINTR)
		;
}

int blocking_child_collect(struct blocking_child *c, void *out, struct err *e)
{
	ssize_t n;

	do {
		n = read(c->fd, out, c->size);
	} while (n < 0 && errno == EINTR);
	close(c->fd);
	c->fd = -1;
	reap_child(c->pid, 0);
	c->pid = -1;
	if (n != (ssize_t)c->size)
		return err_set(e, ERR_FAILED, EIO, "a child process died before its work was done");
	return 0;
}

void blocking_child_abandon(struct blocking_child *c)
{
	if (c->pid < 0)
		return;
	kill(c->pid, SIGKILL);
	/* A child that sleeps in the kernel cannot die now. Any other is gone in a moment. */
	for (int i = 0; i < 100 && !waitpid(c->pid, NULL, WNOHANG); i++)
		poll(NULL, 0, 1);
	close(c->fd);
	c->fd = -1;
	c->pid = -1;
}

int blocking_child_wait(const struct blocking_child *c, long long deadline, int cancel_fd)
{
	struct pollfd p[2] = {
		{ .fd = c->fd, .events = POLLIN },
		{ .fd = cancel_fd, .events = POLLIN },
	};
	long long left;
	int ret;

	do {
		left = deadline - monotonic_ms();
		ret = poll(p, 2, left > 0 ? (int)(left < INT_MAX ? left : INT_MAX) : 0);
	} while ((ret < 0 && errno == EINTR) || (!ret && left > 0));
	if (ret < 0)
		return -errno;
	return p[0].revents ? 0 : ret ? -ECANCELED : -ETIMEDOUT;
}

int blocking_child_run(blocking_child_fn fn, const void *arg, void *out, size_t size,
		       unsigned timeout_ms, int cancel_fd, struct err *e)
{
	long long deadline = monotonic_ms() + timeout_ms;
	struct blocking_child c;
	int ret;

	ret = blocking_child_start(&c, fn, arg, size, e);
	if (ret)
		return ret;
	ret = blocking_child_wait(&c, deadline, cancel_fd);
	if (!ret)
		return blocking_child_collect(&c, out, e);
	blocking_child_abandon(&c);
	if (ret == -ETIMEDOUT)
		return err_set(e, ERR_FAILED, ETIMEDOUT, "not done within %.3g s",
			       timeout_ms / 1e3);
	return err_set(e, ERR_FAILED, -ret, "interrupted");
}
