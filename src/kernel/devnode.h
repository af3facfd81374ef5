/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * node: a device's node, opened and closed at once, for what the kernel does at an open and at no
 * other time: it reads the partition table of a disk that is new, and forgets the partitions of one
 * that has no size any more. Never for writing: udev would read the table again at the close, and
 * all its links would flap. The directory that stands for /dev is a descriptor (openat), so that it
 * works after a change of root. Each call can wait for the server: they belong into a task.
 */
#ifndef NBD_ATTACH_DEVNODE_H
#define NBD_ATTACH_DEVNODE_H

#include "base/err.h"

/* The directory /dev (or one of a test) as a descriptor the caller closes, or -errno. */
int devnode_open_directory(const char *path, struct err *e);

/* Has the partitions of an attached disk read. Its node may still have to be made: waits up to wait_ms for that. */
int devnode_scan_partitions(int devfd, unsigned index, unsigned wait_ms, struct err *e);

/*
 * Has the partitions of a disk forgotten that was disconnected. Waits up to wait_ms until it has no
 * size: that of a disk that is still open goes with its last user, that of one set up by ioctl with
 * the process that did it, and an open before would try to read the table, from nobody. Does
 * nothing when the size stays (or is there again, because the disk was attached anew). sysfd as for sysfs.
 */
void devnode_drop_partitions(int devfd, int sysfd, unsigned index, unsigned wait_ms);

#endif
