/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * attachment: decides what an attach does about the device that it is to use: whether what stands
 * there is what was asked for and can be used, and which free device to take. Pure functions over
 * facts that somebody else has collected: no I/O, no clock. Facts that are expensive or leave a
 * trace are asked for by a verdict, so that they are collected only where they matter.
 */
#ifndef NBD_ATTACH_ATTACHMENT_H
#define NBD_ATTACH_ATTACHMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "policy/plan.h"
#include "policy/settings.h"

/* What the supervisor says. */
enum attachment_supervisor {
	ATTACHMENT_SUPERVISOR_NONE,
	ATTACHMENT_SUPERVISOR_SILENT, /* there is one, which does not answer in time */
	ATTACHMENT_SUPERVISOR_ANSWERS,
};

/* What the driver says to a RECONFIGURE that changes nothing. */
enum attachment_driver {
	ATTACHMENT_DRIVER_UNASKED,
	ATTACHMENT_DRIVER_CONNECTED,    /* connected, or cannot be asked */
	ATTACHMENT_DRIVER_DISCONNECTED, /* disconnected; stays until its users close it */
};

/* What a read of the first block says. */
enum attachment_data {
	ATTACHMENT_DATA_UNREAD,
	ATTACHMENT_DATA_READABLE,
	ATTACHMENT_DATA_DEAD, /* an error, or no answer in time */
};

/* What is known of one device. Texts are somebody else's, not escaped, "" for none. */
struct attachment {
	unsigned index;
	/* From sysfs. */
	bool attached;
	int pid; /* process that attached it */
	const char *backend;
	bool read_only;
	uint32_t block_size; /* bytes */
	/* Process that attached it, or supervises it as the record says, is there. */
	bool owner_alive;
	/* From the record, where it is there and fits. */
	bool recorded;
	bool supervised;                 /* attached to have a supervisor */
	bool asked_read_only;            /* by the user, whatever the server says */
	unsigned connections, timeout_s; /* as given to the kernel */
	const struct settings *settings; /* settings of the attach; NULL: not known */
	/* From the supervisor. */
	enum attachment_supervisor supervisor;
	int supervisor_pid;
	bool paused;
	unsigned alive; /* connections that work */
	const char *last_error;

	enum attachment_driver driver;
	const char *users; /* known where the driver has disconnected it */
	enum attachment_data data;
};

enum attachment_verdict {
	ATTACHMENT_FREE,
	ATTACHMENT_USABLE,  /* attached as asked for: nothing is to be done */
	ATTACHMENT_ORPHAN,  /* the same, but its supervisor has gone: it needs a new one */
	ATTACHMENT_DEAD,    /* unsupervised and lost: to be attached anew where nobody uses it */
	ATTACHMENT_REFUSED, /* the error says why */
	/* To be looked at again a little later; where there is no time left the error says why. */
	ATTACHMENT_RECONNECTING,
	ATTACHMENT_BEGINNING, /* by another process */
	/* The fact is needed: driver and users, or data. */
	ATTACHMENT_ASK_DRIVER,
	ATTACHMENT_ASK_DATA,
};

/*
 * Whether a device is what wanted asks for, whose identifier is backend (plan_backend). Refused
 * (ERR_BUSY) are another program's device, another export, a paused one, one that waits for its
 * users, and one that is attached otherwise than asked, by these rules:
 * - A block size, a number of connections and a time limit that were given are as given.
 * - It is read-only if and only if that was asked for, or the server makes it so.
 * - It has a supervisor if and only if that was asked for; where nobody has given --no-supervise,
 *   more supervision than asked for is no harm.
 * - Options of supervision that were given are as given. Where a new supervisor would go by wanted
 *   (ATTACHMENT_ORPHAN), those that it was attached with are given, too.
 * RECONNECTING and BEGINNING set e for the case that there is no time left: ERR_UNREACHABLE with
 * the last error; ERR_BUSY.
 */
enum attachment_verdict attachment_judge(const struct attachment *a, const struct settings *wanted,
					 const char *backend, struct err *e);

/* One device of the machine, as far as the two questions below go. */
struct attachment_device {
	unsigned index;
	bool attached;
	bool same_backend; /* as the identifier of what is to be attached */
	bool read_only;
	/* Of a free one. */
	uint64_t write_zeroes_max; /* bytes */
	uint32_t minimum_io_size;  /* bytes */
};

/*
 * Which device to ask the kernel for when any will do: -1, the kernel's own choice, unless a free
 * one has limits of an earlier attachment that the kernel would choose without looking at them
 * (plan_device_is_stale). The first fit one then, or the first of the others, which is to be made
 * anew. devices are in the order of their numbers.
 */
int64_t attachment_pick(const struct attachment_device *devices, size_t count,
			const struct plan *p);

/*
 * Whether another device than index (-1: none) has the same export for writing, so that two file
 * systems would destroy each other: -EEXIST (ERR_BUSY), the text names it.
 */
int attachment_find_overlap(const struct attachment_device *devices, size_t count, int64_t index,
			    struct err *e);

#endif
