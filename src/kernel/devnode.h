/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * devnode: opens and closes a device's node for what the kernel does at an open and at no other
 * time: it reads the partition table of a new disk, and removes the partitions of a disk that has
 * no size any more. It never opens for writing: udev would read the table again at the close, and
 * all its links would flap. The directory that stands for /dev is a descriptor (openat), so that
 * it works after a change of root. Each call can wait for the server: use a blocking_child.
 */
#ifndef NBD_ATTACH_DEVNODE_H
#define NBD_ATTACH_DEVNODE_H

#include "base/err.h"

/* The directory /dev (or one of a test) as a descriptor that the caller closes, or -errno. */
int devnode_open_directory(const char *path, struct err *e);

/* Makes the kernel read an attached disk's partition table. Waits up to wait_ms for the node. */
int devnode_scan_partitions(int devfd, unsigned index, unsigned wait_ms, struct err *e);

/*
 * Makes the kernel remove the partitions of a disk that was disconnected. Waits up to wait_ms
 * until it has no size: the size of a disk that is still open goes with its last user, that of a
 * disk set up by ioctl with the process that did it, and an open before would try to read the
 * table from nobody. Does nothing when the size stays, or is there again because the disk was
 * attached anew. sysfd is that of sysfs_open.
 */
void devnode_drop_partitions(int devfd, int sysfd, unsigned index, unsigned wait_ms);

#endif
