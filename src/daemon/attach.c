/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/attach.h"

#include <errno.h>
#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "policy/udev_name.h"
#include "config.h"
#include "kernel/module.h"
#include "kernel/nbdevent.h"
#include "kernel/nbdnl.h"
#include "kernel/devnode.h"
#include "net/sockopt.h"
#include "daemon/record.h"
#include "net/dial.h"
#include "net/transport.h"
#include "net/blocking_child.h"
#include "base/text.h"

enum {
	BUSY_RETRY_MS = 2000, /* udev opens a device after each of its events */
	POLL_MS = 20,
	UNDO_MS = 10000,
};

/* linux/proc_ns.h of the kernel, PROC_USER_INIT_INO: part of what user space may rely on */
#define INITIAL_USER_NS 0xEFFFFFFDU

/* What one attach works with. */
struct attach_ctx {
	const struct attach_request *rq;
	int cancel_fd;
	int sysfd, devfd;
	struct nbdnl *nl;
	char backend[PLAN_BACKEND_MAX + 1];
	struct attach_kept *k;
	struct connections *link; /* of k */
	struct err *e;
};

void attach_identify(const struct attach_request *rq, char *backend)
{
	const struct settings *s = rq->settings;

	if (s->command.count)
		plan_backend_command(s->command.words, s->command.count, s->servers[0].export,
				     backend);
	else
		plan_backend(&s->servers[0], backend);
}

/*
 * netlink_capable() wants CAP_SYS_ADMIN in the initial user namespace. Asking the driver itself
 * would need a command that fails, which it puts into the kernel's log.
 */
static int check_privilege(struct err *e)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct caps[_LINUX_CAPABILITY_U32S_3] = { { 0 } };
	struct stat ns;

	if (syscall(SYS_capget, &header, caps) ||
	    !(caps[CAP_TO_INDEX(CAP_SYS_ADMIN)].effective & CAP_TO_MASK(CAP_SYS_ADMIN)))
		return err_set(e, ERR_KERNEL, EPERM,
			       "configuring nbd devices takes CAP_SYS_ADMIN; run this as root");
	if (!stat("/proc/self/ns/user", &ns) && ns.st_ino != INITIAL_USER_NS)
		return err_set(
			e, ERR_KERNEL, EPERM,
			"configuring nbd devices takes CAP_SYS_ADMIN of the whole machine, not "
			"of a user namespace (a container)");
	return 0;
}

static int open_kernel(struct nbdnl **nl, struct err *e)
{
	int ret;

	*nl = NULL;
	ret = check_privilege(e);
	if (ret)
		return ret;
	ret = nbdnl_open(nl, e);
	if (ret == -ENOENT) {
		ret = module_load("nbd", e);
		if (!ret)
			ret = nbdnl_open(nl, e);
	}
	return ret;
}

int attach_check_kernel(struct err *e)
{
	struct nbdnl *nl;
	int ret = open_kernel(&nl, e);

	nbdnl_close(nl);
	return ret;
}

static int pause_or_cancel(const struct attach_ctx *s)
{
	struct pollfd p = { .fd = s->cancel_fd, .events = POLLIN };

	if (poll(&p, 1, POLL_MS) > 0)
		return err_set(s->e, ERR_FAILED, ECANCELED, "interrupted");
	return 0;
}

/* Reads the record of what is attached there; false when there is none. */
static bool recorded(const struct sysfs_device *d, struct record *st)
{
	struct err ignored;

	return !record_read(NBD_ATTACH_STATEDIR, d->index, st, &ignored) && record_fits(st, d);
}

/*
 * 1 when the device is attached to what the request wants, 0 when it is free, -EBUSY when it is
 * attached to anything else, -EAGAIN when another process is about to attach it to what the
 * request wants.
 */
