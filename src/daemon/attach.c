/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "daemon/attach.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "config.h"
#include "daemon/control.h"
#include "daemon/detach.h"
#include "daemon/device.h"
#include "daemon/record.h"
#include "kernel/module.h"
#include "kernel/nbdevent.h"
#include "kernel/nbdnl.h"
#include "net/blocking_child.h"
#include "net/sockopt.h"
#include "policy/attachment.h"
#include "policy/udev_name.h"

enum {
	LOOK_MS = 100, /* between two looks at a device that is not ready */
	STATUS_MS = 2000,
};

/* What one attach works with. */
struct attach_ctx {
	const struct attach_request *rq;
	int cancel_fd;
	struct device_kernel kernel;
	char backend[PLAN_BACKEND_MAX + 1];
	struct attached *a;
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

static int open_ctx(struct attach_ctx *c)
{
	attach_identify(c->rq, c->backend);
	return device_open_kernel(&c->kernel, c->e);
}

/* --- check ------------------------------------------------------------------------------------ */

/* Where the facts stand. */
struct facts {
	struct sysfs_device device;
	struct record record;
	struct settings settings;
	struct control_answer answer;
	char users[512];
};

static bool is_alive(pid_t pid)
{
	return !kill(pid, 0) || errno == EPERM;
}

static void take_record(struct facts *f, struct attachment *a)
{
	struct err ignored;

	if (record_read(NBD_ATTACH_STATEDIR, a->index, &f->record, &ignored) ||
	    !record_fits(&f->record, &f->device))
		return;
	a->recorded = true;
	a->asked_read_only = f->record.read_only;
	a->connections = f->record.connections;
	a->timeout_s = f->record.timeout_s;
	a->supervised = f->record.supervisor;
	if (record_read_settings(NBD_ATTACH_STATEDIR, a->index, &f->settings, &ignored))
		return;
	a->settings = &f->settings;
	a->supervised = !f->settings.supervision.none;
}

static void read_supervisor(struct facts *f, struct attachment *a)
{
	struct control_answer *answer = &f->answer;
	struct err ignored;
	int ret;

	ret = control_ask(NBD_ATTACH_STATEDIR, a->index, CONTROL_STATUS, STATUS_MS, answer, NULL,
			  NULL, &ignored);
	if (ret == -ENOENT)
		return;
	a->supervised = true;
	a->supervisor = ret ? ATTACHMENT_SUPERVISOR_SILENT : ATTACHMENT_SUPERVISOR_ANSWERS;
	a->supervisor_pid = ret ? f->record.supervisor : answer->pid;
	if (ret)
		return;
	a->paused = answer->paused;
	a->alive = answer->alive;
	a->last_error = answer->last_error;
}

/* The facts that cost nothing. */
static int read_facts(struct attach_ctx *c, struct facts *f, struct attachment *a)
{
	struct sysfs_device *d = &f->device;
	unsigned index = c->rq->index;
	int ret = sysfs_attachment(c->kernel.sysfd, index, d, c->e);

	/* Reading the queue can hang, so it is not read without need. */
	if (!ret && d->attached && c->rq->settings->block_size)
		ret = sysfs_device(c->kernel.sysfd, index, d, c->e);
	if (ret)
		return ret;
	memset(&f->record, 0, sizeof(f->record));
	*a = (struct attachment){
		.index = index,
		.attached = d->attached,
		.pid = d->pid,
		.backend = d->backend,
		.read_only = d->read_only,
		.block_size = d->block_size,
		.last_error = "",
		.users = "",
	};
	if (strcmp(d->backend, c->backend))
		return 0;
	take_record(f, a);
	read_supervisor(f, a);
	a->owner_alive = is_alive(f->record.supervisor ? f->record.supervisor : d->pid);
	return 0;
}

/* 1 when it has found out what the verdict asks for, 0 where that is nothing, or -errno. */
static int find_out(struct attach_ctx *c, enum attachment_verdict verdict, struct facts *f,
		    struct attachment *a)
{
	int ret;

