/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "cmd.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "worker.h"

static void tell(const struct attach_result *r)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);

	if (r->already)
		fprintf(stderr, "nbd-attach: /dev/nbd%u is attached to this export already\n", r->index);
	if (r->made_read_only)
		fprintf(stderr, "nbd-attach: the export is read-only, and so is /dev/nbd%u\n", r->index);
	if (r->note[0])
		fprintf(stderr, "nbd-attach: /dev/nbd%u has %u connection%s: %s\n", r->index, r->connections,
			r->connections == 1 ? "" : "s", r->note);
	/* The block layer makes one hardware queue for each processor at most, and each has one connection */
	if (!r->already && r->connections > 1 && cpus > 0 && r->connections > (unsigned long)cpus)
		fprintf(stderr, "nbd-attach: there are fewer processors (%ld) than connections: the kernel "
			"uses the others only when one is lost\n", cpus);
}

int cmd_attach(const struct opts *o, struct err *e)
{
	struct attach_request *rq = calloc(1, sizeof(*rq));
	struct attach_result r;
	struct err undo;
	int ret;

	if (!rq)
		return err_sys(e, ERR_FAILED, ENOMEM, "begin");
	rq->find = o->find;
	rq->index = o->index;
	rq->plan.read_only = o->read_only;
	rq->plan.block_size = o->block_size;
	rq->plan.timeout_s = o->timeout_s;
	rq->plan.dead_timeout_s = o->dead_timeout_s;
	ret = cmd_link_request(o, NEG_GOAL_GO, &rq->link, e);
	if (!ret)
		ret = worker_attach(rq, &r, e);
	free(rq);
	if (ret)
		return ret;
	tell(&r);
	if (!o->show)
		return 0;
	printf("/dev/nbd%u\n", r.index);
	if (!fflush(stdout))
		return 0;
	/* Nobody would know which device it is. */
	err_sys(e, ERR_FAILED, errno, "write the output");
	if (attach_undo(r.index, &undo))
		return err_wrap(e, "nbd%u could not be released (%s) after", r.index, undo.text);
	return -e->code;
}
