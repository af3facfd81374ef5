/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "cli/cmd.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

#include "config.h"
#include "daemon/control.h"
#include "daemon/detach.h"

/*
 * A disk of the server that has to spin up takes some ten seconds; by the default of --timeout, 30
 * seconds, the kernel itself would have given the connection up.
 */
enum {
	SILENCE_MS = 20000,
	SILENCE_FORCED_MS = 5000,
	SUPERVISOR_MS = 5000,
};

/*
 * Tells the supervisor to look again, and waits until it is gone, and with it its negotiator, or a
 * few seconds have passed: a detach leaves nothing behind.
 */
static void await_supervisor_end(int supervisor, unsigned index)
{
	struct pollfd p = { .fd = supervisor, .events = POLLIN };
	struct control_answer a;
	struct err ignored;

	/* A supervisor that is stopped does not answer, and is not waited for. */
	if (control_ask(NBD_ATTACH_STATEDIR, index, CONTROL_RECHECK, SUPERVISOR_MS, &a, NULL, NULL,
			&ignored) != -ETIMEDOUT)
		poll(&p, 1, SUPERVISOR_MS);
}

static int detach_device(const struct opts *o, const char *operand, struct err *e)
{
	struct detach_request rq = {
		.force = o->force,
		.silence_ms = o->force ? SILENCE_FORCED_MS : SILENCE_MS,
	};
	struct detach_result r;
	int ret = opts_device(operand, &rq.index, e), supervisor;

	if (ret)
		return ret;
	supervisor = control_watch(NBD_ATTACH_STATEDIR, rq.index);
	ret = detach_run(&rq, &r, e);
	if (!ret && !r.in_use && supervisor >= 0)
		await_supervisor_end(supervisor, rq.index);
	if (supervisor >= 0)
		close(supervisor);
	if (ret)
		return ret;
	if (r.unflushed)
		fprintf(stderr,
			"nbd-attach: nbd%u: detached without a flush, what was not written "
			"is lost\n",
			rq.index);
	if (r.in_use)
		fprintf(stderr,
			"nbd-attach: nbd%u: disconnected, but it stays until its users close "
			"it\n",
			rq.index);
	return 0;
}

int cmd_detach(struct opts *o, struct err *e)
{
	return cmd_each(o, detach_device, e);
}
