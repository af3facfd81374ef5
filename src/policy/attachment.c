/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "policy/attachment.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"

/* The same export, but something speaks against it. */
__attribute__((format(printf, 3, 4))) static enum attachment_verdict refuse_same(
	const struct attachment *a, struct err *e, const char *fmt, ...)
{
	char why[sizeof(e->text)];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, sizeof(why), fmt, ap);
	va_end(ap);
	err_set(e, ERR_BUSY, EBUSY, "nbd%u is attached to this export already, %s", a->index, why);
	return ATTACHMENT_REFUSED;
}

/* --- otherwise than asked --------------------------------------------------------------------- */

/* Compares one option of supervision; value is how it is attached. */
static bool option_differs(const struct settings_row *row, const struct settings *wanted,
			   const struct settings *attached, char *value, size_t cap)
{
	char asked[SETTINGS_VALUE_MAX], has[SETTINGS_VALUE_MAX];
	bool is_asked = settings_get(wanted, row, 0, asked, sizeof(asked));
	bool is_set = settings_get(attached, row, 0, has, sizeof(has));

	if (row->type == SETTINGS_FLAG) {
		snprintf(value, cap, "%s --%s", is_set ? "with" : "without", row->name);
		return is_asked != is_set;
	}
	snprintf(value, cap, "with --%s %.64s", row->name, has);
	return strcmp(asked, has);
}

static bool supervision_differs(const struct attachment *a, const struct settings *wanted,
				struct err *e)
{
	bool both = a->supervisor == ATTACHMENT_SUPERVISOR_NONE;
	char value[128];

	if (!a->settings || !a->supervised || wanted->supervision.none)
		return false;
	for (const struct settings_row *row = settings_rows; row->name; row++) {
		if (row->group != SETTINGS_GROUP_SUPERVISION || !row->help)
			continue;
		if (!settings_row_given(wanted, row) &&
		    !(both && settings_row_given(a->settings, row)))
			continue;
		if (option_differs(row, wanted, a->settings, value, sizeof(value))) {
			refuse_same(a, e, "but %s", value);
			return true;
		}
	}
	return false;
}

static bool numbers_differ(const struct attachment *a, const struct settings *wanted, struct err *e)
{
	const struct plan_multi *m = &wanted->multi;

	if (wanted->block_size && wanted->block_size != a->block_size)
		refuse_same(a, e, "with blocks of %u bytes (--block-size)", a->block_size);
	else if (a->recorded && m->wanted && !m->automatic && m->wanted != a->connections)
		refuse_same(a, e, "with %u connection%s (--connections)", a->connections,
			    a->connections == 1 ? "" : "s");
	else if (a->recorded && settings_given(wanted, &wanted->timeout_s) &&
		 wanted->timeout_s != a->timeout_s)
		refuse_same(a, e, "with a --timeout of %u s", a->timeout_s);
	else
		return false;
	return true;
}

static bool differs(const struct attachment *a, const struct settings *wanted, struct err *e)
{
	const struct supervision *v = &wanted->supervision;

	if (wanted->read_only && !a->read_only)
		refuse_same(a, e, "but not read-only (--read-only)");
	else if (!wanted->read_only && a->read_only && a->recorded && a->asked_read_only)
		refuse_same(a, e, "but read-only (--read-only)");
	else if (!v->none && !a->supervised)
		refuse_same(a, e, "but without a supervisor (--no-supervise)");
	else if (v->none && a->supervised && settings_given(wanted, &v->none))
		refuse_same(a, e, "but with a supervisor (--no-supervise)");
	else
		return numbers_differ(a, wanted, e) || supervision_differs(a, wanted, e);
	return true;
}

/* --- the verdict ------------------------------------------------------------------------------ */

static const char *without_tls(const char *backend, bool *tls)
{
	size_t scheme = strlen("nbd");

	*tls = !strncmp(backend, "nbds", scheme + 1);
	return backend + scheme + *tls;
}

/* Two identifiers of which only one is by TLS. */
static bool differs_in_tls(const char *a, const char *b, bool *tls)
{
	bool other;

	return !strncmp(a, "nbd", 3) && !strncmp(b, "nbd", 3) &&
	       !strcmp(without_tls(a, tls), without_tls(b, &other)) && *tls != other;
}

