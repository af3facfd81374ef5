/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "daemon/detach.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/attach.h"
#include "config.h"
#include "daemon/control.h"
#include "kernel/nbdnl.h"
#include "kernel/devnode.h"
#include "daemon/record.h"
#include "kernel/sysfs.h"
#include "net/blocking_child.h"
#include "kernel/device_users.h"

enum {
	POLL_MS = 20,
	GONE_MS = 5000,
	SIZE_MS = 2000,
	TICK_MS = 100,
	USERS_RETRY_MS = 1000,
	CUT_MS = 2000,
};

struct release {
	int sysfd, devfd;
	unsigned index;
	bool read_only;
	bool force;
};

struct released {
	bool done; /* else err says where it ended */
	bool unflushed;
	struct err err;
};

static int refuse(unsigned index, const char *why, struct err *e)
{
	return err_set(e, ERR_BUSY, EBUSY,
		       "nbd%u is in use: %s; --force detaches it all the same and "
		       "its users get I/O errors",
		       index, why);
}

static int find_users(unsigned index, struct device_users *u, struct err *e)
{
	int procfd = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int sysfd = sysfs_open("/sys", e);
	int ret = sysfd < 0 ? sysfd : 0;

	u->users = 0;
	if (procfd < 0)
		ret = err_sys(e, ERR_FAILED, errno, "open /proc");
	if (!ret)
		ret = device_users_find(procfd, sysfd, index, u, e);
	if (procfd >= 0)
		close(procfd);
	if (sysfd >= 0)
		close(sysfd);
	return ret;
}

static int open_node(const char *node, const struct release *rl, struct err *e)
{
	struct device_users u;
	int fd = open(node, O_RDONLY | O_EXCL | O_CLOEXEC);
	int ret;

	if (fd >= 0 || rl->force) {
		if (fd < 0)
			fd = open(node, O_RDONLY | O_CLOEXEC);
		return fd >= 0 ? fd : err_sys(e, ERR_FAILED, errno, "open %s", node);
	}
	if (errno != EBUSY)
		return err_sys(e, ERR_FAILED, errno, "open %s", node);
	ret = find_users(rl->index, &u, e);
	if (ret)
		return ret;
	return refuse(rl->index,
		      u.users ? u.text : "mounted in another namespace, or held by the kernel", e);
}

/*
 * The whole of a release, in a child process: each step can wait for the server. The claim is held
 * until the end, so that nothing is mounted between the check and the disconnection.
 */
static void release(const void *arg, void *out)
{
	const struct release *rl = arg;
	struct released *r = out;
	struct nbdnl *nl = NULL;
	char node[32];
	struct device_users u;
	int fd;

	snprintf(node, sizeof(node), "/dev/nbd%u", rl->index);
	fd = open_node(node, rl, &r->err);
	if (fd < 0 && !rl->force)
		return;

	for (int i = 0; !rl->force; i++) {
		if (find_users(rl->index, &u, &r->err))
			return;
		if (!u.users)
			break;
		/* udev has it open for a moment after each event */
		if (i == USERS_RETRY_MS / TICK_MS) {
			refuse(rl->index, u.text, &r->err);
			return;
		}
		poll(NULL, 0, TICK_MS);
	}

	/* Writes out the page cache of the device, then NBD_CMD_FLUSH where the server has it. */
	if (!rl->read_only && (fd < 0 || fsync(fd))) {
		if (!rl->force) {
			err_sys(&r->err, ERR_FAILED, errno,
				"flush nbd%u before detaching it (--force gives up what is not "
				"written)",
				rl->index);
			return;
		}
		r->unflushed = true;
	}

	if (nbdnl_open(&nl, &r->err))
		return;
	if (nbdnl_disconnect(nl, rl->index, &r->err))
		return;
	nbdnl_close(nl);
	if (fd >= 0)
		close(fd);
	devnode_drop_partitions(rl->devfd, rl->sysfd, rl->index, SIZE_MS);
	r->done = true;
}

