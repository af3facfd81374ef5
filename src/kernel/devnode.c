/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "kernel/devnode.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

#include "kernel/sysfs.h"

enum { POLL_MS = 20 };

int devnode_open_directory(const char *path, struct err *e)
{
	int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return err_sys(e, ERR_FAILED, errno, "open %s", path);
	return fd;
}

static int open_and_close(int devfd, unsigned index)
{
	char name[16];
	int fd;

	snprintf(name, sizeof(name), "nbd%u", index);
	fd = openat(devfd, name, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	close(fd);
	return 0;
}

int devnode_scan_partitions(int devfd, unsigned index, unsigned wait_ms, struct err *e)
{
	int ret;

	for (unsigned waited = 0;; waited += POLL_MS) {
		ret = open_and_close(devfd, index);
		/* Another process makes the node of a new disk. */
		if ((ret != -ENOENT && ret != -ENXIO) || waited >= wait_ms)
			break;
		poll(NULL, 0, POLL_MS);
	}
	if (ret)
		return err_sys(e, ERR_FAILED, -ret, "open /dev/nbd%u", index);
	return 0;
}

void devnode_drop_partitions(int devfd, int sysfd, unsigned index, unsigned wait_ms)
{
	struct sysfs_device d;
	struct err ignored;

	for (unsigned waited = 0;; waited += POLL_MS) {
		if (sysfs_attachment(sysfd, index, &d, &ignored))
			return;
		if (!d.size)
			break;
		if (waited >= wait_ms)
			return;
		poll(NULL, 0, POLL_MS);
	}
	open_and_close(devfd, index);
}
