/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "cli/cmd.h"

#include <stdio.h>

#include "config.h"
#include "daemon/control.h"

enum { ANSWER_MS = 60000 };

static const struct {
	enum opts_command command;
	enum control_command control;
	const char *doing;
} controls[] = {
	{ OPTS_PAUSE, CONTROL_PAUSE, "pause" },
	{ OPTS_RESUME, CONTROL_RESUME, "resume" },
	{ OPTS_RESCAN, CONTROL_RESCAN, "rescan" },
};

static int ask_supervisor(const struct opts *o, const char *operand, struct err *e)
{
	struct control_answer a;
	unsigned index;
	int ret = opts_device(operand, &index, e);

	for (size_t i = 0; !ret && i < sizeof(controls) / sizeof(controls[0]); i++) {
		if (controls[i].command != o->command)
			continue;
		ret = control_ask(NBD_ATTACH_STATEDIR, index, controls[i].control, ANSWER_MS, &a,
				  NULL, NULL, e);
		if (ret)
			err_wrap(e, "%s nbd%u", controls[i].doing, index);
	}
	return ret;
}

int cmd_control(struct opts *o, struct err *e)
{
	return cmd_each(o, ask_supervisor, e);
}
