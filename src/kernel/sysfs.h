/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * sysfs: what the kernel says of nbd devices below /sys/block, and the queue limits written there.
 * Everything is relative to a descriptor of a directory that stands for /sys (openat), so that it
 * works on a recorded tree and after a change of root. It never opens a device node.
 */
#ifndef NBD_ATTACH_SYSFS_H
#define NBD_ATTACH_SYSFS_H

#include <dirent.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "policy/plan.h"

#define SYSFS_BACKEND_MAX 4095 /* one page, the most that the attribute can show */

struct sysfs_device {
	unsigned index;
	bool present;     /* /sys/block/nbdN exists */
	bool attached;    /* has a pid file: set up by netlink or ioctl (nbd.c, pid_show) */
	pid_t pid;        /* process that set it up, alive or not; 0 when not attached */
	uint64_t size;    /* bytes */
	bool read_only;   /* the kernel refuses writes */
	bool has_backend; /* configured by netlink */
	/* Identifier given at CONNECT, "" for none; not escaped. */
	char backend[SYSFS_BACKEND_MAX + 1];
	dev_t dev;                 /* number of the whole disk, 0 when absent */
	uint32_t block_size;       /* logical, bytes */
	uint32_t minimum_io_size;  /* bytes */
	uint32_t max_sectors_kb;   /* KiB */
	uint64_t write_zeroes_max; /* bytes */
};

/*
 * One attachment. Whoever commands a device later compares it directly before: the driver looks at
 * nothing but the index, and by then the index may be somebody else's.
 */
struct sysfs_identity {
	unsigned index;
	pid_t pid;                          /* process that sent CONNECT, as sysfs shows it */
	char backend[PLAN_BACKEND_MAX + 1]; /* "" where CONNECT gave none; a longer one is cut */
};

/* The directory /sys (or a recorded one) as a descriptor that the caller closes, or -errno. */
int sysfs_open(const char *path, struct err *e);

/*
 * Fills d; an absent device (also one that goes away meanwhile) is present == false and no error,
 * a missing /sys/block is one. Attributes a kernel lacks are 0.
 */
int sysfs_device(int sysfd, unsigned index, struct sysfs_device *d, struct err *e);

/*
 * The same without the members from block_size on, which are 0: nothing of queue/ is read. Whoever
 * writes there waits for all requests, on a device without a connection until it has one again, and
 * readers wait behind the writer (queue_attr_show, sysfs_lock).
 */
int sysfs_attachment(int sysfd, unsigned index, struct sysfs_device *d, struct err *e);

/* Fills id from what sysfs_attachment has said. */
void sysfs_identify(const struct sysfs_device *d, struct sysfs_identity *id);

/*
 * Whether the attachment is still the one that id describes. 0; -ENODEV (ERR_ABSENT): not attached;
 * -ESTALE (ERR_BUSY): attached anew, or by somebody else; another -errno: cannot be read, so that
 * nobody knows. Reads nothing of queue/.
 */
int sysfs_check_identity(int sysfd, const struct sysfs_identity *id, struct err *e);

/* The numbers of all nbd disks (no partitions), ascending; *indices is malloc'ed for the caller. */
int sysfs_indices(int sysfd, unsigned **indices, size_t *count, struct err *e);

/* True for "nbdN" and "nbdNpM", the kernel's names of disk N and of its partitions. */
bool sysfs_is_part(const char *name, unsigned index);

/* Parses "major:minor" and changes text. False, and *dev stays, for anything else. */
bool sysfs_parse_dev(char *text, dev_t *dev);

/* Removes the " (deleted)" that the kernel appends to the path of a file without a name. */
void sysfs_strip_deleted(char *path);

/* Opens a directory below atfd as a stream for closedir; NULL with errno. */
DIR *sysfs_opendir(int atfd, const char *path);

/*
 * The device numbers of the disk's partitions in the order of their numbers, at most cap; *count is
 * how many there are in all. An absent disk has none.
 */
int sysfs_partitions(int sysfd, unsigned index, dev_t *devs, size_t cap, size_t *count,
		     struct err *e);

/*
 * Name of one holder (dm, md, bcache) of the disk or of one of its partitions, as in
 * /sys/block/nbdN[/nbdNpM]/holders. Returns 1 and fills name (cut to cap), 0 when there is none, or
 * -errno.
 */
int sysfs_holder(int sysfd, unsigned index, char *name, size_t cap, struct err *e);

/*
 * Name of a loop device whose file is /dev/nbdN or /dev/nbdNpM. Such a loop device shows in no
 * holders directory and does not claim the disk (an O_EXCL open succeeds). Returns as sysfs_holder.
 */
int sysfs_loop(int sysfd, unsigned index, char *name, size_t cap, struct err *e);

/* The disk's counters since it exists. */
struct sysfs_traffic {
	uint64_t requests; /* finished requests of all kinds */
	uint64_t bytes;    /* read and written */
	uint64_t inflight; /* requests under way now */
};

/* All counters of an absent disk are 0. */
int sysfs_traffic(int sysfd, unsigned index, struct sysfs_traffic *t, struct err *e);

struct sysfs_limits {
	uint32_t max_sectors_kb; /* wanted, above 0; cut to max_hw_sectors_kb where that is lower */
	bool write_back;         /* the kernel sends flushes */
	bool rotational;
	uint32_t io_timeout_ms; /* period of the driver's look at a request; 0: unchanged */
};

/*
 * Writes each limit that differs from what the queue has, then reads it back: limits of an earlier
 * attachment of the same device stay in the kernel until they are overwritten. A limit that cannot
 * be set is an error when that would be unsafe, and is ignored otherwise (max_sectors_kb smaller,
 * rotational, write_back not wanted). Unsafe are:
 * - max_sectors_kb too large or unknown;
 * - write_back wanted but the queue does not say "write back": no flush would be sent;
 * - io_timeout_ms: a request that was under way would wait far longer to be sent again;
 * - no such device.
 * Only right after CONNECT: writing queue attributes while a connection is dead blocks.
 */
int sysfs_limits_write(int sysfd, unsigned index, const struct sysfs_limits *l, struct err *e);

/*
 * Makes udev look at the disk again, after what it needed was not there at the kernel's own event.
 */
void sysfs_announce(int sysfd, unsigned index);

#endif
