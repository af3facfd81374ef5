/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "daemon/device.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "config.h"
#include "daemon/record.h"
#include "kernel/devnode.h"
#include "kernel/module.h"
#include "net/blocking_child.h"
#include "net/sockopt.h"

enum {
	CUT_AFTER_MS = 2000,
	FIRST_READ = 65536, /* bytes; the largest block size */
};

/* linux/proc_ns.h of the kernel, PROC_USER_INIT_INO: part of what user space may rely on */
#define INITIAL_USER_NS 0xEFFFFFFDU

/* --- the kernel ------------------------------------------------------------------------------- */

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

int device_open_kernel(struct device_kernel *k, struct err *e)
{
	int ret;

	*k = (struct device_kernel){ .sysfd = -1, .devfd = -1 };
	ret = check_privilege(e);
	if (ret)
		return ret;
	ret = nbdnl_open(&k->nl, e);
	if (ret == -ENOENT) {
		ret = module_load("nbd", e);
		if (!ret)
			ret = nbdnl_open(&k->nl, e);
	}
	if (ret)
		return ret;
	k->sysfd = sysfs_open("/sys", e);
	if (k->sysfd < 0)
		return k->sysfd;
	k->devfd = devnode_open_directory("/dev", e);
	return k->devfd < 0 ? k->devfd : 0;
}

void device_close_kernel(struct device_kernel *k)
{
	if (k->devfd >= 0)
		close(k->devfd);
	if (k->sysfd >= 0)
		close(k->sysfd);
	nbdnl_close(k->nl);
	*k = (struct device_kernel){ .sysfd = -1, .devfd = -1 };
}

int device_pause(int ms, int cancel_fd, struct err *e)
{
	struct pollfd p = { .fd = cancel_fd, .events = POLLIN };

	if (poll(&p, 1, ms) > 0)
		return err_set(e, ERR_FAILED, ECANCELED, "interrupted");
	return 0;
}

/* --- look ------------------------------------------------------------------------------------- */

bool device_is_disconnected(const struct device_kernel *k, unsigned index, const char *backend)
{
	struct err ignored;

	return nbdnl_probe(k->nl, index, backend, &ignored) == -EINVAL;
}

static void read_first(const void *arg, void *out)
{
	const unsigned *index = arg;
	bool *good = out;
	char node[32];
	void *block;
	int fd;

	snprintf(node, sizeof(node), "/dev/nbd%u", *index);
	fd = open(node, O_RDONLY | O_DIRECT | O_CLOEXEC);
	*good = fd >= 0 && !posix_memalign(&block, FIRST_READ, FIRST_READ) &&
		pread(fd, block, FIRST_READ, 0) > 0;
}

int device_read_first(unsigned index, unsigned timeout_ms, int cancel_fd, struct err *e)
{
	bool good;
	int ret = blocking_child_run(read_first, &index, &good, sizeof(good), timeout_ms, cancel_fd,
				     e);

	if (!ret && !good)
		ret = err_set(e, ERR_FAILED, EIO, "a read fails");
	return ret ? err_wrap(e, "read nbd%u", index) : 0;
}

/* --- connect ---------------------------------------------------------------------------------- */

/* Waits until the device is gone, which is asynchronous, and takes until nobody has it open. */
static int await_removal(const struct device_kernel *k, unsigned index, int cancel_fd,
			 struct err *e)
{
	struct sysfs_device d;
	int ret = 0;

	for (int i = 0; !ret && i < DEVICE_BUSY_MS / DEVICE_POLL_MS; i++) {
		ret = sysfs_attachment(k->sysfd, index, &d, e);
		if (ret || !d.present)
			return ret;
		ret = device_pause(DEVICE_POLL_MS, cancel_fd, e);
	}
	return ret;
}

