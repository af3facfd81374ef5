/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "cli/cmd.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "policy/udev_name.h"
#include "config.h"
#include "daemon/control.h"
#include "cli/output.h"
#include "daemon/record.h"
#include "kernel/sysfs.h"

enum { SUPERVISOR_MS = 1000 };

enum {
	DEVICE,
	HOST,
	EXPORT,
	SIZE,
	RO,
	BLOCK_SIZE,
	CONNECTIONS,
	PID,
	URI,
	PEER,
	TLS,
	SUPERVISOR,
	ALIVE,
	RECONNECTS,
	LAST_ERROR,
	ERROR_TIME,
	PAUSED,
	LINK
};

static const struct output_column columns[] = {
	[DEVICE] = { "DEVICE", OUTPUT_TEXT },
	[HOST] = { "HOST", OUTPUT_TEXT },
	[EXPORT] = { "EXPORT", OUTPUT_TEXT },
	[SIZE] = { "SIZE", OUTPUT_SIZE },
	[RO] = { "RO", OUTPUT_BOOL },
	[BLOCK_SIZE] = { "BLOCK-SIZE", OUTPUT_NUMBER },
	[CONNECTIONS] = { "CONNECTIONS", OUTPUT_NUMBER },
	[PID] = { "PID", OUTPUT_NUMBER },
	[URI] = { "URI", OUTPUT_TEXT },
	[PEER] = { "PEER", OUTPUT_TEXT },
	[TLS] = { "TLS", OUTPUT_TEXT },
	[SUPERVISOR] = { "SUPERVISOR", OUTPUT_NUMBER },
	[ALIVE] = { "ALIVE", OUTPUT_NUMBER },
	[RECONNECTS] = { "RECONNECTS", OUTPUT_NUMBER },
	[LAST_ERROR] = { "LAST-ERROR", OUTPUT_TEXT },
	[ERROR_TIME] = { "ERROR-TIME", OUTPUT_TEXT },
	[PAUSED] = { "PAUSED", OUTPUT_BOOL },
	[LINK] = { "LINK", OUTPUT_ENCODED },
};

/* Fills in what only a supervisor knows. Without one the cells stay empty. */
static void fill_live(struct output *out, unsigned index)
{
	struct control_answer a;
	struct err ignored;

	if (control_ask(NBD_ATTACH_STATEDIR, index, CONTROL_STATUS, SUPERVISOR_MS, &a, NULL, NULL,
			&ignored))
		return;
	output_number(out, SUPERVISOR, (uint64_t)a.pid);
	output_number(out, ALIVE, a.alive);
	output_number(out, RECONNECTS, a.reconnects);
	output_bool(out, PAUSED, a.paused);
}

static void fill_record(struct output *out, const struct sysfs_device *d, struct record *st)
{
	struct err ignored;
	struct uri *u = NULL;

	/* A record of an earlier attachment, or one that we may not read, does not count. */
	if (!record_read(NBD_ATTACH_STATEDIR, d->index, st, &ignored) && record_fits(st, d)) {
		output_text(out, HOST, st->host);
		output_text(out, EXPORT, st->export);
		output_text(out, PEER, st->peer);
		if (st->tls[0])
			output_text(out, TLS, st->tls);
		output_number(out, CONNECTIONS, st->connections);
		if (st->last_error[0])
			output_text(out, LAST_ERROR, st->last_error);
		if (st->error_time[0])
			output_text(out, ERROR_TIME, st->error_time);
		return;
	}
	/* The backend that the kernel keeps says nearly as much. */
	u = malloc(sizeof(*u));
	if (u && !uri_parse(u, d->backend, &ignored)) {
		uri_endpoint(u, st->host, sizeof(st->host));
		output_text(out, HOST, st->host);
		output_text(out, EXPORT, u->export);
	}
	free(u);
}

/* Fills in the name for udev, from the backend that the kernel keeps. */
static void fill_link(struct output *out, const struct sysfs_device *d)
{
	struct uri *u = malloc(sizeof(*u));
	char alias[UDEV_NAME_MAX + 1];
	struct err ignored;

	if (u && !uri_parse(u, d->backend, &ignored)) {
		udev_name_of(u, alias);
		output_text(out, LINK, alias);
	}
	free(u);
}

static void fill_device(struct output *out, const struct sysfs_device *d, struct record *st)
{
	char device[32];

	snprintf(device, sizeof(device), "/dev/nbd%u", d->index);
	output_row(out);
	output_text(out, DEVICE, device);
	output_number(out, SIZE, d->size);
	output_bool(out, RO, d->read_only);
	output_number(out, BLOCK_SIZE, d->block_size);
	output_number(out, PID, (uint64_t)d->pid);
	if (d->backend[0])
		output_text(out, URI, d->backend);
	fill_record(out, d, st);
	fill_link(out, d);
	fill_live(out, d->index);
}

static bool is_listed(const struct opts *o, unsigned index)
{
	struct err ignored;
	unsigned one;

	for (unsigned i = 0; i < o->device_count; i++)
		if (!opts_device(o->devices[i], &one, &ignored) && one == index)
			return true;
	return !o->device_count;
}

int cmd_list(struct opts *o, struct err *e)
{
	const struct output_format format = {
		.json = o->json,
		.no_headings = o->no_headings,
		.bytes = o->bytes,
		.columns = o->columns ? o->columns :
					"DEVICE,HOST,EXPORT,SIZE,RO,BLOCK-SIZE,CONNECTIONS,PID",
	};
	struct record *st = malloc(sizeof(*st));
	struct sysfs_device *d = malloc(sizeof(*d));
	struct output *out = NULL;
	unsigned *indices = NULL;
	size_t count = 0;
	int sysfd = -1, ret;

	if (!st || !d) {
		ret = err_sys(e, ERR_FAILED, ENOMEM, "begin");
		goto out;
	}
	ret = output_begin(&out, "devices", columns, sizeof(columns) / sizeof(columns[0]), &format,
			   e);
	if (ret)
		goto out;
	ret = sysfd = sysfs_open("/sys", e);
	if (sysfd < 0)
		goto out;
	ret = sysfs_indices(sysfd, &indices, &count, e);
	for (size_t i = 0; i < count && !ret; i++) {
		if (!is_listed(o, indices[i]))
			continue;
		/*
		 * Reading the queue's limits can wait for a connection: only where they are wanted.
		 */
		ret = output_wants(out, BLOCK_SIZE) ? sysfs_device(sysfd, indices[i], d, e) :
						      sysfs_attachment(sysfd, indices[i], d, e);
		if (!ret && d->attached)
			fill_device(out, d, st);
	}
	if (!ret)
		ret = output_print(out, stdout, e);
out:
	output_end(out);
	free(indices);
	free(st);
	free(d);
	if (sysfd >= 0)
		close(sysfd);
	return ret;
}
