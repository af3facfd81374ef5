/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "daemon/detach.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "config.h"
#include "daemon/control.h"
#include "daemon/device.h"
#include "kernel/device_users.h"
#include "kernel/devnode.h"
#include "net/blocking_child.h"

enum {
	GONE_MS = 5000,
	TICK_MS = 100,
	USERS_RETRY_MS = 1000,
	CONTROL_MS = 2000,
};

/* What a child process does; each step of it can wait for the server. */
struct release {
	const struct device_kernel *kernel;
	struct sysfs_identity id;
	bool read_only;
	bool force;
};

struct released {
	bool done; /* else err says where it ended */
	bool unflushed;
	struct err err;
};

/* --- users ------------------------------------------------------------------------------------ */

static int refuse_in_use(unsigned index, const char *why, struct err *e)
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

void detach_find_users(unsigned index, char *buf, size_t cap)
{
	struct device_users u;
	struct err ignored;

	buf[0] = '\0';
	if (!find_users(index, &u, &ignored) && u.users)
		snprintf(buf, cap, "%s", u.text);
}

static int open_node(unsigned index, int flags, struct err *e)
{
	char node[32];
	int fd;

	snprintf(node, sizeof(node), "/dev/nbd%u", index);
	fd = open(node, O_RDONLY | O_CLOEXEC | flags);
	return fd >= 0 ? fd : err_sys(e, ERR_FAILED, errno, "open %s", node);
}

/* Claims the device, so that nothing is mounted meanwhile; or says who uses it. */
static int claim_device(unsigned index, struct err *e)
{
	int fd = open_node(index, O_EXCL, e), ret;
	struct device_users u;

	if (fd < 0 && fd != -EBUSY)
		return fd;
	for (int waited = 0;; waited += TICK_MS) {
		ret = find_users(index, &u, e);
		if (ret || (fd >= 0 && !u.users))
			break;
		/* udev has it open for a moment after each event. */
		if (fd < 0 || waited >= USERS_RETRY_MS) {
			ret = refuse_in_use(
				index,
				u.users ? u.text :
					  "mounted in another namespace, or held by the kernel",
				e);
			break;
		}
		poll(NULL, 0, TICK_MS);
	}
	if (ret && fd >= 0)
		close(fd);
	return ret ? ret : fd;
}

/* --- what a child does ------------------------------------------------------------------------ */

static void check_unused(const void *arg, void *out)
{
	const struct release *rl = arg;

	claim_device(rl->id.index, out);
}

/* fd is the last descriptor that the process has of the device, or -1. */
static int disconnect_and_close(const struct release *rl, int fd, struct err *e)
{
	const struct device_kernel *k = rl->kernel;
	int ret = device_disconnect_here(k->sysfd, &rl->id, e);

	if (fd >= 0)
		close(fd);
	if (!ret)
		devnode_drop_partitions(k->devfd, k->sysfd, rl->id.index, DEVICE_BUSY_MS);
	return ret;
}

static void disconnect_unused(const void *arg, void *out)
{
	const struct release *rl = arg;
	int fd = claim_device(rl->id.index, out);

	if (fd >= 0)
		disconnect_and_close(rl, fd, out);
}

/* Writes out the page cache of the device, then NBD_CMD_FLUSH where the server has it. */
static int flush_device(const struct release *rl, int fd, struct err *e)
{
	if (rl->read_only || !fsync(fd))
		return 0;
	return err_sys(e, ERR_FAILED, errno,
		       "flush nbd%u before detaching it (--force gives up what is not written)",
		       rl->id.index);
}

/*
 * What is cached is written out before the device is claimed: a process that waits for a silent
 * server cannot be ended, and would hold the claim as long. The claim is held until the end.
 */
static void release_device(const void *arg, void *out)
{
	const struct release *rl = arg;
	struct released *r = out;
	int fd, ret;

	fd = open_node(rl->id.index, 0, &r->err);
	ret = fd < 0 ? fd : flush_device(rl, fd, &r->err);
	if (!rl->force) {
		if (ret)
			return;
		close(fd);
		fd = claim_device(rl->id.index, &r->err);
		if (fd < 0 || flush_device(rl, fd, &r->err))
			return;
	}
	r->unflushed = ret && !rl->read_only;
	r->done = !disconnect_and_close(rl, fd, &r->err);
}

/* --- detach ----------------------------------------------------------------------------------- */

/*
 * Waits as long for a connection as for an answer: a process that has begun to flush without one
 * could not be ended.
 */
static int await_connection(const struct detach_request *rq, struct err *e)
{
	long long begin = monotonic_ms();
	struct control_answer a;
	struct err ignored;

	while (!control_ask(NBD_ATTACH_STATEDIR, rq->index, CONTROL_STATUS, CONTROL_MS, &a, NULL,
			    NULL, &ignored) &&
	       !a.alive) {
		if (a.paused)
			return err_set(e, ERR_UNREACHABLE, ENOTCONN,
				       "nbd%u is paused, so that nothing can be flushed; nothing "
				       "was changed (--resume it, or --force gives up what is not "
				       "written)",
				       rq->index);
		if (monotonic_ms() - begin >= rq->silence_ms)
			return err_set(e, ERR_UNREACHABLE, ETIMEDOUT,
				       "nbd%u has had no connection for %.3g s, so that nothing "
				       "can be flushed; nothing was changed (--force gives up what "
				       "is not written)%s%s",
				       rq->index, rq->silence_ms / 1e3, a.last_error[0] ? ": " : "",
				       a.last_error);
		poll(NULL, 0, TICK_MS);
	}
	return 0;
}

