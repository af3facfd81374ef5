/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * usage: who uses an nbd device, so that a refusal to detach can say it: mounts, swap, holders,
 * loop devices and open descriptors, for the disk and its partitions. It explains; the caller's
 * O_EXCL open decides for mounts in other namespaces and for swap (but not for loop devices and
 * plain descriptors, which claim nothing). Works below descriptors that stand for /proc and /sys.
 */
#ifndef NBD_ATTACH_DEVICE_USERS_H
#define NBD_ATTACH_DEVICE_USERS_H

#include <stddef.h>

#include "base/err.h"

struct device_users {
	unsigned users; /* 0: nobody known. A process counts once, however often it has it open. */
	/*
	 * The first found, escaped: "mounted on /mnt", "used as swap", "held by dm-0", "used by
	 * loop0", "open in process 42 (dd)".
	 */
	char text[512];
};

/*
 * Looks at PROC/self/mountinfo, PROC/swaps, SYS/block/nbdN/holders, SYS/block/loop* and the fds of
 * all processes in PROC (the calling process excepted; processes that end meanwhile are passed
 * over, and so are those whose descriptors may not be read). A descriptor counts when it is a block
 * device with the number of the disk or of one of its partitions. The process that serves a device
 * set up by ioctl is no user of it. An absent device has no users.
 */
int device_users_find(int procfd, int sysfd, unsigned index, struct device_users *u, struct err *e);

#endif
