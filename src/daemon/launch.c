/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "daemon/launch.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "config.h"
#include "daemon/control.h"
#include "daemon/device.h"
#include "daemon/guard.h"
#include "daemon/supervise.h"
#include "daemon/takeover.h"
#include "kernel/protect_self.h"

enum { STATUS_MS = 2000 };

/* What the worker sends to its watcher: how it has ended, or that the device is there. */
struct report {
	int ret;
	struct attach_result result;
	struct sysfs_identity identity;
	struct err err;
};

/* The work of one process. */
struct work {
	const struct launch_request *rq;
	sigset_t mask; /* signal mask of the caller */
	int control;   /* to the watcher */
	pid_t watcher; /* process that watches launch_stay */
	struct attached attached;
	struct takeover_result takeover;
	bool adopted; /* takeover is filled */
	bool begun;   /* the report of success is sent */
	struct report report;
};

/* --- a process that stays --------------------------------------------------------------------- */

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

/* Closes all from 3 on that are not among the kept ones, of which -1 stands for none. */
static void close_others(const int *kept, unsigned count)
{
	int limit;

	for (unsigned from = 3;; from = (unsigned)limit + 1) {
		limit = INT_MAX;
		for (unsigned i = 0; i < count; i++)
			if (kept[i] >= (int)from && kept[i] < limit)
				limit = kept[i];
		if (limit == INT_MAX)
			break;
		if (limit > (int)from)
			close_range(from, (unsigned)limit - 1, 0);
	}
	/* The last of them is below. */
	limit = 2;
	for (unsigned i = 0; i < count; i++)
		limit = kept[i] > limit ? kept[i] : limit;
	close_range((unsigned)limit + 1, ~0U, 0);
}

/*
 * What the caller had open (a lock, a pipe) is not for a process that stays; a command may have
 * been given it on purpose.
 */
static void keep_only(const struct launch_request *rq, int control)
{
	int kept[NOTIFY_STORED_MAX + 3] = { control, rq->log_fd, -1 };
	unsigned count = 3;

	if (rq->attach.settings->command.count)
		return;
	if (rq->notify) {
		kept[2] = rq->notify->fd;
		for (unsigned i = 0; i < rq->notify->stored_count; i++)
			kept[count++] = rq->notify->stored[i].fd;
	}
	close_others(kept, count);
}

/* Until the command ends: the parent it may want to exit with, and the reader of its log. */
static void keep_command(struct connections *rs)
{
	char dropped[4096];

	leave_terminal();
	/*
	 * The kernel's end of the connection alone tells the command when it is over; and a
	 * descriptor of the caller's (a lock, a pipe) is for the command at most, not for us.
	 */
	close_others(&rs->command_log, 1);
	fcntl(rs->command_log, F_SETFL, 0);
	while (read(rs->command_log, dropped, sizeof(dropped)) > 0)
		;
	while (waitpid(rs->command, NULL, 0) < 0 && errno == EINTR)
		;
}

/* Before anything is forked that stays. */
static int become_vital(const struct launch_request *rq, struct err *e)
{
	if (rq->arg0)
		protect_self_mark(rq->arg0);
	return settings_is_vital(rq->attach.settings) ? protect_self(e) : 0;
}

/* --- the work --------------------------------------------------------------------------------- */

static int take_over(struct work *w)
{
	struct attach_request rq = w->rq->attach;
	int ret;

	rq.find = false;
	rq.index = w->report.result.index;
	ret = takeover_run(&rq, w->rq->notify, &w->attached, &w->takeover, &w->report.err);
	w->adopted = !ret;
	return ret;
}

/* attach_run; a device whose supervisor has gone is taken over. */
static int attach_or_adopt(struct work *w, int cancel_fd)
{
	struct attach_result *r = &w->report.result;
	int ret = attach_run(&w->rq->attach, cancel_fd, r, &w->attached, &w->report.err);

	if (!ret && r->outcome == ATTACH_ORPHAN)
		ret = take_over(w);
	w->report.identity = w->attached.identity;
	return ret;
}

static bool send_report(struct work *w, int ret)
{
	w->report.ret = ret;
	return guard_report(w->control, &w->report, sizeof(w->report));
}

/* Disconnects what the attach of this report has made; what was there before us stays as it is. */
static void take_back(const struct report *r, const struct connections *c, struct err *e)
{
	struct err undo;
	int ret = 0;

	if (r->result.outcome == ATTACH_DONE && r->identity.pid)
		ret = device_disconnect(&r->identity, c, &undo);
	if (ret && ret != -ENODEV && ret != -ESTALE)
		err_wrap(e, "%s, after", undo.text);
}