int device_renew(const struct device_kernel *k, unsigned index, int cancel_fd, struct err *e)
{
	static const struct plan empty = { .block_size = PLAN_BLOCK_SIZE_MIN };
	int pair[2], ret;
	uint32_t got;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		return err_sys(e, ERR_FAILED, errno, "renew nbd%u: socket pair", index);
	struct nbdnl_connect c = {
		.plan = &empty,
		.index = index,
		.destroy = true,
		.sockets = pair,
		.count = 1,
	};
	ret = nbdnl_connect(k->nl, &c, &got, e);
	if (!ret)
		ret = nbdnl_disconnect(k->nl, got, e);
	close(pair[0]);
	close(pair[1]);
	if (ret)
		return err_wrap(e, "renew nbd%u", index);
	return await_removal(k, index, cancel_fd, e);
}

static int renew_if_stale(const struct device_kernel *k, const struct plan *p, unsigned index,
			  int cancel_fd, struct err *e)
{
	struct sysfs_device d;
	int ret = sysfs_attachment(k->sysfd, index, &d, e);

	if (!ret && d.present && !d.attached)
		ret = sysfs_device(k->sysfd, index, &d, e);
	if (ret || !d.present || d.attached ||
	    !plan_device_is_stale(p, d.write_zeroes_max, d.minimum_io_size))
		return ret;
	return device_renew(k, index, cancel_fd, e);
}

/*
 * The identity of what CONNECT has made. Its process is ourselves; in a namespace of processes of
 * our own sysfs knows us by another number.
 */
static int identify(const struct device_kernel *k, const struct plan *p, unsigned index,
		    struct sysfs_identity *id, struct err *e)
{
	struct sysfs_device d;
	int ret;

	*id = (struct sysfs_identity){ .index = index, .pid = getpid() };
	memcpy(id->backend, p->backend, sizeof(id->backend));
	ret = sysfs_attachment(k->sysfd, index, &d, e);
	if (!ret && d.attached && !strcmp(d.backend, p->backend))
		id->pid = d.pid;
	return ret ? ret : sysfs_check_identity(k->sysfd, id, e);
}

int device_connect(const struct device_kernel *k, const struct plan *p, const struct connections *c,
		   int64_t index, const char *alias, int cancel_fd, struct sysfs_identity *id,
		   struct err *e)
{
	const struct nbdnl_connect command = {
		.plan = p,
		.index = index,
		.sockets = c->fds,
		.count = c->count,
	};
	bool known = index != NBDNL_ANY_INDEX;
	struct err ignored;
	uint32_t got;
	int ret = 0;

	if (known)
		ret = renew_if_stale(k, p, (unsigned)index, cancel_fd, e);
	if (ret)
		return ret;
	if (known && alias)
		record_write_udev_name(NBD_ATTACH_STATEDIR, (unsigned)index, getpid(), alias,
				       &ignored);
	ret = nbdnl_connect(k->nl, &command, &got, e);
	if (ret) {
		if (known && alias)
			record_remove_udev_name(NBD_ATTACH_STATEDIR, (unsigned)index, getpid());
		return ret;
	}
	if (!known && alias &&
	    !record_write_udev_name(NBD_ATTACH_STATEDIR, got, getpid(), alias, &ignored))
		sysfs_announce(k->sysfd, got);
	return identify(k, p, got, id, e);
}

/* --- first use -------------------------------------------------------------------------------- */

struct first_use {
	int sysfd, devfd;
	unsigned index;
	struct sysfs_limits limits;
};

/*
 * All that waits for the server: limits (writing one waits for requests in flight since 6.12), and
 * the first open.
 */
static void use_first(const void *arg, void *out)
{
	const struct first_use *u = arg;
	struct err *e = out;

	if (!sysfs_limits_write(u->sysfd, u->index, &u->limits, e))
		devnode_scan_partitions(u->devfd, u->index, DEVICE_BUSY_MS, e);
}