/* Waits for the task as long as the server finishes requests. */
static int wait_release(int sysfd, const struct detach_request *rq, struct blocking_child *t,
			struct released *r, struct err *e)
{
	struct pollfd p = { .fd = t->fd, .events = POLLIN };
	long long quiet_since = monotonic_ms();
	struct sysfs_traffic now;
	uint64_t before = 0;
	struct err ignored;

	while (poll(&p, 1, TICK_MS) <= 0) {
		if (!sysfs_traffic(sysfd, rq->index, &now, &ignored) && now.requests != before) {
			before = now.requests;
			quiet_since = monotonic_ms();
		} else if (monotonic_ms() - quiet_since >= rq->silence_ms) {
			blocking_child_abandon(t);
			return err_set(
				e, ERR_UNREACHABLE, ETIMEDOUT,
				"the server of nbd%u has finished no request for %.3g s, so that "
				"nothing can be flushed; nothing was changed (--force gives up "
				"what is not written)",
				rq->index, rq->silence_ms / 1e3);
		}
	}
	return blocking_child_collect(t, r, e);
}

static bool is_gone(int sysfd, unsigned index)
{
	struct sysfs_device d;
	struct err ignored;
	size_t partitions = 0;

	if (sysfs_attachment(sysfd, index, &d, &ignored) ||
	    sysfs_partitions(sysfd, index, NULL, 0, &partitions, &ignored))
		return false;
	return !d.attached && !partitions;
}

int detach_run(const struct detach_request *rq, struct detach_result *r, struct err *e)
{
	struct release rl = { .index = rq->index, .force = rq->force, .devfd = -1 };
	struct released end = { 0 };
	struct control_answer a;
	struct sysfs_device d;
	struct err ignored;
	struct blocking_child t;
	int sysfd, ret;

	memset(r, 0, sizeof(*r));
	sysfd = sysfs_open("/sys", e);
	if (sysfd < 0)
		return sysfd;
	ret = sysfs_attachment(sysfd, rq->index, &d, e);
	if (ret)
		goto out;
	if (!d.attached) {
		ret = err_set(e, ERR_ABSENT, ENODEV, "nbd%u is not attached", rq->index);
		goto out;
	}
	ret = attach_check_kernel(e);
	if (ret)
		goto out;
	rl.devfd = devnode_open_directory("/dev", e);
	if (rl.devfd < 0) {
		ret = rl.devfd;
		goto out;
	}
	rl.sysfd = sysfd;
	rl.read_only = d.read_only;
	ret = blocking_child_start(&t, release, &rl, sizeof(end), e);
	if (!ret)
		ret = wait_release(sysfd, rq, &t, &end, e);
	if (ret && rq->force) {
		/* The flush hangs; the connections are taken away under it, which ends it. Nobody but a supervisor
		   can free a sender that waits for the server, and that the kernel would wait for. */
		r->unflushed = true;
		control_ask(NBD_ATTACH_STATEDIR, rq->index, CONTROL_ABORT, CUT_MS, &a, NULL, NULL,
			    &ignored);
		ret = attach_undo(rq->index, e);
	} else if (!ret && !end.done) {
		*e = end.err;
		ret = -e->code;
	}
	if (ret)
		goto out;
	r->unflushed |= end.unflushed;
	for (int i = 0; i < GONE_MS / POLL_MS && !is_gone(sysfd, rq->index); i++)
		poll(NULL, 0, POLL_MS);
	r->in_use = !is_gone(sysfd, rq->index);
	if (r->in_use && !rq->force)
		ret = err_set(e, ERR_BUSY, EBUSY,
			      "nbd%u was disconnected but does not go away: "
			      "somebody opened it meanwhile",
			      rq->index);
	record_remove(NBD_ATTACH_STATEDIR, rq->index);
out:
	if (rl.devfd >= 0)
		close(rl.devfd);
	close(sysfd);
	return ret;
}