	if (verdict == ATTACHMENT_ASK_DRIVER) {
		a->driver = ATTACHMENT_DRIVER_CONNECTED;
		if (device_is_disconnected(&c->kernel, a->index, c->backend)) {
			a->driver = ATTACHMENT_DRIVER_DISCONNECTED;
			detach_find_users(a->index, f->users, sizeof(f->users));
			a->users = f->users;
		}
		return 1;
	}
	if (verdict != ATTACHMENT_ASK_DATA)
		return 0;
	ret = device_read_first(a->index, c->rq->settings->connect_timeout_ms, c->cancel_fd, c->e);
	a->data = ret ? ATTACHMENT_DATA_DEAD : ATTACHMENT_DATA_READABLE;
	return ret == -ECANCELED ? ret : 1;
}

/* Until the verdict is one that can be acted upon. */
static int judge_device(struct attach_ctx *c, struct facts *f, enum attachment_verdict *verdict)
{
	struct attachment a;
	int ret = read_facts(c, f, &a);

	if (ret)
		return ret;
	do {
		*verdict = attachment_judge(&a, c->rq->settings, c->backend, c->e);
		ret = find_out(c, *verdict, f, &a);
	} while (ret > 0);
	return ret;
}

/* How long a verdict may stay as it is. */
static long long patience_ms(const struct attach_ctx *c, enum attachment_verdict verdict)
{
	long long attempt = c->rq->settings->connect_timeout_ms;

	switch (verdict) {
	case ATTACHMENT_RECONNECTING:
		return attempt;
	case ATTACHMENT_BEGINNING: /* its first read, and taking back what it has done */
		return attempt + DEVICE_DISCONNECT_MS;
	default:
		return 0;
	}
}

static int detach_dead(const struct attach_ctx *c, const struct facts *f)
{
	struct sysfs_identity id;

	sysfs_identify(&f->device, &id);
	if (!detach_unused(&id, c->e))
		return 0;
	return err_wrap(c->e,
			"nbd%u is attached to this export already, and its connection is lost",
			id.index);
}

/* As attach_check. */
static int check_device(struct attach_ctx *c, enum attach_outcome *outcome)
{
	struct facts *f = malloc(sizeof(*f));
	enum attachment_verdict verdict;
	long long begin = monotonic_ms();
	int ret = f ? 0 : err_sys(c->e, ERR_FAILED, ENOMEM, "look at nbd%u", c->rq->index);

	while (!ret) {
		ret = judge_device(c, f, &verdict);
		if (ret || verdict == ATTACHMENT_FREE)
			break;
		if (verdict == ATTACHMENT_USABLE || verdict == ATTACHMENT_ORPHAN) {
			*outcome = verdict == ATTACHMENT_ORPHAN ? ATTACH_ORPHAN : ATTACH_ALREADY;
			ret = 1;
		} else if (verdict == ATTACHMENT_DEAD) {
			ret = detach_dead(c, f);
		} else if (monotonic_ms() - begin >= patience_ms(c, verdict)) {
			ret = -c->e->code;
		} else {
			ret = device_pause(LOOK_MS, c->cancel_fd, c->e);
		}
	}
	free(f);
	return ret;
}

int attach_check(const struct attach_request *rq, int cancel_fd, enum attach_outcome *outcome,
		 struct err *e)
{
	struct attach_ctx c = { .rq = rq, .cancel_fd = cancel_fd, .e = e };
	int ret = open_ctx(&c);