/* POLLIN is not looked at: what arrives belongs to the kernel. */
static bool any_hung_up(const struct connections *c)
{
	struct pollfd p[PLAN_CONNECTIONS_MAX];

	for (unsigned i = 0; i < c->count; i++)
		p[i] = (struct pollfd){ .fd = c->fds[i], .events = POLLRDHUP };
	return poll(p, c->count, 0) > 0;
}

static int hung_up(const struct plan *p, const struct connections *c, struct err *e)
{
	for (unsigned i = 0; i < c->count; i++)
		if (sockopt_was_given_up(c->fds[i], p->timeout_s))
			return err_set(e, ERR_UNREACHABLE, ETIMEDOUT,
				       "the server did not answer the first read within %u s, the "
				       "limit of --timeout",
				       p->timeout_s);
	return err_set(e, ERR_UNREACHABLE, ECONNRESET,
		       "the server closed the connection, or sent what the kernel cannot read, "
		       "right after the handshake; see its log and the kernel's");
}

/*
 * A descriptor that is readable when a connection has ended, or when cancel_fd is: the kernel
 * gives up a request that was on its way then only when the request's own time is over. -errno on
 * failure.
 */
static int watch_connections(const struct connections *c, int cancel_fd, struct err *e)
{
	struct epoll_event cancelled = { .events = EPOLLIN }, ended = { .events = EPOLLRDHUP };
	int fd = epoll_create1(EPOLL_CLOEXEC);
	bool good = fd >= 0;

	for (unsigned i = 0; good && i < c->count; i++)
		good = !epoll_ctl(fd, EPOLL_CTL_ADD, c->fds[i], &ended);
	if (good && cancel_fd >= 0)
		good = !epoll_ctl(fd, EPOLL_CTL_ADD, cancel_fd, &cancelled);
	if (good)
		return fd;
	err_sys(e, ERR_FAILED, errno, "watch the connections");
	if (fd >= 0)
		close(fd);
	return -e->code;
}

static int check_usable(const struct device_kernel *k, const struct sysfs_identity *id,
			const struct plan *p, const struct connections *c, struct err *e)
{
	struct sysfs_device d;
	int ret = sysfs_device(k->sysfd, id->index, &d, e);

	if (ret)
		return ret;
	if (any_hung_up(c))
		return hung_up(p, c, e);
	if (!d.attached || d.size != p->size || d.block_size != p->block_size)
		return err_set(e, ERR_KERNEL, EIO,
			       "nbd%u has %llu bytes in blocks of %u, not %llu in blocks of %u: "
			       "another program interferes",
			       id->index, (unsigned long long)d.size, d.block_size,
			       (unsigned long long)p->size, p->block_size);
	if (plan_device_is_stale(p, d.write_zeroes_max, d.minimum_io_size))
		return err_set(
			e, ERR_BUSY, EBUSY,
			"nbd%u has limits of an earlier attachment that do not fit this server "
			"and could not be renewed; take another device",
			id->index);
	return sysfs_check_identity(k->sysfd, id, e);
}

int device_make_usable(const struct device_kernel *k, const struct sysfs_identity *id,
		       const struct plan *p, const struct connections *c, unsigned timeout_ms,
		       int cancel_fd, struct err *e)
{
	const struct first_use u = {
		.sysfd = k->sysfd,
		.devfd = k->devfd,
		.index = id->index,
		.limits = {
			.max_sectors_kb = p->max_sectors_kb,
			.write_back = p->write_back,
			.rotational = p->rotational,
			.io_timeout_ms = p->io_timeout_ms,
		},
	};
	struct err inside;
	int ret, watch;

	watch = watch_connections(c, cancel_fd, e);
	if (watch < 0)
		return watch;
	ret = blocking_child_run(use_first, &u, &inside, sizeof(inside), timeout_ms, watch, e);
	close(watch);
	if (ret == -ECANCELED && any_hung_up(c))
		return hung_up(p, c, e);
	if (ret == -ETIMEDOUT)
		return err_set(e, ERR_UNREACHABLE, ETIMEDOUT,
			       "the server does not answer the first read within %.3g s",
			       timeout_ms / 1e3);
	if (ret)
		return ret;
	if (inside.code) {
		*e = inside;
		return -inside.code;
	}
	return check_usable(k, id, p, c, e);
}

