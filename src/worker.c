/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "worker.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

struct report {
	int ret;
	struct attach_result result;
	struct err err;
};

/*
 * Nobody waits for us any more. Standard descriptors that stay open would keep a pipeline waiting
 * that the caller is part of, a working directory would keep a file system busy.
 */
static void leave_terminal(void)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	for (int fd = 0; null >= 0 && fd <= 2; fd++)
		dup2(null, fd);
	if (null > 2)
		close(null);
	if (chdir("/"))
		return;
}

/* Until the command ends: the parent it may want to exit with, and the reader of its log. */
static void keep_command(struct link_result *rs)
{
	char dropped[4096];

	leave_terminal();
	if (rs->fd >= 0)
		close(rs->fd); /* the kernel's end alone tells the command when it is over */
	fcntl(rs->command_log, F_SETFL, 0);
	while (read(rs->command_log, dropped, sizeof(dropped)) > 0)
		;
	while (waitpid(rs->command, NULL, 0) < 0 && errno == EINTR)
		;
}

__attribute__((noreturn))
static void work(const struct attach_request *rq, int control, const sigset_t *mask)
{
	struct report rp = { 0 };
	struct link_result rs;

	/* An interrupt of the terminal is the caller's to handle: it tells us by hanging up. */
	setsid();
	sigprocmask(SIG_SETMASK, mask, NULL);
	rp.ret = attach_run(rq, control, &rp.result, &rs, &rp.err);
	/* A caller that died meanwhile cannot say that there is a device now. */
	if (send(control, &rp, sizeof(rp), MSG_NOSIGNAL) != (ssize_t)sizeof(rp)) {
		if (!rp.ret && !rp.result.already) {
			attach_undo(rp.result.index, &rp.err);
			link_close(&rs, false);
		}
		_exit(1);
	}
	close(control);
	if (!rp.ret && rs.command > 0)
		keep_command(&rs);
	_exit(0);
}

/* 0: a report, -EINTR: a signal came first, -EPIPE: the child died. */
static int await_report(int control, int signals, struct report *rp)
{
	struct pollfd p[2] = {
		{ .fd = control, .events = POLLIN },
		{ .fd = signals, .events = POLLIN },
	};

	while (poll(p, 2, -1) < 0 && errno == EINTR)
		;
	if (p[0].revents)
		return recv(control, rp, sizeof(*rp), 0) == (ssize_t)sizeof(*rp) ? 0 : -EPIPE;
	return -EINTR;
}

static int supervise(const struct attach_request *rq, pid_t child, int control, int signals,
		     struct report *rp, struct err *e)
{
	int ret = await_report(control, signals, rp);

	if (!ret) {
		*e = rp->err;
		return rp->ret;
	}
	if (ret == -EINTR) {
		/* The child gives up at its next look; what it reports may still be success. */
		shutdown(control, SHUT_WR);
		if (recv(control, rp, sizeof(*rp), 0) == (ssize_t)sizeof(*rp) && !rp->ret &&
		    !rp->result.already)
			attach_undo(rp->result.index, e);
		return err_set(e, ERR_FAILED, EINTR, "interrupted; nothing is attached");
	}
	while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
		;
	ret = attach_undo_of(rq, child, e);
	if (ret)
		return err_wrap(e, "the working process was killed, and what it had done could not be "
				   "taken back");
	return err_set(e, ERR_FAILED, EINTR, "the working process was killed; nothing is attached");
}

int worker_attach(const struct attach_request *rq, struct attach_result *r, struct err *e)
{
	struct report rp = { 0 };
	int pair[2], signals = -1, ret;
	sigset_t caught, mask;
	pid_t child;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		return err_sys(e, ERR_FAILED, errno, "socket pair");
	sigemptyset(&caught);
	sigaddset(&caught, SIGINT);
	sigaddset(&caught, SIGTERM);
	sigaddset(&caught, SIGHUP);
	sigprocmask(SIG_BLOCK, &caught, &mask);
	signals = signalfd(-1, &caught, SFD_CLOEXEC);
	child = signals < 0 ? -1 : fork();
	if (child < 0) {
		ret = err_sys(e, ERR_FAILED, errno, "start the working process");
		goto out;
	}
	if (!child) {
		close(pair[0]);
		close(signals);
		work(rq, pair[1], &mask);
	}
	close(pair[1]);
	pair[1] = -1;
	ret = supervise(rq, child, pair[0], signals, &rp, e);
	*r = rp.result;
out:
	close(pair[0]);
	if (pair[1] >= 0)
		close(pair[1]);
	if (signals >= 0)
		close(signals);
	sigprocmask(SIG_SETMASK, &mask, NULL);
	return ret;
}
