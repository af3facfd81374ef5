/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "daemon/takeover.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config.h"
#include "daemon/control.h"
#include "daemon/dialer.h"
#include "daemon/record.h"
#include "kernel/nbdevent.h"
#include "kernel/sysfs.h"
#include "net/blocking_child.h"

enum {
	PROBE_MS = 2000,
	RETIRE_MS = 5000,
	AGAIN_MS = 50,
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

/* Asks a supervisor that is alive for its connections; none is no error. */
static int take_from_supervisor(unsigned index, struct attached *a, unsigned *count,
				struct takeover_result *r, struct err *e)
{
	long long end = monotonic_ms() + RETIRE_MS;
	struct control_answer answer;
	int ret;

	/* It may be in the middle of a command. */
	while ((ret = control_ask(NBD_ATTACH_STATEDIR, index, CONTROL_HAND_OVER, RETIRE_MS, &answer,
				  a->connections.fds, count, e)) == -EBUSY &&
	       monotonic_ms() < end)
		poll(NULL, 0, AGAIN_MS);
	if (ret)
		return ret == -ENOENT ? 0 : ret;
	r->reconnects = answer.reconnects;
	r->durable = answer.durable;
	return 0;
}

void takeover_stored_name(const struct sysfs_identity *id, unsigned conn, char *buf)
{
	snprintf(buf, NOTIFY_NAME_MAX + 1, "nbd%u-%d-%u", id->index, (int)id->pid, conn);
}

static unsigned take_stored(struct notify *notify, struct attached *a)
{
	char name[NOTIFY_NAME_MAX + 1];
	unsigned count = 0;
	int fd;

	for (unsigned i = 0; notify && i < a->connections.count; i++) {
		takeover_stored_name(&a->identity, i, name);
		fd = notify_claim(notify, name);
		if (fd >= 0)
			a->connections.fds[count++] = fd;
	}
	return count;
}

/* The one before may need a moment to end. */
static int take_lock(unsigned index, struct attached *a, struct err *e)
{
	long long end = monotonic_ms() + RETIRE_MS;
	int dirfd = record_open(NBD_ATTACH_STATEDIR, e);

	if (dirfd < 0)
		return dirfd;
	while ((a->lock = record_lock(dirfd, index, e)) == -EBUSY && monotonic_ms() < end)
		poll(NULL, 0, AGAIN_MS);
	close(dirfd);
	return a->lock < 0 ? a->lock : 0;
}

static void judge_unknown(struct attached *a, unsigned count, bool stored,
			  struct takeover_result *r)
{
	bool lost = false;

	/* Without a request timeout the driver does not show whether a connection is dead. */
	if (!a->plan.timeout_s && (!count || stored))
		lost = is_lost(&a->plan, a->identity.index);
	r->unknown = a->plan.timeout_s ? RC_DOUBTFUL : lost ? RC_DOWN : RC_UNWATCHED;
	r->suspect = count && lost;
}

/* Both supervisors know the device; from here on there may be none until this one begins. */
static int take_connections(const struct attach_request *rq, struct notify *notify,
			    struct attached *a, struct takeover_result *r, struct err *e)
{
	unsigned count = 0, total = a->connections.count;
	bool stored = false;
	int ret;

	ret = take_from_supervisor(rq->index, a, &count, r, e);
	if (ret)
		return ret;
	if (!count) {
		count = take_stored(notify, a);
		stored = count;
	}
	for (unsigned i = count; i < total; i++)
		a->connections.fds[i] = -1;
	ret = take_lock(rq->index, a, e);
	if (!ret)
		judge_unknown(a, count, stored, r);
	return ret;
}

static void take_facts(const struct attach_request *rq, const struct sysfs_device *d,
		       const struct record *st, struct attached *a, struct takeover_result *r)
{
	sysfs_identify(d, &a->identity);
	fill_plan(rq, d, st, &a->plan);
	a->connections.count = st->connections < PLAN_CONNECTIONS_MAX ? st->connections :
									PLAN_CONNECTIONS_MAX;
	for (unsigned i = 0; i < a->connections.count; i++)
		a->connections.fds[i] = -1;
	memcpy(a->connections.export.name, st->name, sizeof(a->connections.export.name));
	memcpy(a->connections.peer, st->peer, sizeof(a->connections.peer));
	a->connections.export.has_name = st->name[0];
	r->reconnects = st->reconnects;
	r->kernel_tls = strstr(st->tls, " kernel");
	r->durable = st->durable;
	if (r->durable.server >= rq->settings->server_count)
		r->durable.server = 0;
}

int takeover_run(const struct attach_request *rq, struct notify *notify, struct attached *a,
		 struct takeover_result *r, struct err *e)
{
	struct sysfs_device *d = malloc(sizeof(*d));
	struct record *st = malloc(sizeof(*st));
	int ret;

	attached_init(a);
	memset(r, 0, sizeof(*r));
	ret = d && st ? find(rq, d, st, e) : err_sys(e, ERR_FAILED, ENOMEM, "adopt");
	if (ret)
		goto out;
	take_facts(rq, d, st, a, r);
	a->events = nbdevent_open(e);
	ret = a->events < 0 ? a->events : 0;
	if (!ret)
		ret = dialer_open(&a->dialer, rq->settings, &rq->negotiator, -1, e);
	if (!ret)
		ret = take_connections(rq, notify, a, r, e);
	a->server = r->durable.server;
	r->durable.size = d->size;
out:
	if (ret)
		attached_close(a, true);
	free(d);
	free(st);
	return ret;
}