static int compare_once(struct attach_ctx *s, unsigned index)
{
	const struct settings *wanted = s->rq->settings;
	char shown[512];
	struct sysfs_device d;
	struct record st;
	int ret = sysfs_device(s->sysfd, index, &d, s->e);
	bool known;

	if (ret)
		return ret;
	if (!d.attached)
		return 0;
	text_escape(shown, sizeof(shown), d.backend, strlen(d.backend));
	if (!d.backend[0])
		return err_set(s->e, ERR_BUSY, EBUSY,
			       "nbd%u is attached already, by another program (pid %d)", index,
			       (int)d.pid);
	/* A command is a server of its own each time it is started, whatever its words. */
	if (strcmp(d.backend, s->backend) || wanted->command.count)
		return err_set(s->e, ERR_BUSY, EBUSY, "nbd%u is attached already, to %s", index,
			       shown);
	if (wanted->read_only && !d.read_only)
		return err_set(s->e, ERR_BUSY, EBUSY,
			       "nbd%u is attached to this export already, but not read-only",
			       index);
	if (wanted->block_size && wanted->block_size != d.block_size)
		return err_set(s->e, ERR_BUSY, EBUSY,
			       "nbd%u is attached to this export already, with blocks of %u bytes",
			       index, d.block_size);
	known = recorded(&d, &st);
	if (!wanted->read_only && d.read_only && known && st.read_only)
		return err_set(s->e, ERR_BUSY, EBUSY,
			       "nbd%u is attached to this export already, but read-only", index);
	if (known && wanted->multi.wanted && !wanted->multi.automatic &&
	    wanted->multi.wanted != st.connections)
		return err_set(s->e, ERR_BUSY, EBUSY,
			       "nbd%u is attached to this export already, with %u connections",
			       index, st.connections);
	/* The record is the last thing that an attach does; without one it may still fail. */
	if (!known && !kill(d.pid, 0))
		return err_set(s->e, ERR_BUSY, EAGAIN,
			       "process %d is attaching nbd%u to this export and does not get on",
			       (int)d.pid, index);
	return 1;
}

/* As compare_once, but waits for the other process: for what a first read may take it, and taking back what it has done. */
static int compare(struct attach_ctx *s, unsigned index)
{
	long long deadline = monotonic_ms() + s->rq->settings->connect_timeout_ms + UNDO_MS;
	int ret;

	while ((ret = compare_once(s, index)) == -EAGAIN && monotonic_ms() < deadline) {
		ret = pause_or_cancel(s);
		if (ret)
			return ret;
	}
	return ret;
}

static bool is_stale(const struct attach_ctx *s, const struct sysfs_device *d)
{
	return plan_device_is_stale(&s->k->plan, d->write_zeroes_max, d->minimum_io_size);
}

/*
 * Which device to ask the kernel for when any will do: its own choice, unless a free one has limits
 * left that the kernel would choose without looking at them. The first fit one then, or the first
 * of the others (which is to be made anew).
 */
static int pick(struct attach_ctx *s, int64_t *index)
{
	struct sysfs_device d;
	unsigned *indices;
	size_t count;
	int64_t fit = NBDNL_ANY_INDEX, stale = NBDNL_ANY_INDEX;
	int ret = sysfs_indices(s->sysfd, &indices, &count, s->e);

	if (ret)
		return ret;
	for (size_t i = 0; i < count && !ret; i++) {
		ret = sysfs_device(s->sysfd, indices[i], &d, s->e);
		if (ret || d.attached)
			continue;
		if (is_stale(s, &d) && stale == NBDNL_ANY_INDEX)
			stale = indices[i];
		else if (!is_stale(s, &d) && fit == NBDNL_ANY_INDEX)
			fit = indices[i];
	}
	free(indices);
	*index = stale == NBDNL_ANY_INDEX ? stale : fit == NBDNL_ANY_INDEX ? stale : fit;
	return ret;
}

/*
 * Makes an idle device new: the kernel keeps limits from one attachment to the next, some of which
 * cannot be written (drivers/block/nbd.c sets them and never takes them back), but it forgets a device that is
 * disconnected with NBD_CFLAG_DESTROY_ON_DISCONNECT. -EBUSY when somebody has it.
 */
static int renew(struct attach_ctx *s, unsigned index)
{
	static const struct plan empty = { .block_size = PLAN_BLOCK_SIZE_MIN };
	struct sysfs_device d = { .present = true };
	int pair[2], ret;
	uint32_t got;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		return err_sys(s->e, ERR_FAILED, errno, "renew nbd%u: socket pair", index);
	struct nbdnl_connect c = {
		.plan = &empty,
		.index = index,
		.destroy = true,
		.sockets = pair,
		.count = 1,
	};
	ret = nbdnl_connect(s->nl, &c, &got, s->e);
	if (!ret)
		ret = nbdnl_disconnect(s->nl, got, s->e);
	close(pair[0]);
	close(pair[1]);
	if (ret)
		return err_wrap(s->e, "renew nbd%u", index);
	/* Its end is asynchronous, and waits for whoever has it open (udev, for a moment). */
	for (int i = 0; i < BUSY_RETRY_MS / POLL_MS && d.present; i++) {
		ret = sysfs_device(s->sysfd, index, &d, s->e);
		if (!ret && d.present)
			ret = pause_or_cancel(s);
		if (ret)
			return ret;
	}
	return 0;
}