	if (!ret)
		ret = check_device(&c, outcome);
	device_close_kernel(&c.kernel);
	return ret;
}

/* --- other devices ---------------------------------------------------------------------------- */

static int collect_device(const struct attach_ctx *c, unsigned index, struct attachment_device *a)
{
	struct sysfs_device d;
	int ret = sysfs_attachment(c->kernel.sysfd, index, &d, c->e);

	if (!ret && !d.attached && c->rq->find)
		ret = sysfs_device(c->kernel.sysfd, index, &d, c->e);
	*a = (struct attachment_device){
		.index = index,
		.attached = d.attached,
		.read_only = d.read_only,
		.write_zeroes_max = d.write_zeroes_max,
		.minimum_io_size = d.minimum_io_size,
	};
	/* One that waits for its last user writes nothing any more. */
	a->same_backend = !ret && d.attached && !strcmp(d.backend, c->backend) && !d.read_only &&
			  !device_is_disconnected(&c->kernel, index, c->backend);
	return ret;
}

static int list_devices(const struct attach_ctx *c, struct attachment_device **devices,
			size_t *count)
{
	unsigned *indices = NULL;
	int ret = sysfs_indices(c->kernel.sysfd, &indices, count, c->e);

	*devices = ret ? NULL : calloc(*count + 1, sizeof(**devices));
	if (!ret && !*devices)
		ret = err_sys(c->e, ERR_FAILED, ENOMEM, "look at the devices");
	for (size_t i = 0; !ret && i < *count; i++)
		ret = collect_device(c, indices[i], &(*devices)[i]);
	free(indices);
	return ret;
}

/* Whether the export may be attached, and where: in *index (or NULL). */
static int look_around(const struct attach_ctx *c, bool writable, int64_t *index)
{
	int64_t own = c->rq->find ? NBDNL_ANY_INDEX : (int64_t)c->rq->index;
	bool alone = writable && !c->rq->settings->allow_overlap;
	struct attachment_device *devices = NULL;
	size_t count = 0;
	int ret = alone || c->rq->find ? list_devices(c, &devices, &count) : 0;

	if (!ret && alone)
		ret = attachment_find_overlap(devices, count, own, c->e);
	if (!ret && index)
		*index = c->rq->find ? attachment_pick(devices, count, &c->a->plan) : own;
	free(devices);
	return ret;
}

/* --- connect ---------------------------------------------------------------------------------- */

/*
 * A lock for a look at the other devices and CONNECT together: of two attaches of one export at the
 * same time one sees the other's device. Nothing is forked while it is held, as a child would keep
 * it.
 */
static int lock_devices(const struct attach_ctx *c)
{
	long long deadline = monotonic_ms() + c->rq->settings->connect_timeout_ms;
	int fd = record_open(NBD_ATTACH_STATEDIR, c->e), ret = 0;

	while (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB)) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			ret = err_sys(c->e, ERR_FAILED, errno, "lock %s", NBD_ATTACH_STATEDIR);
		else if (monotonic_ms() >= deadline)
			ret = err_set(c->e, ERR_BUSY, ETIMEDOUT,
				      "another process is connecting a device and does not get on");
		else
			ret = device_pause(DEVICE_POLL_MS, c->cancel_fd, c->e);
		if (ret) {
			close(fd);
			return ret;
		}
	}
	return fd;
}

static int connect_once(struct attach_ctx *c)
{
	const struct settings *s = c->rq->settings;
	char alias[UDEV_NAME_MAX + 1];
	struct attached *a = c->a;
	int lock = lock_devices(c), ret;
	struct err ignored;
	int64_t index;

	if (lock < 0)
		return lock;
	a->identity.pid = 0;
	ret = look_around(c, !(a->plan.server_flags & NBD_FLAG_READ_ONLY), &index);
	if (!s->command.count)
		udev_name_of(&s->servers[0], alias);
	if (!ret)
		ret = device_connect(&c->kernel, &a->plan, &a->connections, index,
				     s->command.count ? NULL : alias, c->cancel_fd, &a->identity,
				     c->e);
	close(lock);
	if (ret && a->identity.pid)
		attach_undo(a, &ignored);
	return ret;
}

/*
 * 0, or 1 and *outcome as attach_check: somebody else attached the same export meanwhile. EBUSY can
 * mean that udev just looks at the device, EINVAL that it is going away.
 */