static enum attachment_verdict judge_supervised(const struct attachment *a,
						const struct settings *wanted, struct err *e)
{
	char shown[512];

	if (a->supervisor == ATTACHMENT_SUPERVISOR_SILENT) {
		refuse_same(a, e, "but its supervisor, process %d, does not answer",
			    a->supervisor_pid);
		return ATTACHMENT_BEGINNING;
	}
	if (differs(a, wanted, e))
		return ATTACHMENT_REFUSED;
	if (a->paused)
		return refuse_same(a, e, "but it is paused, so that its I/O waits for --resume");
	if (a->alive)
		return ATTACHMENT_USABLE;
	text_escape(shown, sizeof(shown), a->last_error, strlen(a->last_error));
	refuse_same(a, e, "but has no connection now%s%s", shown[0] ? ": " : "", shown);
	e->kind = ERR_UNREACHABLE;
	e->code = ENOTCONN;
	return ATTACHMENT_RECONNECTING;
}

static enum attachment_verdict judge_unsupervised(const struct attachment *a,
						  const struct settings *wanted, struct err *e)
{
	/* The record, and where there is one the supervisor, are the last things of an attach. */
	if (a->owner_alive && (!a->recorded || a->supervised)) {
		err_set(e, ERR_BUSY, EBUSY,
			"process %d is attaching nbd%u to this export and does not get on", a->pid,
			a->index);
		return ATTACHMENT_BEGINNING;
	}
	if (a->driver == ATTACHMENT_DRIVER_UNASKED)
		return ATTACHMENT_ASK_DRIVER;
	if (a->driver == ATTACHMENT_DRIVER_DISCONNECTED) {
		err_set(e, ERR_BUSY, EBUSY, "nbd%u is detached and waits for its users: %s",
			a->index, a->users[0] ? a->users : "not known which");
		return ATTACHMENT_REFUSED;
	}
	if (a->supervised)
		return differs(a, wanted, e) ? ATTACHMENT_REFUSED : ATTACHMENT_ORPHAN;
	if (a->data == ATTACHMENT_DATA_UNREAD)
		return ATTACHMENT_ASK_DATA;
	if (a->data == ATTACHMENT_DATA_DEAD)
		return ATTACHMENT_DEAD;
	return differs(a, wanted, e) ? ATTACHMENT_REFUSED : ATTACHMENT_USABLE;
}

enum attachment_verdict attachment_judge(const struct attachment *a, const struct settings *wanted,
					 const char *backend, struct err *e)
{
	char shown[512];
	bool tls;

	if (!a->attached)
		return ATTACHMENT_FREE;
	if (!a->backend[0]) {
		err_set(e, ERR_BUSY, EBUSY,
			"nbd%u is attached already, by another program (pid %d)", a->index, a->pid);
		return ATTACHMENT_REFUSED;
	}
	if (differs_in_tls(a->backend, backend, &tls))
		return refuse_same(a, e, tls ? "but by TLS (--tls)" : "but without TLS (--tls)");
	/* A command is a server of its own each time it is started, whatever its words. */
	if (strcmp(a->backend, backend) || wanted->command.count) {
		text_escape(shown, sizeof(shown), a->backend, strlen(a->backend));
		err_set(e, ERR_BUSY, EBUSY, "nbd%u is attached already, to %s", a->index, shown);
		return ATTACHMENT_REFUSED;
	}
	return a->supervisor == ATTACHMENT_SUPERVISOR_NONE ? judge_unsupervised(a, wanted, e) :
							     judge_supervised(a, wanted, e);
}

/* --- other devices ---------------------------------------------------------------------------- */

int64_t attachment_pick(const struct attachment_device *devices, size_t count, const struct plan *p)
{
	int64_t fit = -1, stale = -1, *first;

	for (size_t i = 0; i < count; i++) {
		const struct attachment_device *d = &devices[i];

		if (d->attached)
			continue;
		first = plan_device_is_stale(p, d->write_zeroes_max, d->minimum_io_size) ? &stale :
											   &fit;
		if (*first < 0)
			*first = d->index;
	}
	return stale < 0 || fit < 0 ? stale : fit;
}

int attachment_find_overlap(const struct attachment_device *devices, size_t count, int64_t index,
			    struct err *e)
{
	for (size_t i = 0; i < count; i++) {
		const struct attachment_device *d = &devices[i];

		if (d->attached && d->same_backend && !d->read_only && d->index != index)
			return err_set(
				e, ERR_BUSY, EEXIST,
				"nbd%u is attached to this export already, and two devices that "
				"write to it destroy a file system: attach it read-only, or with "
				"allow-overlap where that is meant",
				d->index);
	}
	return 0;
}