/*
 * What udev makes its links of. Before CONNECT where the device is known, as the kernel's event comes with it. Where
 * this fails there is no link, and that is all. False where there is no name.
 */
static bool name_for_udev(const struct attach_ctx *s, unsigned index)
{
	char alias[UDEV_NAME_MAX + 1];
	struct err ignored;

	if (s->rq->settings->command.count)
		return false;
	udev_name_of(&s->rq->settings->servers[0], alias);
	return !record_write_udev_name(NBD_ATTACH_STATEDIR, index, getpid(), alias, &ignored);
}

/* CONNECT of a given index or of any; the device may need to be made anew before. */
static int connect_once(struct attach_ctx *s, uint32_t *index)
{
	struct nbdnl_connect c = {
		.plan = &s->k->plan,
		.index = s->rq->index,
		.sockets = s->link->fds,
		.count = s->link->count,
	};
	struct sysfs_device d;
	int ret;

	if (s->rq->find) {
		ret = pick(s, &c.index);
		if (ret)
			return ret;
	}
	if (c.index != NBDNL_ANY_INDEX) {
		ret = sysfs_device(s->sysfd, (unsigned)c.index, &d, s->e);
		if (!ret && d.present && !d.attached && is_stale(s, &d))
			ret = renew(s, (unsigned)c.index);
		if (ret)
			return ret;
	}
	if (c.index == NBDNL_ANY_INDEX) {
		ret = nbdnl_connect(s->nl, &c, index, s->e);
		if (!ret && name_for_udev(s, *index))
			sysfs_announce(s->sysfd, *index);
		return ret;
	}
	name_for_udev(s, (unsigned)c.index);
	ret = nbdnl_connect(s->nl, &c, index, s->e);
	if (ret)
		record_remove_udev_name(NBD_ATTACH_STATEDIR, (unsigned)c.index, getpid());
	return ret;
}

/*
 * EBUSY can mean that udev just looks at the device, EINVAL that it is going away. 1: somebody else
 * attached the same export meanwhile.
 */
static int connect_device(struct attach_ctx *s, uint32_t *index)
{
	long long deadline = monotonic_ms() + BUSY_RETRY_MS;
	struct err last;
	bool late;
	int ret;

	for (;;) {
		ret = connect_once(s, index);
		if (ret != -EBUSY && ret != -EINVAL)
			return ret;
		last = *s->e;
		late = monotonic_ms() >= deadline;
		if (!s->rq->find) {
			ret = compare(s, s->rq->index);
			if (ret) {
				*index = s->rq->index;
				return ret;
			}
		}
		if (late)
			break;
		ret = pause_or_cancel(s);
		if (ret)
			return ret;
	}
	*s->e = last;
	if (last.code == EBUSY)
		err_wrap(s->e, "some program has the device open");
	return -last.code;
}

struct settle {
	int sysfd, devfd;
	unsigned index;
	struct sysfs_limits limits;
};

/*
 * All that waits for the server: limits (writing one waits for requests in flight since 6.12), and
 * the first open.
 */
static void settle(const void *arg, void *out)
{
	const struct settle *st = arg;
	struct err *e = out;

	if (!sysfs_limits_write(st->sysfd, st->index, &st->limits, e))
		devnode_scan_partitions(st->devfd, st->index, BUSY_RETRY_MS, e);
}

/* Whether any of the connections is; POLLIN is not looked at: what arrives belongs to the kernel. */
static bool is_hung_up(const struct attach_ctx *s)
{
	struct pollfd p[PLAN_CONNECTIONS_MAX];

	for (unsigned i = 0; i < s->link->count; i++)
		p[i] = (struct pollfd){ .fd = s->link->fds[i], .events = POLLRDHUP };
	return poll(p, s->link->count, 0) > 0;
}

static int hung_up(struct attach_ctx *s)
{
	return err_set(s->e, ERR_UNREACHABLE, ECONNRESET,
		       "the server closed the connection, or sent what the kernel cannot read, "
		       "right after the handshake; see its log and the kernel's");
}