static int connect_device(struct attach_ctx *c, enum attach_outcome *outcome)
{
	long long deadline = monotonic_ms() + DEVICE_BUSY_MS;
	struct err last;
	bool late = false;
	int ret;

	do {
		ret = connect_once(c);
		if (ret != -EBUSY && ret != -EINVAL)
			return ret;
		last = *c->e;
		late = monotonic_ms() >= deadline;
		ret = c->rq->find ? 0 : check_device(c, outcome);
		if (!ret && !late)
			ret = device_pause(DEVICE_POLL_MS, c->cancel_fd, c->e);
		if (ret)
			return ret;
	} while (!late);
	*c->e = last;
	if (last.code == EBUSY)
		err_wrap(c->e, "some program has the device open");
	return -last.code;
}

/* --- the sequence ----------------------------------------------------------------------------- */

static int dial_servers(struct attach_ctx *c)
{
	const struct settings *s = c->rq->settings;
	struct attached *a = c->a;
	int ret;

	/* What fails here is told by whoever needs it, and what is built in needs none. */
	if (s->servers[0].tls && s->tls.offload != TLS_OFFLOAD_NO)
		module_load("tls", &(struct err){ 0 });
	if (!s->supervision.none) {
		a->events = nbdevent_open(c->e);
		if (a->events < 0)
			return a->events;
	}
	ret = dialer_open(&a->dialer, s, &c->rq->negotiator, c->cancel_fd, c->e);
	if (ret)
		return ret;
	for (a->server = 0; a->server < s->server_count; a->server++) {
		dialer_ask(&a->dialer, a->server, NEG_GOAL_GO, &s->multi);
		ret = dialer_wait(&a->dialer, c->cancel_fd, &a->connections, c->e);
		if (!ret || ret == -ECANCELED)
			break;
	}
	if (s->supervision.none)
		dialer_close(&a->dialer);
	if (ret && ret != -ECANCELED && s->server_count > 1)
		err_wrap(c->e, "none of %u servers can be used; the last", s->server_count);
	return ret;
}

static int make_plan(struct attach_ctx *c)
{
	const struct plan_kernel kernel = { .page_size = (uint32_t)sysconf(_SC_PAGESIZE) };
	const struct settings *s = c->rq->settings;
	struct connections *link = &c->a->connections;
	struct err ignored;
	int ret;

	ret = plan_attach(s, link->count, &link->export, &kernel, &c->a->plan, c->e);
	if (ret)
		return ret;
	memcpy(c->a->plan.backend, c->backend, sizeof(c->a->plan.backend));
	/* Keeps a request whole when its connection dies; else the system's own will do. */
	for (unsigned i = 0; !s->supervision.none && i < link->count; i++)
		sockopt_set_send_room(link->fds[i], SOCKOPT_SEND_ROOM, &ignored);
	return 0;
}

static int record_attachment(const struct attach_ctx *c)
{
	const struct connections *link = &c->a->connections;
	const struct settings *s = c->rq->settings;
	struct record *r = calloc(1, sizeof(*r));
	int ret;

	if (!r)
		return err_sys(c->e, ERR_FAILED, ENOMEM, "write the record");
	r->pid = c->a->identity.pid;
	r->connections = r->alive = link->count;
	r->read_only = s->read_only;
	memcpy(r->backend, c->backend, sizeof(r->backend));
	memcpy(r->export, s->servers[0].export, sizeof(r->export));
	memcpy(r->peer, link->peer, sizeof(r->peer));
	if (link->encrypted)
		snprintf(r->tls, sizeof(r->tls), "%s %s %s", link->tls.version, link->tls.cipher,
			 link->relayed ? "relay" : "kernel");
	r->server_flags = (unsigned)c->a->plan.server_flags;
	r->timeout_s = c->a->plan.timeout_s;
	if (link->export.has_name)
		memcpy(r->name, link->export.name, sizeof(r->name));
	r->durable = (struct rc_durable){
		.server = c->a->server,
		.fenced_until = RC_NEVER,
		.size = c->a->plan.size,
	};
	r->durable.server_size[c->a->server] = link->export.size;
	r->settings = s;
	settings_endpoint(s, c->a->server, r->host, sizeof(r->host));
	ret = record_write(NBD_ATTACH_STATEDIR, c->a->identity.index, r, c->e);
	free(r);
	return ret;
}

