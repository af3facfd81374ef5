/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * device_users: finds who uses an nbd device, so that a refusal to detach can say it: mounts,
 * swap, holders, loop devices and open descriptors, of the disk and its partitions. It only
 * explains. The caller's O_EXCL open decides, which also sees mounts in other namespaces and swap,
 * but neither loop devices nor plain descriptors, which claim nothing. Works below descriptors
 * that stand for /proc and /sys.
 */
#ifndef NBD_ATTACH_DEVICE_USERS_H
#define NBD_ATTACH_DEVICE_USERS_H

#include <stddef.h>

#include "base/err.h"

struct device_users {
	unsigned users; /* 0: nobody known; a process counts once, however often it has it open */
	/*
	 * The first user found, escaped: "mounted on /mnt", "used as swap", "held by dm-0", "used
	 * by loop0", "open in process 42 (dd)".
	 */
	char text[512];
};

/*
 * Looks at PROC/self/mountinfo, PROC/swaps, SYS/block/nbdN/holders, SYS/block/loop* and the
 * descriptors of all processes in PROC except the calling one. Processes that end meanwhile, or
 * whose descriptors may not be read, are passed over. A descriptor counts when it is a block device
 * with the number of the disk or of one of its partitions. The process that serves a device set up
 * by ioctl is no user of it, nor is one that was killed and has not ended yet. An absent device has
 * no users. 0 or -errno.
 */
int device_users_find(int procfd, int sysfd, unsigned index, struct device_users *u, struct err *e);

#endif