/*
 * A descriptor that is readable when a connection has ended, or when cancel_fd is: the kernel
 * gives up a request that was on its way then only when the request's own time is over. -errno on
 * failure.
 */
static int open_watch(struct attach_ctx *s)
{
	struct epoll_event cancelled = { .events = EPOLLIN }, ended = { .events = EPOLLRDHUP };
	int fd = epoll_create1(EPOLL_CLOEXEC);
	bool good = fd >= 0;

	for (unsigned i = 0; good && i < s->link->count; i++)
		good = !epoll_ctl(fd, EPOLL_CTL_ADD, s->link->fds[i], &ended);
	if (good && s->cancel_fd >= 0)
		good = !epoll_ctl(fd, EPOLL_CTL_ADD, s->cancel_fd, &cancelled);
	if (good)
		return fd;
	err_sys(s->e, ERR_FAILED, errno, "watch the connections");
	if (fd >= 0)
		close(fd);
	return -s->e->code;
}

static int check_settled(struct attach_ctx *s, unsigned index)
{
	struct sysfs_device d;
	int ret = sysfs_device(s->sysfd, index, &d, s->e);

	if (ret)
		return ret;
	if (is_hung_up(s))
		return hung_up(s);
	if (!d.attached || d.size != s->k->plan.size || d.block_size != s->k->plan.block_size)
		return err_set(s->e, ERR_KERNEL, EIO,
			       "nbd%u has %llu bytes in blocks of %u, not %llu in blocks of %u: "
			       "another program interferes",
			       index, (unsigned long long)d.size, d.block_size,
			       (unsigned long long)s->k->plan.size, s->k->plan.block_size);
	if (is_stale(s, &d))
		return err_set(
			s->e, ERR_BUSY, EBUSY,
			"nbd%u has limits of an earlier attachment that do not fit this server "
			"and could not be renewed; take another device",
			index);
	return 0;
}

static int make_usable(struct attach_ctx *s, unsigned index)
{
	struct settle st = {
		.sysfd = s->sysfd,
		.devfd = s->devfd,
		.index = index,
		.limits = {
			.max_sectors_kb = s->k->plan.max_sectors_kb,
			.write_back = s->k->plan.write_back,
			.rotational = s->k->plan.rotational,
			.io_timeout_ms = s->k->plan.io_timeout_ms,
		},
	};
	struct err inside;
	int ret, watch;

	watch = open_watch(s);
	if (watch < 0)
		return watch;
	ret = blocking_child_run(settle, &st, &inside, sizeof(inside),
				 s->rq->settings->connect_timeout_ms, watch, s->e);
	close(watch);
	if (ret == -ECANCELED && is_hung_up(s))
		return hung_up(s);
	if (ret == -ETIMEDOUT)
		return err_set(s->e, ERR_UNREACHABLE, ETIMEDOUT,
			       "the server does not answer the first read within %.3g s",
			       s->rq->settings->connect_timeout_ms / 1e3);
	if (ret)
		return ret;
	if (inside.code) {
		*s->e = inside;
		return -inside.code;
	}
	return check_settled(s, index);
}

static int record(struct attach_ctx *s, unsigned index)
{
	const struct settings *settings = s->rq->settings;
	struct record *st = calloc(1, sizeof(*st));
	int ret;

	if (!st)
		return err_sys(s->e, ERR_FAILED, ENOMEM, "write the record");
	st->pid = getpid();
	st->connections = st->alive = s->link->count;
	st->read_only = settings->read_only;
	memcpy(st->backend, s->backend, sizeof(st->backend));
	memcpy(st->export, settings->servers[0].export, sizeof(st->export));
	memcpy(st->peer, s->link->peer, sizeof(st->peer));
	if (s->link->encrypted)
		snprintf(st->tls, sizeof(st->tls), "%s %s %s", s->link->tls.version,
			 s->link->tls.cipher, s->link->relayed ? "relay" : "kernel");
	st->server_flags = (unsigned)s->k->plan.server_flags;
	st->timeout_s = s->k->plan.timeout_s;
	if (s->link->export.has_name)
		memcpy(st->name, s->link->export.name, sizeof(st->name));
	st->settings = settings;
	settings_endpoint(settings, s->k->server, st->host, sizeof(st->host));
	ret = record_write(NBD_ATTACH_STATEDIR, index, st, s->e);
	free(st);
	return ret;
}

