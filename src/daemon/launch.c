/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "daemon/launch.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/takeover.h"
#include "config.h"
#include "daemon/control.h"
#include "kernel/protect_self.h"

enum {
	STATUS_MS = 2000,
	/* at once, unless one of its threads is stuck in the kernel */
	END_MS = 3000,
};

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
static void keep_command(struct connections *rs)
{
	char dropped[4096];

	leave_terminal();
	/*
	 * The kernel's end of the connection alone tells the command when it is over; and a descriptor
	 * of the caller's (a lock, a pipe) is for the command at most, not for us.
	 */
	if (rs->command_log != 3 && dup2(rs->command_log, 3) == 3)
		rs->command_log = 3;
	if (rs->command_log == 3)
		close_range(4, ~0U, 0);
	fcntl(rs->command_log, F_SETFL, 0);
	while (read(rs->command_log, dropped, sizeof(dropped)) > 0)
		;
	while (waitpid(rs->command, NULL, 0) < 0 && errno == EINTR)
		;
}

/* What the caller had open (a lock, a pipe) is not for a process that stays. */
static void keep_only(const struct launch_request *rq, const struct attach_kept *k)
{
	int kept[PLAN_CONNECTIONS_MAX + 4], limit;
	unsigned count = 0;

	for (unsigned i = 0; i < k->link.count; i++)
		kept[count++] = k->link.fds[i];
	kept[count++] = k->events;
	kept[count++] = k->negotiator.fd;
	kept[count++] = rq->notify ? rq->notify->fd : -1;
	kept[count++] = rq->log_fd;
	/* Close the gaps between them, from the lowest up. */
	for (unsigned from = 3;;) {
		limit = INT_MAX;
		for (unsigned i = 0; i < count; i++)
			if (kept[i] >= (int)from && kept[i] < limit)
				limit = kept[i];
		if (limit == INT_MAX) {
			close_range(from, ~0U, 0);
			return;
		}
		if (limit > (int)from)
			close_range(from, (unsigned)limit - 1, 0);
		from = (unsigned)limit + 1;
	}
}

static int supervise(const struct launch_request *rq, unsigned index, struct attach_kept *k,
		     const struct takeover_result *adopted, struct err *e)
{
	struct supervise_request *sr = calloc(1, sizeof(*sr));
	int ret;

	if (!sr)
		return err_sys(e, ERR_FAILED, ENOMEM, "supervise nbd%u", index);
	keep_only(rq, k);
	sr->index = index;
	sr->settings = rq->attach.settings;
	sr->deaf = rq->deaf;
	sr->negotiator = rq->attach.negotiator;
	sr->server = k->server;
	sr->plan = &k->plan;
	sr->export = &k->link.export;
	sr->connections = k->link.count;
	memcpy(sr->fds, k->link.fds, sizeof(sr->fds));
	sr->events = k->events;
	sr->kernel_tls = adopted ? adopted->kernel_tls : k->link.encrypted && !k->link.relayed;
	sr->adopted = adopted;
	sr->lost = adopted && adopted->lost;
	sr->reconnects = adopted ? adopted->reconnects : 0;
	sr->logger = rq->logger;
	sr->notify = rq->notify;
	ret = supervise_run(sr, &k->negotiator, e);
	free(sr);
	return ret;
}

static void supervise_alone(const struct launch_request *rq, unsigned index, struct attach_kept *k,
			    const struct takeover_result *adopted)
{
	struct err e;

	leave_terminal();
	if (supervise(rq, index, k, adopted, &e))
		log_say(rq->logger, LOG_LEVEL_ERROR, "nbd%u: %s", index, e.text);
}

/* Before anything is forked that stays. */
static int become_vital(const struct launch_request *rq, struct err *e)
{
	if (rq->arg0)
		protect_self_mark(rq->arg0);
	return settings_is_vital(rq->attach.settings) ? protect_self(e) : 0;
}