/* Waits for the child as long as the server finishes requests. */
static int await_release(int sysfd, const struct detach_request *rq, struct blocking_child *child,
			 struct released *r, struct err *e)
{
	struct pollfd p = { .fd = child->fd, .events = POLLIN };
	long long quiet_since = monotonic_ms();
	struct sysfs_traffic now;
	uint64_t before = 0;
	struct err ignored;

	while (poll(&p, 1, TICK_MS) <= 0) {
		if (!sysfs_traffic(sysfd, rq->index, &now, &ignored) && now.requests != before) {
			before = now.requests;
			quiet_since = monotonic_ms();
		} else if (monotonic_ms() - quiet_since >= rq->silence_ms) {
			blocking_child_abandon(child);
			return err_set(
				e, ERR_UNREACHABLE, ETIMEDOUT,
				"the server of nbd%u has finished no request for %.3g s, so that "
				"nothing can be flushed; nothing was changed (--force gives up "
				"what is not written)",
				rq->index, rq->silence_ms / 1e3);
		}
	}
	return blocking_child_collect(child, r, e);
}

/* 0 and r, which says whether it is done; or -errno where the child has not come to an end. */
static int run_release(const struct detach_request *rq, const struct release *rl,
		       struct released *r, struct err *e)
{
	struct blocking_child child;
	struct err inside = { 0 };
	int ret = 0;

	if (!rq->force) {
		ret = blocking_child_run(check_unused, rl, &inside, sizeof(inside), rq->silence_ms,
					 -1, e);
		if (!ret && inside.code) {
			*e = inside;
			ret = -inside.code;
		}
		if (!ret && !rl->read_only)
			ret = await_connection(rq, e);
	}
	if (!ret)
		ret = blocking_child_start(&child, release_device, rl, sizeof(*r), e);
	return ret ? ret : await_release(rl->kernel->sysfd, rq, &child, r, e);
}

static int detach_attachment(const struct detach_request *rq, const struct release *rl,
			     struct detach_result *r, struct err *e)
{
	struct released end = { 0 };
	struct control_answer a;
	struct err ignored;
	int ret = run_release(rq, rl, &end, e);

	r->unflushed = end.unflushed;
	if (ret && rq->force) {
		/*
		 * The flush hangs. Only a supervisor can cut the connections and free a sender that
		 * waits for the server, for which the kernel would wait.
		 */
		r->unflushed = true;
		control_ask(NBD_ATTACH_STATEDIR, rq->index, CONTROL_ABORT, CONTROL_MS, &a, NULL,
			    NULL, &ignored);
		return device_disconnect(&rl->id, NULL, e);
	}
	if (!ret && !end.done) {
		*e = end.err;
		ret = -e->code;
	}
	return ret;
}

/* Attached anew is gone, too. */
static bool is_gone(int sysfd, const struct sysfs_identity *id)
{
	struct err ignored;
	size_t partitions = 0;
	int ret = sysfs_check_identity(sysfd, id, &ignored);

	if (ret != -ENODEV)
		return ret == -ESTALE;
	return !sysfs_partitions(sysfd, id->index, NULL, 0, &partitions, &ignored) && !partitions;
}

static int await_gone(int sysfd, const struct release *rl, struct detach_result *r, struct err *e)
{
	for (int i = 0; i < GONE_MS / DEVICE_POLL_MS && !is_gone(sysfd, &rl->id); i++)
		poll(NULL, 0, DEVICE_POLL_MS);
	r->in_use = !is_gone(sysfd, &rl->id);
	device_forget(sysfd, &rl->id);
	if (!r->in_use || rl->force)
		return 0;
	return err_set(e, ERR_BUSY, EBUSY,
		       "nbd%u was disconnected but does not go away: somebody opened it meanwhile",
		       rl->id.index);
}

int detach_run(const struct detach_request *rq, struct detach_result *r, struct err *e)
{
	struct device_kernel kernel = { .sysfd = -1, .devfd = -1 };
	struct release rl = { .kernel = &kernel, .force = rq->force };
	struct sysfs_device d;
	int sysfd, ret;

	memset(r, 0, sizeof(*r));
	/* Nothing is loaded for a device that is not there. */
	sysfd = sysfs_open("/sys", e);
	if (sysfd < 0)
		return sysfd;
	ret = sysfs_attachment(sysfd, rq->index, &d, e);
	close(sysfd);
	if (ret)
		return ret;
	if (!d.attached)
		return err_set(e, ERR_ABSENT, ENODEV, "nbd%u is not attached", rq->index);
	sysfs_identify(&d, &rl.id);
	rl.read_only = d.read_only;
	ret = device_open_kernel(&kernel, e);
	if (!ret)
		ret = detach_attachment(rq, &rl, r, e);
	if (!ret)
		ret = await_gone(kernel.sysfd, &rl, r, e);
	device_close_kernel(&kernel);
	return ret;
}

int detach_unused(const struct sysfs_identity *id, struct err *e)
{
	struct device_kernel kernel;
	struct release rl = { .kernel = &kernel, .id = *id };
	struct err inside = { 0 };
	int ret = device_open_kernel(&kernel, e);

	if (!ret)
		ret = blocking_child_run(disconnect_unused, &rl, &inside, sizeof(inside),
					 DEVICE_DISCONNECT_MS, -1, e);
	if (!ret && inside.code) {
		*e = inside;
		ret = -inside.code;
	}
	if (!ret)
		device_forget(kernel.sysfd, id);
	device_close_kernel(&kernel);
	return ret;
}