/* The supervisor, until the end. On an error before it has begun the device is as it was. */
static int supervise_device(struct work *w, int (*started)(void *ctx, struct err *e), struct err *e)
{
	const struct supervise_request rq = {
		.settings = w->rq->attach.settings,
		.deaf = w->rq->deaf,
		.adopted = w->adopted ? &w->takeover : NULL,
		.log = w->rq->logger,
		.notify = w->rq->notify,
		.started = started,
		.ctx = w,
	};
	int ret;

	notify_drop_stored(w->rq->notify);
	ret = supervise_run(&rq, &w->attached, e);
	if (ret && !w->begun)
		take_back(&w->report, NULL, e);
	return ret;
}

/* A caller that died meanwhile cannot say that there is a device now. */
static int started_in_child(void *ctx, struct err *e)
{
	struct work *w = ctx;

	w->begun = send_report(w, 0);
	if (!w->begun && !w->adopted)
		return err_set(e, ERR_FAILED, EPIPE, "nobody waits for it any more");
	close(w->control);
	leave_terminal();
	return 0;
}

static void supervise_in_child(struct work *w)
{
	struct err *e = &w->report.err;
	unsigned index = w->attached.identity.index;
	int ret = supervise_device(w, started_in_child, e);

	if (!w->begun)
		send_report(w, ret);
	else if (ret)
		log_say(w->rq->logger, LOG_LEVEL_ERROR, "nbd%u: %s", index, e->text);
}

static void attach_in_child(void *ctx, int control)
{
	struct work *w = ctx;
	const struct settings *s = w->rq->attach.settings;
	int ret;

	/* An interrupt of the terminal is the caller's to handle: it tells us by hanging up. */
	setsid();
	sigprocmask(SIG_SETMASK, &w->mask, NULL);
	w->control = control;
	keep_only(w->rq, control);
	ret = become_vital(w->rq, &w->report.err);
	if (!ret)
		ret = attach_or_adopt(w, control);
	if (!ret && w->report.result.outcome != ATTACH_ALREADY && !s->supervision.none) {
		supervise_in_child(w);
	} else if (!send_report(w, ret)) {
		if (!ret)
			take_back(&w->report, &w->attached.connections, &w->report.err);
		attached_close(&w->attached, false);
	} else if (!ret) {
		close(control);
		if (w->attached.connections.command > 0)
			keep_command(&w->attached.connections);
		else
			attached_close(&w->attached, true);
	}
}

static void adopt_in_child(void *ctx, int control)
{
	struct work *w = ctx;
	int ret;

	setsid();
	w->control = control;
	keep_only(w->rq, control);
	w->report.result =
		(struct attach_result){ .outcome = ATTACH_ORPHAN, .index = w->rq->attach.index };
	ret = become_vital(w->rq, &w->report.err);
	if (!ret)
		ret = take_over(w);
	if (!ret)
		supervise_in_child(w);
	else
		send_report(w, ret);
}

/* --- the watcher ------------------------------------------------------------------------------ */

static int undo_of_dead(const struct attach_request *rq, pid_t worker, struct err *e)
{
	while (waitpid(worker, NULL, 0) < 0 && errno == EINTR)
		;
	if (attach_undo_of(rq, worker, e))
		return err_wrap(e,
				"the working process was killed, and what it had done could not be "
				"taken back");
	return err_set(e, ERR_FAILED, EINTR, "the working process was killed; nothing is attached");
}

/* Waits for the report of an attach, and takes back what nobody will use. */
static int guarded(const struct attach_request *rq, const struct guard *g, struct report *r,
		   struct err *e)
{
	bool interrupted;

	if (!guard_wait(g, r, sizeof(*r), &interrupted))
		return undo_of_dead(rq, g->worker, e);
	*e = r->err;
	if (!interrupted)
		return r->ret;
	err_set(e, ERR_FAILED, EINTR, "interrupted; nothing is attached");
	if (!r->ret)
		take_back(r, NULL, e);
	return -EINTR;
}