static int blame_server(const struct attach_ctx *c)
{
	char endpoint[512];

	settings_endpoint(c->rq->settings, c->a->server, endpoint, sizeof(endpoint));
	return err_wrap(c->e, "%s", endpoint);
}

/* From what the server has said to a device that can be used; 1 as connect_device. */
static int attach_device(struct attach_ctx *c, enum attach_outcome *outcome)
{
	struct attached *a = c->a;
	struct err undo;
	int ret = make_plan(c);

	if (ret)
		return blame_server(c);
	ret = connect_device(c, outcome);
	if (ret)
		return ret;
	ret = device_make_usable(&c->kernel, &a->identity, &a->plan, &a->connections,
				 c->rq->settings->connect_timeout_ms, c->cancel_fd, c->e);
	if (!ret)
		ret = record_attachment(c);
	if (!ret)
		return 0;
	blame_server(c);
	return attach_undo(a, &undo) ? err_wrap(c->e, "%s, after", undo.text) : ret;
}

int attach_run(const struct attach_request *rq, int cancel_fd, struct attach_result *r,
	       struct attached *a, struct err *e)
{
	struct attach_ctx c = { .rq = rq, .cancel_fd = cancel_fd, .a = a, .e = e };
	int ret;

	memset(r, 0, sizeof(*r));
	attached_init(a);
	ret = open_ctx(&c);
	if (!ret && !rq->find)
		ret = check_device(&c, &r->outcome);
	if (!ret)
		ret = look_around(&c, !rq->settings->read_only, NULL);
	if (!ret)
		ret = dial_servers(&c);
	if (!ret)
		ret = attach_device(&c, &r->outcome);
	device_close_kernel(&c.kernel);
	if (ret) {
		attached_close(a, false);
		r->index = rq->index;
		return ret > 0 ? 0 : ret;
	}
	r->index = a->identity.index;
	r->made_read_only = a->plan.made_read_only;
	r->connections = a->connections.count;
	memcpy(r->note, a->connections.note, sizeof(r->note));
	return 0;
}

/* --- the way back ----------------------------------------------------------------------------- */

void attached_init(struct attached *a)
{
	memset(a, 0, sizeof(*a));
	a->connections.command_log = -1;
	a->events = -1;
	a->lock = -1;
}

void attached_close(struct attached *a, bool kernel_has_it)
{
	connections_close(&a->connections, kernel_has_it);
	dialer_close(&a->dialer);
	if (a->events >= 0)
		close(a->events);
	if (a->lock >= 0)
		close(a->lock);
	a->events = a->lock = -1;
}

static int undo_attachment(const struct sysfs_identity *id, const struct connections *c,
			   struct err *e)
{
	int ret = device_disconnect(id, c, e);

	return ret == -ENODEV || ret == -ESTALE ? 0 : ret;
}

int attach_undo(const struct attached *a, struct err *e)
{
	return undo_attachment(&a->identity, &a->connections, e);
}

int attach_undo_of(const struct attach_request *rq, pid_t pid, struct err *e)
{
	char backend[PLAN_BACKEND_MAX + 1];
	struct sysfs_identity id;
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
		if (ret || !d.attached || d.pid != pid || strcmp(d.backend, backend) ||
		    (!rq->find && rq->index != d.index))
			continue;
		sysfs_identify(&d, &id);
		ret = undo_attachment(&id, NULL, e);
	}
	free(indices);
	close(sysfd);
	return ret;
}