/* --- disconnect ------------------------------------------------------------------------------- */

int device_disconnect_here(int sysfd, const struct sysfs_identity *id, struct err *e)
{
	struct nbdnl *nl;
	int ret = nbdnl_open(&nl, e);

	if (!ret)
		ret = sysfs_check_identity(sysfd, id, e);
	if (!ret)
		ret = nbdnl_disconnect(nl, id->index, e);
	nbdnl_close(nl);
	return ret;
}

struct disconnection {
	int sysfd, devfd;
	const struct sysfs_identity *id;
};

static int disconnect_and_clean(const struct disconnection *d, struct err *e)
{
	int ret = device_disconnect_here(d->sysfd, d->id, e);

	if (!ret)
		devnode_drop_partitions(d->devfd, d->sysfd, d->id->index, DEVICE_BUSY_MS);
	return ret;
}

static void disconnect_in_child(const void *arg, void *out)
{
	disconnect_and_clean(arg, out);
}

/* Frees a sender that waits for the server with a lock that the kernel's disconnect wants. */
static void cut_under_kernel(const struct connections *c)
{
	struct err ignored;

	for (unsigned i = 0; c && i < c->count; i++)
		if (c->fds[i] >= 0)
			sockopt_cut(c->fds[i], &ignored);
}

static int disconnect_timed(const struct disconnection *d, const struct connections *c,
			    struct err *e)
{
	long long deadline = monotonic_ms() + DEVICE_DISCONNECT_MS;
	struct blocking_child child;
	struct err inside;
	int ret;

	if (blocking_child_start(&child, disconnect_in_child, d, sizeof(inside), e)) {
		cut_under_kernel(c);
		return disconnect_and_clean(d, e);
	}
	ret = blocking_child_wait(&child, monotonic_ms() + CUT_AFTER_MS, -1);
	if (ret == -ETIMEDOUT) {
		cut_under_kernel(c);
		ret = blocking_child_wait(&child, deadline, -1);
	}
	if (ret) {
		blocking_child_abandon(&child);
		return err_set(e, ERR_FAILED, -ret, "not done within %d s",
			       DEVICE_DISCONNECT_MS / 1000);
	}
	ret = blocking_child_collect(&child, &inside, e);
	if (ret || !inside.code)
		return ret;
	*e = inside;
	return -inside.code;
}

void device_forget(int sysfd, const struct sysfs_identity *id)
{
	struct record *r = malloc(sizeof(*r));
	struct sysfs_device d;
	struct err ignored;
	bool later;

	later = r && !sysfs_attachment(sysfd, id->index, &d, &ignored) &&
		!record_read(NBD_ATTACH_STATEDIR, id->index, r, &ignored) && record_fits(r, &d) &&
		sysfs_check_identity(sysfd, id, &ignored) == -ESTALE;
	free(r);
	if (!later)
		record_remove(NBD_ATTACH_STATEDIR, id->index);
}

int device_disconnect(const struct sysfs_identity *id, const struct connections *c, struct err *e)
{
	struct disconnection d = { .id = id };
	int ret;

	d.sysfd = sysfs_open("/sys", e);
	if (d.sysfd < 0)
		return d.sysfd;
	/* Without it the partitions stay, and the device goes all the same. */
	d.devfd = devnode_open_directory("/dev", e);
	ret = disconnect_timed(&d, c, e);
	if (d.devfd >= 0)
		close(d.devfd);
	device_forget(d.sysfd, id);
	close(d.sysfd);
	return ret ? err_wrap(e, "disconnect nbd%u", id->index) : 0;
}
