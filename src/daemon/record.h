/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * record: what is known of one attached device, in a file of a directory of their own
 * (/run/nbd-attach), one "key=value" a line: the state as fields of struct record, and the settings
 * through their table, with "settings." before the name. It is a convenience for --list, which is
 * right without it, and what --adopt knows of the attachment. A record counts only while it fits
 * what sysfs says (record_fits).
 *
 * Keys that are not known are a later version's and passed over. Versions that kept a
 * "command-line" instead of the settings: the record is good but for record_read_settings.
 */
#ifndef NBD_ATTACH_RECORD_H
#define NBD_ATTACH_RECORD_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/err.h"
#include "kernel/sysfs.h"
#include "policy/plan.h"
#include "policy/reconnect.h"
#include "policy/settings.h"
#include "proto/uri.h"

struct record {
	pid_t pid; /* process that did CONNECT, as in /sys/block/nbdN/pid */
	unsigned connections;
	int read_only;                      /* 1: the user wants it, whatever the server says */
	char backend[PLAN_BACKEND_MAX + 1]; /* plan_backend */
	char host[512];                     /* "host:port", a socket's path or a command's name */
	char export[URI_EXPORT_MAX + 1];
	char peer[80];    /* numeric address in use */
	char tls[64];     /* "TLS1.3 AES-128-GCM kernel", "" for none */
	pid_t supervisor; /* 0: it never had one; control.h tells whether it is alive */
	unsigned reconnects;
	unsigned alive;        /* connections, as the supervisor said last */
	unsigned server_flags; /* as given to the kernel */
	unsigned timeout_s;
	char name[URI_EXPORT_MAX + 1]; /* canonical, "" when the server did not say */
	char last_error[512];          /* last failure to reconnect, "" for none */
	char error_time[32];           /* as 2001-02-03T04:05:06Z */
	struct rc_durable durable;     /* times before the first are written as 0 */
	/* For writing, or NULL. Reading leaves it NULL, see record_read_settings. */
	const struct settings *settings;
};

/*
 * The directory, which is made where it is missing (0755), as a descriptor that stays good after a
 * change of root.
 */
int record_open(const char *dir, struct err *e);

/*
 * Makes the calling process the only supervisor of device index, until it ends or closes the
 * descriptor that this returns (or any other of DIR/nbdN.lock). A child has no part in it. -EBUSY
 * (ERR_BUSY): another process is, the text names it.
 */
int record_lock(int dirfd, unsigned index, struct err *e);

/* Removes the name of the lock and closes lock. */
void record_unlock(int dirfd, unsigned index, int lock);

/*
 * Writes DIR/nbdN with mode 0600 by rename, making DIR as above. The texts are encoded, any bytes
 * may be in them. No memory is allocated.
 */
int record_write(const char *dir, unsigned index, const struct record *s, struct err *e);
int record_write_at(int dirfd, unsigned index, const struct record *s, struct err *e);

/*
 * Writes DIR/nbdN.PID.udev likewise: the line NBD_ATTACH_ALIAS=alias, of udev_name_of, for udev's
 * rules, which ask for it by the pid in sysfs. The pid is that of whoever sends CONNECT.
 */
int record_write_udev_name(const char *dir, unsigned index, pid_t pid, const char *alias,
			   struct err *e);

/* Removes it; that there is none is no error. */
void record_remove_udev_name(const char *dir, unsigned index, pid_t pid);

/* -ENOENT when there is none, -EACCES for whom it is not, -EBADMSG when it cannot be understood. */
int record_read(const char *dir, unsigned index, struct record *s, struct err *e);
int record_read_at(int dirfd, unsigned index, struct record *s, struct err *e);
bool record_is_there(int dirfd, unsigned index);

/*
 * How the device was attached, completed (settings_complete). As record_read; -ENODATA
 * (ERR_FAILED): the record does not say it, as it is another version's. The text says what to do.
 */
int record_read_settings(const char *dir, unsigned index, struct settings *settings, struct err *e);

/* Removes the record, and what there is for udev; that there is none is no error. */
void record_remove_at(int dirfd, unsigned index);

/* The same, and what a supervisor that was killed has left. Not for the supervisor itself. */
void record_remove(const char *dir, unsigned index);

/* Whether the record is about what is attached there now. */
bool record_fits(const struct record *s, const struct sysfs_device *d);

#endif
