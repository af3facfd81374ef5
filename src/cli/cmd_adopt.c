/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "cli/cmd.h"

#include <errno.h>
#include <stdlib.h>

#include "config.h"
#include "daemon/record.h"

/* Reads the settings from the record. A device without a supervisor is refused. */
static int read_settings(unsigned index, struct settings *s, struct err *e)
{
	int ret = record_read_settings(NBD_ATTACH_STATEDIR, index, s, e);

	if (ret == -ENOENT)
		return err_set(e, ERR_ABSENT, ENODEV, "nbd%u is not attached by nbd-attach", index);
	if (!ret && s->supervision.none)
		return err_set(e, ERR_BUSY, EBUSY,
			       "nbd%u was attached without a supervisor (--command, "
			       "--no-supervise): its connections cannot be replaced",
			       index);
	return ret;
}

static int adopt_device(const struct opts *o, const char *operand, struct err *e)
{
	struct settings *s = malloc(sizeof(*s));
	struct launch_request rq = { .log_fd = -1 };
	struct log logger;
	int ret;

	(void)o;
	ret = s ? opts_device(operand, &rq.attach.index, e) :
		  err_sys(e, ERR_FAILED, ENOMEM, "begin");
	if (!ret)
		ret = read_settings(rq.attach.index, s, e);
	if (!ret) {
		cmd_warn_unverified(s);
		ret = cmd_begin_launch(&rq, s, &logger, e);
	}
	if (!ret)
		ret = launch_takeover(&rq, e);
	cmd_end_launch(&rq);
	free(s);
	return ret;
}

int cmd_adopt(struct opts *o, struct err *e)
{
	return cmd_each(o, adopt_device, e);
}