_Noreturn static void work(const struct launch_request *rq, int control, const sigset_t *mask)
{
	struct report rp = { 0 };
	struct attach_kept k;

	/* An interrupt of the terminal is the caller's to handle: it tells us by hanging up. */
	setsid();
	sigprocmask(SIG_SETMASK, mask, NULL);
	rp.ret = become_vital(rq, &rp.err);
	if (!rp.ret)
		rp.ret = attach_run(&rq->attach, control, &rp.result, &k, &rp.err);
	/* A caller that died meanwhile cannot say that there is a device now. */
	if (send(control, &rp, sizeof(rp), MSG_NOSIGNAL) != (ssize_t)sizeof(rp)) {
		if (!rp.ret && !rp.result.already) {
			attach_undo(rp.result.index, &rp.err);
			attach_let_go(&k, false);
		}
		_exit(1);
	}
	close(control);
	if (rp.ret || rp.result.already)
		_exit(0);
	if (k.link.command > 0)
		keep_command(&k.link);
	else if (!rq->attach.settings->supervision.none)
		supervise_alone(rq, rp.result.index, &k, NULL);
	else
		attach_let_go(&k, true);
	_exit(0);
}

/* What the caller of an attach waits for. */
struct watch {
	int control; /* the report; closed by all of the child's side: see death */
	int signals;
	int death; /* the child's pidfd: its own children can keep control open, waiting in the kernel */
};

/* 0: a report, -EINTR: a signal came first (if that matters), -EPIPE: the child died. */
static int await_report(const struct watch *w, bool heed_signals, struct report *rp)
{
	struct pollfd p[3] = {
		{ .fd = w->control, .events = POLLIN },
		{ .fd = w->death, .events = POLLIN },
		{ .fd = heed_signals ? w->signals : -1, .events = POLLIN },
	};

	while (poll(p, 3, -1) < 0 && errno == EINTR)
		;
	if (p[0].revents || p[1].revents)
		return recv(w->control, rp, sizeof(*rp), MSG_DONTWAIT) == (ssize_t)sizeof(*rp) ?
			       0 :
			       -EPIPE;
	return -EINTR;
}

static int undo_of_dead(const struct attach_request *rq, pid_t child, struct err *e)
{
	int ret;

	while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
		;
	ret = attach_undo_of(rq, child, e);
	if (ret)
		return err_wrap(e,
				"the working process was killed, and what it had done could not be "
				"taken back");
	return err_set(e, ERR_FAILED, EINTR, "the working process was killed; nothing is attached");
}

static int watch(const struct attach_request *rq, pid_t child, const struct watch *w,
		 struct report *rp, struct err *e)
{
	int ret = await_report(w, true, rp);

	if (!ret) {
		*e = rp->err;
		return rp->ret;
	}
	if (ret == -EPIPE)
		return undo_of_dead(rq, child, e);
	/* The child gives up at its next look; what it reports may still be success. */
	shutdown(w->control, SHUT_WR);
	ret = await_report(w, false, rp);
	if (ret)
		return undo_of_dead(rq, child, e);
	if (!rp->ret && !rp->result.already && attach_undo(rp->result.index, e))
		return err_wrap(e, "interrupted, and nbd%u could not be released",
				rp->result.index);
	return err_set(e, ERR_FAILED, EINTR, "interrupted; nothing is attached");
}

/* The end of a child that has nothing to do any more, so that nothing of ours is left when we return. */
static void await_end(pid_t child)
{
	for (int i = 0; i < END_MS && !waitpid(child, NULL, WNOHANG); i++)
		poll(NULL, 0, 1);
}

static int tell(const struct launch_request *rq, const struct attach_result *r, struct err *e)
{
	int ret = rq->attached(rq->ctx, r, e);
	struct err undo;

	/* What was there before us stays as it was. */
	if (ret && !r->already && attach_undo(r->index, &undo))
		return err_wrap(e, "nbd%u could not be released (%s) after", r->index, undo.text);
	return ret;
}

