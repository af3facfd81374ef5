/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "cli/cmd.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "kernel/sysfs.h"

int cmd_check(struct opts *o, struct err *e)
{
	struct sysfs_device d;
	int sysfd = sysfs_open("/sys", e);
	int ret;

	if (sysfd < 0)
		return sysfd;
	ret = sysfs_attachment(sysfd, o->index, &d, e);
	close(sysfd);
	if (ret)
		return ret;
	if (!d.attached)
		/* No text, and the exit status of nbd-client. */
		return err_set(e, ERR_FAILED, ENODEV, "%s", "");
	printf("%d\n", (int)d.pid);
	return 0;
}
