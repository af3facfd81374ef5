/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "cmd.h"

#include <stdio.h>

#include "detach.h"

/*
 * A disk of the server that has to spin up takes some ten seconds; by the default of --timeout, 30
 * seconds, the kernel itself would have given the connection up.
 */
enum { SILENCE_MS = 20000, SILENCE_FORCED_MS = 5000 };

static int detach(const struct opts *o, const char *operand, struct err *e)
{
	struct detach_request rq = {
		.force = o->force,
		.silence_ms = o->force ? SILENCE_FORCED_MS : SILENCE_MS,
	};
	struct detach_result r;
	int ret = opts_device(operand, &rq.index, e);

	if (!ret)
		ret = detach_run(&rq, &r, e);
	if (ret)
		return ret;
	if (r.unflushed)
		fprintf(stderr, "nbd-attach: nbd%u: detached without a flush, what was not written "
			"is lost\n", rq.index);
	if (r.in_use)
		fprintf(stderr, "nbd-attach: nbd%u: disconnected, but it stays until its users close "
			"it\n", rq.index);
	return 0;
}

int cmd_detach(const struct opts *o, struct err *e)
{
	struct err this;
	int ret = 0;

	/* All are tried; the first failure is the one to be returned, the others are only told. */
	for (unsigned i = 0; i < o->device_count; i++) {
		if (!detach(o, o->devices[i], &this))
			continue;
		if (!ret) {
			*e = this;
			ret = -this.code;
		} else {
			fprintf(stderr, "nbd-attach: %s\n", this.text);
		}
	}
	return ret;
}