/* Those that would end us; one that is ignored (nohup, a shell's background) stays ignored. */
static void interrupts(sigset_t *set)
{
	static const int signals[] = { SIGINT, SIGTERM, SIGHUP };
	struct sigaction now;

	sigemptyset(set);
	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		if (!sigaction(signals[i], NULL, &now) && now.sa_handler != SIG_IGN)
			sigaddset(set, signals[i]);
}

/* Back to mask. Those that came were heeded, or came too late: none of them may end us after that. */
static void end_signals(int *signals, const sigset_t *mask)
{
	struct signalfd_siginfo si;

	if (*signals >= 0) {
		while (read(*signals, &si, sizeof(si)) > 0)
			;
		close(*signals);
		*signals = -1;
	}
	sigprocmask(SIG_SETMASK, mask, NULL);
}

int launch_attach(const struct launch_request *rq, struct err *e)
{
	struct report rp = { 0 };
	struct watch w = { -1, -1, -1 };
	int pair[2], ret;
	sigset_t caught, mask;
	pid_t child;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		return err_sys(e, ERR_FAILED, errno, "socket pair");
	interrupts(&caught);
	sigprocmask(SIG_BLOCK, &caught, &mask);
	w.control = pair[0];
	w.signals = signalfd(-1, &caught, SFD_CLOEXEC | SFD_NONBLOCK);
	child = w.signals < 0 ? -1 : fork();
	if (child < 0) {
		ret = err_sys(e, ERR_FAILED, errno, "start the working process");
		goto out;
	}
	if (!child) {
		close(pair[0]);
		close(w.signals);
		work(rq, pair[1], &mask);
	}
	close(pair[1]);
	pair[1] = -1;
	w.death = (int)syscall(SYS_pidfd_open, child, 0);
	ret = watch(&rq->attach, child, &w, &rp, e);
	end_signals(&w.signals, &mask);
	if (!ret)
		ret = tell(rq, &rp.result, e);
	if (ret || rp.result.already)
		await_end(child);
out:
	close(pair[0]);
	if (pair[1] >= 0)
		close(pair[1]);
	if (w.death >= 0)
		close(w.death);
	end_signals(&w.signals, &mask);
	return ret;
}

/* --- the caller as the supervisor ---------------------------------------------------------------- */

/* Takes back what the caller, worker, has half done when it dies; it ends when it hears that there is no need. */
_Noreturn static void guard(const struct attach_request *rq, int control, int death, pid_t worker)
{
	struct pollfd p[2] = {
		{ .fd = control, .events = POLLIN },
		{ .fd = death, .events = POLLIN },
	};
	struct err ignored;
	char done;

	setsid();
	leave_terminal();
	while (poll(p, 2, -1) < 0 && errno == EINTR)
		;
	if (recv(control, &done, 1, MSG_DONTWAIT) != 1)
		attach_undo_of(rq, worker, &ignored);
	_exit(0);
}

/* attach_run, with a guard beside. caught is blocked. */
static int attach_here(const struct launch_request *rq, const sigset_t *caught,
		       struct attach_result *r, struct attach_kept *k, struct err *e)
{
	int signals = signalfd(-1, caught, SFD_CLOEXEC | SFD_NONBLOCK);
	int self = (int)syscall(SYS_pidfd_open, getpid(), 0);
	int pair[2] = { -1, -1 }, ret;
	pid_t child = -1, worker = getpid();

