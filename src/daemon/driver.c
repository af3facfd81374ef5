/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "daemon/driver.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "kernel/blocking_thread.h"
#include "kernel/nbdnl.h"
#include "net/sockopt.h"

/* Block of the thread. */
struct work {
	struct nbdnl *nl;
	int sysfd;
	struct sysfs_identity id;
	struct driver_command c; /* its descriptor is a duplicate */
};
_Static_assert(sizeof(struct work) <= BLOCKING_THREAD_BLOCK_MAX, "fits a blocking thread");

int driver_open(struct driver *d, struct err *e)
{
	int ret;

	*d = (struct driver){ .sysfd = sysfs_open("/sys", e) };
	if (d->sysfd < 0)
		return d->sysfd;
	ret = nbdnl_open(&d->nl, e);
	return ret ? ret : blocking_thread_open(&d->thread, e);
}

/* False: the result is there, and nothing may be sent. */
static bool check_identity(struct work *w)
{
	int ret = sysfs_check_identity(w->sysfd, &w->id, &w->c.err);

	w->c.result = ret == -ENODEV || ret == -ESTALE ? RC_NOT_OURS : ret ? RC_FAILED : RC_OK;
	return !ret;
}

static int offer_socket(struct work *w)
{
	int ret = nbdnl_offer(w->nl, w->id.index, w->id.backend, w->c.fd, &w->c.err);
	struct err ignored;

	w->c.taken = sockopt_send_timeout_ms(w->c.fd) > 0;
	/* It may have become somebody else's between the look and the command. */
	if (!ret && !check_identity(w) && w->c.result == RC_NOT_OURS)
		sockopt_cut(w->c.fd, &ignored);
	return ret;
}

static int command_driver(struct work *w)
{
	switch (w->c.type) {
	case RC_OFFER:
		return offer_socket(w);
	case RC_RESIZE:
		return nbdnl_resize(w->nl, w->id.index, w->id.backend, w->c.size, &w->c.err);
	case RC_DISCONNECT:
		return nbdnl_disconnect(w->nl, w->id.index, &w->c.err);
	default:
		return nbdnl_probe(w->nl, w->id.index, w->id.backend, &w->c.err);
	}
}

/* A detach may have been under way when it was looked at; the error stays what it is. */
static bool is_ours_still(struct work *w)
{
	struct err e = w->c.err;
	bool ours = check_identity(w);

	if (ours)
		w->c.err = e;
	return ours;
}

static void run_work(void *block)
{
	struct work *w = block;
	int ret;

	w->c.taken = false;
	if (!check_identity(w))
		return;
	ret = command_driver(w);
	if (!ret)
		return;
	w->c.result = RC_FAILED;
	/* Of a size EINVAL means that the driver does not want it. */
	if (ret == -EINVAL && w->c.type != RC_RESIZE && is_ours_still(w))
		w->c.result = RC_DISCONNECTED;
}

int driver_submit(struct driver *d, const struct sysfs_identity *id, const struct driver_command *c,
		  struct err *e)
{
	struct work w = { .nl = d->nl, .sysfd = d->sysfd, .id = *id, .c = *c };
	int ret;

	if (c->fd >= 0)
		w.c.fd = fcntl(c->fd, F_DUPFD_CLOEXEC, 0);
	if (c->fd >= 0 && w.c.fd < 0)
		return err_sys(e, ERR_FAILED, errno, "offer a connection");
	ret = blocking_thread_submit(d->thread, run_work, &w, sizeof(w), e);
	if (ret && w.c.fd >= 0)
		close(w.c.fd);
	return ret;
}

int driver_fd(const struct driver *d)
{
	return blocking_thread_fd(d->thread);
}

bool driver_collect(struct driver *d, struct driver_command *c)
{
	struct work w;

	if (blocking_thread_collect(d->thread, &w))
		return false;
	*c = w.c;
	if (c->fd >= 0)
		sockopt_close(c->fd);
	c->fd = -1;
	return true;
}

void driver_close(struct driver *d)
{
	if (!blocking_thread_close(d->thread))
		return;
	nbdnl_close(d->nl);
	if (d->sysfd >= 0)
		close(d->sysfd);
}
