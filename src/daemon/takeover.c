/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/takeover.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config.h"
#include "daemon/control.h"
#include "kernel/nbdevent.h"
#include "daemon/record.h"
#include "kernel/sysfs.h"
#include "net/blocking_child.h"

enum {
	PROBE_MS = 2000,
	RETIRE_MS = 5000,
};

/* The first block, past the cache; hangs where no connection is alive. */
static void read_block(const void *arg, void *out)
{
	const struct plan *p = *(const struct plan *const *)arg;
	const unsigned *index = ((const unsigned *const *)arg)[1];
	bool *good = out;
	char node[32];
	void *block;
	int fd;

	snprintf(node, sizeof(node), "/dev/nbd%u", *index);
	fd = open(node, O_RDONLY | O_DIRECT | O_CLOEXEC);
	*good = fd >= 0 && !posix_memalign(&block, 4096, 4096) &&
		pread(fd, block, p->block_size, 0) == (ssize_t)p->block_size;
}

static bool is_lost(const struct plan *p, unsigned index)
{
	const void *arg[] = { p, &index };
	struct err ignored;
	bool good = false;

	return blocking_child_run(read_block, arg, &good, sizeof(good), PROBE_MS, -1, &ignored) ||
	       !good;
}

static int find(const struct attach_request *rq, struct sysfs_device *d, struct record *st,
		struct err *e)
{
	char backend[PLAN_BACKEND_MAX + 1];
	int sysfd = sysfs_open("/sys", e), ret;

	if (sysfd < 0)
		return sysfd;
	ret = sysfs_device(sysfd, rq->index, d, e);
	close(sysfd);
	if (ret)
		return ret;
	if (!d->attached)
		return err_set(e, ERR_ABSENT, ENODEV, "nbd%u is not attached", rq->index);
	attach_identify(rq, backend);
	if (strcmp(backend, d->backend))
		return err_set(e, ERR_BUSY, EBUSY, "nbd%u is attached to something else",
			       rq->index);
	ret = record_read(NBD_ATTACH_STATEDIR, rq->index, st, e);
	if (ret)
		return ret;
	if (!record_fits(st, d))
		return err_set(e, ERR_BUSY, EBUSY,
			       "the record of nbd%u is of an earlier attachment", rq->index);
	return 0;
}

static void fill_plan(const struct attach_request *rq, const struct sysfs_device *d,
		      const struct record *st, struct plan *p)
{
	memset(p, 0, sizeof(*p));
	p->size = d->size;
	p->block_size = d->block_size;
	p->max_sectors_kb = d->max_sectors_kb;
	p->server_flags = st->server_flags;
	p->multi_conn = st->connections > 1 && !rq->settings->multi.force;
	p->timeout_s = st->timeout_s;
	p->dead_timeout_s = PLAN_TIMEOUT_MAX;
	attach_identify(rq, p->backend);
}

int takeover_run(const struct attach_request *rq, struct attach_kept *k, struct takeover_result *r,
		 struct err *e)
{
	struct sysfs_device *d = malloc(sizeof(*d));
	struct record *st = malloc(sizeof(*st));
	struct control_answer a;
	unsigned count = 0;
	int ret;

	memset(k, 0, sizeof(*k));
	memset(r, 0, sizeof(*r));
	k->link.command_log = -1;
	k->events = -1;
	ret = d && st ? find(rq, d, st, e) : err_sys(e, ERR_FAILED, ENOMEM, "adopt");
	if (ret)
		goto out;
	fill_plan(rq, d, st, &k->plan);
	memcpy(k->link.export.name, st->name, sizeof(k->link.export.name));
	k->link.export.has_name = st->name[0];
	r->reconnects = st->reconnects;
	r->kernel_tls = strstr(st->tls, " kernel");
	ret = k->events = nbdevent_open(e);
	if (ret < 0)
		goto out;
	ret = negotiator_start(&k->negotiator, rq->settings, &rq->negotiator, e);
	if (ret)
		goto out;
	ret = control_ask(NBD_ATTACH_STATEDIR, rq->index, CONTROL_HAND_OVER, RETIRE_MS, &a,
			  k->link.fds, &count, e);
	if (ret && ret != -ENOENT)
		goto out;
	if (!ret)
		r->reconnects = a.reconnects;
	ret = 0;
	k->link.count = st->connections < PLAN_CONNECTIONS_MAX ? st->connections :
								 PLAN_CONNECTIONS_MAX;
	for (unsigned i = count; i < k->link.count; i++)
		k->link.fds[i] = -1;
	if (!count && !k->plan.timeout_s)
		r->lost = is_lost(&k->plan, rq->index);
out:
	if (ret)
		attach_let_go(k, true);
	free(d);
	free(st);
	return ret;
}