struct undo {
	int sysfd, devfd;
	unsigned index;
};

static void disconnect(const void *arg, void *out)
{
	const struct undo *u = arg;
	struct err *e = out;
	struct nbdnl *nl;

	if (nbdnl_open(&nl, e))
		return;
	if (!nbdnl_disconnect(nl, u->index, e))
		devnode_drop_partitions(u->devfd, u->sysfd, u->index, BUSY_RETRY_MS);
	nbdnl_close(nl);
}

int attach_undo(unsigned index, struct err *e)
{
	struct undo u = { .index = index };
	struct err inside;
	int ret;

	/* Where there is no such directory the disconnection matters all the same. */
	u.sysfd = sysfs_open("/sys", &inside);
	u.devfd = devnode_open_directory("/dev", &inside);
	ret = blocking_child_run(disconnect, &u, &inside, sizeof(inside), UNDO_MS, -1, e);
	if (u.sysfd >= 0)
		close(u.sysfd);
	if (u.devfd >= 0)
		close(u.devfd);
	record_remove(NBD_ATTACH_STATEDIR, index);
	if (ret)
		return err_wrap(e, "disconnect nbd%u", index);
	if (inside.code)
		*e = inside;
	return -inside.code;
}

int attach_undo_of(const struct attach_request *rq, pid_t pid, struct err *e)
{
	char backend[PLAN_BACKEND_MAX + 1];
	struct sysfs_device d;
	unsigned *indices = NULL;
	size_t count = 0;
	int sysfd, ret;

	attach_identify(rq, backend);
	sysfd = sysfs_open("/sys", e);
	if (sysfd < 0)
		return sysfd;
	ret = sysfs_indices(sysfd, &indices, &count, e);
	for (size_t i = 0; i < count && !ret; i++) {
		ret = sysfs_attachment(sysfd, indices[i], &d, e);
		if (!ret && d.attached && d.pid == pid && !strcmp(d.backend, backend) &&
		    (rq->find || rq->index == d.index))
			ret = attach_undo(d.index, e);
	}
	free(indices);
	close(sysfd);
	return ret;
}

static int attach_device(struct attach_ctx *s, struct attach_result *r)
{
	const struct plan_kernel kernel = { .page_size = (uint32_t)sysconf(_SC_PAGESIZE) };
	char endpoint[512];
	const struct settings *settings = s->rq->settings;
	struct err ignored;
	uint32_t index;
	int ret;

	settings_endpoint(settings, 0, endpoint, sizeof(endpoint));
	ret = plan_attach(settings, s->link->count, &s->link->export, &kernel, &s->k->plan, s->e);
	if (ret)
		return err_wrap(s->e, "%s", endpoint);
	memcpy(s->k->plan.backend, s->backend, sizeof(s->k->plan.backend));
	/* So that no request is half sent when its connection dies; else the system's own will do. */
	for (unsigned i = 0; !settings->supervision.none && i < s->link->count; i++)
		sockopt_set_send_room(s->link->fds[i], SOCKOPT_SEND_ROOM, &ignored);
	ret = connect_device(s, &index);
	if (ret < 0)
		return ret;
	r->index = index;
	r->made_read_only = s->k->plan.made_read_only;
	r->connections = s->link->count;
	memcpy(r->note, s->link->note, sizeof(r->note));
	if (ret) {
		r->already = true;
		return 0;
	}
	ret = make_usable(s, index);
	if (!ret)
		ret = record(s, index);
	if (ret) {
		err_wrap(s->e, "%s", endpoint);
		if (attach_undo(index, &ignored))
			err_wrap(s->e, "nbd%u could not be released (%s) after", index,
				 ignored.text);
	}
	return ret;
}

/* Connections to a Unix socket, for a negotiator that has no access to paths. Fewer than wanted may do, one must be. */
static int connect_unix(const struct settings *s, unsigned server, int *fds, unsigned *count,
			struct err *e)
{
	unsigned wanted = s->multi.wanted > 1 ? s->multi.wanted : 1;

	for (*count = 0; *count < wanted && *count < PLAN_CONNECTIONS_MAX; ++*count) {
		fds[*count] = dial_unix(s->servers[server].path, e);
		if (fds[*count] < 0)
			return *count && s->multi.automatic ? 0 : fds[*count];
	}
	return 0;
}