	if (signals >= 0 && self >= 0 &&
	    !socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		child = fork();
	if (!child) {
		close(pair[0]);
		close(signals);
		guard(&rq->attach, pair[1], self, worker);
	}
	ret = child > 0 ? attach_run(&rq->attach, signals, r, k, e) :
			  err_sys(e, ERR_FAILED, errno, "start a process to watch this one");
	if (ret == -ECANCELED)
		ret = err_set(e, ERR_FAILED, EINTR, "interrupted; nothing is attached");
	if (child > 0) {
		send(pair[0], "", 1, MSG_NOSIGNAL);
		while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
			;
	}
	for (int i = 0; i < 2; i++)
		if (pair[i] >= 0)
			close(pair[i]);
	if (self >= 0)
		close(self);
	if (signals >= 0)
		close(signals);
	return ret;
}

static int take_over(struct attach_request *rq, unsigned index, struct attach_kept *k,
		     struct takeover_result *found, struct err *e)
{
	struct control_answer a;
	int ret;

	rq->index = index;
	rq->find = false;
	ret = control_ask(NBD_ATTACH_STATEDIR, index, CONTROL_STATUS, STATUS_MS, &a, NULL, NULL, e);
	if (!ret)
		return err_set(e, ERR_BUSY, EBUSY,
			       "nbd%u is attached to this export already, and supervised by "
			       "process %d",
			       index, (int)a.pid);
	return ret == -ENOENT ? takeover_run(rq, k, found, e) : ret;
}

int launch_stay(const struct launch_request *rq, struct err *e)
{
	struct attach_request *again = malloc(sizeof(*again));
	struct attach_result r = { 0 };
	struct takeover_result found;
	struct attach_kept k = { .events = -1, .link.command_log = -1 };
	sigset_t caught;
	bool taken = false;
	int ret;

	if (!again)
		return err_sys(e, ERR_FAILED, ENOMEM, "begin");
	/* They stay blocked: whoever looks after the device reads them by a descriptor of his own. */
	interrupts(&caught);
	sigprocmask(SIG_BLOCK, &caught, NULL);
	ret = become_vital(rq, e);
	if (!ret)
		ret = attach_here(rq, &caught, &r, &k, e);
	if (!ret && r.already) {
		*again = rq->attach;
		taken = true;
		ret = take_over(again, r.index, &k, &found, e);
	}
	free(again);
	if (ret)
		return ret;
	ret = tell(rq, &r, e);
	if (ret) {
		attach_let_go(&k, true);
		return ret;
	}
	/* Where this fails, a file system stays busy, no more. */
	(void)!chdir("/");
	return supervise(rq, r.index, &k, taken ? &found : NULL, e);
}

/* --- of a device that is attached ----------------------------------------------------------------- */

_Noreturn static void adopt(const struct launch_request *rq, int control)
{
	struct report rp = { 0 };
	struct takeover_result found;
	struct attach_kept k;

	setsid();
	rp.ret = become_vital(rq, &rp.err);
	if (!rp.ret)
		rp.ret = takeover_run(&rq->attach, &k, &found, &rp.err);
	send(control, &rp, sizeof(rp), MSG_NOSIGNAL);
	close(control);
	if (!rp.ret)
		supervise_alone(rq, rq->attach.index, &k, &found);
	_exit(0);
}

int launch_takeover(const struct launch_request *rq, struct err *e)
{
	struct report rp = { 0 };
	int pair[2], ret;
	pid_t child;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		return err_sys(e, ERR_FAILED, errno, "socket pair");
	child = fork();
	if (child < 0) {
		ret = err_sys(e, ERR_FAILED, errno, "start the supervisor");
		close(pair[1]);
		goto out;
	}
	if (!child) {
		close(pair[0]);
		adopt(rq, pair[1]);
	}
	close(pair[1]);
	if (recv(pair[0], &rp, sizeof(rp), 0) != (ssize_t)sizeof(rp)) {
		ret = err_set(e, ERR_FAILED, EPIPE, "the new supervisor of nbd%u was killed",
			      rq->attach.index);
		goto out;
	}
	*e = rp.err;
	ret = rp.ret;
	if (ret)
		await_end(child);
out:
	close(pair[0]);
	return ret;
}