/* Those that would end us; one that is ignored (nohup, a shell's background) stays ignored. */
static int block_interrupts(sigset_t *mask)
{
	static const int signals[] = { SIGINT, SIGTERM, SIGHUP };
	struct sigaction now;
	sigset_t set;

	sigemptyset(&set);
	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		if (!sigaction(signals[i], NULL, &now) && now.sa_handler != SIG_IGN)
			sigaddset(&set, signals[i]);
	sigprocmask(SIG_BLOCK, &set, mask);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* Those that came were heeded, or came too late: none of them may end us after that. */
static void end_interrupts(int signals, const sigset_t *mask)
{
	struct signalfd_siginfo si;

	while (read(signals, &si, sizeof(si)) > 0)
		;
	close(signals);
	sigprocmask(SIG_SETMASK, mask, NULL);
}

static int await_adopted(const struct launch_request *rq, struct attach_result *r, struct err *e)
{
	int ret;

	if (r->outcome != ATTACH_ORPHAN)
		return 0;
	ret = attach_check(&rq->attach, -1, &r->outcome, e);
	return ret ? ret < 0 ? ret : 0 :
		     err_set(e, ERR_ABSENT, ENODEV, "nbd%u was detached meanwhile", r->index);
}

static int announce_attached(const struct launch_request *rq, struct report *r, struct err *e)
{
	struct report before = *r;
	int ret = await_adopted(rq, &r->result, e);

	if (!ret)
		ret = rq->attached(rq->ctx, &r->result, e);
	if (ret)
		take_back(&before, NULL, e);
	return ret;
}

int launch_attach(const struct launch_request *rq, struct err *e)
{
	struct work w = { .rq = rq };
	struct guard g;
	int ret;

	g.signals = block_interrupts(&w.mask);
	ret = g.signals < 0 ? err_sys(e, ERR_FAILED, errno, "watch for signals") :
			      guard_start_worker(&g, attach_in_child, &w, e);
	if (!ret) {
		ret = guarded(&rq->attach, &g, &w.report, e);
		end_interrupts(g.signals, &w.mask);
		if (!ret)
			ret = announce_attached(rq, &w.report, e);
		guard_close(&g, ret || w.report.result.outcome == ATTACH_ALREADY);
		return ret;
	}
	if (g.signals >= 0)
		close(g.signals);
	sigprocmask(SIG_SETMASK, &w.mask, NULL);
	return ret;
}

int launch_takeover(const struct launch_request *rq, struct err *e)
{
	struct work w = { .rq = rq };
	struct guard g = { .signals = -1 };
	bool interrupted;
	int ret = guard_start_worker(&g, adopt_in_child, &w, e);

	if (ret)
		return ret;
	if (guard_wait(&g, &w.report, sizeof(w.report), &interrupted)) {
		*e = w.report.err;
		ret = w.report.ret;
	} else {
		ret = err_set(e, ERR_FAILED, EPIPE, "the new supervisor of nbd%u was killed",
			      rq->attach.index);
	}
	guard_close(&g, ret);
	return ret;
}

/* --- the caller as the supervisor ------------------------------------------------------------- */

static void watch_caller(void *ctx, struct guard *g)
{
	const struct work *w = ctx;
	struct report r;
	struct err ignored;

	setsid();
	leave_terminal();
	guarded(&w->rq->attach, g, &r, &ignored);
}

static void dismiss_watcher(struct work *w, int ret)
{
	send_report(w, ret);
	close(w->control);
	while (waitpid(w->watcher, NULL, 0) < 0 && errno == EINTR)
		;
}

static int started_here(void *ctx, struct err *e)
{
	struct work *w = ctx;
	int ret = w->rq->attached(w->rq->ctx, &w->report.result, e);

	if (ret)
		return ret;
	w->begun = true;
	dismiss_watcher(w, 0);
	/* Where this fails, a file system stays busy, no more. */
	(void)!chdir("/");
	return 0;
}

static int refuse_second(unsigned index, struct err *e)
{
	struct control_answer a;
	int ret = control_ask(NBD_ATTACH_STATEDIR, index, CONTROL_STATUS, STATUS_MS, &a, NULL, NULL,
			      e);

	if (ret)
		return ret;
	return err_set(e, ERR_BUSY, EBUSY,
		       "nbd%u is attached to this export already, and supervised by process %d",
		       index, (int)a.pid);
}

/* Until the device is there or there is an error, which w->report has. */
static int attach_here(struct work *w)
{
	struct err *e = &w->report.err;
	/* They stay blocked: the supervisor reads them by a descriptor of its own. */
	int signals = block_interrupts(&w->mask), ret;

	if (signals < 0)
		return err_sys(e, ERR_FAILED, errno, "watch for signals");
	ret = attach_or_adopt(w, signals);
	close(signals);
	if (ret == -ECANCELED)
		return err_set(e, ERR_FAILED, EINTR, "interrupted; nothing is attached");
	if (!ret && w->report.result.outcome == ATTACH_ALREADY)
		return refuse_second(w->report.result.index, e);
	return ret;
}

int launch_stay(const struct launch_request *rq, struct err *e)
{
	struct work w = { .rq = rq };
	int ret;

	keep_only(rq, -1);
	ret = become_vital(rq, e);
	if (ret)
		return ret;
	w.control = guard_start_watcher(watch_caller, &w, &w.watcher, e);
	if (w.control < 0)
		return w.control;
	ret = attach_here(&w);
	if (ret)
		*e = w.report.err;
	else
		ret = supervise_device(&w, started_here, e);
	if (!w.begun)
		dismiss_watcher(&w, ret);
	return ret;
}