/* One server, by the negotiator. */
static int negotiate(struct attach_ctx *s, unsigned server)
{
	const struct settings *l = s->rq->settings;
	struct negotiator *n = &s->k->negotiator;
	struct pollfd p[2] = {
		{ .fd = n->fd, .events = POLLIN },
		{ .fd = s->cancel_fd, .events = POLLIN },
	};
	int fds[PLAN_CONNECTIONS_MAX], ret = 0;
	unsigned count = 0;

	if (transport_of(&l->servers[server])->by_path)
		ret = connect_unix(l, server, fds, &count, s->e);
	if (!ret)
		ret = negotiator_ask(n, server, NEG_GOAL_GO, &l->multi, l->connect_timeout_ms, fds,
				     count, s->e);
	while (count)
		close(fds[--count]);
	if (ret)
		return ret;
	while ((ret = negotiator_answer(n, s->link, s->e)) == -EAGAIN) {
		if (poll(p, 2, -1) < 0 && errno != EINTR)
			return err_sys(s->e, ERR_FAILED, errno, "wait for the negotiator");
		if (p[1].revents) {
			negotiator_cancel(n);
			return err_set(s->e, ERR_FAILED, ECANCELED, "interrupted");
		}
	}
	return ret;
}

static int get_link(struct attach_ctx *s)
{
	const struct settings *l = s->rq->settings;
	int ret;

	/* What fails here is told by whoever needs it, and what is built in needs none. */
	if (l->servers[0].tls && l->tls.offload != TLS_OFFLOAD_NO)
		module_load("tls", &(struct err){ 0 });
	if (l->command.count)
		return connect_open(l, NEG_GOAL_GO, s->cancel_fd, NULL, NULL, s->link, s->e);
	if (!l->supervision.none) {
		s->k->events = nbdevent_open(s->e);
		if (s->k->events < 0)
			return s->k->events;
	}
	ret = negotiator_start(&s->k->negotiator, l, &s->rq->negotiator, s->e);
	if (ret)
		return ret;
	for (unsigned i = 0; i < l->server_count; i++) {
		ret = negotiate(s, i);
		s->k->server = i;
		if (!ret || ret == -ECANCELED || ret == -EPIPE)
			break;
	}
	if (ret && ret != -ECANCELED && l->server_count > 1)
		err_wrap(s->e, "none of %u servers can be used; the last", l->server_count);
	return ret;
}

void attach_let_go(struct attach_kept *k, bool kernel_has_it)
{
	connections_close(&k->link, kernel_has_it);
	if (k->negotiator.pid > 0)
		negotiator_stop(&k->negotiator);
	k->negotiator.pid = 0;
	if (k->events >= 0)
		close(k->events);
	k->events = -1;
}

void attached_init(struct attached *a)
{
	memset(a, 0, sizeof(*a));
	a->connections.command_log = -1;
	a->events = -1;
}

int attach_run(const struct attach_request *rq, int cancel_fd, struct attach_result *r,
	       struct attach_kept *k, struct err *e)
{
	struct attach_ctx s = {
		.rq = rq,
		.cancel_fd = cancel_fd,
		.sysfd = -1,
		.devfd = -1,
		.k = k,
		.link = &k->link,
		.e = e,
	};
	int ret;

	memset(r, 0, sizeof(*r));
	memset(k, 0, sizeof(*k));
	k->link.command_log = -1;
	k->events = -1;
	attach_identify(rq, s.backend);
	ret = open_kernel(&s.nl, e);
	if (ret)
		return ret;
	s.sysfd = sysfs_open("/sys", e);
	s.devfd = s.sysfd < 0 ? -1 : devnode_open_directory("/dev", e);
	if (s.devfd < 0) {
		ret = -e->code;
		goto out;
	}
	if (!rq->find) {
		ret = compare(&s, rq->index);
		if (ret) {
			r->index = rq->index;
			r->already = ret > 0;
			ret = ret > 0 ? 0 : ret;
			goto out;
		}
	}
	ret = get_link(&s);
	if (!ret)
		ret = attach_device(&s, r);
	if (ret || r->already)
		attach_let_go(k, false);
out:
	if (s.devfd >= 0)
		close(s.devfd);
	if (s.sysfd >= 0)
		close(s.sysfd);
	nbdnl_close(s.nl);
	return ret;
}
